"""Panes covered with frost, computed: needles that grow in six directions over a ridged fractal, in patches.

The published benchmark has photographs of frost, which are not passed on with this program. What they share is kept:
bluish white, structure at all scales, and parts that are nearly clear. Panes are the same on every machine.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from curate.evaluation.corruptions.filters import plasma, rescaled, smear

PLATES = 6
ICE = np.array([0.86, 0.95, 1.0], np.float32)  # its color
SPROUTS = 0.004  # needles begin at this share of the pixels
NEEDLES = (1 / 4, 1 / 8, 1 / 16)  # their lengths, as shares of the image's edge


@lru_cache(2 * PLATES)
def ice_plate(number: int, edge: int) -> np.ndarray:
    """A pane float32 [2 edge, 2 edge, 3] in 0..1 for images of this edge; the caller cuts a part from it."""
    rng, shape = np.random.default_rng([number, edge]), (2 * edge, 2 * edge)
    patches, ridges = (plasma(*shape, decay=decay, rng=rng) for decay in (1.6, 1.3))
    needles = sum(_needles(shape, length * edge, rng) for length in NEEDLES)
    ridges = (1 - np.abs(2 * ridges - 1)) ** 4
    ice = (0.3 + 0.7 * patches) * (0.5 + 0.8 * rescaled(np.asarray(needles)) + 0.6 * ridges)
    return np.asarray(np.clip(ice, 0, 1)[..., None] * ICE, np.float32)


def _needles(shape: tuple[int, int], length: float, rng: np.random.Generator) -> np.ndarray:
    """Needles of one length [H, W], six from every sprout."""
    sprouts = (rng.random((*shape, 1)) < SPROUTS).astype(np.float32)
    first, grown = rng.uniform(0, 60), np.zeros(shape, np.float32)
    for turn in range(0, 360, 60):
        needle = smear(sprouts, radius=max(1.0, length / 2), sigma=max(1.0, length / 2), angle=first + turn)
        grown = np.maximum(grown, needle[..., 0])
    return rescaled(grown)
