"""What is to be seen of the images of a source: all of each, the box around a region of interest, or tiles.

A region of interest is a mask: one for all images, as of a fixed camera, or a folder with one per image, under the
image's key with any image suffix (``lot/7.jpg.png``, else ``lot/7.png``, for ``lot/7.jpg``). What is not black is
inside; transparent parts count as white. A mask of another size is stretched to the image, nearest pixel. A tile is
kept when at least half of its pixels are inside; without tiles the image is cropped to the smallest box around the
region.

A uri with a media fragment (``lot/7.jpg#xywh=512,0,512,512``) names a part of an image; see ``tiles``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from embeddings import files
from embeddings.errors import ImageError, SourceError
from embeddings.pictures.decode import Decoded, decode
from embeddings.pictures.facts import image_facts
from embeddings.pictures.tiles import Box, split_uri, tile_boxes, tile_key, tile_sha256, tile_uri
from embeddings.sources import Address, Source, View, holds_vectors, open_source, parse_address
from embeddings.sources.folder import IMAGE_SUFFIXES, read_file

OUTSIDE = "no tile lies in the region of interest"
CHANGED = "changed since it was selected"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture to embed: an image, or a part of one."""

    key: str
    uri: str
    parent: str | None  # key of the image that a tile was cut from
    group: str | None
    box: Box | None  # None for the whole image
    decoded: Decoded

    @property
    def image(self) -> Image.Image:
        """RGB."""
        return self.decoded.image

    def row(self, sha256: str) -> dict[str, Any]:
        """What a store records of it; ``sha256`` is the file's."""
        names = {"key": self.key, "uri": self.uri, "parent": self.parent, "group": self.group}
        file = sha256 if self.box else None
        return {**names, "sha256": part_sha256(sha256, self.box), "file": file, **image_facts(self.decoded)}


class RegionOfInterest:
    """Masks of the images of a source; see the module. Picklable."""

    def __init__(self, path: str, masks: Mapping[str, str], single: np.ndarray | None) -> None:
        self.path = path
        self._masks = masks  # path below the folder, by the same without its suffix
        self._single = single  # [height, width] bool, for all images

    @classmethod
    def open(cls, path: str) -> RegionOfInterest:
        """The mask, or the folder of masks, at a path.

        Raises:
            SourceError: nothing there, a single mask that is no image or all black, or two masks for one key.
        """
        if files.is_folder(path):
            return cls(path, _masks_in(path), None)
        try:
            mask = _read_mask(*_folder_and_name(path))
        except ImageError as error:
            raise SourceError(f"The mask {path!r} cannot be used: {error.message}.", hint="Check --roi.") from None
        if not mask.any():
            raise SourceError(f"The mask {path!r} is all black.", hint="White is the region of interest.")
        return cls(path, {}, mask)

    @property
    def digest(self) -> str:
        """Changes when a mask does."""
        if self._single is not None:
            return files.digest([list(self._single.shape), files.digest_bytes(np.packbits(self._single).tobytes())])
        found = files.list_files(self.path)
        return files.digest([[info.path, info.size, info.stamp] for info in found])

    def mask(self, key: str, size: tuple[int, int]) -> np.ndarray:
        """Where the image with this key is of interest: bool [height, width].

        Raises:
            ImageError: it has no mask, or one that cannot be read.
        """
        mask = self._single
        if mask is None:
            name = self._masks.get(key) or self._masks.get(_without_suffix(key))
            if name is None:
                raise ImageError("no mask for its region of interest")
            try:
                mask = _read_mask(self.path, name)
            except ImageError as error:
                raise ImageError(f"mask of its region of interest: {error.message}") from error
        return _stretched(mask, size)


def load_image(source: Source, uri: str, *, sha256: str | None = None) -> Image.Image:
    """The picture at a uri of a store: read, decoded as the source's address says, and cut if the uri names a part.

    With the ``sha256`` of the row that was selected, another picture in its place is refused.

    Raises:
        ImageError: it cannot be read or decoded, has changed, or has become smaller than the part.
    """
    data, box = read_file_of(source, uri, sha256=sha256)
    return decode_part(data, box, view=source.address.view)


def read_file_of(source: Source, uri: str, *, sha256: str | None = None) -> tuple[bytes, Box | None]:
    """Encoded bytes of the image that the picture at a uri of a store is or was cut from, and which part it is.

    Raises:
        ImageError: it cannot be read, or has changed since its row was written with this ``sha256``.
    """
    place, box = split_picture(source, uri)
    data = source.read(place)
    if sha256 is not None and sha256 != part_sha256(files.digest_bytes(data), box):
        raise ImageError(CHANGED)
    return data, box


def decode_part(data: bytes, box: Box | None, *, view: View) -> Image.Image:
    """RGB picture of a part of an encoded image; of all of it without a box.

    Raises:
        ImageError: it cannot be decoded, or is smaller than the part.
    """
    image = decode(data, white=view.white)
    if box is None:
        return image
    if box.left + box.width > image.width or box.top + box.height > image.height:
        raise ImageError(f"{image.width} x {image.height} pixels, which do not hold the part {box}")
    return image.crop(box.corners)


