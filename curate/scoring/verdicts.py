"""From figures to a word, and from the word to what to do.

    index = 100 F / (F + tr S_target)

F the headline distance (distances/_frechet.py). 0 = as near as the target is to itself, 50 = as far as the target's own
total variance; monotone in F, so the index and the ranking never disagree.

Verdicts: ``copies`` (half or more of the pool is in the target already), ``unclear`` (the interval spans a limit),
``same`` (the interval meets the floor's: not to be told from the target at these sizes), ``near`` (< 20), ``middle``
(< 35), ``far``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from curate.results import Estimate

NEAR, MIDDLE = 20.0, 35.0
COPIES = 0.5
LARGE = 0.15  # of a pool, surely: a far part to be told from the small groups that any pool of another style has
COVERS = 0.8  # of the coverage that a pool of the target's own kind would have
ACTIONS = ("use", "repair", "use part", "use last", "leave out", "add images", "look")
TOO_WIDE = 5.0  # half an interval in points of the index: a third of what lies between the limits


def shift_index(distance: Estimate, total_variance: float) -> Estimate:
    """The index of a distance, its interval by the same monotone map."""
    # Of a target without variance every pool that differs is at 100.
    scale = max(total_variance, np.finfo(float).tiny)

    def mapped(f: float | None) -> float | None:
        if f is None:
            return None
        return 100 * f / (f + scale) if f > -scale / 2 else -100.0

    return Estimate(
        value=mapped(distance.value),
        low=mapped(distance.low),
        high=mapped(distance.high),
        n=distance.n,
        unit="index, 0 = the target itself, 50 = its own total variance",
        method="100 F / (F + tr S)",
        null=0.0,
    )


def verdict_of(index: Estimate, floor: Estimate, copied: float) -> str:
    """Verdict in one word, from the index, the floor's index and the share of copies."""
    if copied >= COPIES:
        return "copies"
    low, high = _interval(index)
    if any(low < limit <= high for limit in (NEAR, MIDDLE)):
        return "unclear"
    if low <= _interval(floor)[1]:
        return "same"
    return "near" if high < NEAR else "middle" if high < MIDDLE else "far"


def action(verdict: str, index: Estimate, coverage: Estimate | None, findings: Mapping[str, Any]) -> str:
    """What to do with a pool, one of ACTIONS; the verdict beside it says why.

    ``use``; ``repair`` (one preprocessing step brings it near: the findings on factors say which); ``use part`` (far as
    a whole, but it serves the target; or a large part of it is far, and the rest near: select from it); ``use last``
    (middle, or about there: when nearer images are used up); ``leave out`` (far, or nothing new in it); ``add images``
    (too few to tell); ``look`` (at its near copies of target images, which seem memorized).
    """
    if verdict == "copies" or findings.get("memorized", {}).get("suspicious"):
        return "leave out" if verdict == "copies" else "look"
    mixed = has_far_part(findings)
    if verdict in ("same", "near"):
        return "use part" if mixed else "use"
    if findings.get("factors", {}).get("repairs"):
        return "repair"
    low, high = _interval(index)
    if verdict == "unclear" and high - low > 2 * TOO_WIDE:
        return "add images"
    if mixed or relative(coverage) >= COVERS:
        return "use part"
    return "use last" if (index.value or 0.0) < MIDDLE else "leave out"


def has_far_part(findings: Mapping[str, Any], least: float = LARGE) -> bool:
    """Whether surely at least a share of a pool is far, and the rest near."""
    parts = findings.get("parts", {})
    if parts.get("reason", "") or not parts or parts["rest"]["value"] is None:
        return False
    return bool(parts["share"]["low"] >= least and parts["rest"]["value"] < NEAR)


def relative(figure: Estimate | None) -> float:
    """A figure over its null; NaN where either is missing."""
    if figure is None or figure.value is None or not figure.null:
        return float("nan")
    return figure.value / figure.null


def _interval(estimate: Estimate) -> tuple[float, float]:
    """Low and high end; a figure without an interval counts as a point, none at all as zero."""
    value = estimate.value or 0.0
    return (value if estimate.low is None else estimate.low, value if estimate.high is None else estimate.high)
