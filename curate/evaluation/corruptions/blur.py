"""Blurs of optics and motion; images are float32 [H, W, 3] in 0..1."""

from __future__ import annotations

import numpy as np

from curate.evaluation.corruptions.constants import Level
from curate.evaluation.corruptions.filters import disk_blur, gaussian_blur, smear, zoomed


def defocus_blur(pixels: np.ndarray, level: Level, rng: np.random.Generator) -> np.ndarray:
    """Out of focus: every point becomes a disk."""
    radius, alias = level
    return disk_blur(pixels, radius, alias)


def glass_blur(pixels: np.ndarray, level: Level, rng: np.random.Generator) -> np.ndarray:
    """Frosted glass: blurred, pixels displaced, blurred again.

    From the lower right on, each pixel takes the color of one up to ``reach`` before or ``reach`` - 1 behind it, in
    both directions. The published code means to swap the two, but copies, since its two sides are views of one array;
    its images, and so these, show copies.
    """
    sigma, reach, rounds = level[0], max(1, round(level[1])), int(level[2])
    blurred = gaussian_blur(pixels, sigma)
    order = _scattered(*pixels.shape[:2], reach=reach, rounds=rounds, rng=rng)
    return gaussian_blur(blurred.reshape(-1, 3)[order].reshape(pixels.shape), sigma)


def motion_blur(pixels: np.ndarray, level: Level, rng: np.random.Generator) -> np.ndarray:
    """The camera moves, within 45 degrees of sideways."""
    radius, sigma = level
    return smear(pixels, radius=radius, sigma=sigma, angle=rng.uniform(-45, 45))


def zoom_blur(pixels: np.ndarray, level: Level, rng: np.random.Generator) -> np.ndarray:
    """The camera moves forwards: the mean of the image, counted twice, and of its magnifications."""
    largest, step = level
    factors = [1 + step * (i + 1) for i in range(round((largest - 1) / step))]
    return np.asarray((2 * pixels + zoomed(pixels, factors)) / (2 + len(factors)))


def _scattered(height: int, width: int, *, reach: int, rounds: int, rng: np.random.Generator) -> list[int]:
    """Which pixel each place shows, as flat numbers; a list, for every copy may be copied again by the next."""
    order = list(range(height * width))
    rows, columns = (np.arange(edge - reach, reach, -1) for edge in (height, width))
    here = (rows[:, None] * width + columns).ravel()
    for _ in range(rounds):
        down, right = rng.integers(-reach, reach, (2, len(here)))
        for a, b in zip(here.tolist(), (here + down * width + right).tolist(), strict=True):
            order[a] = order[b]
    return order
