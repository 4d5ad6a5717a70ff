"""Where an image lies, in terms that other programs understand: a file, and a byte range or an entry in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from embeddings import files
from embeddings.pictures.tiles import Box, tile_uri
from embeddings.pictures.views import split_picture
from embeddings.sources import SUFFIXES, Source
from embeddings.sources.folder import FolderSource
from embeddings.sources.huggingface import HuggingFaceSource
from embeddings.sources.paths import PathList
from embeddings.sources.table import TableSource
from embeddings.sources.tar import TarSource


@dataclass(frozen=True, kw_only=True)
class Place:
    """One image: the whole of a file, or a part of what is in it."""

    address: str  # as ``Source.locate`` writes it: all of this in one line
    path: str  # absolute path or URL of the file, or the name of a data set
    offset: int | None = None  # of the first byte in it, where it lies there as it is
    length: int | None = None  # in bytes
    entry: str | None = None  # key of the row of a table or data set
    box: Box | None = None  # the part of the picture, in pixels of the upright image

    @property
    def inside(self) -> bool:
        """True for an image that is not a file of its own."""
        return self.offset is not None or self.entry is not None

    @property
    def file(self) -> Path | None:
        """The local file that is this image and nothing else, if there is one."""
        if self.inside or self.box or files.is_remote(self.path):
            return None
        path = Path(self.path)
        return path if path.is_file() else None


def find_place(source: Source, uri: str) -> Place:
    """The place of the image at a uri of a selection, which the source has.

    Raises:
        ImageError: it has not.
    """
    uri, box = split_picture(source, uri)
    located, inner = source.locate(uri), uri.partition("#")[2]
    path, address = located.removesuffix(f"#{inner}"), tile_uri(located, box) if box else located
    if path == located or not _leads_inside(source, uri):
        return Place(address=address, path=located, box=box)
    entry = None if path.lower().endswith(SUFFIXES["tar"]) else inner
    span = source.span(uri) if isinstance(source, TarSource | PathList | TableSource | HuggingFaceSource) else None
    if span is None:
        return Place(address=address, path=path, entry=inner, box=box)
    return Place(address=address, path=span[0], offset=span[1], length=span[2], entry=entry, box=box)


def _leads_inside(source: Source, uri: str) -> bool:
    """True if what follows a ``#`` is a place in a file: in a folder it may stand in a file's name."""
    if isinstance(source, TarSource | PathList):  # their uris quote it elsewhere
        return "#" in uri
    return uri.startswith("#") and not isinstance(source, FolderSource)
