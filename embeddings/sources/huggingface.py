"""Data sets of the Hugging Face ``datasets`` library, saved to disk or by name.

    saved/              a folder that ``save_to_disk`` wrote, of one data set or of a dictionary of splits; read without
                        the library
    hf:NAME             what ``load_dataset(NAME)`` gives; NAME may be a local folder
    hf:NAME@CONFIG      one configuration of it

All splits come together, told apart by the column ``split`` (``saved/#split=train``), which replaces any column of that
name. Key: ``SPLIT#row``; a lone data set that does not tell its split is ``train``. Everything else is as in an Arrow
table (see ``table``), which is what both kinds are.

An image whose bytes are not in the data set is read by its path if that lies below the folder, or in the library's own
cache; anywhere else it is refused, because the path is only what somebody wrote into a file. Code that comes with a
data set is never run.
"""

from __future__ import annotations

import json
import sys
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embeddings import files
from embeddings.errors import ImageError, MissingExtraError, SourceError, install_command, one_line
from embeddings.sources import SAVED_MARKS, Address, Listing
from embeddings.sources.arrow_blobs import ArrowBlobs
from embeddings.sources.folder import read_file
from embeddings.sources.formats import BlobReader, Content, feature_names, read_arrow
from embeddings.sources.rows import Rows, joined, key_order, listing_of
from embeddings.sources.table import NO_IMAGE, find_images

_DICT, _INFO = SAVED_MARKS
_STATE = "state.json"
_SAVE_AGAIN = "Write it again with save_to_disk of the datasets library."


@dataclass(frozen=True, kw_only=True)
class _Split:
    """A split, as Arrow files one after the other."""

    name: str
    paths: Sequence[str]
    class_names: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _DataSet:
    """Where a data set lies."""

    splits: Sequence[_Split]
    folders: Sequence[str]  # where the image files may lie that it names


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One Arrow file of a split."""

    split: str
    path: str
    start: int  # number of its first row in the split
    rows: Rows
    blobs: BlobReader | None
    folder: str  # of the images whose bytes are not in the file
    paths: pa.Array  # of those below the folder; null where there is none

    def read(self, row: int) -> bytes:
        """The image in a row of the file."""
        data = self.blobs.read(row) if self.blobs else None
        if data is None and self.paths[row].is_valid:
            return read_file(self.folder, self.paths[row].as_py())
        if data is None:
            raise ImageError(NO_IMAGE)
        return data


class HuggingFaceSource:
    """A data set of Hugging Face; see the module."""

    def __init__(self, address: Address, find: Callable[[], _DataSet]) -> None:
        self.address = address
        self._find = find
        self._lock = Lock()
        self._loaded: dict[str, list[_Part]] | None = None

    def listing(self) -> Listing:
        """Every image of all splits, sorted by key.

        Raises:
            SourceError: not readable, no column of images, or selectors that do not fit.
            StorageError: no space for the temporary copy of a remote file.
        """
        parts = [part.rows for parts in self._parts().values() for part in parts]
        if not any(map(len, parts)):
            raise SourceError(f"The data set {self.address.path!r} has no rows.", hint="Give one that holds images.")
        rows = joined(parts)
        return listing_of(rows.take(key_order(rows.key)), self.address)

    def read(self, uri: str) -> bytes:
        """Encoded bytes of the image ``#SPLIT#row``.

        Raises:
            ImageError: this image cannot be read, with the reason.
            StorageError: no space for the temporary copy that a compressed file needs.
        """
        try:
            part, row = self._row_of(uri)
            return part.read(row)
        except SourceError as error:  # it was there when it was listed
            raise ImageError(error.message) from error
        except (OSError, ValueError, pa.ArrowException) as error:
            raise ImageError(f"cannot be read from its table: {one_line(error)}") from error

    def span(self, uri: str) -> tuple[str, int, int] | None:
        """File, first byte and length of an image that the data set holds as it is; None for any other."""
        part, row = self._row_of(uri)
        found = part.blobs.span(row) if isinstance(part.blobs, ArrowBlobs) else None
        return found and (part.path, *found)

    def locate(self, uri: str) -> str:
        """``ADDRESS#SPLIT#row``, or the path of an image that is a file."""
        part, row = self._row_of(uri)
        path = part.paths[row].as_py()
        return self.address.path + uri if path is None else files.join(part.folder, path)

    def _row_of(self, uri: str) -> tuple[_Part, int]:
        split, _, digits = uri.removeprefix("#").rpartition("#")
        parts = self._parts().get(split, [])
        number = int(digits) if digits.isdecimal() else -1
        found = bisect_right(parts, number, key=lambda part: part.start) - 1
        if found < 0 or number - parts[found].start >= len(parts[found].rows):
            raise ImageError("the data set has no image with this key")
        return parts[found], number - parts[found].start

    def _parts(self) -> dict[str, list[_Part]]:
        with self._lock:
            if self._loaded is None:
                found = self._find()
                self._loaded = {split.name: _parts_of(split, found) for split in found.splits}
            return self._loaded


def open_saved(address: Address) -> HuggingFaceSource:
    """The data set in a folder that ``save_to_disk`` wrote."""
    return HuggingFaceSource(address, lambda: _saved(address.path))


