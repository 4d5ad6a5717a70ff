"""``color-texture``: histograms of colors and edge directions, a control that knows nothing and needs no network.

If an encoder ranks pools as this one does, the ranking was in the colors and outlines, not in what the images show.
An image is squashed to 64x64 (enough for outlines, and small enough for ten thousand images per second and core); every
pixel then votes once in each part:

    color     80   8 grays where max - min < 32 of 255 (hue is noise there: JPEG alone moves it), by their maximum;
                   else 8 hues of 45 degrees, the first centered on red, x 3 saturations x 3 values, as in HSV
    texture  144   4x4 cells of 16x16 pixels x (8 directions of the brightness gradient, 22.5 degrees each and centered
                   on 0, so that they stay bins when an image is mirrored, + 1 for flat: a difference over two pixels
                   shorter than 8 gray levels, above what JPEG adds)

Cells tell where outlines are, as far as a coarse layout goes; colors are counted over the whole image. A part's votes
are shares (they sum to 1) under a square root, so that the squared Euclidean distance of two vectors is twice the sum
of both parts' squared Hellinger distances, where a rare bin counts too. Votes are integers: the vector of an image has
the same bits in any batch.
Source: Swain and Ballard, Color Indexing, IJCV 1991; Dalal and Triggs, Histograms of Oriented Gradients, CVPR 2005.
"""

from __future__ import annotations

import colorsys
from functools import cache

import numpy as np

from embeddings.encoders.transform import Transform
from embeddings.errors import UnknownNameError
from embeddings.spec import EncoderSpec

NAME = "color-texture"
SIZE = 64
GRAYS, HUES, LEVELS = 8, 8, 3  # LEVELS of saturation and of value
GRAY_BELOW = 32  # max - min
COLORS = GRAYS + HUES * LEVELS * LEVELS
CELLS = 4  # along each edge
DIRECTIONS = 8
FLAT = DIRECTIONS  # the bin after the directions
FLAT_BELOW = 8  # gray levels over two pixels
TEXTURES = CELLS * CELLS * (DIRECTIONS + 1)
DIM = COLORS + TEXTURES
BATCH = 64
TRANSFORM = Transform(size=SIZE, resampling="bilinear", mean=0.0, std=1.0)
SPEC = EncoderSpec(
    name=NAME,
    dim=DIM,
    size=SIZE,
    preprocessing=f"{TRANSFORM}; square roots of {COLORS} color and {TEXTURES} texture shares, version 1",
    weights="",
)


class ColorTexture:
    """See the module."""

    spec = SPEC
    batch_size = BATCH
    precision = "float32"
    parallel = True
    prepare = TRANSFORM

    def encode(self, batch: np.ndarray) -> np.ndarray:
        """uint8 [n, 64, 64, 3] -> float32 [n, 224]."""
        colors = _counts(_color_bins(batch), COLORS)
        textures = _counts(_texture_bins(batch), TEXTURES)
        votes = np.concatenate([colors, textures], axis=1, dtype=np.float32)
        roots: np.ndarray = np.sqrt(votes / np.float32(SIZE * SIZE))
        return roots


def make_color_texture(name: str) -> ColorTexture:
    """Builds ``color-texture``.

    Raises:
        UnknownNameError: a size or variant was asked for; there is one only.
    """
    if name != NAME:
        raise UnknownNameError("encoder", name, (NAME,))
    return ColorTexture()


def public_spec(name: str) -> EncoderSpec | None:
    """The spec of this encoder; None for other names."""
    return SPEC if name == NAME else None


def _color_bins(batch: np.ndarray) -> np.ndarray:
    """Bin of every pixel [n, 64 * 64], looked up by its color at 5 bits per channel."""
    red, green, blue = ((batch[..., channel] >> 3).astype(np.uint16) for channel in range(3))
    bins: np.ndarray = _color_table().take(red << 10 | green << 5 | blue)
    return bins.reshape(len(batch), -1)


def _texture_bins(batch: np.ndarray) -> np.ndarray:
    """Bin of every pixel [n, 64 * 64]: its cell and the direction of its gradient."""
    red, green, blue = (batch[..., channel].astype(np.uint16) for channel in range(3))
    gray = ((77 * red + 150 * green + 29 * blue) >> 8).astype(np.int32)  # at most 65,280: fits 16 bits
    light = np.pad(gray, [(0, 0), (1, 1), (1, 1)], mode="edge")
    across = light[:, 1:-1, 2:] - light[:, 1:-1, :-2]
    down = light[:, 2:, 1:-1] - light[:, :-2, 1:-1]
    bins: np.ndarray = _cell_starts() + _direction_table().take((across + 255) * 511 + down + 255)
    return bins.reshape(len(batch), -1)


def _counts(bins: np.ndarray, n_bins: int) -> np.ndarray:
    """Votes per image [n, n_bins] of bins [n, pixels]."""
    images = np.arange(len(bins))[:, None] * n_bins
    counts: np.ndarray = np.bincount((images + bins).ravel(), minlength=len(bins) * n_bins)
    return counts.reshape(len(bins), n_bins)


@cache
def _color_table() -> np.ndarray:
    """Color bin of every color at 5 bits per channel [32768] int16; each stands for the middle of its eight levels."""
    colors = np.stack(np.meshgrid(*[np.arange(32) * 8 + 4] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    hue, saturation, value = np.array([colorsys.rgb_to_hsv(*color) for color in (colors / 256).tolist()]).T
    hue_bin = np.round(hue * HUES).astype(int) % HUES
    saturation_level = np.minimum((saturation * LEVELS).astype(int), LEVELS - 1)
    colored = GRAYS + (hue_bin * LEVELS + saturation_level) * LEVELS + (value * LEVELS).astype(int)
    gray, spread = (value * GRAYS).astype(int), np.ptp(colors, axis=1)
    table: np.ndarray = np.where(spread < GRAY_BELOW, gray, colored).astype(np.int16)
    return table


@cache
def _direction_table() -> np.ndarray:
    """Direction bin of every gradient (across, down) from -255 to 255 [511, 511] uint8; opposite ones share a bin."""
    across, down = np.mgrid[-255:256, -255:256]
    bins = np.round(np.arctan2(down, across) / np.pi * DIRECTIONS).astype(int) % DIRECTIONS
    return np.where(np.hypot(across, down) < FLAT_BELOW, FLAT, bins).astype(np.uint8)


@cache
def _cell_starts() -> np.ndarray:
    """First bin of every pixel's cell [64, 64]."""
    cell = np.arange(SIZE) * CELLS // SIZE
    starts: np.ndarray = (cell[:, None] * CELLS + cell) * (DIRECTIONS + 1)
    return starts
