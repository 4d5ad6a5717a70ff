"""The images of a selection as they lie in their sources: each read once and checked to be the one that was selected.

An image comes with the bytes it has in its source; a tile or a region of interest, which has none of its own, as PNG:
RGB, upright, 8 bits, on white. What cannot be read or has changed is kept with its reason, never passed over.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from PIL import Image

from curate.exports.manifest import described
from curate.exports.places import Place, find_place
from curate.results import Selection
from embeddings import files
from embeddings.errors import ImageError, UsageError
from embeddings.pictures.decode import format_of
from embeddings.pictures.views import decode_part, read_file_of
from embeddings.pipeline.batches import core_count
from embeddings.progress import Progress, silent
from embeddings.sources import Source, open_source

ERRORS = pa.schema([("source", pa.string()), ("key", pa.string()), ("uri", pa.string()), ("reason", pa.string())])
MAX_ERRORS = 0.05  # share of the selected images that one may have to do without
AHEAD = 4  # images per thread that are read before they are asked for
_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "JPEG2000": ".jp2"}


def open_sources(selection: Selection) -> dict[str, Source]:
    """The sources that a selection's images come from, by name.

    Raises:
        UsageError: the selection has no address for one of them.
        SourceError: a source is gone.
    """
    wanted = set(selection.rows()["source"].to_pylist())
    unknown = sorted(name for name in wanted if not selection.sources.get(name))
    if unknown:
        raise UsageError(
            f"The selection has images from {unknown[0]!r}, but no address for it.", hint="Select again from sources."
        )
    return {name: open_source(selection.sources[name]) for name in sorted(wanted)}


@dataclass(frozen=True, kw_only=True)
class Original:
    """One image."""

    row: int  # of the selection
    data: bytes  # a whole image file
    suffix: str  # that fits its format, as ".jpg"
    place: Place


class Originals:
    """Every image of a selection, in rank order, once; then ``errors`` tells of those that could not be read."""

    def __init__(self, selection: Selection, *, workers: int | None = None, progress: Progress = silent) -> None:
        """Opens the sources; reads nothing. Raises as ``open_sources``."""
        self.selection, self.sources = selection, open_sources(selection)
        self.places: dict[int, Place] = {}  # by row, of what was read so far
        self._reasons: dict[int, str] = {}
        self._threads, self._progress = workers or core_count(), progress

    def __len__(self) -> int:
        return len(self.selection)

    def __iter__(self) -> Iterator[Original]:
        return self.read(np.arange(len(self)))

    def read(self, rows: np.ndarray) -> Iterator[Original]:
        """The images of some rows [r] of the selection that can be read, in their order.

        Raises:
            StorageError: no space for the temporary copy that a remote or compressed table may need.
        """
        step = AHEAD * self._threads
        with ThreadPoolExecutor(self._threads) as pool:
            for start in range(0, len(rows), step):
                part = rows[start : start + step].tolist()
                for row, found in zip(part, pool.map(self._read, part), strict=True):
                    if isinstance(found, Original):
                        self._reasons.pop(row, None)
                        self.places[row] = found.place
                        yield found
                    else:
                        self.places.pop(row, None)
                        self._reasons[row] = found
                self._progress("export", start + len(part), len(rows))

    def holds(self, row: int, data: bytes) -> bool:
        """True if these bytes are the image of a row of the selection, which then counts as read.

        Bytes that are not those of the source, as a tile's, are held against what the source gives now.
        """
        name, uri, sha256 = (column[row] for column in self._columns)
        if files.digest_bytes(data) != sha256:
            found = self._read(row)
            if isinstance(found, str) or found.data != data:
                return False
        try:
            self.places[row] = find_place(self.sources[name], uri)
        except ImageError:  # gone since
            return False
        return True

    def remaining(self) -> np.ndarray:
        """Rows [r] of the selection that were not read so far."""
        return np.setdiff1d(np.arange(len(self)), np.array(list(self.places), np.int64))

    def _read(self, row: int) -> Original | str:
        """The image in a row, or the reason why there is none."""
        name, uri, sha256 = (column[row] for column in self._columns)
        source = self.sources[name]
        try:
            data, box = read_file_of(source, uri, sha256=sha256)
            if box:
                data = _png(decode_part(data, box, view=source.address.view))
            return Original(row=row, data=data, suffix=_suffix(data), place=find_place(source, uri))
        except ImageError as error:
            return error.message

    @cached_property
    def table(self) -> pa.Table:
        """The rows of the selection with what their sources say of them; see ``manifest``."""
        return described(self.selection, self.sources)

    def kept(self) -> pa.Table:
        """The rows of ``table`` whose image was read, so far."""
        return self.table.take(pa.array(sorted(self.places), pa.int64()))

    @cached_property
    def _columns(self) -> list[list[str]]:
        return [self.selection.rows()[name].to_pylist() for name in ("source", "uri", "sha256")]

    @property
    def errors(self) -> pa.Table:
        """Schema ERRORS: the images that could not be read, in rank order."""
        rows = sorted(self._reasons)
        reasons = pa.array([self._reasons[row] for row in rows], pa.string())
        lost = self.selection.rows().select(ERRORS.names[:3]).take(pa.array(rows, pa.int64()))
        return lost.append_column("reason", reasons).cast(ERRORS)


def _suffix(data: bytes) -> str:
    name = format_of(data)
    return _SUFFIXES.get(name, f".{name.lower()}")


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
