"""Fréchet distance in all d dimensions, as the field quotes it; printed for comparability, never ranked on.

    FD = |m_a - m_b|^2 + tr S_a + tr S_b - 2 tr (S_a S_b)^(1/2),   S unbiased

Biased up by O(d^2 / n): pools of different size cannot be compared by it, which is why its null is printed beside it.
With fewer images than dimensions the trace term is the nuclear norm of A B' / sqrt((n-1)(m-1)), A and B the centered
data: exact where matrix square roots lose their digits, and 100 times cheaper.

Source: Dowson and Landau (1982); Heusel et al. (NeurIPS 2017); Mathiasen and Hvilshøj (2020) for the dual form.
"""

from __future__ import annotations

import numpy as np

from curate.distances._frechet import require_images
from curate.distances._jackknife import delete_fold_jackknife
from curate.distances._null_law import NULL_SPLITS, harmonic_mean, power_law, read_law
from curate.distances._roots import covariance_root, nuclear_norm, root_trace
from curate.distances._samples import Sample, as_moments, as_vectors
from curate.results import Estimate
from embeddings.moments import FOLDS, Moments


def frechet_full(x: Sample, y: Sample, *, debias: bool = False) -> float:
    """Full-dimension Fréchet distance of two samples.

    Args:
        x: Array [n, d], store or Moments.
        y: The same, [m, d], from the same encoder.
        debias: Remove the leading bias by the two-sample delete-a-fold jackknife; sound only for n, m well above d.

    Returns:
        Squared units of the embedding; lower = closer; biased up by O(d^2 / n) unless debiased.

    Raises:
        TooFewImagesError: fewer than 2 images on a side.
        EncoderMismatchError: different encoders.
    """
    if debias:
        return _debiased(as_moments(x), as_moments(y))
    if isinstance(x, Moments) or isinstance(y, Moments):
        return _from_moments(as_moments(x), as_moments(y))
    a, b = as_vectors(x), as_vectors(y)
    a.spec.require_same(b.spec, ("the first sample", "the second sample"))
    return _from_arrays(np.asarray(a.vectors()), np.asarray(b.vectors()))


class FullTarget:
    """The target's side of the full-dimension distance, prepared once for all pools, and its null."""

    def __init__(self, target: Moments) -> None:
        self.n, self._mean, covariance = target.pooled()
        self._root, self._trace = covariance_root(covariance, self.n), float(np.trace(covariance))
        self._null = _null_law(target)

    def to(self, pool: Moments) -> Estimate:
        """Full-dimension distance of a pool, with what it would read at these sizes if nothing differed."""
        m, mean, covariance = pool.pooled()
        shift = ((self._mean - mean) ** 2).sum()
        value = shift + self._trace + np.trace(covariance) - 2 * root_trace(self._root, covariance)
        return Estimate(
            value=float(value),
            n=(m, self.n),
            unit="squared embedding units",
            method="Fréchet, all dimensions, not debiased: compare only at equal n",
            null=self.null(m),
        )

    def null(self, m: int) -> float:
        """What the distance reads for m images of the target's own distribution.

        The target's halves and fifths are measured against each other; a power law in the harmonic mean of the two
        sizes carries the figure to (n, m). About 10% too high at d = 1280, n = 450, where the usual large-n formula
        is 50% too low.
        """
        return read_law(self._null, self.n, m)


def _null_law(target: Moments) -> tuple[float, float]:
    """The law of the target against itself."""
    sizes, values = [], []
    for a, b in NULL_SPLITS:
        n, m = (int(target.n[list(folds)].sum()) for folds in (a, b))
        if min(n, m) >= 2:
            sizes.append(harmonic_mean(n, m))
            values.append(between(target.pooled(a), target.pooled(b)))
    return power_law(sizes, values)


def between(a: tuple[int, np.ndarray, np.ndarray], b: tuple[int, np.ndarray, np.ndarray]) -> float:
    """Distance of two samples, each a count, a mean [d] and a covariance [d, d]."""
    (n, mean_a, cov_a), (m, mean_b, cov_b) = a, b
    if m < n:  # the smaller set has the smaller rank
        return between(b, a)
    trace = root_trace(covariance_root(cov_a, n), cov_b)
    return float(((mean_a - mean_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * trace)


def _from_moments(x: Moments, y: Moments) -> float:
    x.require_same_encoder(y)
    _require_all_dimensions(x, y)
    return between(x.pooled(), y.pooled())


def _from_arrays(x: np.ndarray, y: np.ndarray) -> float:
    for name, sample in (("first sample", x), ("second sample", y)):
        require_images(len(sample), name, 2)
    (mean_x, a), (mean_y, b) = _centered(x), _centered(y)
    if min(len(x), len(y)) < x.shape[1]:
        trace = nuclear_norm(a @ b.T)
    else:
        trace = root_trace(covariance_root(a.T @ a, len(x)), b.T @ b)
    return float(((mean_x - mean_y) ** 2).sum() + np.vdot(a, a) + np.vdot(b, b) - 2 * trace)


def _centered(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and the centered rows over sqrt(n - 1), in float64."""
    mean = x.mean(axis=0, dtype=np.float64)
    rows: np.ndarray = np.subtract(x, mean, dtype=np.float64)
    rows /= np.sqrt(len(rows) - 1)
    return mean, rows


def _require_all_dimensions(*samples: Moments) -> None:
    for moments in samples:
        moments.require_all_dimensions("A Fréchet distance in all dimensions")


def _debiased(x: Moments, y: Moments) -> float:
    x.require_same_encoder(y)
    _require_all_dimensions(x, y)
    theta, corrected = between(x.pooled(), y.pooled()), 0.0
    for moments, other in ((x, y.pooled()), (y, x.pooled())):
        folds = [f for f in range(FOLDS) if moments.n[f]]
        left_out = [between(moments.pooled([g for g in folds if g != f]), other) for f in folds]
        corrected += delete_fold_jackknife(theta, np.array(left_out), moments.n[folds]).correction
    return theta + corrected