def split_picture(source: Source, uri: str) -> tuple[str, Box | None]:
    """Uri of the image that a picture is or was cut from, and which part of it; None for the whole."""
    view = source.address.view
    return split_uri(uri) if view.tiles or view.roi else (uri, None)


def locator(address: str | Address) -> Callable[[str], str]:
    """Opens a source; gives the function from a uri of its store to its absolute address, for people and programs.

    Raises:
        SourceError: the source is gone.
    """
    parsed = parse_address(address) if isinstance(address, str) else address
    if holds_vectors(parsed):
        path = files.absolute(parsed.path)
        return lambda uri: path + uri
    source = open_source(parsed)

    def locate(uri: str) -> str:
        place, box = split_picture(source, uri)
        return tile_uri(source.locate(place), box) if box else source.locate(place)

    return locate


def cut(
    decoded: Decoded, record: Mapping[str, Any], *, view: View, region: RegionOfInterest | None = None
) -> Iterator[Picture]:
    """The pictures to embed of one decoded image, in order.

    Args:
        decoded: The image; every pixel of it if it is to be cut.
        record: Its row of the listing (schema LISTING).
        view: What is to be seen of it.
        region: Of ``view.roi``.

    Raises:
        ImageError: too many tiles, none in the region of interest, or no mask for it.
    """
    key, uri, tiled = record["key"], record["uri"], view.tiles is not None
    if not (tiled or region):
        yield Picture(key=key, uri=uri, parent=None, group=record["group"], box=None, decoded=decoded)
        return
    if decoded.scale > 1:
        raise ValueError(f"cannot cut an image decoded at 1/{decoded.scale}: decode it in full")
    for box in _boxes(key, decoded.size, view, region):
        yield Picture(
            key=tile_key(key, box) if tiled else key,
            uri=tile_uri(uri, box),
            parent=key if tiled else None,
            group=group_of(record, tiled=tiled),
            box=box,
            decoded=replace(decoded, image=decoded.image.crop(box.corners), size=(box.width, box.height)),
        )


def group_of(record: Mapping[str, Any], *, tiled: bool) -> str | None:
    """Group of a picture: its image's. Tiles of an image without one form a group: splits then keep them together."""
    group: str | None = record["group"]
    return record["key"] if tiled and group is None else group


def part_sha256(sha256: str, box: Box | None) -> str:
    """Digest that a row of a file with this digest is recorded by, whole or in part."""
    return tile_sha256(sha256, box) if box else sha256


def _boxes(key: str, size: tuple[int, int], view: View, region: RegionOfInterest | None) -> list[Box]:
    mask = region.mask(key, size) if region else None
    if not view.tiles:
        return [_bounds(mask)] if mask is not None else []
    boxes = tile_boxes(*size, edge=view.tiles, overlap=view.overlap)
    kept = boxes if mask is None else [box for box in boxes if _is_inside(box, mask)]
    if not kept:
        raise ImageError(OUTSIDE)
    return kept


def _is_inside(box: Box, mask: np.ndarray) -> bool:
    left, top, right, bottom = box.corners
    return bool(2 * np.count_nonzero(mask[top:bottom, left:right]) >= box.width * box.height)


def _bounds(mask: np.ndarray) -> Box:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        raise ImageError("nothing lies in the region of interest")
    left, top = int(columns[0]), int(rows[0])
    return Box(left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1)


def _read_mask(folder: str, name: str) -> np.ndarray:
    image = decode(read_file(folder, name), white=1)  # also in 16 bits whatever is not 0 is inside
    return np.asarray(np.asarray(image).any(axis=2))


def _stretched(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mask [h, w] at (width, height), nearest pixel."""
    width, height = size
    if mask.shape == (height, width):
        return mask
    rows, columns = (
        (2 * np.arange(length) + 1) * n // (2 * length) for length, n in zip((height, width), mask.shape, strict=True)
    )
    return mask[np.ix_(rows, columns)]


def _masks_in(folder: str) -> dict[str, str]:
    masks: dict[str, str] = {}
    for info in files.list_files(folder):
        if PurePosixPath(info.path).suffix.lower() not in IMAGE_SUFFIXES:
            continue
        other = masks.setdefault(_without_suffix(info.path), info.path)
        if other != info.path:
            raise SourceError(f"Two masks for one image in {folder!r}: {other} and {info.path}.", hint="Keep one.")
    return masks


def _without_suffix(key: str) -> str:
    suffix = PurePosixPath(key).suffix
    plain = key.removesuffix(suffix) if suffix.lower() in IMAGE_SUFFIXES else key
    return unicodedata.normalize("NFC", plain)


def _folder_and_name(path: str) -> tuple[str, str]:
    folder, _, name = files.absolute(path).rpartition("/")
    return folder or "/", name
