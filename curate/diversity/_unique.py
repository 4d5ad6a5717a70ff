"""How many different images a set or a union of pools holds: exact duplicates, near duplicates, N and D.

    exact   the same bytes or the same decoded pixels
    near    perceptual hashes of 64 bits that differ in few bits; and, when asked for, vectors of high cosine similarity

Duplicates of duplicates count as one picture (single linkage). The hash sees shapes of low frequency only: blank and
nearly blank pictures share one hash, so they all count as one picture.

Hashes within t bits are found exactly, without comparing all pairs: cut into t + 2 bands, two such hashes agree on at
least two whole bands (pigeonhole principle), so only hashes that share two bands are compared.

Source: Zauner, Implementation and benchmarking of perceptual image hash functions (2010) for the hash; Manku, Jain and
Das Sarma, Detecting near-duplicates for web crawling (WWW 2007) for the search. D = N / C: Hammoud et al., On
pretraining data diversity for self-supervised learning (ECCV 2024).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from curate.diversity._duplicates import duplicates
from curate.diversity._union import Union, as_union
from curate.diversity._vendi import units
from embeddings.errors import UsageError
from embeddings.store import EmbeddingStore

HASH_BITS = 64
NEAR_BITS = 4
BLOCK = 2048  # rows a side of one block of similarities
ROUNDING = 1e-9  # copies have similarity 1 up to rounding


@dataclass(frozen=True, kw_only=True)
class Unique:
    """Counts of one set. N is the number of pictures that are no exact duplicate of another one."""

    images: int
    n_unique: int
    n_unique_near: int  # near duplicates count as one picture, too
    group: np.ndarray  # [images] int64 near-duplicate group of every row, numbered from 0 in row order
    method: str

    @property
    def exact_rate(self) -> float:
        """Share of images that an exact duplicate makes redundant."""
        return 1 - self.n_unique / self.images

    @property
    def near_rate(self) -> float:
        """Share of images that an exact or near duplicate makes redundant."""
        return 1 - self.n_unique_near / self.images

    def diversity(self, samples: int, *, near: bool = False) -> float:
        """D = N / C of a run that sees ``samples`` = C images; above 1, C is too small to see each once."""
        return (self.n_unique_near if near else self.n_unique) / samples


def unique(sample: Union, *, bits: int = NEAR_BITS, near: float | None = None) -> Unique:
    """Counts the different images of a set, or of the union of several.

    Args:
        sample: Array [n, d], store, or a sequence of them. Arrays have no perceptual hash.
        bits: Perceptual hashes that differ in at most this many of 64 bits are near duplicates.
        near: Cosine similarity in (0, 1] from which vectors are near duplicates; None compares hashes alone, a value
            adds a pass over all pairs.

    Returns:
        Counts (of this set, hence without an interval); they depend on no row order.

    Raises:
        UsageError: ``bits`` outside 0..16, or ``near`` outside (0, 1].
        EncoderMismatchError: parts from different encoders.
    """
    if not 0 <= bits <= 16 or not (near is None or 0 < near <= 1):
        raise UsageError(f"bits = {bits}, near = {near}; wanted 0..16 and a cosine in (0, 1].", hint="Try bits=4.")
    store = as_union(sample)
    exact = duplicates(store)
    links = _Links(exact)
    hashed, hashes = _hashes(store)
    for a, b in near_hashes(hashes, bits):
        links.join(hashed[a], hashed[b])
    for a, b in _near_vectors(store, near) if near is not None else ():
        links.join(a, b)
    rules = [f"pixels or bytes equal; perceptual hash within {bits} of {HASH_BITS} bits ({len(hashed):,} hashed)"]
    return Unique(
        images=len(store),
        n_unique=int(exact.max()) + 1,
        n_unique_near=int(links.group.max()) + 1,
        group=links.group,
        method="; ".join(rules + ([] if near is None else [f"cosine at least {near:g}"])),
    )


def near_hashes(hashes: np.ndarray, bits: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of positions in uint64 [n] whose hashes differ in at most ``bits`` bits, in parts; some come twice.

    Equal hashes are linked to the first of them only, and stand for one another in the other pairs.
    """
    values, first, place = np.unique(hashes, return_index=True, return_inverse=True)
    yield first[place], np.arange(len(hashes))
    edges = np.linspace(0, HASH_BITS, bits + 3).astype(int)
    bands = [(values >> np.uint64(a)) & np.uint64((1 << int(b - a)) - 1) for a, b in pairwise(edges)]
    for i, j in combinations(range(len(bands) if bits else 0), 2):
        key = (bands[i] << np.uint64(edges[j + 1] - edges[j])) | bands[j]
        near = [pair[:, np.bitwise_count(values[pair[0]] ^ values[pair[1]]) <= bits] for pair in _same(key)]
        if near:
            a, b = np.hstack(near)
            yield first[a], first[b]


def _same(key: np.ndarray) -> Iterator[np.ndarray]:
    """All pairs [2, p] of positions with an equal key: first those one apart in sorted order, then two, and so on."""
    order = np.argsort(key, kind="stable")
    ordered, start, apart = key[order], np.arange(len(key)), 1
    while len(start := start[start + apart < len(key)]):
        start = start[ordered[start] == ordered[start + apart]]
        yield np.stack([order[start], order[start + apart]])
        apart += 1


class _Links:
    """Groups of rows that grow as pairs are joined; memory for the rows only."""

    def __init__(self, group: np.ndarray) -> None:
        self.group = group

    def join(self, a: np.ndarray, b: np.ndarray) -> None:
        """Merges the groups of rows a [p] and b [p], pair by pair."""
        a, b = self.group[a], self.group[b]
        if (a == b).all():
            return
        count = int(self.group.max()) + 1
        graph = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(count, count))
        merged = connected_components(graph, directed=False)[1][self.group]
        _, first, place = np.unique(merged, return_index=True, return_inverse=True)
        self.group = np.argsort(np.argsort(first))[place]


def _hashes(store: EmbeddingStore) -> tuple[np.ndarray, np.ndarray]:
    """Rows that have a perceptual hash, and the hashes as uint64."""
    column = store.column("phash")
    rows = np.array([i for i, text in enumerate(column) if text], dtype=np.int64)
    return rows, np.array([int(column[i], 16) for i in rows], dtype=np.uint64)


def _near_vectors(store: EmbeddingStore, near: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of rows whose cosine similarity is at least ``near``, block by block."""
    import torch

    n, slack = len(store), (store.spec.dim + 16) * 2.0**-23  # of a float32 product of unit vectors
    parts = [np.arange(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK)]
    for number, rows in enumerate(parts):
        x = units(store, rows)
        for columns in parts[: number + 1]:
            y = units(store, columns)
            similarity = torch.from_numpy(x.astype(np.float32)) @ torch.from_numpy(y.astype(np.float32)).T
            a, b = (index.numpy() for index in (similarity >= near - slack).nonzero(as_tuple=True))
            unsure = np.flatnonzero(similarity.numpy()[a, b] < near + slack)
            unlike = unsure[np.einsum("ij,ij->i", x[a[unsure]], y[b[unsure]]) < near - ROUNDING]
            yield np.delete(rows[a], unlike), np.delete(columns[b], unlike)
