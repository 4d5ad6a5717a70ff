"""What the noisy curves of a run say of its beginning, its end and the way between."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, groupby, pairwise
from typing import Any

TAIL = 0.1  # share of the logged steps that is averaged
LEAST_ROWS, LEAST_SHARES = 10, 24  # of them, if that is not more than half
ERRORS = 3.0  # standard errors that count as no difference
TOLERANCE = 0.01  # share of the chance loss that does

Row = Mapping[str, Any]  # numbers, and lists of them
Found = tuple[str, int, str] | None  # verdict, the step at which it began, why
Figure = Callable[[Row], float]


def window(rows: Sequence[Row], least: int = LEAST_ROWS) -> int:
    """How many rows are averaged."""
    return max(1, min(len(rows) // 2, max(least, round(TAIL * len(rows)))))


def smooth(rows: Sequence[Row], name: str, least: int = LEAST_ROWS) -> list[float]:
    """Mean of each row and those just before it; infinite where nothing is known."""
    return smoothed(rows, lambda row: row.get(name, math.inf), least)


def smoothed(rows: Sequence[Row], figure: Figure, least: int = LEAST_ROWS) -> list[float]:
    """The same of any figure of a row."""
    count = window(rows, least)
    values = [figure(row) for row in rows]
    return [mean(values[max(0, i + 1 - count) : i + 1]) for i in range(len(values))]


def loss_ends(rows: Sequence[Row]) -> tuple[float, float]:
    """Loss at the beginning and at the end of a run: single steps are noisy, and it falls fastest at first."""
    return first(rows), smooth(rows, "loss")[-1]


def first(rows: Sequence[Row]) -> float:
    """Mean loss of the first few rows, before much is learned."""
    return mean([row["loss"] for row in rows[: few(rows)]])


def few(rows: Sequence[Row]) -> int:
    """How many rows the beginning is."""
    return max(1, window(rows) // 4)


def falls(rows: Sequence[Row], figure: Figure) -> list[tuple[float, float]]:
    """How far a figure fell, and the error of that: from its first few rows, its first tenth and its first half.

    The first two falls are to the last tenth, the third, which is known best, is to the last half.
    """
    values, tenth = [figure(row) for row in rows], window(rows)
    half = max(1, len(rows) // 2)
    noise = noise_of(values)
    return [
        (mean(values[:start]) - mean(values[-end:]), noise * math.sqrt(1 / start + 1 / end))
        for start, end in ((few(rows), tenth), (tenth, tenth), (half, half))
    ]


def noise_of(values: Sequence[float]) -> float:
    """Standard deviation of one value, whatever the trend: by the steps between those that follow each other."""
    steps = [b - a for a, b in pairwise(values)]
    return math.sqrt(sum(step * step for step in steps) / (2 * max(1, len(steps))))


def standard_error(values: Sequence[float]) -> float:
    """Of the mean; infinite where it is not known."""
    middle = mean(values)
    if len(values) < 2 or not math.isfinite(middle):
        return math.inf
    return math.sqrt(sum((x - middle) ** 2 for x in values) / (len(values) - 1) / len(values))


def last_known(rows: Sequence[Row], name: str) -> list[float]:
    """The last value there was at each row; infinite before there is one."""
    return list(accumulate((row.get(name, math.nan) for row in rows), _later, initial=math.inf))[1:]


def onset(rows: Sequence[Row], holds: Sequence[bool]) -> int:
    """The step from which on it held to the end, if it does there."""
    place = len(holds) - 1
    while place > 0 and holds[place - 1]:
        place -= 1
    return int(rows[place]["step"])


def mean(values: Sequence[float]) -> float:
    """Of one value at least."""
    return sum(values) / len(values)


def _later(before: float, now: float) -> float:
    return before if math.isnan(now) else now


def by_stage(rows: Sequence[Row]) -> list[Sequence[Row]]:
    """The rows of each stage of the selection, as they follow each other: a loss compares within one only."""
    return [list(part) for _, part in groupby(rows, key=lambda row: row.get("stage", 0))]
