"""Pixels of 16 bits to 8: v' = min(255, round(255 v / white)), where ``white`` is the value that is to be white.

Pillow keeps 16 bits of gray pixels only; of color it keeps the high byte. The low byte is read by opening the file a
second time with the byte order swapped. All of it strip by strip, so that a large image needs little more than itself.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, cast

import numpy as np
from PIL import Image

from embeddings.errors import ImageError

FULL = 65_535
STRIP_PIXELS = 1 << 17  # a strip and what is computed from it stay in the processor's cache

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262
_SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_LOW_BYTES = {  # layout that reads high bytes -> the one that reads low bytes
    f"{bands};16{order}": f"{bands};16{other}" for bands in ("RGB", "RGBA", "RGBX") for order, other in _SWAPPED.items()
} | {"LA;16B": "RGBA"}  # two bytes of gray, two of alpha, as four bands: the low byte of gray is the second

Layout = tuple[Any, ...]  # how Pillow will unpack the file: the name of the raw mode first


def strips(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Boxes (left, top, right, bottom) of at most STRIP_PIXELS that make up an image in the order of its pixels."""
    width, height = size
    columns = min(width, STRIP_PIXELS)
    rows = STRIP_PIXELS // columns if columns == width else 1
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield left, top, min(left + columns, width), min(top + rows, height)


def layout_of(image: Image.Image) -> Layout:
    """How an image that is opened but not loaded will be unpacked; empty if Pillow does not say."""
    tiles = getattr(image, "tile", None)
    args = tiles[0].args if tiles else ()
    return args if isinstance(args, tuple) else (args,)


def has_wide_color(layout: Layout) -> bool:
    """True if color of 16 bits would lose its low byte."""
    return bool(layout) and re.search(r"(RGB|LA).*;16[BLN]$", str(layout[0])) is not None


def gray_of(image: Image.Image, layout: Layout, white: int | None) -> Image.Image:
    """Gray of 16 bits, or of 32 that use no more, as L; as LA where the file names a transparent value.

    Raises:
        ImageError: values outside 0..65535, whose brightness is not defined.
    """
    _check_range(image)
    tags = getattr(image, "tag_v2", {})
    if white is None:
        white = 4095 if tags.get(_BITS_PER_SAMPLE) == (12,) else FULL
    elif image.format == "PPM" and len(layout) == 2 and layout[1] != FULL:
        white = FULL  # Pillow has scaled it by the maximum that the file names
    table = ramp(white)
    gray = _look_up(image, 255 - table if tags.get(_PHOTOMETRIC) == 0 else table)  # 0 is white; Pillow overlooks it
    color = image.info.get("transparency")
    if color is not None:
        gray.putalpha(_look_up(image, np.where(np.arange(FULL + 1) == color, 0, 255).astype(np.uint8)))
    return gray


def brighten(high: Image.Image, again: Image.Image, white: int) -> None:
    """Turns the high bytes of 16-bit color, RGB or RGBA, into v'; alpha keeps its high byte.

    Args:
        high: The image as Pillow reads it; changed in place.
        again: The same file, opened but not loaded.
        white: The value that is to be white.

    Raises:
        ImageError: a layout whose low bytes cannot be had.
    """
    name = str(layout_of(again)[0])
    if name not in _LOW_BYTES:
        raise ImageError(f"16-bit color stored as {name}: white = {white} cannot be applied; convert to 8 bits")
    low, table = _low_bytes(again, _LOW_BYTES[name]), ramp(white)
    for box in strips(high.size):
        pixels = np.array(high.crop(box))
        values = pixels[..., :3].astype(np.uint16) << 8 | np.asarray(low.crop(box))[..., :3]
        pixels[..., :3] = table[values]
        high.paste(Image.fromarray(pixels), box)
    color = high.info.get("transparency")
    if isinstance(color, tuple):
        high.info["transparency"] = tuple(int(table[v]) for v in color)


@lru_cache
def ramp(white: int) -> np.ndarray:
    """The formula of the module for every 16-bit v, uint8 [65536]."""
    values = np.arange(FULL + 1)
    return np.minimum(255, (510 * values + white) // (2 * white)).astype(np.uint8)


def _low_bytes(image: Image.Image, name: str) -> Image.Image:
    image.tile = [part._replace(args=_renamed(part.args, name)) for part in image.tile]  # type: ignore[attr-defined]
    image.load()
    if name != "RGBA":
        return image
    return Image.merge("RGB", [image.getchannel(1)] * 3)


def _renamed(args: Any, name: str) -> Any:
    return (name, *args[1:]) if isinstance(args, tuple) else name


def _check_range(image: Image.Image) -> None:
    if image.mode != "I":  # 16 bits, unsigned
        return
    low, high = cast("tuple[int, int]", image.getextrema())
    if low < 0 or high > FULL:
        raise ImageError(f"integer pixels from {low} to {high}: only 0..65535 has a defined brightness")


def _look_up(image: Image.Image, table: np.ndarray) -> Image.Image:
    found = Image.new("L", image.size)
    for box in strips(image.size):
        found.paste(Image.fromarray(table[np.asarray(image.crop(box))]), box)
    return found
