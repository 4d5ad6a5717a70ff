"""16-bit pixels with a stated white, against the formula in NumPy; what Pillow cannot write, ``tifffile`` does."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
import tifffile
from hostile_images import chunk, png, tiff
from hypothesis import given
from hypothesis import strategies as st

from embeddings.errors import ImageError
from embeddings.pictures import bit_depth
from embeddings.pictures.bit_depth import ramp
from embeddings.pictures.decode import decode

RNG = np.random.default_rng(0)
WIDE = RNG.integers(0, 6000, (9, 11, 4)).astype(np.uint16)
WHITE = 4095


def scaled(values: np.ndarray, white: int = WHITE) -> np.ndarray:
    return np.minimum(255, np.floor(255 * values.astype(np.float64) / white + 0.5)).astype(np.uint8)


def written(values: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, metadata=None, **options)
    return buffer.getvalue()


def wide_png(values: np.ndarray, **chunks: bytes) -> bytes:
    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2]]
    return png(16, color_type, [row.astype(">u2").tobytes() for row in values], values.shape[1], **chunks)


@given(white=st.integers(1, 65_535))
def test_the_ramp_is_the_formula(white: int) -> None:
    np.testing.assert_array_equal(ramp(white), scaled(np.arange(65_536), white))


@pytest.mark.parametrize("strip", [4, 1 << 17])
@pytest.mark.parametrize(
    "data",
    [
        wide_png(WIDE[..., :1]),
        written(WIDE[..., 0]),
        written(WIDE[..., 0], byteorder=">"),
        written(WIDE[..., 0], compression="zlib"),
        written(WIDE[..., 0].astype(np.uint32)),
        b"P5 11 9 65535\n" + WIDE[..., 0].astype(">u2").tobytes(),
    ],
    ids=["png", "tiff", "big-endian", "deflate", "32-bit", "pgm"],
)
def test_gray_with_a_stated_white(monkeypatch: pytest.MonkeyPatch, data: bytes, strip: int) -> None:
    monkeypatch.setattr(bit_depth, "STRIP_PIXELS", strip)
    expected = scaled(WIDE[..., :1]).repeat(3, axis=2)
    np.testing.assert_array_equal(np.asarray(decode(data, white=WHITE)), expected)


def test_gray_with_a_stated_white_where_0_is_white() -> None:
    data = tiff(16, struct.pack("<3H", 0, 2000, 5000), width=3, photometric=0)
    np.testing.assert_array_equal(
        np.asarray(decode(data, white=WHITE))[0, :, 0], 255 - scaled(np.array([0, 2000, 5000]))
    )


@pytest.mark.parametrize("strip", [4, 1 << 17])
@pytest.mark.parametrize(
    "data",
    [
        wide_png(WIDE[..., :3]),
        written(WIDE[..., :3], photometric="rgb"),
        written(WIDE[..., :3], photometric="rgb", byteorder=">"),
        written(WIDE[..., :3], photometric="rgb", compression="zlib"),
        written(WIDE[..., :3], photometric="rgb", compression="zlib", byteorder=">"),
    ],
    ids=["png", "tiff", "big-endian", "deflate", "big-endian deflate"],
)
def test_color_with_a_stated_white(monkeypatch: pytest.MonkeyPatch, data: bytes, strip: int) -> None:
    monkeypatch.setattr(bit_depth, "STRIP_PIXELS", strip)
    np.testing.assert_array_equal(np.asarray(decode(data, white=WHITE)), scaled(WIDE[..., :3]))
    np.testing.assert_array_equal(np.asarray(decode(data)), WIDE[..., :3] >> 8)


@pytest.mark.parametrize(("kind", "bands"), [("png", 2), ("png", 4), ("tiff", 4)])
def test_color_and_alpha_with_a_stated_white(kind: str, bands: int) -> None:
    values = WIDE[..., :bands].copy()
    values[..., -1] = RNG.integers(0, 65_536, values.shape[:2])
    data = wide_png(values) if kind == "png" else written(values, photometric="rgb", extrasamples=["unassalpha"])
    color = scaled(values[..., :-1]).repeat(3 if bands == 2 else 1, axis=2).astype(int)
    alpha = (values[..., -1:] >> 8).astype(int)
    expected = np.rint((alpha * color + (255 - alpha) * 255) / 255)
    np.testing.assert_array_equal(np.asarray(decode(data, white=WHITE)), expected)


def test_a_transparent_color_with_a_stated_white() -> None:
    values = np.array([[[100, 2000, 3000], [4000, 50, 600]]], np.uint16)
    found = np.asarray(decode(wide_png(values, tRNS=struct.pack(">3H", 4000, 50, 600)), white=WHITE))
    np.testing.assert_array_equal(found, [[scaled(values[0, 0]), [255, 255, 255]]])


def test_premultiplied_color_is_refused_rather_than_guessed() -> None:
    data = written(WIDE, photometric="rgb", extrasamples=["assocalpha"])
    with pytest.raises(ImageError, match="RGBa;16L: white = 4095 cannot be applied"):
        decode(data, white=WHITE)
    assert decode(data).size == (11, 9)


def test_a_pgm_names_its_own_white() -> None:
    data = b"P5 3 1 4095\n" + struct.pack(">3H", 0, 2048, 4095)
    for white in (None, 4095, 1000):
        np.testing.assert_array_equal(np.asarray(decode(data, white=white))[0, :, 0], [0, 128, 255])


def test_a_12_bit_tiff_names_its_own_white_unless_another_is_given() -> None:
    data = tiff(12, bytes([0x10, 0x0F, 0xFF]), width=2)  # 256 and 4095
    for white, expected in ((None, [16, 255]), (4095, [16, 255]), (1023, [64, 255])):
        np.testing.assert_array_equal(np.asarray(decode(data, white=white))[0, :, 0], expected)


def test_8_bits_take_no_notice_of_white() -> None:
    data = png(8, 2, [bytes([1, 2, 3])], 1)
    assert decode(data, white=10).getpixel((0, 0)) == (1, 2, 3)


def test_metadata_survive_the_second_reading() -> None:
    """An orientation is heeded after the low bytes were read."""
    turned = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + bytes(4)
    data = wide_png(WIDE[..., :3], eXIf=turned)
    assert chunk("eXIf", turned) in data
    np.testing.assert_array_equal(np.asarray(decode(data, white=WHITE)), np.rot90(scaled(WIDE[..., :3]), -1))
