"""A table of images: Parquet, CSV or TSV.

Images: bytes in the table (a column ``image`` or the only one of type ``struct<bytes, path>`` or binary; a row without
bytes falls back to its path), else a column of paths (PATH_COLUMNS) relative to the folder that holds the table.
Key: column ``key``; else the path; else ``STEM#row``, also for rows whose path is missing or shared. Label and group:
columns ``label`` and ``group``; class numbers of Hugging Face files become names. All other columns of single values
are kept as strings.
"""

from __future__ import annotations

import posixpath
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import PurePosixPath
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embeddings import files
from embeddings.errors import ImageError, SourceError, one_line
from embeddings.sources import Address, Listing
from embeddings.sources.blobs import Blobs
from embeddings.sources.folder import read_file
from embeddings.sources.formats import Content, read_csv, read_parquet
from embeddings.sources.rows import MISSING, Rows, key_order, listing_of, reject, reject_repeats

NO_IMAGE, NO_KEY = "no image", "no key"
OUTSIDE, REMOTE = "its path leaves the table's folder", "its path is a URL; only files beside the table are read"


@dataclass(frozen=True, kw_only=True)
class _Index:
    """The same sorted by key, and how to get at the bytes."""

    rows: Rows
    numbers: np.ndarray  # row number in the file, int64 [n]
    blobs: Blobs | None

    def row_of(self, key: str) -> int:
        """Row number in the file of the usable row with this key.

        Raises:
            KeyError: there is none.
        """
        keys, reasons = self.rows.key, self.rows.reason
        first = bisect_left(range(len(keys)), key, key=lambda i: keys[i].as_py())
        for i in range(first, len(keys)):
            if keys[i].as_py() != key:
                break
            if not reasons[i].is_valid:
                return int(self.numbers[i])
        raise KeyError(key)


class TableSource:
    """Images in or named by a table; see the module."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._lock = Lock()
        self._loaded: _Index | None = None

    def listing(self) -> Listing:
        """Every image of the table, sorted by key.

        Raises:
            SourceError: not a readable table, no column of images, or selectors that do not fit.
        """
        return listing_of(self._index().rows, self.address)

    def read(self, uri: str) -> bytes:
        """Encoded bytes of an image in the table (``#KEY``) or beside it (a path).

        Raises:
            ImageError: this image cannot be read, with the reason.
            StorageError: no space for the temporary copy that an unsorted table may need.
        """
        if not uri.startswith("#"):
            return read_file(_folder_of(self.address.path), uri)
        index = self._index()
        try:
            data = index.blobs.read(index.row_of(uri[1:])) if index.blobs else None
        except KeyError:
            raise ImageError("the table has no image with this key") from None
        except (OSError, pa.ArrowException) as error:
            raise ImageError(f"cannot be read from its table: {one_line(error)}") from error
        if data is None:
            raise ImageError(NO_IMAGE)
        return data

    def _index(self) -> _Index:
        with self._lock:
            if self._loaded is None:
                self._loaded = _index(self.address.path)
            return self._loaded


def _index(path: str) -> _Index:
    content = read_parquet(path) if path.lower().endswith(".parquet") else read_csv(path)
    if not len(content.present):
        raise SourceError(f"The table {path!r} has no rows.", hint="Give a table with a row per image.")
    rows = _rows(content, path)
    numbers = key_order(rows.key)
    blobs = Blobs(content.file, content.image, order=numbers) if content.file else None
    return _Index(rows=reject_repeats(rows.take(numbers)), numbers=numbers, blobs=blobs)


@dataclass(frozen=True, kw_only=True)
class _ImageFiles:
    """Facts of the rows whose image is a file, as arrays of equal length."""

    path: pa.Array
    size: pa.Array
    stamp: pa.Array
    reason: pa.Array  # null where the file is there


def _rows(content: Content, path: str) -> Rows:
    """The rows in file order. What is in the table is addressed ``#KEY``, so that the order of rows tells nothing."""
    n = len(content.present)
    paths = pc.if_else(pc.equal(content.paths, ""), pa.scalar(None, pa.string()), content.paths)
    is_file = pa.array(~content.present & _valid(paths))
    on_disk = _image_files(paths.filter(is_file).to_pylist(), _folder_of(path))
    paths = pc.replace_with_mask(paths, is_file, on_disk.path)
    key, nameless = _keys(content, paths, PurePosixPath(path).stem)
    reason = pc.replace_with_mask(pa.nulls(n, pa.string()), is_file, on_disk.reason)
    reason = reject(reason, ~content.present & ~_valid(paths), NO_IMAGE)
    table = files.file_info(path)
    return Rows(
        key=key,
        uri=pc.replace_with_mask(_join("#", key), is_file, on_disk.path),
        size=pc.replace_with_mask(pa.repeat(pa.scalar(table.size, pa.int64()), n), is_file, on_disk.size),
        stamp=pc.replace_with_mask(pa.repeat(table.stamp, n), is_file, on_disk.stamp),
        reason=reject(reason, nameless, NO_KEY),
        columns=content.columns,
        hidden=frozenset(("key", content.path_column)),
    )


def _keys(content: Content, paths: pa.Array, stem: str) -> tuple[pa.Array, np.ndarray]:
    """Keys [n], and a mask [n] of the rows that lack one although the table has a column of keys."""
    by_number = _join(stem + "#", pa.array(np.arange(len(paths))).cast(pa.string()))
    given = content.columns.get("key")
    if given is None:
        usable = _valid(paths) & ~(content.present & _shared(paths))
        nameless = np.zeros(len(paths), bool)
    else:
        usable = _valid(given) & pc.fill_null(pc.not_equal(given, ""), False).to_numpy(zero_copy_only=False)
        nameless = ~usable
    keys = pc.if_else(pa.array(usable), paths if given is None else given, by_number)
    return pc.utf8_normalize(keys, form="NFC"), nameless


def _image_files(paths: list[str], folder: str) -> _ImageFiles:
    checked = [_inside(path) for path in paths]
    found = iter(files.stat_files(folder, [path for path, reason in checked if reason is None]))
    infos = [next(found) if reason is None else None for _, reason in checked]
    reasons = [reason or (None if info else MISSING) for (_, reason), info in zip(checked, infos, strict=True)]
    return _ImageFiles(
        path=pa.array([path for path, _ in checked], pa.string()),
        size=pa.array([info.size if info else 0 for info in infos], pa.int64()),
        stamp=pa.array([info.stamp if info else "" for info in infos], pa.string()),
        reason=pa.array(reasons, pa.string()),
    )


def _inside(path: str) -> tuple[str, str | None]:
    """The path in its plainest form, and why it may not be read."""
    if "://" in path:
        return path, REMOTE
    plain = posixpath.normpath(path)
    if plain in (".", "..") or plain.startswith(("/", "../")):
        return path, OUTSIDE
    return (f"./{plain}" if plain.startswith("#") else plain), None  # "#" opens the address of a row


def _valid(values: pa.Array) -> np.ndarray:
    return np.asarray(values.is_valid())


def _shared(values: pa.Array) -> np.ndarray:
    """True [n] where the value occurs more than once; False for nulls."""
    codes = pc.fill_null(values.dictionary_encode().indices, -1).to_numpy() + 1
    counts = np.bincount(codes)
    counts[0] = 0
    return np.asarray(counts[codes] > 1)


def _join(prefix: str, values: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(pa.scalar(prefix), values, pa.scalar(""))


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0] or "/"
