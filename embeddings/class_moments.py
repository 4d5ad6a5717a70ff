"""Statistics of every class, in few directions: what distances between labeled sets need to know of a class.

    covariance of a class = L L' + r I,   L [d, 32]

which has the class's own variance in its main directions and its mean variance r in all others (the maximum-likelihood
form of probabilistic PCA; Tipping and Bishop, J. R. Stat. Soc. B 61 (1999)). Of a class of n images no more than n / 2
directions are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from embeddings.principal_moments import main_directions
from embeddings.vectors import Vectors

DIRECTIONS = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassMoments:
    """Count, mean and covariance of every class; the covariance is root root' + rest I."""

    names: tuple[str, ...]
    n: np.ndarray  # [C] int64
    mean: np.ndarray  # [C, d] float32
    root: np.ndarray  # [C, d, DIRECTIONS] float32; columns beyond what n carries are zero
    rest: np.ndarray  # [C] float64 variance that every dimension has beside the root's

    @classmethod
    def of(cls, vectors: Vectors, members: Mapping[str, np.ndarray]) -> ClassMoments:
        """Statistics of vectors [n, d] of classes given by their row numbers, two rows or more each; read in blocks."""
        count, d = len(members), vectors.shape[1]
        n, rest = np.array([len(rows) for rows in members.values()], np.int64), np.empty(count)
        mean, root = np.empty((count, d), np.float32), np.zeros((count, d, DIRECTIONS), np.float32)
        for i, rows in enumerate(members.values()):
            mean[i], covariance = _mean_and_covariance(vectors, rows)
            found, rest[i] = _root_and_rest(covariance, min(DIRECTIONS, len(rows) // 2, d))
            root[i, :, : found.shape[1]] = found
        return cls(names=tuple(members), n=n, mean=mean, root=root, rest=rest)


def _mean_and_covariance(vectors: Vectors, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    d = vectors.shape[1]
    pilot = np.asarray(vectors[rows[:1024]], np.float64).mean(axis=0)
    total, square = np.zeros(d), np.zeros((d, d))
    for start in range(0, len(rows), 8192):
        part = vectors[rows[start : start + 8192]].astype(np.float64) - pilot
        total += part.sum(axis=0)
        square += part.T @ part
    offset = total / len(rows)
    return pilot + offset, (square - len(rows) * np.outer(offset, offset)) / (len(rows) - 1)


def _root_and_rest(covariance: np.ndarray, k: int) -> tuple[np.ndarray, float]:
    values, directions = main_directions(covariance, k)
    rest = max(float(np.trace(covariance) - values.sum()), 0.0) / max(len(covariance) - k, 1)
    return directions * np.sqrt(np.maximum(values - rest, 0.0)), rest
