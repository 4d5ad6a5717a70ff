"""Facts of a picture: digests against hashlib, the perceptual hash against ``imagehash``, gray against NumPy."""

from __future__ import annotations

import hashlib

import imagehash
import numpy as np
import pytest
from hostile_images import encode
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from skimage import data as skimage_data

from embeddings.pictures import bit_depth, facts
from embeddings.pictures.bit_depth import strips
from embeddings.pictures.decode import Decoded, decode_scaled
from embeddings.pictures.facts import image_facts, phash


def whole(image: Image.Image) -> Decoded:
    return Decoded(image, image.size)


def photograph(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Detail at every scale, as photographs have it."""
    rng = np.random.default_rng(seed)
    layers = [rng.normal(size=(n, n, 3)) / n**0.7 for n in (2, 4, 8, 16, 32, 64, 128, 256)]
    levels = [Image.fromarray(np.clip(128 + 90 * layer, 0, 255).astype(np.uint8)).resize(size) for layer in layers]
    mean = sum(np.asarray(level, np.float32) - 128 for level in levels) + 128
    return Image.fromarray(np.clip(mean, 0, 255).astype(np.uint8))


def distance(first: str, second: str) -> int:
    return (int(first, 16) ^ int(second, 16)).bit_count()


@settings(max_examples=60)
@given(width=st.integers(1, 60), height=st.integers(1, 60), seed=st.integers(0, 9))
def test_pixels_are_the_sha256_of_size_and_rgb(width: int, height: int, seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    found = image_facts(whole(Image.fromarray(array)))
    assert found["pixels"] == hashlib.sha256(f"{width}x{height} ".encode() + array.tobytes()).hexdigest()
    assert (found["width"], found["height"]) == (width, height)


@given(width=st.integers(1, 70), height=st.integers(1, 40), limit=st.integers(1, 90))
def test_strips_are_small_and_in_the_order_of_pixels(width: int, height: int, limit: int) -> None:
    numbers = np.arange(width * height).reshape(height, width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bit_depth, "STRIP_PIXELS", limit)
        parts = [numbers[top:bottom, left:right].ravel() for left, top, right, bottom in strips((width, height))]
    assert max(map(len, parts)) <= limit
    np.testing.assert_array_equal(np.concatenate(parts), numbers.ravel())


@pytest.mark.parametrize("size", [(1, 1), (31, 17), (1200, 700), (200_000, 2)])
def test_gray_is_red_equal_green_equal_blue_everywhere(size: tuple[int, int]) -> None:
    gray = np.random.default_rng(0).integers(0, 256, size[::-1], np.uint8)[..., None].repeat(3, axis=2)
    assert image_facts(whole(Image.fromarray(gray)))["gray"] is True
    for place in ((0, 0), (-1, -1), (size[1] // 2, size[0] // 2)):
        for band in range(3):
            colored = gray.copy()
            colored[(*place, band)] ^= 1
            assert image_facts(whole(Image.fromarray(colored)))["gray"] is False


@pytest.mark.parametrize("size", [(32, 32), (8, 8), (100, 40), (255, 600), (1, 300)])
def test_the_perceptual_hash_is_that_of_imagehash(size: tuple[int, int]) -> None:
    image = photograph(size)
    assert phash(image) == str(imagehash.phash(image))


@pytest.mark.parametrize("name", ["chelsea", "coffee", "astronaut", "rocket"])
def test_larger_photographs_have_it_within_two_bits(name: str) -> None:
    image = Image.fromarray(getattr(skimage_data, name)())
    for shown in (image, image.resize((2 * image.width + 7, 2 * image.height + 3))):
        assert distance(phash(shown), str(imagehash.phash(shown))) <= 2


def test_the_perceptual_hash_tells_alike_from_different() -> None:
    image, other = photograph((500, 400)), photograph((500, 400), seed=1)
    alike = [
        image.resize((230, 190)),
        ImageEnhance.Brightness(image).enhance(1.05),
        decode_scaled(encode(image, "JPEG", quality=60), edge=None).image,
    ]
    assert all(distance(phash(image), phash(copy)) <= 6 for copy in alike)
    assert distance(phash(image), phash(other)) > 16


def test_a_flat_image_has_a_hash() -> None:
    assert phash(Image.new("RGB", (9, 9))) == "0" * 16
    assert phash(Image.new("RGB", (9, 9), "white")) == str(imagehash.phash(Image.new("RGB", (9, 9), "white")))


def test_digests_after_scaled_decoding_never_meet_exact_ones() -> None:
    image = photograph((400, 320))
    data, other = encode(image, "JPEG", quality=90), encode(image, "JPEG", quality=90, comment="other metadata")
    assert data != other
    exact, half = (image_facts(decode_scaled(data, edge=edge)) for edge in (None, 80))
    assert half["pixels"].startswith("1/2:")
    assert half["pixels"] == image_facts(decode_scaled(other, edge=80))["pixels"]
    assert half["pixels"][4:] != exact["pixels"]
    assert (half["width"], half["height"]) == (exact["width"], exact["height"]) == (400, 320)
    assert distance(half["phash"], exact["phash"]) <= 2


def test_facts_have_the_types_of_the_store() -> None:
    found = image_facts(whole(Image.new("RGB", (3, 2))))
    assert {name: type(value) for name, value in found.items()} == {
        "width": int, "height": int, "pixels": str, "gray": bool, "peak": type(None), "phash": str,
    }  # fmt: skip


def test_the_cosines_are_those_of_a_type_2_transform() -> None:
    from scipy.fft import dct

    rows = np.random.default_rng(0).normal(size=(5, 32))
    np.testing.assert_allclose(2 * rows @ facts._DCT.T, dct(rows, type=2)[:, :8], atol=1e-12)
