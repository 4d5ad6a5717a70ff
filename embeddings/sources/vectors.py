"""Vectors of your own, of any modality, in place of images.

    clips.npy                   [n, d]; keys, labels and other columns in clips.csv, .tsv, .parquet or .arrow beside it
    clips.npz                   ``vectors`` [n, d], or its only 2-d array of floats; any array [n] is a column
    clips.parquet, clips.arrow  a column of lists of floats, and no images; every other column as in a table of images

Key: column ``key``, ``keys``, ``id`` or ``ids``; else the row number. ``labels`` and ``groups`` count as ``label`` and
``group``. float16 stays float16, other numbers become float32. A row that is not finite then, is missing, or has
another length than most is refused with its reason. Nothing in a file says which encoder made the vectors;
``#encoder:NAME`` does, and vectors said to be of different encoders are never compared.

Vectors are read in pieces: arrays are mapped into memory, others are unpacked once to a temporary file. No Python
object is ever loaded from a file (pickle runs code).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from threading import Lock
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embeddings import files
from embeddings.errors import SourceError
from embeddings.sources import SUFFIXES, TABLE_SUFFIXES, Address, Listing
from embeddings.sources.formats import ARROW_SUFFIXES, has_images, read_columns, read_schema
from embeddings.sources.rows import Columns, Rows, key_order, listing_of, reject, reject_repeats
from embeddings.sources.vector_files import Matrix, is_list_of_floats, read_lists, read_npy, read_npz
from embeddings.spec import EncoderSpec

MISSING_VECTOR, NOT_FINITE, NO_KEY = "no vector", "its vector is not finite", "no key"
_KEYS = ("key", "keys", "id", "ids")
_BLOCK_VALUES = 1 << 21  # numbers checked at a time
_ALIASES = {"labels": "label", "groups": "group"}


@dataclass(frozen=True, kw_only=True)
class _Index:
    """The rows sorted by key, and how to get at their vectors."""

    rows: Rows
    numbers: np.ndarray  # row number in the file, int64 [n]
    matrix: Matrix
    listing: Listing
    listed: np.ndarray  # row number in the file of every image of the listing, int64


class VectorSource:
    """Vectors and what is known of them; see the module. Thread-safe."""

    def __init__(self, address: Address) -> None:
        self.address = replace(address, path=files.absolute(address.path))
        self._lock = Lock()
        self._loaded: _Index | None = None

    @property
    def dim(self) -> int:
        """Length d of the vectors."""
        return self._index().matrix.dim

    @property
    def dtype(self) -> np.dtype:
        """float16 or float32, as ``read_rows`` returns."""
        return self._index().matrix.dtype

    @property
    def spec(self) -> EncoderSpec:
        """What is said of the encoder: its name, if the address tells it, and d."""
        name = f"vectors:{self.address.encoder}" if self.address.encoder else "vectors"
        return EncoderSpec(name=name, dim=self.dim, size=0, preprocessing="none", weights="")

    def listing(self) -> Listing:
        """Every usable vector, sorted by key, and the rows that were refused.

        Raises:
            SourceError: not readable, of a wrong shape, nothing usable, or selectors that do not fit.
            StorageError: no space for the temporary file.
        """
        return self._index().listing

    def read_rows(self, positions: np.ndarray) -> np.ndarray:
        """Vectors [m, d] at positions int64 [m] of the listing, float16 or float32.

        Fast where consecutive positions are near each other in the file.
        """
        index = self._index()
        return index.matrix.take(index.listed[np.asarray(positions)])

    def locate(self, uri: str) -> str:
        """``FILE#KEY``."""
        return self.address.path + uri

    def _index(self) -> _Index:
        with self._lock:
            if self._loaded is None:
                self._loaded = _index(self.address)
            return self._loaded


def is_vectors(path: str) -> bool:
    """True for a file of vectors: an array, or a table with a column of lists of floats and none of images.

    Of a table only the footer or header is read; one that does not read is none.
    """
    suffix = PurePosixPath(path).suffix.lower()
    if suffix not in (".parquet", *ARROW_SUFFIXES):
        return suffix in SUFFIXES["vectors"]
    try:
        schema = read_schema(path)
    except SourceError:
        return False
    return not has_images(schema) and any(is_list_of_floats(field.type) for field in schema)


