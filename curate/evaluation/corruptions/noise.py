"""Noise of sensors and transmission; images are float32 [H, W, 3] in 0..1, results may leave that range."""

from __future__ import annotations

import numpy as np

from curate.evaluation.corruptions.constants import Level


def gaussian_noise(pixels: np.ndarray, level: Level, rng: np.random.Generator) -> np.ndarray:
    """Normal noise on every value: little light."""
    (deviation,) = level
    return np.asarray(pixels + np.float32(deviation) * rng.standard_normal(pixels.shape, np.float32))


def shot_noise(pixels: np.ndarray, level: Level, rng: np.random.Generator) -> np.ndarray:
    """Poisson counts of photons, each value on its own."""
    (photons,) = level
    return np.asarray(rng.poisson(pixels * photons) / photons, np.float32)


def impulse_noise(pixels: np.ndarray, level: Level, rng: np.random.Generator) -> np.ndarray:
    """Values set to 0 or 1, each as often: bit errors."""
    (share,) = level
    draws = rng.random(pixels.shape, np.float32)
    return np.where(draws < share / 2, np.float32(1), np.where(draws < share, np.float32(0), pixels))
