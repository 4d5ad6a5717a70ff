"""Bias and 95% interval of a two-sample figure from refits that leave out one fold of either sample.

The two samples are independent, so corrections and variances of their delete-a-fold jackknives add. Ten folds a side
make a noisy variance: the interval uses Student's t with Welch's degrees of freedom (a normal one covers 93%).

Source: Busing, Meijer and van der Leeden (1999); Welch, Biometrika 34 (1947).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import special

from curate.distances._jackknife import delete_fold_jackknife

LEVEL = 0.95

Refits = tuple[np.ndarray, np.ndarray]  # [K] the figure without fold j, [K] rows of fold j


class FoldError(NamedTuple):
    """What to add to the plug-in figure against its leading bias, its standard error, and the interval's half width."""

    correction: float
    se: float | None  # None where too few folds are left to tell
    reach: float | None

    def interval(self, value: float) -> tuple[float | None, float | None]:
        """Low and high end around a value."""
        return (None, None) if self.reach is None else (value - self.reach, value + self.reach)


def fold_error(
    figure: Callable[[np.ndarray, np.ndarray], float], target_sizes: np.ndarray, pool_sizes: np.ndarray
) -> FoldError:
    """Error of ``figure(target folds, pool folds)`` on all folds.

    Args:
        figure: Takes the numbers of the folds to use of either side; NaN where they do not carry it.
        target_sizes: [FOLDS] rows per fold; empty folds are left alone.
        pool_sizes: The same of the pool.
    """
    target, pool = np.flatnonzero(target_sizes), np.flatnonzero(pool_sizes)
    whole = figure(target, pool)
    refits = (
        (np.array([figure(target[target != f], pool) for f in target]), target_sizes[target]),
        (np.array([figure(target, pool[pool != f]) for f in pool]), pool_sizes[pool]),
    )
    return fold_error_of(whole, refits)


def fold_error_of(whole: float, refits: tuple[Refits, Refits]) -> FoldError:
    """The same from the figure on everything and the refits of target and pool."""
    if any(len(sizes) < 2 or not np.isfinite(left_out).all() for left_out, sizes in refits):
        return FoldError(0.0, None, None)
    parts = [delete_fold_jackknife(whole, left_out, sizes) for left_out, sizes in refits]
    correction, variance = sum(p.correction for p in parts), sum(p.variance for p in parts)
    if variance == 0:
        return FoldError(correction, 0.0, 0.0)
    degrees = variance**2 / sum(p.variance**2 / (len(sizes) - 1) for p, (_, sizes) in zip(parts, refits, strict=True))
    se = float(np.sqrt(variance))
    return FoldError(correction, se, se * float(special.stdtrit(degrees, (1 + LEVEL) / 2)))
