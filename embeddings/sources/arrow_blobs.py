"""Arrow files (IPC file and stream format, also called Feather), and single binary values out of them.

The file is mapped into memory to index it, so that the bytes of images are never loaded: where each value lies is
noted, and from then on values are read by position, in any order, without holding Python's lock and without trust in
what the file says by then. Everything is validated in full before it is used, since Arrow itself trusts what it maps. A
compressed file is unpacked once, at its first read, to a temporary file.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embeddings.sources.downloads import local_path, write

NULL = -1  # in place of the length of a value
SHORTER = "the file has become shorter"
_FILE_MAGIC, _OLD_MAGIC = b"ARROW1", b"FEA1"
_END_BYTES = 8  # the mark that may end a stream


class ArrowFile:
    """One Arrow file, mapped into memory for as long as this object lives."""

    def __init__(self, path: str) -> None:
        """Opens the file; a remote one is copied to the local disk.

        Raises:
            OSError, ValueError, pyarrow.ArrowException: it is not an Arrow file.
            StorageError: no space for the copy.
        """
        with local_path(path) as local:
            self.file: IO[bytes] = Path(local).open("rb")  # noqa: SIM115 - lives as long as what reads from it
        weakref.finalize(self, self.file.close)
        self._bytes = pa.py_buffer(mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ))
        if self._bytes[: len(_OLD_MAGIC)].to_pybytes() == _OLD_MAGIC:
            raise ValueError("Feather version 1 is not supported; save it as version 2")
        self.schema: pa.Schema = self._open().schema

    def batches(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        """The record batches, with these columns only; each validated in full.

        Raises:
            OSError, ValueError, pyarrow.ArrowException: the file is damaged.
        """
        reader = self._open()
        is_file = isinstance(reader, pa.RecordBatchFileReader)
        for whole in (reader.get_batch(i) for i in range(reader.num_record_batches)) if is_file else reader:
            batch = whole.select(names)  # no sooner: Arrow copies what it is asked to read in part
            batch.validate(full=True)
            yield batch

    def _open(self) -> Any:
        if os.fstat(self.file.fileno()).st_size < self._bytes.size:  # what is mapped and gone kills the process
            raise OSError(SHORTER)
        options = pa.ipc.IpcReadOptions(use_threads=False)
        if self._bytes[: len(_FILE_MAGIC)].to_pybytes() == _FILE_MAGIC:
            return pa.ipc.open_file(self._bytes, options=options)
        return _Stream(self._bytes, options)

    def position(self, buffer: pa.Buffer) -> int | None:
        """Where a buffer of a batch begins in the file; None if it lies elsewhere, unpacked."""
        start = buffer.address - self._bytes.address
        return start if 0 <= start <= self._bytes.size - buffer.size else None


class _Stream:
    """The batches of a stream, which must fill the file: a damaged length would end it early, and silently."""

    def __init__(self, data: pa.Buffer, options: pa.ipc.IpcReadOptions) -> None:
        self._source = pa.BufferReader(data)
        self._reader = pa.ipc.open_stream(self._source, options=options)
        self.schema = self._reader.schema

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        yield from self._reader
        left = self._source.size() - self._source.tell()
        if left > _END_BYTES:
            raise ValueError(f"it ends {left:,} bytes before the end of the file")


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where the values of one record batch lie."""

    lengths: np.ndarray  # bytes of each value, int64 [n]; NULL where there is none
    starts: np.ndarray | None  # positions in the file, int64 [n]; None if they are compressed there


class ArrowBlobs:
    """Thread-safe reads by row number of the values of a column, binary or a struct with a field ``bytes``."""

    def __init__(self, file: ArrowFile, column: str, places: Sequence[Places]) -> None:
        """``places``: of every batch of the file, in order."""
        self._file, self._column = file, column
        starts = [part.starts for part in places if part.starts is not None]
        self._lengths = np.concatenate([part.lengths for part in places] or [np.zeros(0, np.int64)])
        self._starts = np.concatenate(starts) if len(starts) == len(places) > 0 else None
        self._unpacked: IO[bytes] | None = None
        self._lock = Lock()

    @property
    def present(self) -> np.ndarray:
        """True [n] where the value is not null."""
        return np.asarray(self._lengths != NULL)

    def span(self, row: int) -> tuple[int, int] | None:
        """First byte and length of the value in a row, where the file holds it as it is; else None."""
        with self._lock:
            if self._starts is None or self._unpacked is not None or self._lengths[row] == NULL:
                return None
            return int(self._starts[row]), int(self._lengths[row])

    def read(self, row: int) -> bytes | None:
        """The value in a row; None where it is null.

        Raises:
            OSError, ValueError, pyarrow.ArrowException: the file has changed or is gone.
            StorageError: no space to unpack a compressed file.
        """
        length = int(self._lengths[row])
        if length == NULL:
            return None
        file, starts = self._readable()
        data = os.pread(file.fileno(), length, int(starts[row]))
        if len(data) != length:
            raise OSError(SHORTER)
        return data

    def _readable(self) -> tuple[IO[bytes], np.ndarray]:
        with self._lock:
            if self._starts is None:
                self._unpacked = self._unpack()
                self._starts = np.cumsum(np.maximum(self._lengths, 0)) - self._lengths
            return self._unpacked or self._file.file, self._starts

    def _unpack(self) -> IO[bytes]:
        temporary: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this object
        weakref.finalize(self, temporary.close)
        for batch in self._file.batches([self._column]):
            for value in binary_values(batch.column(0)).drop_null():
                write(temporary, value.as_buffer())
        return temporary


def places_of(values: pa.Array, file: ArrowFile) -> Places:
    """Where the binary values of a validated batch of this file lie."""
    n, wide = len(values), pa.types.is_large_binary(values.type)
    offset_type = np.dtype(np.int64 if wide else np.int32)
    _, offsets, data = values.buffers()
    if n == 0:
        return Places(lengths=np.zeros(0, np.int64), starts=np.zeros(0, np.int64))
    ends = np.frombuffer(offsets, offset_type, n + 1, values.offset * offset_type.itemsize).astype(np.int64)
    lengths = np.diff(ends)
    lengths[values.is_null().to_numpy(zero_copy_only=False)] = NULL
    base = file.position(data) if data is not None else 0
    return Places(lengths=lengths, starts=None if base is None else ends[:-1] + base)


def binary_values(values: pa.Array) -> pa.Array:
    """The bytes in a column, binary or large binary [n]: of the field ``bytes`` if it is a struct."""
    if pa.types.is_struct(values.type):
        values = pc.struct_field(values, [values.type.get_field_index("bytes")])
    if values.type in (pa.binary(), pa.large_binary()):
        return values
    return values.cast(pa.binary() if pa.types.is_string(values.type) else pa.large_binary())
