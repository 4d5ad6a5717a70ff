"""decode: pixel values of every mode against formulas in NumPy, and a reason for everything that is no image."""

from __future__ import annotations

import io
import logging
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from unittest.mock import Mock

import numpy as np
import pytest
from hostile_images import ORIENTED, png, tiff
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from embeddings.errors import ImageError
from embeddings.pictures import decode as module
from embeddings.pictures.decode import MAX_PIXELS, decode

Encode = Callable[..., bytes]
RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (5, 7, 3), np.uint8)  # neither square nor symmetric


def pixels(data: bytes) -> np.ndarray:
    image = decode(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def on_white(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    c, a = color.astype(int), alpha[..., None].astype(int)
    return np.rint((a * c + (255 - a) * 255) / 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "JPEG2000", "ICO", "AVIF"])
def test_lossless_color_comes_back_exactly(encode: Encode, kind: str) -> None:
    options = {"WEBP": {"lossless": True}, "ICO": {"sizes": [(7, 5)]}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}
    found = pixels(encode(PHOTO, kind, **options.get(kind, {})))
    if kind == "AVIF":  # near-lossless only
        assert np.abs(found.astype(int) - PHOTO).max() <= 4
    else:
        np.testing.assert_array_equal(found, PHOTO)


def test_jpeg_is_what_pillow_reads(encode: Encode) -> None:
    data = encode(PHOTO, "JPEG", quality=95)
    np.testing.assert_array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data))))


def test_gray_and_one_bit(encode: Encode) -> None:
    np.testing.assert_array_equal(pixels(encode(PHOTO[..., 0])), np.repeat(PHOTO[..., :1], 3, axis=2))
    bits = PHOTO[..., 0] > 127
    np.testing.assert_array_equal(pixels(encode(bits)), np.repeat(bits[..., None] * np.uint8(255), 3, axis=2))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_composited_on_white(encode: Encode, kind: str) -> None:
    alpha = RNG.integers(0, 256, (5, 7), np.uint8)
    alpha[0, :3] = 0, 255, 128
    data = encode(np.dstack([PHOTO, alpha]), kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    np.testing.assert_array_equal(pixels(data), on_white(PHOTO, alpha))


def test_gray_with_alpha(encode: Encode) -> None:
    alpha = RNG.integers(0, 256, (5, 7), np.uint8)
    image = Image.merge("LA", [Image.fromarray(PHOTO[..., 0]), Image.fromarray(alpha)])
    np.testing.assert_array_equal(pixels(encode(image)), on_white(np.repeat(PHOTO[..., :1], 3, axis=2), alpha))


@given(color=st.integers(0, 255), alpha=st.integers(0, 255))
def test_compositing_rounds_to_nearest(encode: Encode, color: int, alpha: int) -> None:
    data = encode(np.full((1, 1, 4), [color, color, color, alpha], np.uint8))
    assert pixels(data)[0, 0, 0] == round((alpha * color + (255 - alpha) * 255) / 255)


@pytest.mark.parametrize("transparency", [2, bytes([255, 0, 128, 7])])
def test_palette_transparency(encode: Encode, transparency: int | bytes) -> None:
    index = np.array([[0, 1, 2, 3], [3, 2, 1, 0]], np.uint8)
    palette = RNG.integers(0, 256, (4, 3), np.uint8)
    image = Image.fromarray(index, "L")
    image.putpalette(palette.tobytes())
    alpha = np.full(4, 255, np.uint8)
    if isinstance(transparency, int):
        alpha[transparency] = 0
    else:
        alpha[:] = list(transparency)
    expected = on_white(palette[index], alpha[index])
    np.testing.assert_array_equal(pixels(encode(image, transparency=transparency)), expected)


def test_gif_transparency(encode: Encode) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "L")
    image.putpalette(bytes([10, 20, 30, 40, 50, 60, 70, 80, 90]))
    found = pixels(encode(image, "GIF", transparency=1))
    np.testing.assert_array_equal(found, [[[10, 20, 30], [255, 255, 255], [70, 80, 90]]])