def open_named(address: Address) -> HuggingFaceSource:
    """The data set ``hf:NAME`` or ``hf:NAME@CONFIG``, by the ``datasets`` library.

    Raises:
        MissingExtraError: the library is not installed.
    """
    if find_spec("datasets") is None:
        raise MissingExtraError(
            f"{address.path} needs the package datasets.",
            hint=f"{install_command('hf')}, or save the data set elsewhere with save_to_disk and give its folder, "
            "which needs no package.",
        )
    whole = address.path.removeprefix("hf:")
    name, _, config = (whole, "", "") if files.is_folder(whole) else whole.partition("@")
    if files.is_folder(name):
        name = files.absolute(name)
    path = "hf:" + "@".join(filter(None, [name, config]))
    return HuggingFaceSource(replace(address, path=path), lambda: _named(name, config or None))


def _saved(folder: str) -> _DataSet:
    if not files.exists(files.join(folder, _DICT)):
        return _DataSet(splits=[_saved_split(folder, None)], folders=[folder])
    names = _json(folder, _DICT).get("splits")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _not_saved(folder, _DICT)
    splits = [_saved_split(files.join(folder, name), name) for name in dict.fromkeys(names)]
    return _DataSet(splits=splits, folders=[folder])


def _saved_split(folder: str, name: str | None) -> _Split:
    state = _json(folder, _STATE)
    try:
        paths = [files.join(folder, entry["filename"]) for entry in state["_data_files"]]
        names = feature_names(_json(folder, _INFO).get("features") or {})
    except (AttributeError, KeyError, TypeError):
        raise _not_saved(folder, _STATE) from None
    if state.get("_indices_data_files"):
        raise SourceError(f"{folder!r} was saved with a selection of rows, by an old version.", hint=_SAVE_AGAIN)
    return _Split(name=name or str(state.get("_split") or "train"), paths=paths, class_names=names)


def _json(folder: str, name: str) -> dict[str, Any]:
    try:
        document = json.loads(files.read_bytes(files.join(folder, name)))
    except (OSError, ValueError, RecursionError):
        raise _not_saved(folder, name) from None
    if not isinstance(document, dict):
        raise _not_saved(folder, name)
    return document


def _not_saved(folder: str, name: str) -> SourceError:
    return SourceError(f"{folder!r} is not a data set saved to disk: its {name} does not read.", hint=_SAVE_AGAIN)


def _named(name: str, config: str | None) -> _DataSet:
    """Has the library download and convert the data set, or find it in its cache."""
    import datasets
    from huggingface_hub.constants import HF_HUB_CACHE

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(name, config, keep_in_memory=False)
    except Exception as error:  # it raises nearly anything, for want of a network, a file or a column
        wanted = ", ".join(repr(part) for part in (name, config) if part)
        raise SourceError(
            f"hf:{name} cannot be loaded: {one_line(error)}",
            hint="Check the name and the network. Without one, run on a machine that has it: datasets.load_dataset("
            f"{wanted}).save_to_disk('FOLDER'), copy the folder here, and give that.",
        ) from error
    splits = [
        _Split(name=str(split), paths=[file["filename"] for file in data.cache_files]) for split, data in found.items()
    ]
    local = [name] if files.is_folder(name) else []
    return _DataSet(splits=splits, folders=[*local, str(datasets.config.DOWNLOADED_DATASETS_PATH), HF_HUB_CACHE])


def _parts_of(split: _Split, data: _DataSet) -> list[_Part]:
    parts: list[_Part] = []
    for path in split.paths:
        start = parts[-1].start + len(parts[-1].rows) if parts else 0
        parts.append(_part(split, path, start=start, folders=data.folders))
    return parts


def _part(split: _Split, path: str, *, start: int, folders: Sequence[str]) -> _Part:
    content = read_arrow(path, names=split.class_names)
    n = len(content.present)
    key = pc.binary_join_element_wise(
        pa.scalar(f"{split.name}#"), pa.array(np.arange(start, start + n)).cast(pa.string()), pa.scalar("")
    )
    folder = _folder_of_images(content, folders)
    found = find_images(content, folder)
    columns = content.columns | {"split": pa.repeat(split.name, n)}
    rows = found.rows(key, columns, files.file_info(path))
    readable = pc.and_(found.is_file, found.reasons.is_null())
    return _Part(
        split=split.name,
        path=path,
        start=start,
        rows=replace(rows, uri=pc.binary_join_element_wise(pa.scalar("#"), key, pa.scalar(""))),
        blobs=content.blobs(np.arange(n)) if content.blobs else None,
        folder=folder,
        paths=pc.if_else(readable, found.paths, pa.scalar(None, pa.string())),
    )


def _folder_of_images(content: Content, folders: Sequence[str]) -> str:
    """The folder that holds the first image which is a file; all images of an Arrow file come from one place."""
    outside = content.paths.filter(pa.array(~content.present)).drop_null()
    first = outside[0].as_py() if len(outside) else ""
    return next((folder for folder in folders if first.startswith(f"{folder.rstrip('/')}/")), folders[0])
