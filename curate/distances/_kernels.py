"""Kernels of two samples and their sums by fold, block by block: what every MMD is made of.

Every kernel here equals 1 plus something that is small for near pairs or centered data. ``k - 1`` is what is computed
and summed: a constant cancels from any MMD, and float32 keeps the digits that count. Matrix products are float32 on
data centered in float64 (a common offset would cancel digits: 3% of KID at offset 10), sums are float64.

Pairs of rows that cannot be separated (one group, or copies of one picture) are no evidence of how alike independent
images are; they are counted apart, so that a U-statistic can leave them out as it leaves out the diagonal.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from embeddings.device import product
from embeddings.moments import FOLDS, Folded
from embeddings.store import EmbeddingStore
from embeddings.vectors import Vectors, blocks

TILE_ROWS = 1280  # a fold of 10,000 rows is one tile
HELD_BYTES = 1 << 26  # of centered rows, so that the other side is read once for many tiles and not once a tile
READ_ROWS = 64
WIDTH_ROWS = 500  # of each side, for the median distance
OCTAVES = 4


class Kernel(Protocol):
    """A function of two blocks of centered float32 rows."""

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """k(x_i, y_j) - 1, float32 [a, b], of rows [a, d] and [b, d]."""


@dataclass(frozen=True)
class Polynomial:
    """(x.y / d + 1)^degree, degree 2 or 3."""

    degree: int

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """K - 1, expanded in t = x.y / d."""
        t = product(x, y)
        t /= x.shape[1]
        k = t + self.degree
        if self.degree == 3:
            k *= t
            k += 3
        k *= t
        return np.asarray(k)


@dataclass(frozen=True)
class Gaussian:
    """Mean over h = 0..halvings of exp(-|x - y|^2 / (2 s_h^2)), s_h^2 = variance / 2^h."""

    variance: float  # s_0^2: the square of the largest bandwidth
    halvings: int = 0

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """K - 1; halving the variance squares the kernel, so one exponential serves all bandwidths."""
        square = squared_distances(x, y)
        square /= np.float32(-2 * self.variance)
        part = np.expm1(square, out=square)
        total = part
        for _ in range(self.halvings):
            part = part * (part + 2)
            total = total + part
        return np.asarray(total / np.float32(self.halvings + 1))


@dataclass(frozen=True, eq=False)
class Tile:
    """Some rows of one fold."""

    fold: int
    rows: np.ndarray


@dataclass(frozen=True, eq=False)
class Side:
    """One sample: its vectors, and for every row its fold and the unit that it cannot be separated from."""

    vectors: Vectors
    folds: np.ndarray  # [n]
    units: np.ndarray  # [n] int64, equal for rows of one group or copies
    scale: np.ndarray  # [n] what every row is multiplied by

    @classmethod
    def of(cls, store: EmbeddingStore, *, seed: int = 0, unit_length: bool = False) -> Side:
        """Folds and units of a store; seed 0 uses the store's own folds, another seed draws other ones."""
        folded = Folded(store)
        units = np.unique(folded.blocks, return_inverse=True)[1]
        scale = _inverse_lengths(store.vectors()) if unit_length else np.ones(len(store))
        return cls(store.vectors(), folded.folds(salt=str(seed) if seed else ""), units, scale)

    def __len__(self) -> int:
        return len(self.folds)

    @property
    def sizes(self) -> np.ndarray:
        """Rows [FOLDS] of every fold."""
        return np.bincount(self.folds, minlength=FOLDS)

    def tiles(self) -> list[Tile]:
        """All rows in even tiles of one fold each, at most 1,280 rows."""
        folds = [(int(fold), np.flatnonzero(self.folds == fold)) for fold in np.unique(self.folds)]
        return [Tile(f, part) for f, rows in folds for part in np.array_split(rows, -(-len(rows) // TILE_ROWS))]

    def bands(self) -> list[slice]:
        """Which consecutive tiles may be held at once."""
        width = max(1, HELD_BYTES // (4 * TILE_ROWS * self.vectors.shape[1]))
        return [slice(start, start + width) for start in range(0, len(self.tiles()), width)]

    def read(self, rows: np.ndarray, center: np.ndarray) -> np.ndarray:
        """Some rows, centered, float32 [t, d]."""
        block = np.empty((len(rows), len(center)), np.float32)
        for start in range(0, len(rows), READ_ROWS):  # few at a time stay in the cache
            part = rows[start : start + READ_ROWS]
            wide = self.vectors[part] * self.scale[part, None]
            np.subtract(wide, center, out=block[start : start + READ_ROWS], casting="same_kind")
        return block

    def mean(self) -> np.ndarray:
        """Mean row [d]."""
        total = np.zeros(self.vectors.shape[1])
        for start, block in blocks(self.vectors, size=1024, dtype=np.float64):
            total += self.scale[start : start + len(block)] @ block
        return np.asarray(total / len(self))


@dataclass(frozen=True)
class PairSums:
    """Sums of k - 1 and numbers of ordered pairs, by fold of the first and of the second row."""

    sums: np.ndarray  # [FOLDS, FOLDS] float64
    counts: np.ndarray  # [FOLDS, FOLDS] int64

    def mean(self, rows: np.ndarray, columns: np.ndarray) -> float:
        """Mean of k - 1 over pairs of some folds; NaN if there is no such pair."""
        chosen = np.ix_(rows, columns)
        count = self.counts[chosen].sum()
        return float(self.sums[chosen].sum() / count) if count else float("nan")


def cross_sums(kernel: Kernel, x: Side, y: Side, center: np.ndarray) -> PairSums:
    """Over all pairs of a row of x and a row of y."""
    sums = np.zeros((FOLDS, FOLDS))
    for band in x.bands():
        tiles = x.tiles()[band]
        held = [x.read(tile.rows, center) for tile in tiles]
        for other in y.tiles():
            block = y.read(other.rows, center)
            for tile, rows in zip(tiles, held, strict=True):
                sums[tile.fold, other.fold] += kernel(rows, block).sum(dtype=np.float64)
        del held  # before the next band is read
    return PairSums(sums, np.outer(x.sizes, y.sizes))


def own_sums(kernel: Kernel, x: Side, center: np.ndarray) -> tuple[PairSums, PairSums]:
    """Over the pairs of rows of x from different units, and over those of one unit, the diagonal among them."""
    apart, within, tiles = np.zeros((FOLDS, FOLDS)), np.zeros(FOLDS), x.tiles()
    for band in x.bands():
        held = [x.read(tile.rows, center) for tile in tiles[band]]
        for place, other in enumerate(tiles[band.start :]):
            block = held[place] if place < len(held) else x.read(other.rows, center)
            for tile, rows in zip(tiles[band][: place + 1], held, strict=False):
                part = kernel(rows, block)
                mirrored = tile is not other  # a tile off the diagonal stands for its mirror image too
                if tile.fold == other.fold:
                    same = x.units[tile.rows, None] == x.units[other.rows]
                    within[tile.fold] += (1 + mirrored) * part[same].sum(dtype=np.float64)
                    part[same] = 0
                total = part.sum(dtype=np.float64)
                apart[tile.fold, other.fold] += total
                apart[other.fold, tile.fold] += mirrored * total
        del held  # before the next band is read
    paired = np.diag(_pairs_within_units(x))
    return PairSums(apart, np.outer(x.sizes, x.sizes) - paired), PairSums(np.diag(within), paired)


def middle(x: Side, y: Side) -> np.ndarray:
    """Mean [d] of both samples pooled at equal weight, so that it does not depend on how many rows either has."""
    return np.asarray((x.mean() + y.mean()) / 2)


def gaussian_mixture(x: EmbeddingStore, y: EmbeddingStore) -> Gaussian:
    """Five Gaussian kernels around the median distance: s^2 = 2, 1, 1/2, 1/4 and 1/8 times the median of |x - y|^2.

    What is halved and what the median is taken of are squares. The median runs over all pairs of distinct rows of equal
    shares of both samples (at most 500 rows each, lowest key hash), so it is fixed by the data, not by any resampling.
    """
    count = min(len(x), len(y), WIDTH_ROWS)
    rows = np.concatenate([np.asarray(s.vectors()[_lowest_hash(s, count)], np.float64) for s in (x, y)])
    rows = (rows - rows.mean(axis=0)).astype(np.float32)
    square = squared_distances(rows, rows)[np.triu_indices(len(rows), 1)]
    floor = 1e-6 * float((rows**2).sum(axis=1).max())  # copies, seen through float32
    apart = square[square > floor]
    return Gaussian(2 * float(np.median(apart)) if len(apart) else 1.0, OCTAVES)


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """|x_i - y_j|^2 [a, b] by one matrix product; x and y centered."""
    square = product(x, y)
    square *= -2
    square += np.einsum("ij,ij->i", x, x)[:, None]
    square += np.einsum("ij,ij->i", y, y)
    return np.asarray(np.maximum(square, 0, out=square))


def _pairs_within_units(x: Side) -> np.ndarray:
    """Ordered pairs [FOLDS] of rows of one unit; a unit lies in one fold."""
    _, first, sizes = np.unique(x.units, return_index=True, return_counts=True)
    return np.bincount(x.folds[first], sizes.astype(np.float64) ** 2, FOLDS).astype(np.int64)


def _inverse_lengths(vectors: Vectors) -> np.ndarray:
    """1 / |x| [n]; 1 for a row of zeros."""
    lengths = np.concatenate([np.linalg.norm(block, axis=1) for _, block in blocks(vectors, dtype=np.float64)])
    return np.asarray(1 / np.where(lengths > 0, lengths, 1.0))


def _lowest_hash(store: EmbeddingStore, count: int) -> np.ndarray:
    """Rows with the lowest key hash, ascending: a random sample that any machine draws alike."""
    hashes = [hashlib.sha256(key.encode()).digest() for key in store.column("key")]
    return np.sort(np.array(sorted(range(len(hashes)), key=hashes.__getitem__)[:count]))