def test_transparent_color_of_rgb(encode: Encode) -> None:
    color = tuple(int(c) for c in PHOTO[2, 3])
    expected = PHOTO.copy()
    expected[(PHOTO[2, 3] == PHOTO).all(axis=2)] = 255
    np.testing.assert_array_equal(pixels(encode(Image.fromarray(PHOTO), transparency=color)), expected)


@pytest.mark.parametrize(
    ("depth", "row", "width", "color", "expected"),
    [
        (1, bytes([0b01000000]), 2, 0, [255, 255]),
        (1, bytes([0b01000000]), 2, 1, [0, 255]),
        (2, bytes([0b00011011]), 4, 2, [0, 85, 255, 255]),
        (4, bytes([0x0F, 0x37]), 4, 7, [0, 255, 51, 255]),
        (8, bytes([0, 50, 100, 200]), 4, 100, [0, 50, 255, 200]),
        (16, struct.pack(">4H", 0, 300, 40_000, 65_535), 4, 40_000, [0, 1, 255, 255]),
    ],
)
def test_transparent_color_of_gray_in_every_depth(
    depth: int, row: bytes, width: int, color: int, expected: list[int]
) -> None:
    found = pixels(png(depth, 0, [row], width, tRNS=struct.pack(">H", color)))
    np.testing.assert_array_equal(found[0], np.repeat(np.array(expected)[:, None], 3, axis=1))


def test_transparent_color_of_16_bit_rgb() -> None:
    row = struct.pack(">6H", 100, 200, 300, 40_000, 50_000, 60_000)
    found = pixels(png(16, 2, [row], 2, tRNS=struct.pack(">3H", 40_000, 50_000, 60_000)))
    np.testing.assert_array_equal(found, [[[0, 0, 1], [255, 255, 255]]])


def test_16_bit_color_keeps_the_high_byte() -> None:
    values = [0, 255, 256, 40_000, 65_279, 65_535]
    found = pixels(png(16, 2, [struct.pack(">6H", *values)], 2))
    np.testing.assert_array_equal(found.ravel(), [v >> 8 for v in values])


WIDE = [0, 1, 128, 129, 300, 32_768, 40_000, 65_406, 65_407, 65_535]


@pytest.mark.parametrize(
    "data",
    [
        png(16, 0, [struct.pack(">10H", *WIDE)], 10),
        tiff(16, struct.pack("<10H", *WIDE), width=10),
        tiff(16, struct.pack(">10H", *WIDE), width=10, e=">"),
        tiff(32, struct.pack("<10I", *WIDE), width=10),
        b"P5 10 1 65535\n" + struct.pack(">10H", *WIDE),
    ],
    ids=["png", "tiff", "big-endian tiff", "32-bit tiff", "pgm"],
)
def test_16_bit_gray_is_scaled_not_clipped(data: bytes) -> None:
    np.testing.assert_array_equal(pixels(data)[0, :, 0], np.rint(np.array(WIDE) / 257))


def test_16_bit_gray_where_0_is_white() -> None:
    data = tiff(16, struct.pack("<10H", *WIDE), width=10, photometric=0)
    np.testing.assert_array_equal(pixels(data)[0, :, 0], 255 - np.rint(np.array(WIDE) / 257))


def test_12_bit_tiff_reaches_white() -> None:
    np.testing.assert_array_equal(pixels(tiff(12, bytes([0x00, 0x0F, 0xFF]), width=2))[0, :, 0], [0, 255])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(32, struct.pack("<2f", 0.0, 1.0), width=2, sample_format=3), "float pixels"),
        (tiff(32, struct.pack("<2i", -5, 70_000), width=2, sample_format=2), "integer pixels from -5 to 70000"),
        (tiff(16, struct.pack("<2h", -5, 7), width=2, sample_format=2), "integer pixels from -5 to 7"),
    ],
)
def test_undefined_brightness_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode(data)


