"""A Gaussian of many dimensions from few samples: the covariance shrunk toward a multiple of the identity.

    C = (1 - a) S + a (tr S / d) I,     a = the share that Ledoit and Wolf find of least expected squared error

S has rank r < n, so C is held as r axes and one variance for all other directions: n < d costs no d x d matrix.

Source: Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FLOOR = 1e-9  # of the largest variance or of the mean one: the least that counts
EQUAL = 1e-20  # of the squared mean: variances below it are rounding


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution whose covariance is that of a sample, shrunk toward a multiple of the identity."""

    mean: np.ndarray  # [d]
    axes: np.ndarray  # [d, r] orthonormal
    variances: np.ndarray  # [r]
    rest: float  # variance in every other direction

    @classmethod
    def of(cls, features: np.ndarray) -> Gaussian:
        """That of features [n, d]; copies of one image have variance 1 in all directions."""
        n, d = features.shape
        wide = features.astype(np.float64)
        mean = wide.mean(axis=0)
        wide -= mean
        small = wide @ wide.T if n < d else wide.T @ wide
        squares, vectors = np.linalg.eigh(small)
        keep = squares > FLOOR * squares[-1]
        variances, axes = squares[keep] / n, vectors[:, keep]
        if squares[-1] <= EQUAL * n * np.square(mean).sum():
            return cls(mean, np.zeros((d, 0)), np.zeros(0), 1.0)
        if n < d:
            axes = wide.T @ axes / np.sqrt(squares[keep])
        level, total = variances.sum() / d, np.square(variances).sum()
        spread = np.square(np.square(wide).sum(axis=1)).mean() - total
        gap = total - d * level**2
        share = min(spread / n, gap) / gap if gap > 0 else 1.0
        rest = max(share * level, FLOOR * level)
        return cls(mean, axes, (1 - share) * variances + rest, float(rest))

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Mahalanobis distance [m] of features [m, d]."""
        centered = features.astype(np.float64) - self.mean
        inside = np.square(centered @ self.axes)
        outside = np.maximum(np.square(centered).sum(axis=1) - inside.sum(axis=1), 0)
        return np.asarray(np.sqrt((inside / self.variances).sum(axis=1) + outside / self.rest))
