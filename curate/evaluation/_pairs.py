"""Runs against each other, not only against the frozen encoder: every two of a kind on the same test images.

Up to a dozen runs: pairs grow with the square of the runs, and Holm's correction with the pairs. The cells of a larger
study differ in budget, cost and seed; there the claims of the study say what is compared with what.

    difference   of their linear accuracies, on the same resamples of the test images
    p            exact McNemar test: of the units on which one is right more often than the other, how many are the
                 first one's, against a fair coin; of several trainings an image counts by the share that is right
    p_holm       the same, corrected for the number of pairs of the set

Source: McNemar 1947; Holm 1979.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from curate.eval_report import Pair
from curate.evaluation._intervals import Measured, Resamples

METRIC = "linear"
MOST = 12  # runs of which every two are compared
TIE = 1e-9  # leads nearer to 0 are rounding


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """An arm on the test images of a set."""

    arm: str
    kind: str
    linear: Measured
    correct: np.ndarray  # [m]: whether each test image is told right, or in which share of the trainings
    resamples: Resamples  # the same for all of a kind


def compare_pairs(labeled: str, contestants: Sequence[Contestant], unit: str) -> list[Pair]:
    """Every two contestants of one kind, in their order, with Holm's correction over all pairs; none of too many."""
    if left_out(contestants):
        return []
    matches = [(a, b) for a, b in combinations(contestants, 2) if a.kind == b.kind]
    counts = [discordant(a.correct, b.correct, a.resamples.units) for a, b in matches]
    raw = [mcnemar(*count) for count in counts]
    return [
        Pair(
            labeled=labeled,
            first=a.arm,
            second=b.arm,
            metric=METRIC,
            difference=a.resamples.difference(a.linear, b.linear, unit),
            first_only=count[0],
            second_only=count[1],
            p=p,
            p_holm=corrected,
        )
        for (a, b), count, p, corrected in zip(matches, counts, raw, holm(raw), strict=True)
    ]


def left_out(contestants: Sequence[Contestant]) -> dict[str, int]:
    """Fact of a labeled set whose runs are too many to compare every two: how many they are; else nothing."""
    runs = sum(contestant.kind == "run" for contestant in contestants)
    return {"runs_not_paired": runs} if runs > MOST else {}


def discordant(first: np.ndarray, second: np.ndarray, units: np.ndarray) -> tuple[int, int]:
    """Units [m] on which the first, and on which the second, is right on more images; [m] how far each is right."""
    _, unit = np.unique(units, return_inverse=True)
    lead = np.bincount(unit, weights=first.astype(np.float64) - second)
    return int((lead > TIE).sum()), int((lead < -TIE).sum())


def mcnemar(first_only: int, second_only: int) -> float:
    """Two-sided exact p of a fair coin; 1 where nothing is discordant."""
    n = first_only + second_only
    from scipy.stats import binomtest  # takes half a second to load

    return float(binomtest(first_only, n, 0.5).pvalue) if n else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """Corrected p values, in their order: below a level, all of them are, with this chance of any error."""
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")
    corrected = np.empty(len(values))
    corrected[order] = np.maximum.accumulate(np.minimum(values[order] * np.arange(len(values), 0, -1), 1))
    return [float(value) for value in corrected]