def test_cmyk_tiff(encode: Encode) -> None:
    inks = RNG.integers(0, 256, (5, 7, 4), np.uint8)
    i = inks.astype(int)
    expected = (255 - i[..., :3]) * (255 - i[..., 3:]) / 255
    found = pixels(encode(Image.fromarray(inks, "CMYK"), "TIFF"))
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("inks", [(0, 255, 255, 0), (0, 0, 0, 255), (0, 0, 0, 0), (40, 90, 200, 60)])
def test_cmyk_jpeg_of_adobe_is_not_a_negative(encode: Encode, inks: tuple[int, int, int, int]) -> None:
    data = encode(Image.new("CMYK", (16, 16), inks), "JPEG", quality=100, subsampling=0)
    assert b"Adobe" in data
    expected = (255 - np.array(inks[:3])) * (255 - inks[3]) / 255
    assert np.abs(pixels(data) - expected).max() <= 2


def test_ycck_jpeg(encode: Encode) -> None:
    planes = np.full((16, 16, 4), [120, 100, 160, 230], np.uint8)  # Y, Cb, Cr, K as stored
    data = encode(Image.fromarray(255 - planes, "CMYK"), "JPEG", quality=100, subsampling=0)  # Pillow inverts
    marker = data.index(b"Adobe")
    data = data[: marker + 11] + b"\x02" + data[marker + 12 :]  # transform 2: the components are YCCK
    y, cb, cr, k = (float(v) for v in planes[0, 0])
    rgb = np.array([y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128)])
    # libjpeg turns YCC into RGB and stores 255 - RGB as CMY, which Adobe's inversion turns back
    expected = (255 - rgb) * k / 255
    assert np.abs(pixels(data)[8, 8] - expected).max() <= 3


