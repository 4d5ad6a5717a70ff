"""Blurs, zooms, displacements and fractal noise that the corruptions are made of; images are float32 [H, W, C].

A Gaussian blur is two matrix products per channel, ``rows @ x @ columns.T``: as exact as a convolution, and its cost
does not grow with the deviation, which is most of the image's edge in the elastic transform.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image
from scipy import fft
from scipy.ndimage import gaussian_filter1d

KEPT = 64  # matrices: those of one edge


def gaussian_blur(pixels: np.ndarray, sigma: float, *, mode: str = "nearest", truncate: float = 4.0) -> np.ndarray:
    """``scipy.ndimage.gaussian_filter`` over height and width, deviation in pixels."""
    if sigma <= 0:
        return pixels
    rows, columns = (_gaussian_matrix(edge, sigma, mode, truncate) for edge in pixels.shape[:2])
    blurred = rows @ np.moveaxis(pixels, 2, 0) @ columns.T
    return np.moveaxis(blurred, 0, 2)


def smear(pixels: np.ndarray, *, radius: float, sigma: float, angle: float) -> np.ndarray:
    """Motion blur: the mean along one direction, weights falling like half a Gaussian; edges are continued.

    Args:
        pixels: [H, W, C].
        radius: Half of the taps, in pixels.
        sigma: Deviation of the weights, in pixels.
        angle: Degrees from the right, clockwise.
    """
    weights, offsets = motion_kernel(radius=radius, sigma=sigma, angle=angle)
    reach = int(np.abs(offsets).max())
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    height, width = pixels.shape[:2]
    smeared = np.zeros_like(pixels)
    for weight, (down, right) in zip(weights, offsets + reach, strict=True):
        smeared += weight * padded[down : down + height, right : right + width]
    return smeared


def motion_kernel(*, radius: float, sigma: float, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights float32 [t] that sum to 1, and where they lie int64 [t, 2]: pixels down and to the right.

    Source: the ``-motion-blur`` operator of ImageMagick: 2 ceil(radius) + 1 taps, rounded to the nearest pixel.
    """
    steps = np.arange(2 * int(np.ceil(radius)) + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    direction = np.array([np.sin(np.radians(angle)), np.cos(np.radians(angle))])
    offsets = np.ceil(steps[:, None] * direction - 0.5).astype(np.int64)
    return (weights / weights.sum()).astype(np.float32), offsets


def disk_blur(pixels: np.ndarray, radius: float, alias: float) -> np.ndarray:
    """Mean over a disk; edges are mirrored, their pixels not repeated."""
    kernel = disk(radius, alias)
    reach = len(kernel) // 2
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    shape = [fft.next_fast_len(edge, real=True) for edge in padded.shape[:2]]
    product = fft.rfft2(padded, shape, axes=(0, 1)) * fft.rfft2(kernel, shape)[..., None]
    height, width = pixels.shape[:2]
    return np.asarray(fft.irfft2(product, shape, axes=(0, 1))[2 * reach :, 2 * reach :][:height, :width])


def disk(radius: float, alias: float) -> np.ndarray:
    """Weights float32 [k, k] that sum to 1: pixels within the radius, smoothed by a few taps of a Gaussian."""
    taps = 1 if radius <= 8 else 2
    reach = int(radius) + taps
    steps = np.arange(-reach, reach + 1)
    inside = (steps[:, None] ** 2 + steps**2 <= radius**2).astype(np.float64)
    smooth = gaussian_filter1d(gaussian_filter1d(inside, alias, axis=0, radius=taps), alias, axis=1, radius=taps)
    return np.asarray(smooth / smooth.sum(), np.float32)


def zoomed(pixels: np.ndarray, factors: Sequence[float]) -> np.ndarray:
    """The sum over factors of the middle of an image [H, W, C], magnified to its size, linear."""
    height, width = pixels.shape[:2]
    layers = [Image.fromarray(np.ascontiguousarray(layer)) for layer in np.moveaxis(pixels, 2, 0)]
    total = np.zeros((len(layers), height, width), np.float32)
    for factor in factors:
        down, right = (edge * (1 - 1 / factor) / 2 for edge in (height, width))
        box = (right, down, width - right, height - down)
        for channel, layer in enumerate(layers):
            total[channel] += np.asarray(layer.resize((width, height), Image.Resampling.BILINEAR, box=box))
    return np.moveaxis(total, 0, 2)


def displaced(pixels: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The image [H, W, C] at fractional places [H, W], linear; edges are mirrored, their pixels not repeated."""
    height, width, channels = pixels.shape
    (top, below, share_y), (left, beside, share_x) = _neighbors(down, height), _neighbors(right, width)
    flat = pixels.reshape(-1, channels)
    upper, lower = (
        _mixed(flat.take(row * width + left, axis=0), flat.take(row * width + beside, axis=0), share_x)
        for row in (top, below)
    )
    return _mixed(upper, lower, share_y)


def plasma(height: int, width: int, *, decay: float, rng: np.random.Generator) -> np.ndarray:
    """Fractal noise float32 [height, width] in 0..1: each octave is ``decay**2`` times as strong as the next finer.

    Source: the diamond-square algorithm of Fournier, Fussell, Carpenter, "Computer rendering of stochastic models",
    1982, on a grid that closes on itself.
    """
    size = 1 << (max(height, width) - 1).bit_length()
    grid, step, strength = np.zeros((size, size), np.float32), size, 1.0
    while step >= 2:
        half = step // 2
        corners = grid[::step, ::step]
        across = corners + np.roll(corners, -1, axis=1)
        middles = _jittered((across + np.roll(across, -1, axis=0)) / 4, strength, rng)
        grid[half::step, half::step] = middles
        down = corners + np.roll(corners, -1, axis=0)
        grid[::step, half::step] = _jittered((across + middles + np.roll(middles, 1, axis=0)) / 4, strength, rng)
        grid[half::step, ::step] = _jittered((down + middles + np.roll(middles, 1, axis=1)) / 4, strength, rng)
        step, strength = half, strength / decay**2
    return rescaled(grid)[:height, :width]


def rescaled(values: np.ndarray) -> np.ndarray:
    """Values stretched to 0..1; 0 where they are all equal."""
    least, most = float(values.min()), float(values.max())
    return np.asarray((values - least) / ((most - least) or 1.0))


def _jittered(values: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(values + np.float32(strength) * (2 * rng.random(values.shape, np.float32) - 1))


@lru_cache(KEPT)
def _gaussian_matrix(edge: int, sigma: float, mode: str, truncate: float) -> np.ndarray:
    """float32 [edge, edge]: row i holds the weights of pixel i, those beyond the edges folded in."""
    matrix = gaussian_filter1d(np.eye(edge), sigma, axis=0, mode=mode, truncate=truncate)
    return np.asarray(matrix, np.float32)


def _neighbors(places: np.ndarray, edge: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels before and after fractional places, and how far the places are from the first, [..., 1]."""
    last = edge - 1
    folded = last - np.abs(last - np.mod(places, max(2 * last, 1)))
    first = np.minimum(folded.astype(np.int64), max(last - 1, 0))
    return first, np.minimum(first + 1, last), (folded - first).astype(np.float32)[..., None]


def _mixed(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    return np.asarray(first + share * (second - first))
