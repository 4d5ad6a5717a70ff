"""Square roots of covariances, by Cholesky: what trace terms, principal directions and spectra are made of.

A covariance of n images has rank n - 1 at most. Pivoted Cholesky finds L [d, r] with L L' = S in d r^2 operations where
an eigendecomposition of S needs d^3 (10 times as long at d = 1280), and r is then the size of every later problem.
A covariance of clearly full rank needs no pivots: half the time, and L is a triangle, which halves the next product.
"""

from __future__ import annotations

import numpy as np
from scipy import linalg

FULL_RANK = 1e-12  # smallest pivot, over d times the largest variance


def covariance_root(covariance: np.ndarray, n: int) -> np.ndarray:
    """L [d, r] with L L' = covariance [d, d] of n images; r <= min(n - 1, d), 0 for a covariance of zeros."""
    d = len(covariance)
    if n > d and (full := _full_root(covariance)) is not None:
        return full
    triangle, pivots, rank, _ = linalg.lapack.dpstrf(covariance, tol=-1, lower=1)
    kept = min(rank, n - 1, d) if covariance.any() else 0
    root = np.zeros((d, kept))
    root[pivots - 1] = np.tril(triangle)[:, :kept]
    return root


def root_trace(root: np.ndarray, covariance: np.ndarray) -> float:
    """Trace of (L L' B)^(1/2) = sum sqrt eig(L' B L); L' B L is symmetric where the product of covariances is not."""
    if not root.shape[1]:
        return 0.0
    values = linalg.eigvalsh(_between(root, covariance), lower=True, check_finite=False)
    return float(np.sqrt(np.maximum(values, 0.0)).sum())


def _full_root(covariance: np.ndarray) -> np.ndarray | None:
    """The triangle [d, d] of a covariance whose rank is beyond doubt, else None."""
    triangle, failed = linalg.lapack.dpotrf(covariance, lower=1, clean=1)
    pivots = np.diag(triangle) ** 2
    doubtful = failed or pivots.min() <= FULL_RANK * len(pivots) * covariance.diagonal().max()
    return None if doubtful else np.asarray(triangle)


def _between(root: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """L' B L, of which the lower triangle counts."""
    if linalg.bandwidth(root)[1] or len(root) != root.shape[1]:
        return np.asarray(root.T @ covariance @ root)
    return np.asarray(linalg.lapack.dsygst(covariance, root, itype=2, lower=1)[0])


def spectrum(root: np.ndarray) -> np.ndarray:
    """Positive eigenvalues [<= r] of L L', ascending."""
    values = linalg.eigvalsh(root.T @ root) if root.shape[1] else np.zeros(0)
    return np.asarray(values[values > values.max(initial=0.0) * len(root) * np.finfo(float).eps])


def principal_directions(root: np.ndarray, k: int) -> np.ndarray:
    """Orthonormal directions [d, min(k, r)] of largest variance of L L'."""
    values, vectors = linalg.eigh(root.T @ root) if root.shape[1] else (np.zeros(0), np.zeros((0, 0)))
    kept = np.flatnonzero(values > values.max(initial=0.0) * len(root) * np.finfo(float).eps)[-k:]
    return root @ (vectors[:, kept] / np.sqrt(values[kept]))
