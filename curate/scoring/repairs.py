"""What preprocessing would do to a pool's distance, in words: one sentence for terminal, page and notes alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Finding = Mapping[str, Any]  # ``Factors`` as plain JSON, with ``step``


def repair_words(factors: Finding, *, nearest_then: bool = False) -> str:
    """What the best repair does, or why there is none.

    Args:
        factors: The finding.
        nearest_then: The repaired pool would be the nearest of all.
    """
    if factors.get("reason"):
        return f"Not measured: {factors['reason']}"
    if factors["kind"] == "none":
        return "It is not told from the target on these samples: there is nothing to repair."
    best = factors["best"]
    if not best:
        return "No step of preprocessing repairs any of the distance: it is content."
    before, after = (f"{max(figure['value'], 0):.0f}" for figure in (factors["index"], factors["content"]))
    placed = ", then the nearest pool" if nearest_then else ""
    rest = "that is what the shift is" if best["explains"] else "the rest is content"
    steps = ", then ".join(best["steps"])
    change = f"index {before} \N{RIGHTWARDS ARROW} {after}"
    return f"{steps[0].upper()}{steps[1:]}: {change}{_share(best['repaired'])}{placed}; {rest}."


def unread_words(factors: Finding) -> str:
    """How many sampled images could not be read again; empty if all could."""
    pool, target = factors.get("left_out", (0, 0))
    if not pool and not target:
        return ""
    return f"Of the samples {pool:,} pool and {target:,} target images could not be read again, and are left out."


def _share(repaired: Finding) -> str:
    """Share of the distance that goes, with its interval."""
    value, low, high = (repaired[end] for end in ("value", "low", "high"))
    if value is None:
        return ""
    span = "" if low is None or high is None else f" ({_points(low)} to {_points(high)})"
    return f", {_points(value)}% of the distance{span}"


def _points(share: float) -> str:
    return f"{100 * share:.0f}".replace("-", "\N{MINUS SIGN}")
