"""Exact k nearest neighbors of many queries in a base that need not fit in memory.

Candidates come from float32 matrix products on mean-centered blocks (|x|^2 + |y|^2 - 2xy loses digits with an offset),
or from FAISS where it is installed. A few more than k are kept and scored again in float64 by difference. A query
whose last candidate is not provably farther than its k-th neighbor (ties, copies, a dense ball) is answered once more
over everything within reach. The result is therefore that of brute force in float64, whatever the engine, the block
sizes or the thread count: squared distances rounded to 1e-6, ties broken by row number.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from embeddings.errors import TooFewImagesError, UsageError
from embeddings.store import Vectors

MARGIN = 16  # candidates beyond k; more of them leave fewer queries to answer twice
DECIMALS = 6
CENTER_ROWS = 4096  # any common offset is right; the mean of a sample is a good one
PAIR_BYTES = 4 << 20  # float64 differences held at once
SWEEP_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How candidates are found; changes speed and memory, never the result.

    Memory is about ``4 * (query_rows * base_rows + (query_rows + 2 * base_rows) * d)`` bytes beside the result.
    """

    faiss: bool | None = None  # None: where it is installed
    query_rows: int = 1024
    base_rows: int = 8192

    @property
    def uses_faiss(self) -> bool:
        """True if blocks are searched by FAISS."""
        return importlib.util.find_spec("faiss") is not None if self.faiss is None else self.faiss