def refuse_vectors(address: Address) -> NoReturn:
    """What opens a source of vectors where images are wanted.

    Raises:
        SourceError: always.
    """
    if is_vectors(address.path):
        raise SourceError(
            f"{address.path!r} holds vectors, not images.",
            hint="Vectors go where a store is wanted: as --target and --pool of score and select.",
        )
    raise SourceError(
        f"encoder:{address.encoder} is said of {address.path!r}, which holds no vectors.",
        hint="encoder: tells which encoder made the vectors of a file; for images leave it out.",
    )


def _index(address: Address) -> _Index:
    matrix, columns, stamp = _read(address.path)
    rows = _rows(matrix, columns, files.file_info(address.path), stamp)
    numbers = key_order(rows.key)
    rows = reject_repeats(rows.take(numbers))
    listing = listing_of(rows, address)
    usable = np.flatnonzero(rows.reason.is_null().to_numpy(zero_copy_only=False))
    found = pc.index_in(listing.images["key"].combine_chunks(), value_set=rows.key.take(pa.array(usable)))
    return _Index(rows=rows, numbers=numbers, matrix=matrix, listing=listing, listed=numbers[usable[found.to_numpy()]])


def _read(path: str) -> tuple[Matrix, Columns, str]:
    """Vectors and columns, and a stamp of the file beside them, if there is one."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix == ".npz":
        return (*read_npz(path), "")
    if suffix == ".npy":
        matrix = read_npy(path)
        return (matrix, *_beside(path, len(matrix)))
    columns, n = read_columns(path)
    matrix = read_lists(path)
    if len(matrix) != n:
        raise SourceError(f"{path!r} has {n} rows, and {len(matrix)} vectors.", hint="Make or download it again.")
    return matrix, columns, ""


def _beside(path: str, n: int) -> tuple[Columns, str]:
    """Columns of the table beside an array, and its stamp; none if there is no such table."""
    stem = path[: -len(PurePosixPath(path).suffix)]
    tables = [stem + suffix for suffix in TABLE_SUFFIXES if files.exists(stem + suffix)]
    if not tables:
        return {}, ""
    if len(tables) > 1:
        raise SourceError(
            f"Several tables lie beside {path!r}: {', '.join(tables)}.", hint="Keep the one that describes its rows."
        )
    columns, rows = read_columns(tables[0])
    if rows != n:
        raise SourceError(
            f"{tables[0]!r} has {rows:,} rows, and {path!r} beside it {n:,} vectors.",
            hint="Give the table a row per vector, in the same order, or move it elsewhere.",
        )
    return columns, files.file_info(tables[0]).stamp


def _rows(matrix: Matrix, columns: Columns, file: files.FileInfo, stamp: str) -> Rows:
    """The rows in file order."""
    n = len(matrix)
    aliases = {name: role for name, role in _ALIASES.items() if role not in columns}
    columns = {aliases.get(name, name): values for name, values in columns.items()}
    name = next((name for name in _KEYS if name in columns), "")
    key = columns.get(name, pa.array(np.arange(n)).cast(pa.string()))
    nameless = pc.fill_null(pc.equal(key, ""), True)
    key = pc.utf8_normalize(pc.fill_null(key, ""), form="NFC")
    return Rows(
        key=key,
        uri=pc.binary_join_element_wise(pa.scalar("#"), key, pa.scalar("")),
        size=pa.repeat(pa.scalar(file.size, pa.int64()), n),
        stamp=pa.repeat("+".join(filter(None, [file.stamp, stamp])), n),
        reason=reject(_reasons(matrix), nameless, NO_KEY),
        columns=columns,
        hidden=frozenset((name,)),
    )


def _reasons(matrix: Matrix) -> pa.Array:
    """Why a vector cannot be used, [n]; null where it can. One pass over all of them."""
    reason = pa.nulls(len(matrix), pa.string())
    reason = reject(reason, matrix.lengths < 0, MISSING_VECTOR)
    for length in np.unique(matrix.lengths[(matrix.lengths != matrix.dim) & (matrix.lengths >= 0)]):
        reason = reject(reason, matrix.lengths == length, f"its vector has {length} numbers, most have {matrix.dim}")
    bad = np.zeros(len(matrix), bool)
    whole, step = np.flatnonzero(matrix.lengths == matrix.dim), max(1, _BLOCK_VALUES // matrix.dim)
    for start in range(0, len(whole), step):
        rows = whole[start : start + step]
        bad[rows] = ~np.isfinite(matrix.take(rows)).all(axis=1)
    return reject(reason, bad, NOT_FINITE)
