"""Rows of target and pool as weighted points in a few principal directions: what transport distances run on.

At most 2,000 rows a side are drawn by lowest key hash, so a set is drawn like itself wherever it stands. Equal rows
become one point of more weight, and points stand in an order of their own: copies, the order of rows and the names of
classes change nothing, not even the last bit.

The directions are those of target and pool pooled at equal weight. Those of the target alone would be blind to what
only the pool has, and would fit the target's noise but not the pool's: a pool of the same distribution would look
narrower than the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curate.distances._coverage import MAX_TARGET_ROWS, sampled_rows
from curate.distances._roots import covariance_root, principal_directions
from curate.distances._transport import Points
from embeddings.moments import Folded
from embeddings.store import EmbeddingStore

MAX_ROWS = MAX_TARGET_ROWS  # a side

Distinct = tuple[np.ndarray, np.ndarray, np.ndarray]  # vectors [p, d], classes [p], and the place of every row [n]


@dataclass(frozen=True, eq=False)
class Drawn:
    """The rows drawn from one set, in the common directions."""

    points: np.ndarray  # [p, k] distinct rows
    classes: np.ndarray  # [p] int64
    index: np.ndarray  # [n] point of every row
    folds: np.ndarray  # [n]
    units: np.ndarray  # [n] int64, equal for rows that cannot be separated

    def __len__(self) -> int:
        return len(self.index)

    def rows_in(self, folds: Sequence[int]) -> int:
        """Number of rows in some folds."""
        return int(np.isin(self.folds, folds).sum())

    def weighted(self, folds: Sequence[int] | None = None) -> Points:
        """The points of the rows in some folds, or of all."""
        rows = self.index if folds is None else self.index[np.isin(self.folds, folds)]
        counts = np.bincount(rows, minlength=len(self.points))
        there = counts > 0
        return Points(self.points[there], counts[there] / len(rows), self.classes[there])

    def variance(self, derivative: np.ndarray) -> float:
        """Sampling variance of a figure with this derivative [p] in the points' weights; units are independent."""
        influence = derivative[self.index]
        of_units = np.bincount(self.units, influence - influence.mean()) / len(self)
        return float((of_units**2).sum() * len(of_units) / max(len(of_units) - 1, 1))


def draw(store: EmbeddingStore) -> EmbeddingStore:
    """The rows with the lowest key hash, at most 2,000, in memory."""
    return store.take(sampled_rows(store, MAX_ROWS))


def drawn_points(
    target: EmbeddingStore, pool: EmbeddingStore, classes: tuple[np.ndarray, np.ndarray], *, dim: int, seed: int = 0
) -> tuple[Drawn, Drawn]:
    """Both sides as points in common directions.

    Args:
        target: Rows drawn from the target.
        pool: Rows drawn from the pool.
        classes: Class [n] int64 of every row of either.
        dim: Directions; fewer where the rows span fewer.
        seed: Other than 0: other folds.
    """
    sides = [_distinct(np.asarray(s.vectors()), c) for s, c in zip((target, pool), classes, strict=True)]
    center, basis = _pooled_directions(sides, dim)
    ours, theirs = (
        Drawn((vectors - center) @ basis, codes, index, *_folds_and_units(store, seed))
        for store, (vectors, codes, index) in zip((target, pool), sides, strict=True)
    )
    return ours, theirs


def _folds_and_units(store: EmbeddingStore, seed: int) -> tuple[np.ndarray, np.ndarray]:
    folded = Folded(store)
    return folded.folds(salt=str(seed) if seed else ""), np.unique(folded.blocks, return_inverse=True)[1]


def _distinct(rows: np.ndarray, classes: np.ndarray) -> Distinct:
    """Distinct pairs of vector and class in the order of the vectors' bytes; classes are numbered as they come."""
    vectors = np.ascontiguousarray(rows, np.float64) + 0.0  # no negative zeros
    place = np.unique(_as_bytes(vectors), return_inverse=True)[1]
    order = np.argsort(place, kind="stable")
    _, first, named = np.unique(classes[order], return_index=True, return_inverse=True)
    codes = np.empty(len(rows), np.int64)
    codes[order] = np.argsort(np.argsort(first))[named]
    _, kept, index = np.unique(place * len(first) + codes, return_index=True, return_inverse=True)
    return vectors[kept], codes[kept], index


def _as_bytes(vectors: np.ndarray) -> np.ndarray:
    """Rows [n] as values that sort and compare by their bytes."""
    return vectors.view(np.dtype((np.void, vectors.shape[1] * vectors.itemsize)))[:, 0]


def _pooled_directions(sides: Sequence[Distinct], dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean [d] and principal directions [d, <= dim] of two sets pooled at equal weight."""
    weighted = [(vectors, np.bincount(index) / len(index)) for vectors, _, index in sides]
    center = np.mean([weight @ vectors for vectors, weight in weighted], axis=0)
    spread = np.vstack([(vectors - center) * np.sqrt(weight / 2)[:, None] for vectors, weight in weighted])
    return center, principal_directions(covariance_root(spread.T @ spread, len(spread)), dim)
