"""What a distance that is biased up reads at the given sizes if nothing differs.

The target's halves and fifths (whole folds) are measured against each other; a power law in the harmonic mean of the
two sizes carries the figure to any n and m.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NULL_SPLITS = (((0, 2, 4, 6, 8), (1, 3, 5, 7, 9)), ((0, 4), (2, 6)), ((1, 5), (3, 7)))  # folds of either part


def harmonic_mean(n: int, m: int) -> float:
    """Size of equal samples with the same 1/n + 1/m."""
    return 2 / (1 / n + 1 / m)


def power_law(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Slope and intercept of log value against log size, the slope within -1..0; the first size counts for the level.

    One size alone gives a flat law, none gives the law of a value of 0.
    """
    logs = np.log(np.maximum(values, np.finfo(float).tiny))
    if not len(logs):
        return 0.0, -np.inf
    if np.ptp(sizes) == 0:
        return 0.0, float(logs[0])
    slope = float(np.clip(np.polyfit(np.log(sizes), logs, 1)[0], -1.0, 0.0))
    return slope, float(logs[0] - slope * np.log(sizes[0]))


def read_law(law: tuple[float, float], n: int, m: int) -> float:
    """Value of a power law for samples of n and m."""
    slope, intercept = law
    return float(np.exp(intercept + slope * np.log(harmonic_mean(n, m))))
