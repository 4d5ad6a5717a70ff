"""Exact k nearest neighbors of many queries in a base that need not fit in memory.

Candidates come from float32 matrix products on mean-centered blocks (|x|^2 + |y|^2 - 2xy loses digits with an offset),
or, for long vectors, from FAISS where it is installed: keeping its lists takes longer than products of short vectors. A
few more than k are kept and scored again in float64 by difference. A query whose last candidate is not provably farther
than its k-th neighbor (ties, copies, a dense ball) is answered once more over everything within reach. The result is
therefore that of brute force in float64, whatever the engine, the block sizes or the thread count: squared distances
rounded to 1e-6, ties broken by row number.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from embeddings.device import CPU, compute_device, full_float32
from embeddings.errors import TooFewImagesError, UsageError
from embeddings.vectors import Vectors

BASE_ROWS, FAISS_ROWS = 4096, 8192
SHORT = 256  # dimensions up to which a product and a comparison are quicker than FAISS: 2 to 3 times with 64 of them
MARGIN = 16  # candidates beyond k; more of them leave fewer queries to answer twice
DECIMALS = 6
CENTER_ROWS = 4096  # any common offset is right; the mean of a sample is a good one
PAIR_BYTES = 1 << 20  # float64 differences held at once
SWEEP_ROWS = 64
CROWDED = 1 / 16  # share of near pairs in a block beyond which a selection by row is quicker


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How candidates are found; changes speed and memory, never the result.

    Memory is about ``4 * (query_rows * base_rows + (query_rows + 2 * base_rows) * d)`` bytes beside the result.
    """

    faiss: bool | None = None  # None: where it is installed, for vectors of more than 256 dimensions
    device: str | None = None  # None: the compute device (``embeddings.device``)
    query_rows: int = 1024
    base_rows: int | None = None  # None: 4,096; 8,192 for FAISS, which forms no product

    def uses_faiss(self, d: int) -> bool:
        """True if blocks of vectors of d dimensions are searched by FAISS, on the CPU."""
        if self.faiss is not None:
            return self.faiss
        return d > SHORT and importlib.util.find_spec("faiss") is not None

    def block_rows(self, d: int) -> int:
        """Base rows that are looked at together, of vectors of d dimensions."""
        return self.base_rows or (FAISS_ROWS if self.uses_faiss(d) else BASE_ROWS)

    @property
    def compute(self) -> str:
        """Name of the device that finds candidates; ``cpu`` is NumPy's and FAISS's.

        Raises:
            UsageError: CURATE_COMPUTE names no device of this machine.
        """
        return self.device or compute_device()


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
    center: np.ndarray = np.asarray(base[rows]).mean(axis=0, dtype=np.float64)
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
        found, device = _Found.none(len(self.queries), width), self.engine.compute
        if self.exclude_self and self.queries is self.base and device == CPU:
            self._compare_once(found)
            return found.distances, found.rows
        by_faiss = self.engine.uses_faiss(self.base.shape[1])
        for start, block in self._blocks(self.base, self.engine.block_rows(self.base.shape[1])):
            for first, query in self._blocks(self.queries, self.engine.query_rows):
                part = slice(first, first + len(query))
                if device != CPU:
                    found.let_in(part, *_device_search(query, block, min(width, len(block)), device), start)
                elif by_faiss:
                    found.let_in(part, *_faiss_search(query, block, min(width, len(block))), start)
                else:
                    found.add(part, start, _approximate(query, block))
        return found.distances, found.rows

    def _compare_once(self, found: _Found) -> None:
        """Every pair of base rows in one product only, for both of its rows."""
        size = 2 * self.engine.query_rows
        for start, block in self._blocks(self.base, size):
            for first, query in self._blocks(self.base, size, stop=start + 1):
                distances = _approximate(query, block)
                found.add(slice(first, first + len(query)), start, distances)
                if first < start:
                    found.add(slice(start, start + len(block)), first, distances, mirrored=True)

    def refine(self, near: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, ...]:
        """Exact distances and rows [m, k], the queries whose answer is not proven, and how far to look for those.

        The first candidates bound the k-th distance; of the others those are measured that may be nearer than that.
        """
        m, count = len(rows), k + self.exclude_self
        order = np.argpartition(near, count - 1, axis=1)
        near, rows = np.take_along_axis(near, order, axis=1), np.take_along_axis(rows, order, axis=1)
        own = rows == np.arange(m)[:, None] if self.exclude_self else np.zeros(rows.shape, bool)
        exact = np.full(rows.shape, np.inf)
        exact[:, :count] = self._pairs(np.repeat(np.arange(m), count), rows[:, :count].ravel()).reshape(m, count)
        exact[own] = np.inf
        limit = np.partition(exact[:, :count], k - 1, axis=1)[:, k - 1] + 10.0**-DECIMALS
        reach = limit + self._error_bound(limit)
        query, place = np.nonzero((near[:, count:] <= reach[:, None]) & ~own[:, count:])
        exact[query, count + place] = self._pairs(query, rows[query, count + place])
        distances, rows = _smallest(exact, rows, k)
        return distances, rows, np.flatnonzero(near.max(axis=1) <= reach), reach

    def sweep(self, numbers: np.ndarray, reach: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The same for some queries [u], from every base row whose approximate distance is within reach."""
        distances = np.full((len(numbers), k), np.inf)
        rows = np.zeros((len(numbers), k), np.int64)
        for start, block in self._blocks(self.base, self.engine.block_rows(self.base.shape[1])):
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
        return pair_distances(self.queries, self.base, query, row)

    def _blocks(self, vectors: Vectors, size: int, stop: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        for start in range(0, len(vectors) if stop is None else stop, size):
            yield start, _centered(vectors[start : start + size], self.center)

    def _error_bound(self, limit: np.ndarray) -> np.ndarray:
        norms = [_norms2(block) for _, block in self._blocks(self.queries, self.engine.query_rows)]
        return error_bound(np.concatenate([np.zeros(0), *norms]), limit, len(self.center))


def pair_distances(x: Vectors, y: Vectors, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Squared distances float64 [p], rounded to 1e-6, between pairs of rows of x [n, d] and y [m, d], by difference."""
    step = max(1, PAIR_BYTES // (8 * x.shape[1]))
    out = np.empty(len(rows))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        gap = np.asarray(x[rows[part]], dtype=np.float64)
        gap -= y[others[part]]
        out[part] = np.square(gap, out=gap).sum(axis=1)
    return out.round(DECIMALS)


def error_bound(norms2: np.ndarray, limit: np.ndarray, d: int) -> np.ndarray:
    """Largest error of a float32 product's squared distance from x to a row within a squared distance ``limit`` of it.

    A float32 sum of d + 2 products, the squares among them, is off by at most about (d + 2) 2^-24 (|x| + |y|)^2 in any
    order, and such a row has |y| <= |x| + sqrt(limit).

    Args:
        norms2: |x|^2 [m] of the centered rows.
        limit: [m].
        d: Dimension of the vectors.
    """
    bound: np.ndarray = (d + 16) * 2.0**-24 * (2 * np.sqrt(norms2) + np.sqrt(limit)) ** 2
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
    """Squared distances float32 [q, b] by one matrix product: (-2 x, |x|^2, 1) times (y, 1, |y|^2)."""
    left = np.column_stack([-2 * query, _norms2(query), np.ones(len(query), np.float32)])
    right = np.column_stack([block, np.ones(len(block), np.float32), _norms2(block)])
    approximate: np.ndarray = left @ right.T
    return approximate


def _device_search(query: np.ndarray, block: np.ndarray, width: int, device: str) -> tuple[np.ndarray, np.ndarray]:
    """As ``_faiss_search``, on a torch device; only what is near comes back."""
    import torch

    with full_float32():
        x, y = (torch.from_numpy(side).to(device) for side in (query, block))
        squares = (x * x).sum(dim=1)[:, None] + (y * y).sum(dim=1)
        found = torch.addmm(squares, x, y.T, alpha=-2).topk(width, dim=1, largest=False, sorted=False)
    return found.values.cpu().numpy(), found.indices.cpu().numpy()


def _faiss_search(query: np.ndarray, block: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Approximate distances and columns [q, width] of the nearest in one block."""
    import faiss

    distances, columns = faiss.knn(query, block, width)
    return distances, columns


@dataclass(frozen=True)
class _Found:
    """The nearest rows of every query so far."""

    distances: np.ndarray  # [m, width] float32
    rows: np.ndarray  # [m, width]

    @classmethod
    def none(cls, m: int, width: int) -> _Found:
        return cls(np.full((m, width), np.inf, np.float32), np.zeros((m, width), np.int64))

    def add(self, queries: slice, start: int, distances: np.ndarray, *, mirrored: bool = False) -> None:
        """Takes what is near of one block [queries, base rows from ``start``], or of its mirror image.

        Few pairs are, once something is known: most of a block is read once, and compared with one number a query.
        """
        limit = self.distances[queries].max(axis=1)
        hits = distances < (limit if mirrored else limit[:, None])
        if np.count_nonzero(hits) > CROWDED * hits.size:
            block = np.ascontiguousarray(distances.T) if mirrored else distances
            width = min(self.distances.shape[1], block.shape[1])
            columns = np.argpartition(block, width - 1, axis=1)[:, :width]
            self.let_in(queries, np.take_along_axis(block, columns, axis=1), columns, start)
            return
        query, column = np.divmod(np.flatnonzero(hits), hits.shape[1])
        value = distances[query, column]
        if mirrored:
            order = np.argsort(column, kind="stable")
            query, column, value = column[order], query[order], value[order]
        touched, first, count = np.unique(query, return_index=True, return_counts=True)
        if len(touched):
            place = np.repeat(np.arange(len(touched)), count), np.arange(len(query)) - np.repeat(first, count)
            table = (
                np.full((len(touched), count.max()), np.inf, np.float32),
                np.zeros((len(touched), count.max()), np.int64),
            )
            table[0][place], table[1][place] = value, column
            self.let_in(queries.start + touched, *table, start)

    def let_in(self, queries: slice | np.ndarray, distances: np.ndarray, columns: np.ndarray, start: int) -> None:
        """Merges distances to base rows ``start + columns`` [q, c] into what was found."""
        width = self.distances.shape[1]
        near, rows = np.hstack([self.distances[queries], distances]), np.hstack([self.rows[queries], columns + start])
        keep = np.argpartition(near, width - 1, axis=1)[:, :width]
        self.distances[queries], self.rows[queries] = (np.take_along_axis(a, keep, axis=1) for a in (near, rows))


def _smallest(distances: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k smallest of each row by (distance, row number), ascending."""
    order = np.lexsort((rows, distances), axis=-1)[:, :k]
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(rows, order, axis=1)


def _distinct(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the distinct rows (first of each) and, for every row, which of them it equals."""
    seen: dict[bytes, int] = {}
    copy_of = np.array([seen.setdefault(v.tobytes(), len(seen)) for v in vectors], dtype=np.int64)
    return np.unique(copy_of, return_index=True)[1], copy_of
