"""Snow, frost and fog; images are float32 [H, W, 3] in 0..1, results may leave that range."""

from __future__ import annotations

import numpy as np

from curate.evaluation.corruptions.constants import Level
from curate.evaluation.corruptions.filters import plasma, smear, zoomed
from curate.evaluation.corruptions.ice import PLATES, ice_plate

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601


def snow(pixels: np.ndarray, level: Level, rng: np.random.Generator) -> np.ndarray:
    """Falling flakes, and their half turn, over an image that whitens."""
    mean, deviation, flake, threshold, radius, sigma, share = level
    noise = mean + deviation * rng.standard_normal((*pixels.shape[:2], 1), np.float32)
    flakes = zoomed(noise.astype(np.float32), [max(1.0, flake)])
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1).astype(np.float32)
    fallen = smear(flakes, radius=radius, sigma=sigma, angle=rng.uniform(-135, -45))
    white = np.maximum(pixels, (pixels @ LUMA)[..., None] * 1.5 + 0.5)
    return np.asarray(share * pixels + (1 - share) * white + fallen + fallen[::-1, ::-1])


def frost(pixels: np.ndarray, level: Level, rng: np.random.Generator) -> np.ndarray:
    """A random part of a frosted pane over the image.

    The published benchmark cuts it from photographs of frost; these panes are computed, see ``ice``.
    """
    share, ice = level
    height, width = pixels.shape[:2]
    plate = ice_plate(int(rng.integers(PLATES)), max(height, width))
    top, left = (int(rng.integers(len(plate) - edge + 1)) for edge in (height, width))
    return np.asarray(share * pixels + ice * plate[top : top + height, left : left + width])


def fog(pixels: np.ndarray, level: Level, rng: np.random.Generator) -> np.ndarray:
    """Fractal mist, scaled back to the image's brightest value."""
    thickness, decay = level
    brightest = float(pixels.max())
    mist = plasma(*pixels.shape[:2], decay=decay, rng=rng)[..., None]
    return np.asarray((pixels + np.float32(thickness) * mist) * (brightest / (brightest + thickness)))
