"""Coordinates in which images of the target and of the pools are compared: the pools' whitened principal directions.

    z(x) = diag(l)^(-1/2) V' (x - m),   m, V, l from the pools' candidates alone, every image with the same weight

k = 64 directions, fewer where the pools are small: one per 32 images, at least 4. (Pools of 160 real images: with 64
directions a quota is no nearer to the target than a random draw, with 5 its distance is a sixth of that.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg

from curate.selection._candidates import BLOCK_ROWS, Candidates
from embeddings.moments import Moments

DIRECTIONS, MIN_DIRECTIONS = 64, 4
IMAGES_PER_DIRECTION = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class Whitening:
    """Principal directions of a sample, scaled to unit variance."""

    mean: np.ndarray  # [d] float64
    axes: np.ndarray  # [d, k] float64; a direction without variance is zero

    @classmethod
    def fit(cls, sample: np.ndarray) -> Whitening:
        """From vectors [s, d], s >= 1."""
        n, d = sample.shape
        k = min(DIRECTIONS, max(MIN_DIRECTIONS, n // IMAGES_PER_DIRECTION), d)
        if n == 1:
            return cls(mean=sample[0].astype(np.float64), axes=np.zeros((d, k)))
        _, mean, covariance = Moments.from_vectors(sample, np.zeros(n, np.uint8)).pooled()
        variances, vectors = linalg.eigh(covariance, subset_by_index=(d - k, d - 1))
        real = variances > 1e-9 * variances[-1]  # below: rounding of the vectors
        return cls(mean=mean, axes=vectors * np.where(real, 1 / np.sqrt(np.where(real, variances, 1.0)), 0.0))

    @classmethod
    def of_pools(cls, candidates: Candidates) -> Whitening:
        """From what the pools look like."""
        return candidates.once("whitening", lambda: cls.fit(candidates.pool_sample))

    def unscaled(self) -> Whitening:
        """The same directions as they are, all over one number: their total variance is 1."""
        lengths = np.linalg.norm(self.axes, axis=0)
        real = lengths > 0
        variances = np.where(real, 1 / np.where(real, lengths, 1.0) ** 2, 0.0)
        return replace(self, axes=self.axes * variances**0.5 / np.sqrt(variances.sum() or 1.0))

    @property
    def directions(self) -> int:
        """Directions with variance."""
        return int(self.axes.any(axis=0).sum())

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """[n, d] to float32 [n, k]."""
        directions: np.ndarray = (vectors - self.mean) @ self.axes
        return directions.astype(np.float32)


def project(candidates: Candidates, frame: Whitening) -> np.ndarray:
    """Whitened directions float32 [n, k] of all candidates, block by block."""
    n = len(candidates)
    out = np.empty((n, frame.axes.shape[1]), np.float32)
    for start in range(0, n, BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, n))
        out[rows] = frame.apply(candidates.vectors(rows))
        candidates.progress("project", int(rows[-1]) + 1, n)
    return out
