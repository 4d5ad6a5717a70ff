"""color-texture by value: flat colors, stripes of known direction, mirrored images."""

from __future__ import annotations

import colorsys
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.encoders import encoder_spec, get_encoder
from embeddings.encoders.color_texture import COLORS, DIM, FLAT, SIZE, ColorTexture
from embeddings.errors import UnknownNameError

noise = np.random.default_rng(0)


def split(pixels):
    """Color shares [80] and texture shares [4, 4, 9] of one image."""
    vector = ColorTexture().encode(np.asarray(pixels, np.uint8)[None])[0].astype(float) ** 2
    return vector[:COLORS], vector[COLORS:].reshape(4, 4, 9)


def flat(color):
    return np.full((SIZE, SIZE, 3), color, np.uint8)


def stripes(degrees, period=16):
    """Waves of brightness whose gradient points in this direction."""
    y, x = np.mgrid[:SIZE, :SIZE]
    along = x * np.cos(np.radians(degrees)) + y * np.sin(np.radians(degrees))
    return np.repeat((127.5 + 120 * np.sin(2 * np.pi * along / period))[..., None], 3, axis=2)


def test_both_parts_are_shares():
    vectors = ColorTexture().encode(noise.integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)).astype(float)
    assert vectors.shape == (5, DIM)
    np.testing.assert_allclose((vectors[:, :COLORS] ** 2).sum(1), 1, atol=1e-6)
    np.testing.assert_allclose((vectors[:, COLORS:] ** 2).sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("level", [0, 31, 32, 100, 128, 255])
def test_a_gray_image_is_one_gray_bin_and_flat_everywhere(level):
    colors, textures = split(flat(level))
    assert colors.nonzero()[0].tolist() == [level // 32]
    np.testing.assert_allclose(textures[..., FLAT], 1 / 16)


@pytest.mark.parametrize(
    ("color", "hue"), [((255, 0, 0), 0), ((255, 200, 0), 1), ((0, 255, 0), 3), ((0, 255, 255), 4), ((0, 0, 255), 5)]
)
def test_pure_colors_fill_the_bin_of_their_hue(color, hue):
    """At the highest saturation and value."""
    assert split(flat(color))[0].nonzero()[0].tolist() == [8 + hue * 9 + 8]


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_every_flat_color_is_one_bin_gray_below_a_spread_of_32(color):
    """For the color at 5 bits per channel, which is what the table knows."""
    red, green, blue = (c // 8 * 8 + 4 for c in color)
    (found,) = split(flat(color))[0].nonzero()[0].tolist()
    if max(red, green, blue) - min(red, green, blue) < 32:
        assert found == max(red, green, blue) // 32
    else:
        hue, saturation, value = colorsys.rgb_to_hsv(red / 256, green / 256, blue / 256)
        assert found == 8 + (round(hue * 8) % 8 * 3 + min(int(saturation * 3), 2)) * 3 + int(value * 3)


@pytest.mark.parametrize("direction", range(8))
def test_stripes_fill_the_bin_of_their_direction(direction):
    _, textures = split(stripes(22.5 * direction))
    inner = textures[1:3, 1:3]  # the border has one neighbor only
    edges = inner[..., :FLAT].sum(axis=(0, 1))
    assert edges.argmax() == direction
    assert edges[direction] > 0.9 * edges.sum()


def test_a_cell_shows_what_is_in_it():
    image = flat(128)
    image[16:32, 48:64] = stripes(0)[16:32, 48:64]
    _, textures = split(image)
    assert textures[1, 3, 0] > 0.5 / 16
    assert textures[3].sum() == pytest.approx(textures[3, :, FLAT].sum())


def test_faint_differences_are_flat():
    ramp = np.tile(np.arange(SIZE)[None, :, None] * 2, (SIZE, 1, 3))  # 4 levels over two pixels
    assert split(ramp)[1][..., FLAT].sum() == pytest.approx(1)
    assert split(ramp * 2)[1][:, 1:3, 0].sum() == pytest.approx(0.5)  # 8: an edge


def test_mirroring_keeps_colors_and_mirrors_cells_and_directions():
    image = noise.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    image[..., 1] //= 3
    colors, textures = split(image)
    mirrored_colors, mirrored_textures = split(image[:, ::-1])
    np.testing.assert_array_equal(mirrored_colors, colors)
    directions = [-k % 8 for k in range(8)] + [FLAT]
    np.testing.assert_array_equal(mirrored_textures, textures[:, ::-1][..., directions])


def test_moving_pixels_about_keeps_the_colors():
    image = noise.integers(0, 256, (SIZE * SIZE, 3), dtype=np.uint8)
    shuffled = noise.permutation(image)
    first, second = (split(pixels.reshape(SIZE, SIZE, 3))[0] for pixels in (image, shuffled))
    np.testing.assert_array_equal(first, second)


def test_distances_are_those_of_hellinger():
    x, y = (split(noise.integers(0, top, (SIZE, SIZE, 3), dtype=np.uint8)) for top in (256, 120))
    hellinger = [1 - np.sqrt(p * q).sum() for p, q in zip(x, y, strict=True)]
    roots = [np.concatenate([np.sqrt(part).ravel() for part in parts]) for parts in (x, y)]
    assert ((roots[0] - roots[1]) ** 2).sum() == pytest.approx(2 * sum(hellinger))


def test_it_needs_no_torch():
    code = (
        "import sys, numpy as np; from embeddings.encoders import get_encoder, encoder_spec; "
        "get_encoder('color-texture').encode(np.zeros((2, 64, 64, 3), np.uint8)); "
        "encoder_spec('color-texture'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_there_is_one_variant_only():
    assert encoder_spec("color-texture") == get_encoder("color-texture").spec
    with pytest.raises(UnknownNameError, match="color-texture"):
        get_encoder("color-texture@32")
