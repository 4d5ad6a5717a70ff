"""Square roots of covariances, by Cholesky: what trace terms, principal directions and spectra are made of.

A covariance of n images has rank n - 1 at most. Pivoted Cholesky finds L [d, r] with L L' = S in d r^2 operations where
an eigendecomposition of S needs d^3 (10 times as long at d = 1280), and r is then the size of every later problem.
A covariance of clearly full rank needs no pivots: half the time, and L is a triangle, which halves the next product.

Eigenvalues are 60% of a trace term. LAPACK's two-stage driver and MKL's take half as long again at d = 768, one thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
from scipy import linalg
from threadpoolctl import ThreadpoolController

FULL_RANK = 1e-12  # smallest pivot, over d times the largest variance
FEW_ROWS, MANY_ROWS = 64, 1024  # between them threads mostly wait, on busy cores a hundred times as long


def covariance_root(covariance: np.ndarray, n: int) -> np.ndarray:
    """L [d, r] with L L' = covariance [d, d] of n images; r <= min(n - 1, d), 0 for a covariance of zeros."""
    d = len(covariance)
    with _threads_for(d):
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
    with _threads_for(len(root)):
        values = linalg.eigvalsh(_between(root, covariance), lower=True, check_finite=False, overwrite_a=True)
    return float(np.sqrt(np.maximum(values, 0.0)).sum())


def nuclear_norm(matrix: np.ndarray) -> float:
    """Sum of the singular values of a matrix [n, m]."""
    with _threads_for(min(matrix.shape)):
        return float(linalg.svdvals(matrix, check_finite=False).sum())


def _full_root(covariance: np.ndarray) -> np.ndarray | None:
    """The triangle [d, d] of a covariance whose rank is beyond doubt, else None."""
    triangle, failed = linalg.lapack.dpotrf(covariance.T, lower=1, clean=1)  # .T is LAPACK's order: no copy to turn it
    pivots = np.diag(triangle) ** 2
    doubtful = failed or pivots.min() <= FULL_RANK * len(pivots) * covariance.diagonal().max()
    return None if doubtful else np.asarray(triangle)


def _between(root: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """L' B L, of which the lower triangle counts."""
    if linalg.bandwidth(root)[1] or len(root) != root.shape[1]:
        return np.asarray(root.T @ covariance @ root)
    return np.asarray(linalg.lapack.dsygst(covariance.T, root, itype=2, lower=1)[0])


def spectrum(root: np.ndarray) -> np.ndarray:
    """Positive eigenvalues [<= r] of L L', ascending."""
    values = linalg.eigvalsh(root.T @ root) if root.shape[1] else np.zeros(0)
    return np.asarray(values[values > values.max(initial=0.0) * len(root) * np.finfo(float).eps])


def principal_directions(root: np.ndarray, k: int) -> np.ndarray:
    """Orthonormal directions [d, min(k, r)] of largest variance of L L'."""
    values, vectors = linalg.eigh(root.T @ root) if root.shape[1] else (np.zeros(0), np.zeros((0, 0)))
    kept = np.flatnonzero(values > values.max(initial=0.0) * len(root) * np.finfo(float).eps)[-k:]
    return root @ (vectors[:, kept] / np.sqrt(values[kept]))


@contextmanager
def _threads_for(rows: int) -> Iterator[None]:
    """One BLAS thread meanwhile for a matrix of so many rows, unless it is large; tiny ones have one anyway."""
    if FEW_ROWS < rows <= MANY_ROWS:
        with _threads().limit(limits=1, user_api="blas"):
            yield
    else:
        yield


@cache  # it takes milliseconds to find the loaded libraries
def _threads() -> ThreadpoolController:
    return ThreadpoolController()
