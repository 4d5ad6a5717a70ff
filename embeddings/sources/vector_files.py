"""The file formats of vectors: NumPy arrays, archives of them, and lists in Parquet or Arrow.

All of them become a Matrix: rows that lie in a file mapped into memory. What a file claims is checked before it is
believed, and no Python object is unpickled.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embeddings.errors import CurateError, SourceError, one_line
from embeddings.sources.downloads import copy_to_disk, local_path, write
from embeddings.sources.formats import read_batches, read_schema
from embeddings.sources.rows import Columns

MAX_COLUMN_BYTES = 1 << 30  # of one column of an archive, unpacked
NULL = -1  # in place of the length of a vector
PREFERRED = ("vectors", "vector", "embeddings", "embedding", "features")
_ROLES = ("key", "keys", "id", "ids", "label", "labels", "group", "groups")
_BATCH = 1024  # rows of a Parquet file read at a time
_SHAPE = "Save one row of numbers per item: vectors [n, d]."
_PLAIN = "Save numbers as numbers, and text as text: np.array(keys, dtype=str)."


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Vectors in file order. Only rows of length ``dim`` may be taken."""

    table: np.ndarray  # [k, d], mapped; its rows may overlap
    index: np.ndarray  # row of ``table`` that is the vector, int64 [n]
    lengths: np.ndarray  # of each vector, int64 [n]; NULL where there is none

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def dim(self) -> int:
        """Length d of most vectors."""
        return int(self.table.shape[1])

    @property
    def dtype(self) -> np.dtype:
        """float16 if the file has that, else float32."""
        return _stored(self.table.dtype)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Vectors [m, d] at these rows of the file; what float32 cannot hold is infinite."""
        order = np.argsort(rows, kind="stable")  # forwards through the file
        out = np.empty((len(rows), self.dim), self.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            out[order] = self.table[self.index[rows[order]]]
        return out


def read_npy(path: str) -> Matrix:
    """Vectors of a ``.npy`` file.

    Raises:
        SourceError: not readable, or not [n, d] of numbers.
        StorageError: no space for the copy of a remote file.
    """
    with _reading(path), local_path(path) as local:
        return _mapped(local, path)


def read_npz(path: str) -> tuple[Matrix, Columns]:
    """Vectors and columns of a ``.npz`` file; the vectors are unpacked to a temporary file.

    Raises:
        SourceError: not readable, or without vectors [n, d] of numbers.
        StorageError: no space for the temporary file.
    """
    with _reading(path), local_path(path) as local, zipfile.ZipFile(local) as archive:
        headers = {name.removesuffix(".npy"): _header(archive, name) for name in archive.namelist()}
        vectors = _vectors_name(headers, path)
        with tempfile.NamedTemporaryFile() as temporary:
            with archive.open(headers[vectors].member) as packed:
                copy_to_disk(packed, temporary)
            matrix = _mapped(temporary.name, path)
        del headers[vectors]
        _check_roles(headers, len(matrix), path)
        columns = {name: header for name, header in headers.items() if header.shape == (len(matrix),)}
        return matrix, {name: _strings(archive, header) for name, header in columns.items()}


def read_lists(path: str) -> Matrix:
    """Vectors in the column of lists of floats of a Parquet or Arrow file, copied to a temporary file.

    Raises:
        SourceError: not readable, or not one such column.
        StorageError: no space for the temporary file.
    """
    column, dtype = _list_column(read_schema(path), path)
    lengths = [np.zeros(0, np.int64)]
    with tempfile.TemporaryFile() as temporary:
        for values in read_batches(path, column, rows=_BATCH):
            counts = pc.fill_null(pc.list_value_length(values).cast(pa.int64()), NULL)
            lengths.append(np.where(values.is_valid(), counts, NULL))
            with np.errstate(over="ignore"):
                write(temporary, values.flatten().to_numpy(zero_copy_only=False).astype(dtype))
        return _windows(temporary, dtype, np.concatenate(lengths), path)


def is_list_of_floats(kind: pa.DataType) -> bool:
    """True for lists, of any or of one length, of floats."""
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(is_list and pa.types.is_floating(kind.value_type))


@dataclass(frozen=True)
class _Header:
    member: str
    shape: tuple[int, ...]
    dtype: np.dtype


def _header(archive: zipfile.ZipFile, member: str) -> _Header:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    return _Header(member, shape, dtype)


def _vectors_name(headers: dict[str, _Header], path: str) -> str:
    if "vectors" in headers:
        return "vectors"
    found = [name for name, header in headers.items() if len(header.shape) == 2 and header.dtype.kind == "f"]
    if len(found) != 1:
        arrays = ", ".join(f"{name} {list(header.shape)} {header.dtype}" for name, header in headers.items())
        raise SourceError(
            f"{path!r} has {len(found)} 2-d arrays of floats: {arrays}.", hint="Call one of them vectors."
        )
    return found[0]


def _check_roles(headers: dict[str, _Header], n: int, path: str) -> None:
    wrong = next((name for name in _ROLES if name in headers and headers[name].shape != (n,)), None)
    if wrong:
        raise SourceError(
            f"{path!r} has {wrong} of shape {list(headers[wrong].shape)}, wanted [{n}].", hint="Give one per vector."
        )


def _strings(archive: zipfile.ZipFile, header: _Header) -> pa.Array:
    """An array [n] of text, numbers or dates as strings."""
    if header.dtype.kind not in "USiufbM" or archive.getinfo(header.member).file_size > MAX_COLUMN_BYTES:
        raise ValueError(f"{header.member} is of type {header.dtype}, or too large. {_PLAIN}")
    with archive.open(header.member) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
    if array.dtype.kind == "S":
        array = np.strings.decode(array, "utf-8")
    return pa.array(array.astype(array.dtype.newbyteorder("="))).cast(pa.string())


def _mapped(local: str, path: str) -> Matrix:
    """The array in a local file, mapped; errors speak of ``path``."""
    array: np.ndarray = np.lib.format.open_memmap(local, mode="r")
    if array.ndim != 2 or not array.size or array.dtype.kind not in "fiu":
        raise SourceError(
            f"{path!r} holds an array of shape {list(array.shape)} and type {array.dtype}; "
            "wanted numbers [n, d], n and d at least 1.",
            hint=_SHAPE,
        )
    n, d = array.shape
    return Matrix(table=array, index=np.arange(n), lengths=np.full(n, d))


def _list_column(schema: pa.Schema, path: str) -> tuple[str, np.dtype]:
    fields = {field.name: field.type for field in schema if is_list_of_floats(field.type)}
    name = next(iter(fields)) if len(fields) == 1 else next((name for name in PREFERRED if name in fields), None)
    if name is None:
        raise SourceError(
            f"{path!r} has {len(fields)} columns of lists of floats: {', '.join(fields) or 'none'}.",
            hint="Call the one that holds the vectors 'vectors'.",
        )
    return name, _stored(np.dtype(fields[name].value_type.to_pandas_dtype()))


def _windows(file: IO[bytes], dtype: np.dtype, lengths: np.ndarray, path: str) -> Matrix:
    """Vectors that lie one after the other in a file; d is the most frequent length."""
    found, counts = np.unique(lengths[lengths > 0], return_counts=True)
    if not len(found):
        raise SourceError(f"{path!r} holds no vector.", hint="Give a table with a list of numbers in each row.")
    held = np.maximum(lengths, 0)
    flat: np.ndarray = np.memmap(file, dtype, mode="r", shape=(int(held.sum()),))
    windows = np.lib.stride_tricks.sliding_window_view(flat, int(found[counts.argmax()]))
    return Matrix(table=windows, index=np.cumsum(held) - held, lengths=lengths)


def _stored(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.float16 if dtype.kind == "f" and dtype.itemsize == 2 else np.float32)


@contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except CurateError:
        raise
    except Exception as error:  # on damaged bytes NumPy and zipfile raise nearly anything, down to tokenize.TokenError
        raise SourceError(f"{path!r} does not read as NumPy: {one_line(error)}", hint=_PLAIN) from None
