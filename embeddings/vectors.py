"""Vectors [n, d]: an array in memory, or the shards of a store on disk seen as one, read as far as they are indexed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from embeddings.errors import CorruptError, one_line

AGAIN = "Open it again if it was embedded anew meanwhile; else embed the source again: what is whole is kept."


class ShardedVectors:
    """Rows of several [n_i, d] arrays seen as one [n, d] array; only what is indexed is opened and read."""

    def __init__(self, shards: Sequence[np.ndarray | MappedShard]) -> None:
        self._shards = shards
        self._starts = np.cumsum([0] + [len(s) for s in shards])
        self.shape = (int(self._starts[-1]), shards[0].shape[1])
        self.dtype = shards[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice | np.ndarray | Sequence[int]) -> np.ndarray:
        """One row [d], or rows [m, d] by slice, row numbers (negative ones count from the end) or a mask [n]."""
        if isinstance(index, slice):
            return self._range(range(len(self))[index])
        if isinstance(index, int | np.integer):
            row: np.ndarray = self._rows(np.array([index]))[0]
            return row
        rows = np.asarray(index)
        if rows.dtype == bool and rows.shape != (len(self),):
            raise IndexError(f"a mask of shape {rows.shape} does not fit {len(self)} rows")
        return self._rows(np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def _range(self, rows: range) -> np.ndarray:
        if rows.step != 1:
            return self._rows(np.array(rows, dtype=np.int64))
        first, last = np.searchsorted(self._starts, [rows.start, rows.stop - 1], side="right") - 1
        parts = [
            self._shards[i][max(rows.start - self._starts[i], 0) : rows.stop - self._starts[i]]
            for i in range(first, last + 1 if len(rows) else first)
        ]
        parts = parts or [np.empty((0, self.shape[1]), self.dtype)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _rows(self, rows: np.ndarray) -> np.ndarray:
        outside = (rows < -len(self)) | (rows >= len(self))
        if outside.any():
            raise IndexError(f"row {rows[outside][0]} of {len(self)}")
        rows = np.where(rows < 0, rows + len(self), rows)
        shard = np.searchsorted(self._starts, rows, side="right") - 1
        out = np.empty((len(rows), self.shape[1]), self.dtype)
        for i in np.unique(shard):
            mask = shard == i
            out[mask] = self._shards[i][rows[mask] - self._starts[i]]
        return out


class MappedShard:
    """An array on disk [n, d] that is mapped into memory when it is first indexed."""

    def __init__(self, path: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype
        self._path = path

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        found: np.ndarray = self._array[index]
        return found

    @cached_property
    def _array(self) -> np.ndarray:
        vectors = load_array(self._path)
        if vectors.shape != self.shape:
            raise CorruptError(f"{self._path} has shape {list(vectors.shape)}, wanted {list(self.shape)}.", hint=AGAIN)
        return vectors


Vectors = np.ndarray | ShardedVectors


def blocks(vectors: Vectors, size: int = 4096, dtype: type = np.float32) -> Iterator[tuple[int, np.ndarray]]:
    """(start, rows) of consecutive blocks [<= size, d]."""
    for start in range(0, len(vectors), size):
        yield start, np.asarray(vectors[start : start + size], dtype=dtype)


def load_array(path: Path) -> np.ndarray:
    """A memory-mapped array that this project wrote.

    Raises:
        CorruptError: it is missing or does not read back.
    """
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CorruptError(f"{path} does not read back ({one_line(error)}).", hint=AGAIN) from None
    return array
