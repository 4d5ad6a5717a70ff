"""Mergeable statistics of a set of vectors, by fold: all that Fréchet distances, effective rank and their errors need.

A fold is a random tenth of the images, fixed by sha256 of the group or key, so it does not depend on file order, shards
or what else is in the set. Exact copies and rows of one group share a fold; else the jackknife would take copies for
evidence. Contiguous blocks will not do: on a class-sorted folder they bias the jackknife badly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.linalg import blas, lapack
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from embeddings import files
from embeddings.device import CPU, compute_device, device_product
from embeddings.errors import EncoderMismatchError, TooFewImagesError, UsageError
from embeddings.store import EmbeddingStore
from embeddings.vectors import Vectors, blocks

FOLDS = 10
PART_ROWS = 1024  # of one fold that are widened to float64 at once
MIRROR_ROWS = 512
SCHEMA = "curate.moments/1"


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Count, mean and scatter of every fold. Two of them merge exactly; order and sharding do not matter."""

    n: np.ndarray  # [FOLDS] int64
    mean: np.ndarray  # [FOLDS, d] float64; zero where n is zero
    scatter: np.ndarray  # [FOLDS, d (d + 1) / 2] float64: lower triangle of sum (x - mean)(x - mean)'
    encoder: str  # fingerprint of the encoder spec
    rank: int | None = None  # directions in which every fold has its own scatter, the rest in outline; None: all d

    @classmethod
    def from_vectors(cls, vectors: Vectors, folds: np.ndarray, *, encoder: str = "") -> Moments:
        """One pass over the vectors, block by block, in float64.

        Args:
            vectors: [n, d], any float type.
            folds: [n] integers in 0..FOLDS-1.
            encoder: Fingerprint of the encoder spec.

        Returns:
            Moments; beside them 24 MB at d = 2048. An empty fold takes none.
        """
        d = vectors.shape[1]
        n, total, scatter = np.zeros(FOLDS, np.int64), np.zeros((FOLDS, d)), np.zeros((FOLDS, d * (d + 1) // 2))
        # A pilot near the mean keeps the sums of squares free of cancellation.
        pilot = np.asarray(vectors[: min(len(vectors), 1024)], np.float64).mean(axis=0)
        device = compute_device()
        for start, block in blocks(vectors, size=8192, dtype=vectors.dtype.type):
            fold_of_row = folds[start : start + len(block)]
            for fold, rows in _parts(fold_of_row):
                part = np.subtract(block[rows], pilot, dtype=np.float64)
                n[fold] += len(part)
                total[fold] += part.sum(axis=0)
                _add_scatter(scatter[fold], part, device)
        offset = total / np.maximum(n, 1)[:, None]
        for fold in np.flatnonzero(n).tolist():
            scatter[fold] = lapack.dtfttp(d, scatter[fold])[0]
        add_outer(scatter, -n, offset)
        return cls(n=n, mean=(pilot + offset) * (n > 0)[:, None], scatter=scatter, encoder=encoder)

    def merge(self, other: Moments) -> Moments:
        """Moments of the union of two disjoint sets.

        Raises:
            EncoderMismatchError: made by different encoders.
            UsageError: one of them is known in some directions only.
        """
        self.require_same_encoder(other)
        for side in (self, other):
            side.require_all_dimensions("A union of moments")
        n = self.n + other.n
        share = other.n / np.maximum(n, 1)
        gap = other.mean - self.mean
        scatter = self.scatter + other.scatter
        add_outer(scatter, self.n * share, gap)
        mean = np.where((n > 0)[:, None], self.mean + share[:, None] * gap, 0.0)
        return Moments(n=n, mean=mean, scatter=scatter, encoder=self.encoder)

    def select(self, folds: Sequence[int]) -> Moments:
        """Some folds, renumbered from 0 in the order given; the others are empty."""
        chosen, new = list(folds), np.arange(len(folds))
        n, mean, scatter = (np.zeros_like(a) for a in (self.n, self.mean, self.scatter))
        n[new], mean[new], scatter[new] = self.n[chosen], self.mean[chosen], self.scatter[chosen]
        return replace(self, n=n, mean=mean, scatter=scatter)

    def halves(self) -> tuple[Moments, Moments]:
        """Every second fold and the others, renumbered: two sets of one distribution that share no image.

        Of the 8 to 10 folds that hold images, each half has 4 or 5, so that it can be split by fold parity again.
        """
        folds = np.flatnonzero(self.n).tolist()
        return self.select(folds[0::2]), self.select(folds[1::2])

    def require_all_dimensions(self, figure: str) -> None:
        """Refuses a figure that the moments of a projected export cannot give.

        Raises:
            UsageError: every fold has its own scatter in ``rank`` directions only.
        """
        if self.rank is not None:
            raise UsageError(
                f"{figure} needs all {self.dim:,} dimensions; these moments hold {self.rank} directions.",
                hint=f"Use the store itself, or an export of at least {2 * self.dim:,} images in every fold.",
            )

    def require_same_encoder(self, other: Moments) -> None:
        """Refuses a comparison across encoders.

        Raises:
            EncoderMismatchError: made by different encoders.
        """
        if (self.encoder, self.dim) != (other.encoder, other.dim):
            raise EncoderMismatchError(
                f"One side is from encoder {self.encoder} (d = {self.dim}), "
                f"the other from {other.encoder} (d = {other.dim}).",
                hint="Embed both with the same encoder.",
            )

    def pooled(self, folds: Sequence[int] = range(FOLDS)) -> tuple[int, np.ndarray, np.ndarray]:
        """Count, mean [d] and unbiased covariance [d, d] over some folds.

        Raises:
            TooFewImagesError: fewer than two images.
        """
        chosen = list(folds)
        n = int(self.n[chosen].sum())
        if n < 2:
            raise TooFewImagesError(f"{n} images have no covariance; 2 are needed.", hint="Use more images.")
        mean = self.n[chosen] @ self.mean[chosen] / n
        total = np.zeros(self.scatter.shape[1])
        for fold in chosen:
            if self.n[fold]:
                total += self.scatter[fold]
        add_outer([total] * len(chosen), self.n[chosen], self.mean[chosen] - mean)
        total /= n - 1
        return n, mean, unpack(total)

    def projected_scatter(self, *bases: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Scatter of every fold in each of some bases [d, k]: [FOLDS, k, k]; the trace of its full scatter: [FOLDS]."""
        inside: list[list[np.ndarray]] = [[] for _ in bases]
        traces = np.empty(len(self.scatter))
        for fold, triangle in enumerate(self.scatter):
            full = unpack(triangle)  # the costly part, once for all bases
            traces[fold] = np.trace(full)
            for parts, basis in zip(inside, bases, strict=True):
                parts.append(basis.T @ full @ basis)
        return [np.stack(parts) for parts in inside], traces

    @property
    def dim(self) -> int:
        """Dimension d of the vectors."""
        return int(self.mean.shape[1])

    def __len__(self) -> int:
        return int(self.n.sum())

    def as_kept(self) -> Moments:
        """These moments as they read back from a file, so that a first use gives the figures of every later one."""
        return replace(self, scatter=self.scatter.astype(np.float32).astype(np.float64))

    def save(self, path: Path, digest: str) -> None:
        """Writes one .npz file (float32 triangle, 33 MB at d = 1280), tied to the digest of what it was made from."""
        with files.atomic_path(path) as temporary, temporary.open("wb") as file:
            header = np.array([SCHEMA, self.encoder, digest])
            np.savez(file, header=header, n=self.n, mean=self.mean, scatter=self.scatter.astype(np.float32))

    @classmethod
    def open(cls, path: Path, digest: str) -> Moments | None:
        """Reads what ``save`` wrote, or None if the file is absent, damaged, or was made from something else."""
        if not path.exists():
            return None
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
                schema, encoder, made_from = (str(x) for x in data["header"])
                if (schema, made_from) != (SCHEMA, digest):
                    return None
                return cls(n=data["n"], mean=data["mean"], scatter=data["scatter"].astype(np.float64), encoder=encoder)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return None  # a cut file; it only saves time


@dataclass(eq=False)
class Folded:
    """A store with its blocks, which are found once however often folds, digest and moments are asked for."""

    store: EmbeddingStore

    @cached_property
    def blocks(self) -> np.ndarray:
        """Name [n] of every row's block; see ``block_names``."""
        return block_names(self.store.rows())

    @cached_property
    def digest(self) -> str:
        """sha256 over the store's images, encoder and blocks: equal digests give equal moments."""
        return files.digest([self.store.digest, files.digest(self.blocks.tolist())])

    @cached_property
    def moments(self) -> Moments:
        """Moments of the store, computed once and kept in its folder."""
        kept = None if self.store.path is None else self.store.path / "moments.npz"
        moments = None if kept is None else Moments.open(kept, self.digest)
        if moments is None:
            vectors, encoder = self.store.vectors(), self.store.spec.fingerprint
            moments = Moments.from_vectors(vectors, self.folds(), encoder=encoder).as_kept()
            if kept is not None:
                moments.save(kept, self.digest)
        return moments

    def folds(self, *, salt: str = "") -> np.ndarray:
        """Fold [n] uint8 of every row, as ``fold_of``."""
        return _fold_of_blocks(self.blocks, salt)


def store_moments(store: EmbeddingStore) -> Moments:
    """Moments of a store, computed once and kept in the store's folder."""
    return Folded(store).moments


def fold_of(rows: pa.Table, *, salt: str = "") -> np.ndarray:
    """Fold [n] uint8 of every row: sha256 of its group, else its key, mod FOLDS; copies and groups stay together.

    ``salt`` gives another, independent partition with the same blocks.
    """
    return _fold_of_blocks(block_names(rows), salt)


def block_names(rows: pa.Table) -> np.ndarray:
    """Name [n] of the block of rows each row cannot be separated from: its group, its copies, and their groups.

    The name is the smallest group (or key) in the block, so it does not depend on row order.
    """
    names = pc.coalesce(rows["group"], rows["key"])
    blocks = connected_rows(names, rows["sha256"], rows["pixels"]).tolist()
    smallest: dict[int, str] = {}
    for block, name in zip(blocks, names.to_pylist(), strict=True):
        smallest[block] = min(name, smallest.get(block, name))
    return np.array([smallest[b] for b in blocks], dtype=str)


def connected_rows(*labels: pa.ChunkedArray) -> np.ndarray:
    """Component [n] of every row when rows that share a label in any of the columns [n] are joined.

    A null is no label: it joins nothing.
    """
    n, edges, offset = len(labels[0]), [], len(labels[0])
    for label in labels:
        encoded = label.combine_chunks().dictionary_encode()
        code = encoded.indices.fill_null(-1).to_numpy()
        edges.append(np.where(code < 0, np.arange(n), code + offset))
        offset += len(encoded.dictionary)
    row, column = np.tile(np.arange(n), len(labels)), np.concatenate(edges)
    graph = coo_array((np.ones(len(row), np.int8), (row, column)), shape=(offset, offset))
    return np.asarray(connected_components(graph, directed=False)[1][:n])


def _fold_of_blocks(blocks: np.ndarray, salt: str) -> np.ndarray:
    unique, inverse = np.unique(blocks, return_inverse=True)
    digits = [int.from_bytes(hashlib.sha256((salt + name).encode()).digest()[:8], "big") % FOLDS for name in unique]
    return np.array(digits, np.uint8)[inverse]


def pack(matrix: np.ndarray) -> np.ndarray:
    """Lower triangle of a symmetric [d, d] matrix as one row."""
    return matrix[np.tril_indices(len(matrix))]


def unpack(triangle: np.ndarray) -> np.ndarray:
    """Symmetric [d, d] matrix from its lower triangle."""
    d = int((np.sqrt(8 * len(triangle) + 1) - 1) / 2)
    square: np.ndarray = lapack.dtpttr(d, triangle)[0].T
    for start in range(0, d, MIRROR_ROWS):
        stop = start + MIRROR_ROWS
        corner = square[start:stop, start:stop]
        corner += np.tril(corner, -1).T
        square[start:stop, stop:] = square[stop:, start:stop].T
    return square


def add_outer(triangles: Iterable[np.ndarray], weights: np.ndarray, vectors: np.ndarray) -> None:
    """Adds weight * vector vector' to every packed triangle [d (d + 1) / 2] of F, in place."""
    for triangle, weight, vector in zip(triangles, weights, vectors, strict=True):
        blas.dspr(len(vector), float(weight), vector, triangle, overwrite_ap=True)


def _parts(folds: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Every fold of a block with its rows, a thousand at a time."""
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        yield from ((int(fold), rows[start : start + PART_ROWS]) for start in range(0, len(rows), PART_ROWS))


def _add_scatter(triangle: np.ndarray, rows: np.ndarray, device: str) -> None:
    """Adds rows' rows [d, d] to one triangle, in the layout that BLAS multiplies at full speed; in place."""
    if device == CPU:
        lapack.dsfrk(rows.shape[1], len(rows), 1.0, rows.T, 1.0, triangle, overwrite_c=True)
    else:
        triangle += lapack.dtrttf(device_product(rows.T, rows.T, device))[0]
