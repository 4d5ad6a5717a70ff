"""Files that come under an image's name: damaged, enormous, odd or none at all; each with what must become of it."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms

RNG = np.random.default_rng(0)
SMALL = RNG.integers(0, 256, (5, 7, 3), np.uint8)  # neither square nor symmetric
PHOTO = np.kron(SMALL, np.ones((16, 16, 1), np.uint8))  # the same in blocks, so that JPEG keeps it
FINE = {"quality": 95, "subsampling": 0}
FORMATS: dict[str, dict[str, object]] = {  # options under which a format keeps PHOTO nearly
    "JPEG": FINE,
    "PNG": {},
    "WEBP": {"lossless": True},
    "GIF": {},
    "TIFF": {},
    "BMP": {},
    "AVIF": {"quality": 90, "subsampling": "4:4:4"},
    "JPEG2000": {},
    "PPM": {},
    "ICO": {"sizes": [(112, 80)]},
}
ORIENTED = {  # how the stored array must be turned to stand upright, by EXIF orientation
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
SUFFIXES = {"JPEG": "jpg", "JPEG2000": "jp2", "TIFF": "tif"}
TOO_LARGE = r"more than 178,956,970 pixels"


@dataclass(frozen=True, eq=False)
class Hostile:
    """One file, and its expectation: ``pixels``, or only a ``size``, or the ``reason`` why it is refused."""

    name: str
    data: bytes
    pixels: np.ndarray | None = None
    tolerance: int = 0  # largest difference of a pixel
    size: tuple[int, int] | None = None
    reason: str = ""  # a pattern


def encode(picture: np.ndarray | Image.Image, format: str, **options: object) -> bytes:
    """Encoded bytes of an array or image."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def samples() -> dict[str, bytes]:
    """PHOTO in every format, by name of the format."""
    return {kind: encode(PHOTO, kind, **options) for kind, options in FORMATS.items()}


def png(depth: int, color_type: int, rows: list[bytes], width: int, **chunks: bytes) -> bytes:
    """A PNG written by hand, for what Pillow cannot write; the chunks stand before the pixels."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, color_type, 0, 0, 0)
    extra = b"".join(chunk(name, body) for name, body in chunks.items())
    data = chunk("IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + chunk("IHDR", header) + extra + data + chunk("IEND", b"")


def chunk(name: str, body: bytes) -> bytes:
    """One chunk of a PNG, with its checksum."""
    tagged = name.encode() + body
    return struct.pack(">I", len(body)) + tagged + struct.pack(">I", zlib.crc32(tagged))


def tiff(bits: int, samples: bytes, *, width: int, sample_format: int = 1, photometric: int = 1, e: str = "<") -> bytes:
    """An uncompressed one-row gray TIFF written by hand."""
    shorts = {256: width, 257: 1, 258: bits, 259: 1, 262: photometric, 277: 1, 278: 1, 339: sample_format}
    longs = {273: 8, 279: len(samples)}
    padded = samples + b"\0" * (len(samples) % 2)
    entries = [(tag, 3, struct.pack(e + "HH", value, 0)) for tag, value in shorts.items()]
    entries += [(tag, 4, struct.pack(e + "I", value)) for tag, value in longs.items()]
    body = b"".join(struct.pack(e + "HHI", tag, kind, 1) + value for tag, kind, value in sorted(entries))
    head = (b"II*\0" if e == "<" else b"MM\0*") + struct.pack(e + "I", 8 + len(padded))
    return head + padded + struct.pack(e + "H", len(entries)) + body + struct.pack(e + "I", 0)


def hostile_images() -> list[Hostile]:
    """The whole corpus, in one order; names are unique and end in an image's suffix."""
    groups: list[Callable[[], Iterator[Hostile]]] = [
        _truncated,
        _bombs,
        _impostors,
        _inks,
        _wide,
        _oriented,
        _metadata,
        _animated,
        _palettes,
        _shapes,
        _layouts,
    ]
    return [file for group in groups for file in group()]