@pytest.mark.parametrize("orientation", ORIENTED)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_exif_orientation(encode: Encode, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    stored = np.kron(PHOTO, np.ones((8, 8, 1), np.uint8))
    found = pixels(encode(stored, kind, exif=exif, **options))
    expected = ORIENTED[orientation](stored)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < (2 if kind == "JPEG" else 1e-9)


def test_orientation_of_a_transparent_image(encode: Encode) -> None:
    alpha = RNG.integers(0, 256, (5, 7), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    found = pixels(encode(np.dstack([PHOTO, alpha]), exif=exif))
    np.testing.assert_array_equal(found, np.rot90(on_white(PHOTO, alpha), -1))


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_damaged_exif_leaves_the_pixels(encode: Encode, exif: bytes) -> None:
    np.testing.assert_array_equal(pixels(encode(PHOTO, exif=exif)), PHOTO)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation(encode: Encode, kind: str) -> None:
    frames = [Image.new("RGB", (4, 3), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 3
    np.testing.assert_array_equal(pixels(data), np.full((3, 4, 3), [255, 0, 0]))


def test_icc_profiles_are_not_applied(encode: Encode) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    np.testing.assert_array_equal(pixels(encode(PHOTO, icc_profile=profile)), PHOTO)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html>404</html>", "HTML"),
        (b"\n  <html>", "HTML"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"%PDF-1.7", "PDF"),
        (b'{"error": 403}', "JSON"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC is not supported"),
        (b"PK\x03\x04", "archive"),
        (b"plain text here", "not a known image format: starts with b'plain text h'"),
        (b"\xff\xd8\xff", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (bytes(100), "not a known image format"),
    ],
)
def test_what_is_no_image_has_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        decode(data)
    assert "0x7" not in str(caught.value)  # no memory address: reasons are the same in every run


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_truncated_files_name_their_format(encode: Encode, kind: str) -> None:
    data = encode(RNG.integers(0, 256, (64, 64, 3), np.uint8), kind)
    with pytest.raises(ImageError, match=f"(?i)(damaged|unsupported).*{kind}"):
        decode(data[: len(data) // 2])


def test_decompression_bombs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = png(1, 0, [b"\xff"], 8).replace(struct.pack(">II", 8, 1), struct.pack(">II", 20_000, 20_000))
    header = bomb[12:29]
    bomb = bomb[:29] + struct.pack(">I", zlib.crc32(header)) + bomb[33:]
    with pytest.raises(ImageError, match=f"more than {MAX_PIXELS:,} pixels"):
        decode(bomb)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError, match=f"more than {MAX_PIXELS:,} pixels"):
        decode(bomb)


def test_a_lack_of_memory_is_not_called_damage(monkeypatch: pytest.MonkeyPatch, encode: Encode) -> None:
    monkeypatch.setattr(Image, "open", Mock(side_effect=MemoryError))
    with pytest.raises(ImageError, match="does not fit into memory"):
        decode(encode(PHOTO))


def test_large_images_decode_without_a_warning(monkeypatch: pytest.MonkeyPatch, encode: Encode) -> None:
    data = encode(np.zeros((30, 30), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)  # Pillow warns above this and refuses above twice this
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(data).size == (30, 30)


@lru_cache
def samples(encode: Encode) -> list[bytes]:
    rgba = np.dstack([PHOTO, PHOTO[..., 0]])
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        encode(PHOTO, "JPEG", exif=exif),
        encode(rgba, "PNG", exif=exif),
        encode(Image.fromarray(PHOTO).quantize(8), "GIF"),
        encode(rgba, "WEBP"),
        encode(PHOTO, "AVIF"),
        encode(PHOTO, "TIFF", compression="tiff_lzw"),
        tiff(16, struct.pack("<10H", *WIDE), width=10),
        encode(PHOTO, "JPEG2000"),
        encode(PHOTO, "BMP"),
        encode(PHOTO, "ICO", sizes=[(7, 5)]),
        b"P6 2 1 255\n" + bytes(6),
    ]


@settings(max_examples=400)
@given(data=st.data())
def test_damage_gives_an_image_or_an_image_error(encode: Encode, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(samples(encode)), label="file"))
    for _ in range(data.draw(st.integers(0, 6), label="flips")):
        place = data.draw(st.integers(0, len(content) - 1), label="at")
        content[place] = data.draw(st.integers(0, 255), label="byte")
    content = content[: data.draw(st.integers(0, len(content)), label="length")]
    reason, image = "", None
    try:
        image = decode(bytes(content))
    except ImageError as error:
        reason = error.message
    assert (image is None) == (5 < len(reason) < 250)
    assert "\n" not in reason
    assert image is None or (image.mode == "RGB" and min(image.size) > 0)


@given(content=st.binary(max_size=200))
def test_random_bytes_give_an_image_error(content: bytes) -> None:
    with pytest.raises(ImageError):
        decode(content)


def test_threads_agree(encode: Encode) -> None:
    files = samples(encode) * 20
    alone = [decode(data).tobytes() for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode(data).tobytes(), files))
    assert together == alone


def test_decode_is_silent_and_leaves_pillow_alone(encode: Encode) -> None:
    """In a fresh process: nothing on stderr, no changed limit, whatever the file's metadata are like."""
    gray, samples_per_pixel = tiff(8, bytes(10), width=10), struct.pack("<HHI", 277, 3, 1)
    odd = gray.replace(samples_per_pixel, struct.pack("<HHI", 277, 3, 9))  # nine values where one belongs
    many = gray.replace(samples_per_pixel + b"\1", samples_per_pixel + b"\x63")  # 99 samples per pixel
    program = (
        "import sys\nfrom PIL import Image, ImageFile\nfrom embeddings.pictures.decode import decode\n"
        f"for data in {[odd, many, encode(PHOTO)]!r}:\n"
        "    try:\n        decode(data)\n    except Exception as error:\n        print(type(error).__name__)\n"
        "assert Image.MAX_IMAGE_PIXELS == 89478485 and not ImageFile.LOAD_TRUNCATED_IMAGES\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert set(done.stdout.split()) <= {"ImageError"}


def test_pillow_does_not_log_to_stderr() -> None:
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("PIL").handlers)


def test_all_formats_are_registered() -> None:
    assert len(module.FORMATS) == 10
    assert all(name in Image.OPEN for name in module.FORMATS)
