"""Kernel Inception Distance as published, to compare with other tools' figures; ``mmd`` is the better measurement.

    KID = mean over subsets of the unbiased MMD^2, k(x, y) = (x.y / d + 1)^3

100 random subsets of 1,000 rows a side. Its customary "std" is the spread over such subsets, not the error of the mean.
Not centered, so a common offset of the features changes it; computed in float64.

Source: Bińkowski et al., Demystifying MMD GANs (ICLR 2018). Subsets drawn as torch-fidelity 0.4 does, so equal to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate.distances._samples import Vectors, as_vectors
from curate.results import Estimate
from embeddings.errors import TooFewImagesError, UsageError
from embeddings.vectors import ShardedVectors

UNIT = "squared difference of kernel means"


@dataclass(frozen=True, kw_only=True)
class Kid:
    """What other tools print as KID."""

    mean: Estimate
    spread: Estimate  # standard deviation over subsets of this size; not a standard error


def kid(target: Vectors, pool: Vectors, *, subsets: int = 100, size: int = 1000, seed: int = 2020) -> Kid:
    """KID of a pool and a target, for comparison only.

    Args:
        target: Array [n, d] or store, n >= size.
        pool: The same, [m, d], from the same encoder.
        subsets: Random subsets of either side.
        size: Rows of a subset, drawn without replacement.
        seed: Of ``numpy.random.RandomState``; 2020 is torch-fidelity's. Subsets depend on row order: that of the array,
            or by key in a store.

    Returns:
        Mean and spread over subsets, without unit. Lower = closer; 0 is expected of the mean for the same distribution.

    Raises:
        TooFewImagesError: fewer than ``size`` images on a side.
        UsageError: a subset of fewer than 2 rows, or no subset.
        EncoderMismatchError: different encoders.
        SourceError: an array that is not finite, not [n, d], or empty.
    """
    ours, theirs = as_vectors(target), as_vectors(pool)
    ours.spec.require_same(theirs.spec, ("target", "pool"))
    n = (len(theirs), len(ours))
    _check(min(n), subsets, size)
    x, y = (s if isinstance(s, np.ndarray) else s.vectors() for s in (target, pool))
    values = subset_estimates(x, y, subsets=subsets, size=size, seed=seed)
    method = f"KID as published, {subsets} subsets of {size:,}"
    mean = Estimate(value=float(values.mean()), n=n, unit=UNIT, method=method, seed=seed, null=0.0)
    return Kid(mean=mean, spread=Estimate(value=float(values.std()), n=n, unit=UNIT, method=method, seed=seed))


def subset_estimates(
    x: np.ndarray | ShardedVectors, y: np.ndarray | ShardedVectors, *, subsets: int, size: int, seed: int
) -> np.ndarray:
    """Unbiased MMD^2 [subsets] of random rows of x and y."""
    rng = np.random.RandomState(seed)
    values = np.empty(subsets)
    for i in range(subsets):
        rows, others = (rng.choice(len(v), size, replace=False) for v in (x, y))
        values[i] = unbiased_mmd(np.asarray(x[rows], np.float64), np.asarray(y[others], np.float64))
    return values


def unbiased_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """U-statistic of MMD^2 for the cubic kernel; float64 [n, d] and [m, d]."""
    return _off_diagonal_mean(_cubic(x, x)) + _off_diagonal_mean(_cubic(y, y)) - 2 * float(_cubic(x, y).mean())


def _cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    base = x @ y.T
    base /= x.shape[1]
    base += 1
    kernel: np.ndarray = base * base  # a power would take ten times as long
    kernel *= base
    return kernel


def _off_diagonal_mean(kernel: np.ndarray) -> float:
    n = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))


def _check(n: int, subsets: int, size: int) -> None:
    if subsets < 1 or size < 2:
        raise UsageError(
            f"{subsets} subsets of {size} rows give no KID; wanted at least one subset of two rows.",
            hint="The published setting is subsets=100, size=1000.",
        )
    if n < size:
        raise TooFewImagesError(
            f"KID with subsets of {size:,} needs as many images on both sides; found {n:,}.",
            hint="Use mmd, which needs no subsets, or give a smaller size (not comparable with published figures).",
        )