def _truncated() -> Iterator[Hostile]:
    for kind, data in samples().items():
        for percent in (2, 20, 50, 90):
            reason = "damaged|unsupported" if percent > 2 else "damaged|unsupported|not a known image format"
            yield Hostile(
                f"truncated-{percent}.{SUFFIXES.get(kind, kind.lower())}",
                data[: len(data) * percent // 100],
                reason=reason,
            )


def _bombs() -> Iterator[Hostile]:
    bits = png(1, 0, [b"\xff"], 8)
    for edge in (50_000, 2**31 - 1):
        header = chunk("IHDR", struct.pack(">IIBBBBB", edge, edge, 1, 0, 0, 0, 0))
        yield Hostile(f"bomb-{edge}.png", bits[:8] + header + bits[33:], reason=TOO_LARGE)
        yield Hostile(f"bomb-{edge}.ico", _ico(bits[:8] + header + bits[33:]), reason=TOO_LARGE)
    yield Hostile("bomb-rows.png", png(1, 0, [bytes(500)] * 4000, 4000), size=(4000, 4000))
    inflating = b"name\0\0" + zlib.compress(bytes(100_000_000))
    for name in ("zTXt", "iCCP"):
        yield Hostile(f"bomb-{name}.png", png(8, 0, [b"\7"], 1, **{name: inflating}), reason="damaged PNG: .*too large")
    small = {kind: encode(np.zeros((16, 16, 3), np.uint8), kind) for kind in FORMATS}
    gif, jpeg, jp2 = small["GIF"], small["JPEG"], small["JPEG2000"]
    yield Hostile("bomb.gif", gif[:6] + b"\xff\xff\xff\xff" + gif[10:], reason=TOO_LARGE)
    frame = b"," + bytes(4)
    yield Hostile(
        "bomb-frame.gif", patch(gif, frame + struct.pack("<HH", 16, 16), frame + b"\xff" * 4), reason=TOO_LARGE
    )
    sizes = struct.pack(">HH", 16, 16)
    yield Hostile(
        "bomb.jpg", patch(jpeg, b"\x08" + sizes, b"\x08" + struct.pack(">HH", 65_500, 65_500)), reason=TOO_LARGE
    )
    yield Hostile("bomb.webp", _huge_webp(), reason=TOO_LARGE)
    extents = [b"ispe" + bytes(4) + struct.pack(">II", edge, edge) for edge in (16, 40_000)]
    yield Hostile("bomb.avif", patch(small["AVIF"], *extents), reason="damaged or unsupported AVIF")
    for edge in (60_000, 2**31 - 1):
        tags = [[struct.pack("<HHII", tag, 4, 1, length) for length in (16, edge)] for tag in (256, 257)]
        yield Hostile(f"bomb-{edge}.tif", patch(patch(small["TIFF"], *tags[0]), *tags[1]), reason=TOO_LARGE)
    sides = struct.pack("<ii", 99_999, 99_999)
    yield Hostile("bomb.bmp", small["BMP"][:18] + sides + small["BMP"][26:], reason=TOO_LARGE)
    yield Hostile("bomb.ppm", b"P6 99999 99999 255\n" + bytes(48), reason=TOO_LARGE)
    at = jp2.index(b"\xff\x51") + 6
    yield Hostile("bomb.jp2", jp2[:at] + struct.pack(">II", 60_000, 60_000) + jp2[at + 8 :], reason="damaged JPEG 2000")


def _impostors() -> Iterator[Hostile]:
    for name, data, reason in (
        ("empty.jpg", b"", "empty file"),
        ("page.jpg", b"<!DOCTYPE html><html><body>404</body></html>", "HTML"),
        ("error.jpg", b'{"error": 403}', "JSON"),
        ("paper.jpg", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", "PDF"),
        ("pointer.jpg", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        ("drawing.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        ("laughs.png", b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "XML"),
        ("phone.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        ("archive.png", b"PK\x03\x04" + bytes(60), "archive"),
        ("script.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a known image format"),
        ("pickle.png", b"\x80\x04cos\nsystem\n(S'true'\ntR.", "not a known image format"),
        ("zeros.bmp", bytes(1000), "not a known image format"),
        ("noise.webp", np.random.default_rng(1).bytes(1000), "not a known image format"),
        ("start-only.jpg", b"\xff\xd8\xff", "JPEG"),
        ("start-only.png", b"\x89PNG\r\n\x1a\n", "PNG"),
    ):
        yield Hostile(name, data, reason=reason)
    yield Hostile("a-png.jpg", encode(PHOTO, "PNG"), PHOTO)
    yield Hostile("a-jpeg.png", encode(PHOTO, "JPEG", **FINE), PHOTO, tolerance=12)
    yield Hostile("tail.png", encode(PHOTO, "PNG") + bytes(5000), PHOTO)


def _inks() -> Iterator[Hostile]:
    paper = np.full((16, 16, 4), [40, 90, 200, 60], np.uint8)
    color = np.broadcast_to(
        np.rint((255 - paper[..., :3].astype(int)) * (255 - 60) / 255).astype(np.uint8), (16, 16, 3)
    )
    jpeg = encode(Image.fromarray(paper, "CMYK"), "JPEG", quality=100, subsampling=0)
    yield Hostile("cmyk.jpg", jpeg, color, tolerance=2)
    yield Hostile("cmyk.tif", encode(Image.fromarray(paper, "CMYK"), "TIFF"), color, tolerance=1)
    at = jpeg.index(b"Adobe") + 11
    yield Hostile("ycck.jpg", jpeg[:at] + b"\x02" + jpeg[at + 1 :], size=(16, 16))
    yield Hostile("no-adobe.jpg", patch(jpeg, b"Adobe", b"Abode"), size=(16, 16))
    yield Hostile("lab.tif", encode(Image.new("LAB", (4, 4)), "TIFF"), size=(4, 4))


def _wide() -> Iterator[Hostile]:
    values = [0, 255, 256, 32_768, 40_000, 65_535]
    scaled = np.repeat(np.rint(np.array(values) / 257).astype(np.uint8)[None, :, None], 3, axis=2)
    high = np.array([[[0, 0, 1], [128, 156, 255]]], np.uint8)
    for e, name in (("<", "little"), (">", "big")):
        yield Hostile(f"wide-{name}.tif", tiff(16, struct.pack(e + "6H", *values), width=6, e=e), scaled)
    yield Hostile("wide-gray.png", png(16, 0, [struct.pack(">6H", *values)], 6), scaled)
    yield Hostile("wide-gray.pgm", b"P5 6 1 65535\n" + struct.pack(">6H", *values), scaled)
    yield Hostile("wide-color.png", png(16, 2, [struct.pack(">6H", *values)], 2), high)
    opaque = struct.pack(">8H", *values[:3], 65_535, *values[3:], 65_535)
    yield Hostile("wide-alpha.png", png(16, 6, [opaque], 2), high)
    yield Hostile(
        "12-bit.tif", tiff(12, bytes([0x00, 0x0F, 0xFF]), width=2), np.array([[[0] * 3, [255] * 3]], np.uint8)
    )
    yield Hostile("float.tif", tiff(32, struct.pack("<2f", 0, 1), width=2, sample_format=3), reason="float pixels")
    yield Hostile(
        "integers.tif", tiff(32, struct.pack("<2i", -5, 70_000), width=2, sample_format=2), reason="from -5 to 70000"
    )


def _oriented() -> Iterator[Hostile]:
    for orientation, turn in ORIENTED.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encode(PHOTO, "JPEG", **FINE, exif=exif)
        yield Hostile(f"turned-{orientation}.jpg", data, turn(PHOTO), tolerance=12)


def _metadata() -> Iterator[Hostile]:
    broken = {
        "garbage": b"Exif\0\0garbage",
        "far": b"Exif\0\0II*\0\xff\xff\xff\x7f",
        "loop": b"Exif\0\0II*\0\x08\0\0\0\0\0\x08\0\0\0",
        "long": b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(60_000),
        "turn-99": b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 0x0112, 3, 1, 99, 0) + bytes(4),
    }
    for name, exif in broken.items():
        yield Hostile(f"exif-{name}.png", encode(PHOTO, "PNG", exif=exif), PHOTO)
        yield Hostile(f"exif-{name}.jpg", encode(PHOTO, "JPEG", **FINE, exif=exif), PHOTO, tolerance=12)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, icc in (("valid", profile), ("cut", profile[:200]), ("noise", RNG.bytes(3000))):
        yield Hostile(f"profile-{name}.png", encode(PHOTO, "PNG", icc_profile=icc), PHOTO)
        yield Hostile(f"profile-{name}.jpg", encode(PHOTO, "JPEG", **FINE, icc_profile=icc), PHOTO, tolerance=12)


def _animated() -> Iterator[Hostile]:
    red = np.full((12, 9, 3), [255, 0, 0], np.uint8)
    frames = [Image.new("RGB", (9, 12), color) for color in ("red", "lime", "blue")]
    for kind, suffix in (
        ("GIF", "gif"),
        ("WEBP", "webp"),
        ("PNG", "apng"),
        ("TIFF", "tif"),
        ("MPO", "jpg"),
        ("AVIF", "avif"),
    ):
        options: dict[str, object] = {"lossless": True} if kind == "WEBP" else {}
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        yield Hostile(f"frames.{suffix}", data, red, tolerance=6 if kind in ("MPO", "AVIF") else 0)
    many = encode(frames[0], "GIF", save_all=True, append_images=frames[1:] * 1000)
    yield Hostile("frames-2001.gif", many, red)
    page = tiff(8, bytes([0, 9, 255]), width=3)
    shades = np.repeat(np.array([[[0], [9], [255]]], np.uint8), 3, axis=2)
    yield Hostile("loop.tif", page[:-4] + page[4:8], shades)  # its next page is itself


def _palettes() -> Iterator[Hostile]:
    index = np.array([[0, 1, 2, 3], [3, 2, 1, 0]], np.uint8)
    colors = RNG.integers(0, 256, (4, 3), np.uint8)
    image = Image.fromarray(index, "L")
    image.putpalette(colors.tobytes())
    yield Hostile("palette.png", encode(image, "PNG"), colors[index])
    clear = np.where(np.arange(4)[:, None] == 2, np.uint8(255), colors)
    yield Hostile("palette-clear.png", encode(image, "PNG", transparency=2), clear[index])
    yield Hostile("palette-clear.gif", encode(image, "GIF", transparency=2), clear[index])
    half = np.rint((128 * colors.astype(int) + 127 * 255) / 255).astype(np.uint8)
    yield Hostile("palette-half.png", encode(image, "PNG", transparency=bytes([128] * 4)), half[index])
    short = png(8, 3, [bytes([0, 1, 2, 9])], 4, PLTE=bytes([10, 20, 30, 40, 50, 60]))
    yield Hostile("palette-short.png", short, size=(4, 1))
    yield Hostile("palette-missing.png", png(8, 3, [bytes([0, 1, 2, 9])], 4), reason="damaged PNG")
    gray = png(8, 0, [bytes([0, 50, 100, 200])], 4, tRNS=struct.pack(">H", 100))
    yield Hostile("gray-clear.png", gray, np.repeat(np.array([[[0], [50], [255], [200]]], np.uint8), 3, axis=2))


def _shapes() -> Iterator[Hostile]:
    line = np.repeat(RNG.integers(0, 256, (1, 60_000, 1), np.uint8), 3, axis=2)
    yield Hostile("wide.png", encode(line, "PNG"), line)
    yield Hostile("tall.png", encode(line.swapaxes(0, 1), "PNG"), line.swapaxes(0, 1))
    yield Hostile("wide.jpg", encode(line, "JPEG"), size=(60_000, 1))
    yield Hostile("dot.gif", encode(np.zeros((1, 1, 3), np.uint8), "GIF"), np.zeros((1, 1, 3), np.uint8))
    yield Hostile("zero.png", png(8, 0, [], 0), reason="unsupported PNG")
    yield Hostile("zero.gif", b"GIF89a" + bytes(7) + b";", reason="unsupported GIF")
    yield Hostile("zero.ppm", b"P6 0 0 255\n", reason="unsupported PPM")
    yield Hostile(
        "negative.bmp", encode(PHOTO, "BMP")[:18] + struct.pack("<ii", -5, 5) + bytes(100), reason="damaged BMP"
    )


def _layouts() -> Iterator[Hostile]:
    yield Hostile("interlaced.png", interlaced(SMALL), SMALL)
    yield Hostile("interlaced-cut.png", interlaced(SMALL)[:60], reason="damaged PNG")
    yield Hostile("progressive.jpg", encode(PHOTO, "JPEG", **FINE, progressive=True), PHOTO, tolerance=12)
    gray = np.repeat(PHOTO[..., :1], 3, axis=2)
    yield Hostile("gray.jpg", encode(PHOTO[..., 0], "JPEG", quality=95), gray, tolerance=12)
    restarts = encode(PHOTO, "JPEG", **FINE, restart_marker_blocks=1)
    yield Hostile("restarts.jpg", restarts, PHOTO, tolerance=12)
    scans = encode(PHOTO, "JPEG", quality=95, progressive=True)
    yield Hostile("progressive-cut.jpg", scans[: len(scans) // 2], reason="damaged JPEG")
    packed = encode(PHOTO, "TIFF", compression="tiff_adobe_deflate")
    yield Hostile("deflate-cut.tif", packed[: len(packed) - 400], reason="TIFF")
    yield Hostile("lzw.tif", encode(PHOTO, "TIFF", compression="tiff_lzw"), PHOTO)
    yield Hostile("checksum.png", _flipped_checksum(encode(PHOTO, "PNG")), PHOTO)


def interlaced(picture: np.ndarray) -> bytes:
    """A PNG of uint8 [h, w, 3] in the seven passes of Adam7."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    parts = [picture[top::down, left::right] for top, left, down, right in passes]
    rows = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    header = struct.pack(">IIBBBBB", picture.shape[1], picture.shape[0], 8, 2, 0, 0, 1)
    chunks = chunk("IHDR", header) + chunk("IDAT", zlib.compress(rows)) + chunk("IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def patch(data: bytes, old: bytes, new: bytes) -> bytes:
    """The data with the one occurrence of ``old`` replaced."""
    assert data.count(old) == 1, old
    return data.replace(old, new)


def _ico(picture: bytes) -> bytes:
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(picture), 22) + picture


def _huge_webp() -> bytes:
    data = encode(np.zeros((16, 16, 3), np.uint8), "WEBP", lossless=True)
    at = data.index(b"VP8L") + 9
    fields = struct.unpack("<I", data[at : at + 4])[0] >> 28 << 28
    return data[:at] + struct.pack("<I", fields | 16_383 << 14 | 16_383) + data[at + 4 :]


def _flipped_checksum(data: bytes) -> bytes:
    at = data.index(b"IDAT")
    end = at + 4 + struct.unpack(">I", data[at - 4 : at])[0]
    return data[:end] + bytes(4) + data[end + 4 :]
