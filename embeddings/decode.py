"""Encoded bytes to an RGB picture, or the reason why not.

What comes out is what a viewer shows on a white page: the first frame, upright, in 8 bits.

    transparency   c' = round((a c + (255 - a) 255) / 255): alpha channels, palettes and single transparent colors
    EXIF           all eight orientations
    16-bit gray    v' = round(v / 257): the full range 0..65535 maps to 0..255, nothing is clipped, so a camera that
                   fills 12 of the 16 bits looks dark; 12-bit TIFF is scaled by 4095
    16-bit color   its high byte
    CMYK, YCCK     c' = (255 - C)(255 - K) / 255; JPEGs are read as Adobe writes them, inverted; no ICC profile applied
    1-bit          0 and 255
    float, and integers outside 0..65535
                   refused: nothing in the file says which value is white
    size           at most MAX_PIXELS, so that a small file cannot fill the memory
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from functools import lru_cache
from typing import cast

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    ImageOps,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from embeddings.errors import ImageError, one_line

MAX_PIXELS = 178_956_970  # Pillow's own hard limit: 512 MB as RGB

# Imported by name because Pillow's lazy loading of plugins can miss one when two threads open their first image at
# once. Only these are tried: the others are vector formats, stubs, or guess so loosely that text passes for an image.
_PLUGINS = (
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    WebPImagePlugin.WebPImageFile,
    GifImagePlugin.GifImageFile,
    BmpImagePlugin.BmpImageFile,
    TiffImagePlugin.TiffImageFile,
    AvifImagePlugin.AvifImageFile,
    Jpeg2KImagePlugin.Jpeg2KImageFile,
    PpmImagePlugin.PpmImageFile,
    IcoImagePlugin.IcoImageFile,
)
FORMATS = tuple(plugin.format for plugin in _PLUGINS)

_SIGNATURES = {  # first bytes of the formats above, to name a damaged file
    "JPEG": rb"\xff\xd8",
    "PNG": rb"\x89PNG",
    "WebP": rb"RIFF....WEBP",
    "GIF": rb"GIF8",
    "BMP": rb"BM",
    "TIFF": rb"II\*\0|MM\0\*",
    "AVIF": rb"....ftypavi",
    "JPEG 2000": rb"\xff\x4f\xff\x51|\0\0\0\x0cjP",
}
_IMPOSTORS = {  # what else comes under an image's name
    "HEIC is not supported: convert it to JPEG or PNG": rb"....ftyp(hei|hev|mif1|msf1)",
    "not an image but a PDF": rb"%PDF",
    "not an image but a Git LFS pointer: run git lfs pull": rb"version https://git-lfs",
    "not a pixel image but XML or SVG": rb"(\xef\xbb\xbf)?\s*<(\?xml|svg)",
    "not an image but HTML: its download failed": rb"(\xef\xbb\xbf)?\s*<",
    "not an image but JSON": rb"\s*[{\[]",
    "not an image but a compressed archive": rb"PK\x03\x04|\x1f\x8b",
}
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION, _BITS_PER_SAMPLE, _PHOTOMETRIC = 0x0112, 258, 262
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Python prints Pillow's complaints to stderr


def decode(data: bytes) -> Image.Image:
    """The picture in ``data`` as an RGB image: first frame, upright, on white. Thread-safe.

    Pillow's warnings are silenced (one filter for its modules, set once): what matters of them is in the reason.

    Raises:
        ImageError: empty, not an image, damaged, too large, or without a defined brightness.
    """
    if not data:
        raise ImageError("empty file")
    _silence_pillow()
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return _upright(image, data)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(_unidentified(data)) from None
    except Image.DecompressionBombError:
        raise ImageError(f"more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # on damaged bytes Pillow's parsers raise nearly anything, struct.error to TypeError
        raise ImageError(f"damaged {_match(_SIGNATURES, data) or 'image'}: {one_line(error)}") from error


def _upright(image: Image.Image, data: bytes) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:  # again, for programs that lifted Pillow's limit
        raise ImageError(f"more than {MAX_PIXELS:,} pixels")
    image.load()
    turn = _TRANSPOSE.get(_orientation(image))
    rgb = _on_white(_with_8_bits(image, data))
    return rgb if turn is None else rgb.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF says nothing about the pixels, which are fine
        return 1


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layers = image.convert("RGBA")
    page = Image.new("RGB", layers.size, "white")
    page.paste(layers, mask=layers)
    return page


def _with_8_bits(image: Image.Image, data: bytes) -> Image.Image:
    if image.mode == "F":
        raise ImageError("float pixels: which value is white is not defined; convert to 8 or 16 bits")
    if image.mode.startswith("I"):
        return _from_16_bits(image)
    color = image.info.get("transparency")
    if image.format == "PNG" and image.mode in ("L", "RGB") and color is not None:
        image.info["transparency"] = _transparent_color(color, bits=data[24])
    return image


def _from_16_bits(image: Image.Image) -> Image.Image:
    wide = image.convert("I")
    low, high = cast("tuple[int, int]", wide.getextrema())
    if low < 0 or high > 65_535:
        raise ImageError(f"integer pixels from {low} to {high}: only 0..65535 has a defined brightness")
    tags = getattr(image, "tag_v2", {})
    white = 4095 if tags.get(_BITS_PER_SAMPLE) == (12,) else 65_535
    gray = wide.point(_ramp(white), "L")
    if tags.get(_PHOTOMETRIC) == 0:  # 0 is white; Pillow heeds it in 8 bits only
        gray = ImageOps.invert(gray)
    color = image.info.get("transparency")
    if color is not None:
        gray.putalpha(wide.point([0 if v == color else 255 for v in range(65_536)], "L"))
    return gray


@lru_cache
def _ramp(white: int) -> tuple[int, ...]:
    """round(255 v / white) for every 16-bit v."""
    return tuple(min(255, (510 * v + white) // (2 * white)) for v in range(65_536))


def _transparent_color(color: int | tuple[int, ...], *, bits: int) -> int | tuple[int, ...]:
    """A PNG's transparent color in the units of its decoded pixels; Pillow leaves it in those of the file."""
    if isinstance(color, tuple):
        return tuple(c >> 8 for c in color) if bits == 16 else color
    return color * 255 // ((1 << bits) - 1)


def _silence_pillow() -> None:
    # warnings.catch_warnings is not thread-safe; one filter of our own, put back in front only when it is not there
    if not warnings.filters or warnings.filters[0] != _QUIET:
        warnings.filterwarnings("ignore", module=r"PIL\.")


def _unidentified(data: bytes) -> str:
    name = _match(_SIGNATURES, data)
    if name:
        return f"damaged or unsupported {name}: its header cannot be read"
    return _match(_IMPOSTORS, data) or f"not a known image format: starts with {data[:12]!r}"


def _match(patterns: dict[str, bytes], data: bytes) -> str | None:
    return next((name for name, pattern in patterns.items() if re.match(pattern, data[:64], re.DOTALL)), None)
