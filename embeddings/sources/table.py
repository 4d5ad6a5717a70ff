"""A table of images: Parquet, Arrow, CSV or TSV.

Images: bytes in the table (a column ``image`` or the only one of type ``struct<bytes, path>`` or binary; a row without
bytes falls back to its path), else a column of paths (PATH_COLUMNS) relative to the folder that holds the table.
Key: column ``key``; else the path; else ``STEM#row``, also for rows whose path is missing or shared. Label and group:
columns ``label`` and ``group``, where an empty text is none, in Parquet as in CSV; class numbers of Hugging Face files
become names. All other columns of single values are kept as strings.
"""

from __future__ import annotations

import posixpath
from bisect import bisect_left
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embeddings import files
from embeddings.errors import ImageError, SourceError, one_line
from embeddings.sources import Address, Listing
from embeddings.sources.arrow_blobs import ArrowBlobs
from embeddings.sources.folder import read_file
from embeddings.sources.formats import BlobReader, Content, read_content
from embeddings.sources.rows import MISSING, Columns, Rows, key_order, listing_of, reject, reject_repeats

NO_IMAGE, NO_KEY = "no image", "no key"
OUTSIDE, REMOTE = "its path leaves the table's folder", "its path is a URL; only files beside the table are read"


@dataclass(frozen=True, kw_only=True)
class _Index:
    """The same sorted by key, and how to get at the bytes."""

    rows: Rows
    numbers: np.ndarray  # row number in the file, int64 [n]
    blobs: BlobReader | None

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
        return listing_of(self.rows(), self.address)

    def rows(self) -> Rows:
        """Every row, sorted by key, before selectors apply; raises as ``listing``."""
        return self._index().rows

    def read(self, uri: str) -> bytes:
        """Encoded bytes of an image in the table (``#KEY``) or beside it (a path).

        Raises:
            ImageError: this image cannot be read, with the reason.
            StorageError: no space for the temporary copy that an unsorted or compressed table may need.
        """
        if not uri.startswith("#"):
            return read_file(_folder_of(self.address.path), uri)
        try:
            index = self._index()
            data = index.blobs.read(index.row_of(uri[1:])) if index.blobs else None
        except KeyError:
            raise ImageError("the table has no image with this key") from None
        except SourceError as error:  # it was there when it was listed
            raise ImageError(error.message) from error
        except (OSError, ValueError, pa.ArrowException) as error:
            raise ImageError(f"cannot be read from its table: {one_line(error)}") from error
        if data is None:
            raise ImageError(NO_IMAGE)
        return data

    def span(self, uri: str) -> tuple[str, int, int] | None:
        """File, first byte and length of an image that lies as it is in an Arrow file; None for any other."""
        index = self._index()
        if not uri.startswith("#") or not isinstance(index.blobs, ArrowBlobs):
            return None
        found = index.blobs.span(index.row_of(uri[1:]))
        return found and (self.address.path, *found)

    def locate(self, uri: str) -> str:
        """``TABLE#KEY`` of an image in the table, path of one beside it."""
        return self.address.path + uri if uri.startswith("#") else f"{_folder_of(self.address.path).rstrip('/')}/{uri}"

    def _index(self) -> _Index:
        with self._lock:
            if self._loaded is None:
                self._loaded = _index(self.address.path)
            return self._loaded


def _index(path: str) -> _Index:
    content = read_content(path)
    if not len(content.present):
        raise SourceError(f"The table {path!r} has no rows.", hint="Give a table with a row per image.")
    if any(len(values) != len(content.present) for values in (content.paths, *content.columns.values())):
        raise SourceError(f"The columns of {path!r} differ in length.", hint="Make or download the file again.")
    try:
        rows = _rows(content, path)
        numbers = key_order(rows.key)
        blobs = content.blobs(numbers) if content.blobs else None
        return _Index(rows=reject_repeats(rows.take(numbers)), numbers=numbers, blobs=blobs)
    except pa.ArrowException as error:  # text that is not UTF-8, among others
        raise SourceError(
            f"The table {path!r} does not read: {one_line(error)}", hint="Make or download the file again."
        ) from None


def _rows(content: Content, path: str) -> Rows:
    """The rows in file order. What is in the table is addressed ``#KEY``, so that the order of rows tells nothing."""
    found = find_images(content, _folder_of(path))
    key, nameless = _keys(content, found.paths, PurePosixPath(path).stem)
    rows = found.rows(key, content.columns, files.file_info(path))
    return replace(rows, reason=reject(rows.reason, nameless, NO_KEY), hidden=frozenset(("key", content.path_column)))


@dataclass(frozen=True, kw_only=True)
class FoundImages:
    """Where the images of a table lie: in it, or in files of their own."""

    paths: pa.Array  # string [n]: in their plainest form where they are read, as they stand elsewhere
    is_file: pa.Array  # bool [n]: not in the table, but a path is given
    sizes: pa.Array  # of those that are files, as the stamps
    stamps: pa.Array
    reasons: pa.Array  # string [n]: why there is no image; null where there is one

    def rows(self, key: pa.Array, columns: Columns, table: files.FileInfo) -> Rows:
        """The rows in file order, under these keys [n]."""
        n = len(key)
        return Rows(
            key=key,
            uri=pc.if_else(self.is_file, self.paths, _join("#", key)),
            size=pc.replace_with_mask(pa.repeat(pa.scalar(table.size, pa.int64()), n), self.is_file, self.sizes),
            stamp=pc.replace_with_mask(pa.repeat(table.stamp, n), self.is_file, self.stamps),
            reason=self.reasons,
            columns=columns,
        )


def find_images(content: Content, folder: str) -> FoundImages:
    """Where the images of a table are; paths are relative to ``folder``, or absolute and below it."""
    paths = pc.if_else(pc.equal(content.paths, ""), pa.scalar(None, pa.string()), content.paths)
    is_file = pa.array(~content.present & _valid(paths))
    checked = [_inside(path, folder) for path in paths.filter(is_file).to_pylist()]
    found = iter(files.stat_files(folder, [path for path, reason in checked if reason is None]))
    infos = [next(found) if reason is None else None for _, reason in checked]
    reasons = [reason or (None if info else MISSING) for (_, reason), info in zip(checked, infos, strict=True)]
    reason = pc.replace_with_mask(pa.nulls(len(paths), pa.string()), is_file, pa.array(reasons, pa.string()))
    return FoundImages(
        paths=pc.replace_with_mask(paths, is_file, pa.array([path for path, _ in checked], pa.string())),
        is_file=is_file,
        sizes=pa.array([info.size if info else 0 for info in infos], pa.int64()),
        stamps=pa.array([info.stamp if info else "" for info in infos], pa.string()),
        reasons=reject(reason, ~content.present & ~_valid(paths), NO_IMAGE),
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


def _inside(path: str, folder: str) -> tuple[str, str | None]:
    """The path in its plainest form, relative to the folder, and why it may not be read."""
    path = path.removeprefix(f"{folder.rstrip('/')}/")
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
