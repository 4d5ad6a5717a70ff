"""Encoded bytes to an RGB picture, or the reason why not.

What comes out is what a viewer shows on a white page: the first frame, upright, in 8 bits.

    transparency   c' = round((a c + (255 - a) 255) / 255): alpha channels, palettes and single transparent colors
    EXIF           all eight orientations
    16-bit gray    v' = min(255, round(255 v / white)), white = 65535 unless given: the full range maps to 0..255 and
                   nothing is clipped, so a camera that fills 12 of the 16 bits looks dark until white = 4095 is given;
                   12-bit TIFF has 4095 by itself, and a PGM the maximum that its header names
    16-bit color   its high byte; with white given the formula above (PNG and TIFF; other formats come as 8 bits)
    CMYK, YCCK     c' = (255 - C)(255 - K) / 255; JPEGs are read as Adobe writes them, inverted; no ICC profile applied
    1-bit          0 and 255
    float, and integers outside 0..65535
                   refused: nothing in the file says which value is white
    size           at most MAX_PIXELS, so that a small file cannot fill the memory

Scaled decoding: a JPEG's blocks of 8 x 8 pixels can be read as 4 x 4, 2 x 2 or 1 x 1, which skips most of the work
where the picture is to be shrunk further anyway. What that changes is measured in ``decode_scaled``.

Memory at MAX_PIXELS, as Pillow keeps 4 bytes per RGB pixel: 0.7 GB for color, 0.9 for gray, 1.3 for 16-bit gray and
progressive JPEG, 1.4 to 1.6 for transparency.
"""

from __future__ import annotations

import ctypes
import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from embeddings.errors import ImageError, one_line
from embeddings.pictures.bit_depth import Layout, brighten, gray_of, has_wide_color, layout_of

MAX_PIXELS = 178_956_970  # Pillow's own hard limit

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
    "PPM": rb"P[1-6]\s",
    "ICO": rb"\0\0\x01\0",
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
_SWAPPING = [_TRANSPOSE[orientation] for orientation in (5, 6, 7, 8)]  # width and height change places
_ORIENTATION = 0x0112
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Python prints Pillow's complaints to stderr
with suppress(AttributeError, OSError):  # nor libtiff its own, which Pillow passes on; absent where it is linked in
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Decoded:
    """A picture, and what it was before scaled decoding."""

    image: Image.Image  # RGB, upright, on white
    size: tuple[int, int]  # width and height of the whole picture, upright
    scale: int = 1  # 1, 2, 4 or 8: the image has round(size / scale) pixels
    wide: bool = False  # 16 bits a pixel, as the file has it


def decode(data: bytes, *, white: int | None = None) -> Image.Image:
    """The picture in ``data`` as an RGB image: first frame, upright, on white. Thread-safe.

    Pillow's warnings are silenced (one filter for its modules, set once): what matters of them is in the reason.

    Args:
        data: A whole file.
        white: The value that is white in 16-bit images, 1 to 65535; None: see the module.

    Raises:
        ImageError: empty, not an image, damaged, too large, or without a defined brightness.
    """
    return decode_scaled(data, edge=None, white=white).image


def decode_scaled(data: bytes, *, edge: int | None, white: int | None = None) -> Decoded:
    """The same, but a JPEG at 1/2, 1/4 or 1/8 where its shorter side stays at 2 ``edge`` or more.

    Measured with ``lite0`` on photograph-like JPEGs of 1,000 to 4,000 pixels: the cosine between the vectors of exact
    and scaled decoding is .998 to .9998; the 128 x 128 pixels that the encoder sees differ by 0.2 to 0.4 levels of 255
    on average and by 15 at most; decoding and shrinking take 1/2.4 of the time at 1,000 pixels, 1/5 to 1/9 at 4,000.

    Args:
        data: A whole file.
        edge: Pixels that the shorter side will be shrunk to; None reads every pixel.
        white: As in ``decode``.

    Raises:
        ImageError: as ``decode``.
    """
    with _opened(data) as image:
        return _decoded(image, data, edge=edge, white=white)


def format_of(data: bytes) -> str:
    """Pillow's name of the format that an image is encoded in (JPEG, PNG, TIFF, ...); only its header is read.

    Raises:
        ImageError: empty, not an image, or one whose header is damaged.
    """
    with _opened(data) as image:
        return str(image.format)


@contextmanager
def _opened(data: bytes) -> Iterator[ImageFile.ImageFile]:
    """The image, not yet read; what Pillow raises meanwhile becomes a reason."""
    if not data:
        raise ImageError("empty file")
    _silence_pillow()
    try:
        with _open(data) as image:
            yield image
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(_unidentified(data)) from None
    except Image.DecompressionBombError:
        raise ImageError(f"more than {MAX_PIXELS:,} pixels") from None
    except MemoryError:
        raise ImageError("it does not fit into memory") from None
    except Exception as error:  # on damaged bytes Pillow's parsers raise nearly anything, struct.error to TypeError
        raise ImageError(f"damaged {_match(_SIGNATURES, data) or 'image'}: {one_line(error)}") from error


def _open(data: bytes) -> ImageFile.ImageFile:
    return Image.open(io.BytesIO(data), formats=FORMATS)


def _decoded(image: ImageFile.ImageFile, data: bytes, *, edge: int | None, white: int | None) -> Decoded:
    if image.width * image.height > MAX_PIXELS:  # again, for programs that lifted Pillow's limit
        raise ImageError(f"more than {MAX_PIXELS:,} pixels")
    size, scale, layout = image.size, _draft(image, edge), layout_of(image)
    image.load()
    turn = _TRANSPOSE.get(_orientation(image))
    rgb = _on_white(_with_8_bits(image, data, layout, white))
    if scale > 1:  # without the row or column that lies mostly beyond the border
        rgb = rgb.crop((0, 0, round(size[0] / scale), round(size[1] / scale)))
    if turn is not None:
        rgb = rgb.transpose(turn)
    if scale == 1:
        wide = has_wide_color(layout) or image.mode.startswith("I")
        return Decoded(rgb, rgb.size, wide=wide)  # some plugins turn the image or learn its size while loading
    return Decoded(rgb, size[::-1] if turn in _SWAPPING else size, scale)


def _draft(image: ImageFile.ImageFile, edge: int | None) -> int:
    """Asks a JPEG's decoder for a smaller image; returns how many times smaller."""
    if edge is None or not isinstance(image, JpegImagePlugin.JpegImageFile):
        return 1
    scale = next((s for s in (8, 4, 2) if min(image.size) >= 2 * edge * s), 1)
    return scale if scale > 1 and image.draft(None, (2 * edge, 2 * edge)) else 1


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF says nothing about the pixels, which are fine
        return 1


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    layers = image if image.mode == "RGBA" else image.convert("RGBA")
    if layers.getchannel("A").getextrema()[0] == 255:
        return layers.convert("RGB")
    page = Image.new("RGB", layers.size, "white")
    page.paste(layers, mask=layers)
    return page


def _with_8_bits(image: Image.Image, data: bytes, layout: Layout, white: int | None) -> Image.Image:
    if image.mode == "F":
        raise ImageError("float pixels: which value is white is not defined; convert to 8 or 16 bits")
    if image.mode.startswith("I"):
        return gray_of(image, layout, white)
    color = image.info.get("transparency")
    if white is not None and has_wide_color(layout):
        with _open(data) as again:
            brighten(image, again, white)
    elif image.format == "PNG" and image.mode in ("L", "RGB") and color is not None:
        image.info["transparency"] = _transparent_color(color, bits=data[24])
    return image


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
