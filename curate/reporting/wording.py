"""Numbers, figures and lists as people read them, "n/a" where there is nothing."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from curate.numerals import NOTHING, amount, between, counted, number, one_of, signed, within

CONTROLS = ("Cc", "Zl", "Zp")  # Unicode categories that would break a line
Figure = dict[str, Any]  # an Estimate as plain JSON
__all__ = [
    "NOTHING",
    "Figure",
    "amount",
    "counted",
    "decimals_for",
    "in_one_line",
    "in_points",
    "likely",
    "listed",
    "number",
    "one_of",
    "p_value",
    "percent",
    "points",
    "signed",
    "span",
    "with_error",
    "with_interval",
]


def in_one_line(name: str) -> str:
    """A name as a table can show it: line breaks and the like escaped, in quotes where it begins or ends blank."""
    told = "".join(repr(c)[1:-1] if unicodedata.category(c) in CONTROLS else c for c in name)
    return f"'{told}'" if told != told.strip() else told


def percent(share: float | None, decimals: int = 1) -> str:
    """A share in 0..1 as per cent."""
    return NOTHING if share is None else f"{number(100 * share, decimals)}%"


def in_points(share: float) -> str:
    """A share as a number of percentage points, "1.0 points"."""
    return f"{number(100 * share, 1)} points"


def p_value(value: float) -> str:
    """A p value, never zero."""
    return number(value, 3) if value >= 0.001 else "< 0.001"


def likely(probability: float | None) -> str:
    """A probability as per cent, never a certainty."""
    if probability is None:
        return NOTHING
    return "> 99%" if probability > 0.99 else "< 1%" if probability < 0.01 else percent(probability, 0)


def points(share: float | None) -> str:
    """A difference of shares in percentage points."""
    return signed(None if share is None else 100 * share)


def span(figure: Figure, decimals: int = 0, *, scale: float = 1.0, plus: bool = False) -> str:
    """The figure's interval, "5 to 7"; empty where it has none."""
    return between(figure["low"], figure["high"], decimals, scale=scale, plus=plus)


def with_interval(figure: Figure, decimals: int = 0, *, scale: float = 1.0, plus: bool = False) -> str:
    """The figure with its interval, "6 (5 to 7)"; alone where it has none."""
    return within(figure["value"], figure["low"], figure["high"], decimals, scale=scale, plus=plus)


def with_error(figure: Figure, decimals: int = 0) -> str:
    """Value and standard error, "38 ± 6"."""
    error = "" if figure["se"] is None else f" ± {number(figure['se'], decimals)}"
    return number(figure["value"], decimals) + error


def decimals_for(values: Iterable[float | None]) -> int:
    """Decimals for a whole column, so that its smallest value above zero keeps two digits; 0 to 4."""
    sizes = [abs(v) for v in values if v and math.isfinite(v)]
    return min(4, max(0, 1 - math.floor(math.log10(min(sizes))))) if sizes else 0


def listed(names: Sequence[str], *, most: int = 5) -> str:
    """a, b and c; beyond ``most`` names the rest is counted."""
    shown = list(names) if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} more"]
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + f" and {shown[-1]}"
