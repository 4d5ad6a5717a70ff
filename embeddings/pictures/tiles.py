"""Where tiles lie in an image and what they are called; pure functions.

Tiles are squares of ``edge`` pixels, ``round(edge (1 - overlap))`` apart. The last column and row are moved inwards to
the border, so that every pixel is in a tile and none is padded; where a side is shorter than the edge, tiles are as
short as that side, never enlarged. Tiles are numbered row by row, and the rows of a store are ordered by (key of the
image, number of the tile).

    key    KEY#left,top,width,height
    uri    URI#xywh=left,top,width,height      (a media fragment: W3C, Media Fragments URI 1.0, section 4.2.2)
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from embeddings import files
from embeddings.errors import ImageError

MAX_TILES = 10_000  # of one image
_TILE_KEY = re.compile(r"(.*)#\d+,\d+,\d+,\d+", re.DOTALL)
_FRAGMENT = re.compile(r"(.*)#xywh=(\d+),(\d+),(\d+),(\d+)", re.DOTALL)


class Box(NamedTuple):
    """A rectangle of an image, in pixels of the upright picture."""

    left: int
    top: int
    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.left},{self.top},{self.width},{self.height}"

    @property
    def corners(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom, as Pillow wants them."""
        return self.left, self.top, self.left + self.width, self.top + self.height


def tile_boxes(width: int, height: int, *, edge: int, overlap: float = 0.0) -> list[Box]:
    """The tiles of an image of this size, row by row.

    Raises:
        ImageError: more than MAX_TILES of them.
    """
    stride = max(1, round(edge * (1 - overlap)))
    n = math.prod(1 + max(0, -(-(length - edge) // stride)) for length in (width, height))
    if n > MAX_TILES:
        raise ImageError(f"{n:,} tiles of {edge} pixels in {width} x {height}, more than {MAX_TILES:,}")
    columns, rows = (_starts(length, edge, stride) for length in (width, height))
    return [Box(left, top, min(edge, width), min(edge, height)) for top in rows for left in columns]


def tile_key(key: str, box: Box) -> str:
    """Key of a tile of the image with this key."""
    return f"{key}#{box}"


def split_key(key: str) -> str:
    """Key of the image that a tile with this key was cut from; other keys as they are."""
    found = _TILE_KEY.fullmatch(key)
    return found[1] if found else key


def tile_uri(uri: str, box: Box) -> str:
    """Uri of a part of the image at this uri."""
    return f"{uri}#xywh={box}"


def split_uri(uri: str) -> tuple[str, Box | None]:
    """Uri of the image, and which part of it is meant; the inverse of ``tile_uri``.

    Only for uris of addresses with tiles or a region of interest: elsewhere a file may happen to have such a name.
    """
    found = _FRAGMENT.fullmatch(uri)
    if not found:
        return uri, None
    left, top, width, height = (int(number) for number in found.groups()[1:])
    return found[1], Box(left, top, width, height)


def tile_sha256(sha256: str, box: Box) -> str:
    """Digest that stands for a part of the file with this digest: parts of one file are no copies of each other."""
    return files.digest([sha256, list(box)])


def _starts(length: int, edge: int, stride: int) -> Sequence[int]:
    return [*range(0, length - edge, stride), length - edge] if length > edge else [0]
