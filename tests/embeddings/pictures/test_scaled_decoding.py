"""Scaled decoding of JPEGs: when, to which size, and how little it changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hostile_images import ORIENTED
from PIL import Image

from embeddings.pictures.decode import decode, decode_scaled

Encode = Callable[..., bytes]


def blocks(*, edge: int, seed: int = 0) -> np.ndarray:
    """Blocks of 64 pixels, which JPEG keeps nearly, in an image of odd size whose shorter side is ``edge``."""
    tiles = np.random.default_rng(seed).integers(0, 256, (edge // 64 + 2, edge // 64 + 3, 3), np.uint8)
    return np.kron(tiles, np.ones((64, 64, 1), np.uint8))[:edge, : edge + 41]


@pytest.mark.parametrize(("shorter", "scale"), [(159, 1), (160, 2), (319, 2), (320, 4), (639, 4), (640, 8), (900, 8)])
def test_a_jpeg_is_scaled_while_twice_the_edge_remains(encode: Encode, shorter: int, scale: int) -> None:
    picture = blocks(edge=shorter)
    decoded = decode_scaled(encode(picture, "JPEG", quality=95), edge=40)
    assert decoded.scale == scale
    assert decoded.size == (shorter + 41, shorter)
    assert decoded.image.size == tuple(round(side / scale) for side in decoded.size)
    assert min(decoded.image.size) >= 80


@pytest.mark.parametrize("kind", ["rgb", "gray", "cmyk", "progressive", "turned"])
@pytest.mark.parametrize("orientation", ORIENTED)
def test_scaled_jpegs_show_the_same_picture(encode: Encode, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(blocks(edge=330))
    image = image.convert({"gray": "L", "cmyk": "CMYK"}.get(kind, "RGB"))
    data = encode(image, "JPEG", quality=95, exif=exif, progressive=kind == "progressive")
    exact, scaled = decode(data), decode_scaled(data, edge=40)
    assert (scaled.scale, scaled.size) == (4, exact.size)
    assert exact.size == ((371, 330) if orientation < 5 else (330, 371))
    assert scaled.image.mode == "RGB"
    expected = exact.resize(scaled.image.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(scaled.image).astype(int) - np.asarray(expected)).mean() < 3


def test_only_jpegs_are_scaled_and_only_when_asked(encode: Encode) -> None:
    picture = blocks(edge=200)
    for kind in ("PNG", "WEBP", "TIFF"):
        decoded = decode_scaled(encode(picture, kind), edge=10)
        assert (decoded.scale, decoded.size, decoded.image.size) == (1, (241, 200), (241, 200))
    data = encode(picture, "JPEG")
    whole = decode_scaled(data, edge=None)
    assert (whole.scale, whole.image.size) == (1, (241, 200))
    np.testing.assert_array_equal(np.asarray(whole.image), np.asarray(decode(data)))


def test_scaled_jpegs_of_stereo_cameras(encode: Encode) -> None:
    image = Image.fromarray(blocks(edge=200))
    data = encode(image, "MPO", save_all=True, append_images=[image])
    decoded = decode_scaled(data, edge=20)
    assert (decoded.scale, decoded.size) == (4, (241, 200))


def photograph(size: tuple[int, int], seed: int) -> np.ndarray:
    """Detail at every scale, and a few sharp edges."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((size[1], size[0], 3), np.float32)
    for n in (2, 4, 8, 16, 32, 64, 128, 256, 512):
        layer = np.clip(128 + 90 * rng.normal(size=(n, n, 3)) / n**0.7, 0, 255).astype(np.uint8)
        picture += np.asarray(Image.fromarray(layer).resize(size), np.float32) - 128
    for left, top, edge in rng.integers(50, min(size) - 200, (8, 3)):
        picture[top : top + edge // 4, left : left + edge // 4] += rng.normal(size=3) * 40
    return np.clip(picture + 128, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(1001, 750), (1600, 1203), (2048, 1536)])
def test_scaled_decoding_hardly_changes_what_the_default_encoder_sees(encode: Encode, size: tuple[int, int]) -> None:
    from embeddings.encoders import get_encoder

    encoder = get_encoder("lite0", device="cpu")
    data = encode(photograph(size, seed=size[0]), "JPEG", quality=85)
    exact, scaled = encoder.prepare(decode(data)), encoder.prepare(decode_scaled(data, edge=128).image)
    difference = np.abs(exact.astype(int) - scaled)
    assert 0 < difference.mean() < 1
    assert difference.max() < 40
    batch = np.zeros((encoder.batch_size, *exact.shape), np.uint8)
    batch[0], batch[1] = exact, scaled
    first, second = encoder.encode(batch)[:2].astype(float)
    assert first @ second > 0.995 * np.linalg.norm(first) * np.linalg.norm(second)
