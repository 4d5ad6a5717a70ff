"""Single values out of the binary column of a Parquet file, without holding the column in memory.

Parquet is read by whole row groups. Read in key order, most files need each group once, so the last few are kept.
Where that would read groups over and over (rows in another order than their keys) or a group is too large to hold (one
group for the whole file, as pandas writes it), the column is copied once, in one pass, to a temporary file that
answers any order.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from bisect import bisect_right
from collections import OrderedDict
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embeddings import files
from embeddings.sources.footers import chunks_of

KEPT_BYTES = 64 << 20  # row groups kept in memory; never fewer than two, so that neighbors do not evict each other
LARGE_GROUP_BYTES = 64 << 20
BATCH = 256  # rows at a time where a group is streamed
NULL, DAMAGED = -1, -2  # in place of the length of a value
REVISITS = 4  # reads of an average row group that still cost less than the copy


class Blobs:
    """Thread-safe reads of ``column`` (``image.bytes`` for a field of a struct) by row number."""

    def __init__(self, file: pq.ParquetFile, column: str, *, order: np.ndarray) -> None:
        """``order``: the row numbers [n] in the order in which they will mostly be read."""
        self._file, self._column = file, column
        self._starts = list(accumulate(_group_rows(file), initial=0))
        visited = np.searchsorted(self._starts, order, side="right") - 1
        self._scattered = _is_scattered(visited, np.array([chunk.size for chunk in chunks_of(file, column)]))
        self._kept: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        self._copy: _Copy | None = None
        self._lock = Lock()

    def read(self, row: int) -> bytes | None:
        """The value in a row; None where it is null.

        Raises:
            OSError, pyarrow.ArrowException: the file is damaged or gone.
            StorageError: no space for the copy.
        """
        if self._scattered:
            return self._copied().read(row)
        group = bisect_right(self._starts, row) - 1
        value: bytes | None = self._values(group)[row - self._starts[group]].as_py()
        return value

    def _values(self, group: int) -> pa.ChunkedArray:
        with self._lock:
            if group not in self._kept:
                table = self._file.read_row_group(group, columns=[self._column], use_threads=False)
                self._kept[group] = leaf(table.column(0))
                while len(self._kept) > 2 and sum(v.nbytes for v in self._kept.values()) > KEPT_BYTES:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(group)
            return self._kept[group]

    def _copied(self) -> _Copy:
        with self._lock:
            if self._copy is None:
                self._copy = _Copy(self._file, self._column)
            return self._copy


class _Copy:
    """All values of the column, one after the other in a temporary file that vanishes with its handle.

    Rows of a damaged row group are remembered as such; the others are not lost with them.

    Raises:
        StorageError: no space for it.
    """

    def __init__(self, file: pq.ParquetFile, column: str) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this object
        weakref.finalize(self, self._file.close)
        lengths = [self._append_group(file, column, group) for group in range(file.num_row_groups)]
        self._lengths = np.concatenate(lengths)
        self._ends = np.cumsum(np.maximum(self._lengths, 0))

    def _append_group(self, file: pq.ParquetFile, column: str, group: int) -> np.ndarray:
        lengths, row = np.full(file.metadata.row_group(group).num_rows, DAMAGED), 0
        with suppress(OSError, pa.ArrowException):
            for batch in file.iter_batches(BATCH, row_groups=[group], columns=[column], use_threads=False):
                values = leaf(batch.column(0))
                self._append(values.drop_null().to_pylist())
                lengths[row : row + len(values)] = pc.fill_null(pc.binary_length(values).cast(pa.int64()), NULL)
                row += len(values)
        return lengths

    def _append(self, values: list[bytes]) -> None:
        try:
            self._file.writelines(values)
            self._file.flush()
        except OSError as error:
            raise files.storage_error(Path(tempfile.gettempdir()), error) from error

    def read(self, row: int) -> bytes | None:
        length = int(self._lengths[row])
        if length == DAMAGED:
            raise OSError("its row group is damaged")
        return None if length == NULL else os.pread(self._file.fileno(), length, int(self._ends[row]) - length)


def leaf(values: pa.Array | pa.ChunkedArray) -> Any:
    """The one field of a struct that was read alone, null where the struct is; other values as they are."""
    return pc.struct_field(values, [0]) if pa.types.is_struct(values.type) else values


def missing(file: pq.ParquetFile, column: str) -> np.ndarray:
    """True [n] where the value is null; reads only the row groups whose statistics do not settle it."""
    masks = []
    for i, (chunk, rows) in enumerate(zip(chunks_of(file, column), _group_rows(file), strict=True)):
        if chunk.nulls == 0:
            masks.append(np.zeros(rows, bool))
            continue
        batches = file.iter_batches(batch_size=BATCH, row_groups=[i], columns=[column], use_threads=False)
        masks += [leaf(batch.column(0)).is_null().to_numpy(zero_copy_only=False) for batch in batches]
    return np.concatenate(masks) if masks else np.zeros(0, bool)


def _is_scattered(groups: np.ndarray, sizes: np.ndarray) -> bool:
    if sizes.sum() <= KEPT_BYTES:
        return False
    visits = 1 + np.count_nonzero(np.diff(groups))
    return bool(sizes.max() > LARGE_GROUP_BYTES or visits > REVISITS * len(sizes))


def _group_rows(file: pq.ParquetFile) -> list[int]:
    rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    if sum(rows) != file.metadata.num_rows or min(rows, default=0) < 0:
        raise OSError("its footer is damaged")
    return rows
