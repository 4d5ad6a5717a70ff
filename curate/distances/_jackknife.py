"""Delete-a-fold jackknife: bias and variance of a plug-in figure from refits that leave one fold out.

With folds of sizes m_j out of n, h_j = n / m_j and K folds:

    corrected  = K theta - sum_j (1 - m_j / n) theta_(-j)
    variance   = mean_j (h_j theta - (h_j - 1) theta_(-j) - corrected)^2 / (h_j - 1)

Source: Busing, Meijer and van der Leeden, Delete-m jackknife for unequal m, Statistics and Computing 9 (1999).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Jackknife(NamedTuple):
    """What to add to the plug-in figure to remove its leading bias, and the variance of the result."""

    correction: float
    variance: float


def delete_fold_jackknife(theta: float, left_out: np.ndarray, sizes: np.ndarray) -> Jackknife:
    """Bias correction and variance of ``theta`` in one sample.

    Args:
        theta: The figure on all folds.
        left_out: [K] the figure without fold j, K >= 2.
        sizes: [K] number of images in fold j, all positive.
    """
    share = sizes / sizes.sum()
    corrected = len(sizes) * theta - ((1 - share) * left_out).sum()
    pseudo = theta / share - (1 / share - 1) * left_out
    variance = ((pseudo - corrected) ** 2 / (1 / share - 1)).mean()
    return Jackknife(float(corrected - theta), float(variance))