def nearest(
    queries: Vectors, base: Vectors, k: int, *, exclude_self: bool = False, engine: Engine | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest base rows of every query, exactly.

    Args:
        queries: [m, d], any real dtype.
        base: [n, d], read in blocks.
        k: neighbors per query.
        exclude_self: query i is base row i, which is no neighbor of its own; other copies of it are.
        engine: block sizes and candidate search.

    Returns:
        Squared Euclidean distances, float64 [m, k], ascending, rounded to 1e-6, and row numbers of ``base``, int64
        [m, k]; equal distances in row order.

    Raises:
        TooFewImagesError: fewer than k base rows (k + 1 with ``exclude_self``).
        UsageError: k < 1, different d, or values that are not finite.
    """
    engine = engine or Engine()
    _check(queries, base, k, exclude_self)
    center = _center(base)
    width = min(k + MARGIN + exclude_self, len(base))
    search = _Search(queries=queries, base=base, center=center, engine=engine, exclude_self=exclude_self)
    distances, rows, open_queries, reach = search.refine(*search.candidates(width), k)
    if width < len(base) and len(open_queries):
        distances[open_queries], rows[open_queries] = search.sweep(open_queries, reach, k)
    return distances, rows


def _check(queries: Vectors, base: Vectors, k: int, exclude_self: bool) -> None:
    if k < 1 or queries.shape[1] != base.shape[1]:
        raise UsageError(
            f"Cannot search {k} neighbors of vectors [{len(queries)}, {queries.shape[1]}] "
            f"in [{len(base)}, {base.shape[1]}]; wanted k >= 1 and one dimension.",
            hint="Embed both with the same encoder.",
        )
    if k + exclude_self > len(base):
        raise TooFewImagesError(
            f"{k} neighbors were asked for among {len(base) - exclude_self} images.",
            hint="Add images, or ask for fewer neighbors.",
        )


def _center(base: Vectors) -> np.ndarray:
    rows = np.unique(np.linspace(0, len(base) - 1, min(len(base), CENTER_ROWS)).astype(np.int64))
    center: np.ndarray = np.asarray(base[rows], dtype=np.float64).mean(axis=0)
    return center


@dataclass(frozen=True, kw_only=True)
class _Search:
    queries: Vectors
    base: Vectors
    center: np.ndarray  # [d] float64
    engine: Engine
    exclude_self: bool

    def candidates(self, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Approximate distances [m, width] and rows of the nearest, in no order."""
        m = len(self.queries)
        distances, rows = np.full((m, width), np.inf, np.float32), np.zeros((m, width), np.int64)
        for start, block in self._blocks(self.base, self.engine.base_rows):
            for first, query in self._blocks(self.queries, self.engine.query_rows):
                near, where = _search_block(query, block, min(width, len(block)), self.engine.uses_faiss)
                part = slice(first, first + len(query))
                both = np.hstack([distances[part], near]), np.hstack([rows[part], where + start])
                keep = np.argpartition(both[0], width - 1, axis=1)[:, :width]
                distances[part], rows[part] = (np.take_along_axis(a, keep, axis=1) for a in both)
        return distances, rows

    def refine(self, near: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, ...]:
        """Exact distances and rows [m, k], the queries whose answer is not proven, and how far to look for those."""
        m, width = rows.shape
        exact = self._pairs(np.repeat(np.arange(m), width), rows.ravel()).reshape(m, width)
        if self.exclude_self:
            exact[rows == np.arange(m)[:, None]] = np.inf
        distances, rows = _smallest(exact, rows, k)
        limit = distances[:, -1] + 10.0**-DECIMALS
        reach = limit + self._error_bound(limit)
        return distances, rows, np.flatnonzero(near.max(axis=1) <= reach), reach

    def sweep(self, numbers: np.ndarray, reach: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The same for some queries [u], from every base row whose approximate distance is within reach."""
        distances = np.full((len(numbers), k), np.inf)
        rows = np.zeros((len(numbers), k), np.int64)
        for start, block in self._blocks(self.base, self.engine.base_rows):
            for first in range(0, len(numbers), SWEEP_ROWS):
                part = slice(first, first + SWEEP_ROWS)
                query = _centered(self.queries[numbers[part]], self.center)
                hits = _approximate(query, block) <= reach[numbers[part], None]
                if not hits.any():
                    continue
                found, columns = self._score_hits(numbers[part], start, hits)
                both = np.hstack([distances[part], found]), np.hstack([rows[part], columns])
                distances[part], rows[part] = _smallest(*both, k)
        return distances, rows

    def _score_hits(self, numbers: np.ndarray, start: int, hits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Exact distances [q, c] to the base rows hit by any query; copies are measured once."""
        columns = np.flatnonzero(hits.any(axis=0))
        first, copy_of = _distinct(self.base[columns + start])
        query, hit = np.nonzero(hits[:, columns])
        query, unique = np.divmod(np.unique(query * len(first) + copy_of[hit]), len(first))
        exact = np.full((len(numbers), len(first)), np.inf)
        exact[query, unique] = self._pairs(numbers[query], columns[first[unique]] + start)
        distances = exact[:, copy_of]
        rows = np.broadcast_to(columns + start, distances.shape)
        if self.exclude_self:
            distances[rows == numbers[:, None]] = np.inf
        return distances, rows

    def _pairs(self, query: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Rounded squared distances float64 [p] between pairs of rows, by difference."""
        step = max(1, PAIR_BYTES // (8 * self.base.shape[1]))
        out = np.empty(len(row))
        for start in range(0, len(row), step):
            part = slice(start, start + step)
            x = np.asarray(self.queries[query[part]], dtype=np.float64)
            x -= self.base[row[part]]
            out[part] = np.square(x, out=x).sum(axis=1)
        return out.round(DECIMALS)

    def _blocks(self, vectors: Vectors, size: int) -> Iterator[tuple[int, np.ndarray]]:
        for start in range(0, len(vectors), size):
            yield start, _centered(vectors[start : start + size], self.center)

    def _error_bound(self, limit: np.ndarray) -> np.ndarray:
        """Largest error [m] of an approximate squared distance to a row within ``limit``.

        A float32 sum of d products of x and y is off by at most about d 2^-24 |x| |y| in any order, and such a row has
        |y| <= |x| + sqrt(limit).
        """
        norms = [np.sqrt(_norms2(block)) for _, block in self._blocks(self.queries, self.engine.query_rows)]
        scale = 2 * np.concatenate([np.zeros(0), *norms]) + np.sqrt(limit)
        bound: np.ndarray = (len(self.center) + 16) * 2.0**-24 * scale**2
        return bound


def _centered(vectors: np.ndarray, center: np.ndarray) -> np.ndarray:
    """float32 [b, d]; float64 input is centered before it loses digits."""
    wide = vectors.dtype.itemsize > 4 or vectors.dtype.kind != "f"
    with np.errstate(invalid="ignore", over="ignore"):
        block = (vectors - center if wide else vectors - center.astype(np.float32)).astype(np.float32, copy=False)
        fits = _norms2(block) < 1e37
    if not fits.all():
        raise UsageError("Vectors hold values that are not finite, or are beyond 1e18.", hint="Embed the source again.")
    return np.ascontiguousarray(block)


def _norms2(block: np.ndarray) -> np.ndarray:
    norms: np.ndarray = np.einsum("ij,ij->i", block, block)
    return norms


def _approximate(query: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Squared distances float32 [q, b] by one matrix product."""
    import torch

    x, y = torch.from_numpy(query), torch.from_numpy(block)
    squares = torch.from_numpy(_norms2(query))[:, None] + torch.from_numpy(_norms2(block))
    approximate: np.ndarray = torch.addmm(squares, x, y.T, alpha=-2).numpy()
    return approximate


def _search_block(query: np.ndarray, block: np.ndarray, width: int, use_faiss: bool) -> tuple[np.ndarray, np.ndarray]:
    """Approximate distances and columns [q, width] of the nearest in one block."""
    if use_faiss:
        import faiss

        distances, columns = faiss.knn(query, block, width)
        return distances, columns
    import torch

    found = torch.from_numpy(_approximate(query, block)).topk(width, dim=1, largest=False, sorted=False)
    return found.values.numpy(), found.indices.numpy()


def _smallest(distances: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k smallest of each row by (distance, row number), ascending."""
    order = np.lexsort((rows, distances), axis=-1)[:, :k]
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(rows, order, axis=1)


def _distinct(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the distinct rows (first of each) and, for every row, which of them it equals."""
    seen: dict[bytes, int] = {}
    copy_of = np.array([seen.setdefault(v.tobytes(), len(seen)) for v in vectors], dtype=np.int64)
    return np.unique(copy_of, return_index=True)[1], copy_of
