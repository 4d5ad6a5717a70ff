"""The 15 common corruptions of images at five severities, computed as they are needed.

    corrupt(image, "fog", 3, rng)      uint8 [H, W, 3] -> uint8 [H, W, 3]; severity 0 is the image itself

    noise    gaussian-noise, shot-noise, impulse-noise        blur     defocus-, glass-, motion-, zoom-blur
    weather  snow, frost, fog                                 digital  brightness, contrast, elastic, pixelate, jpeg

They follow the published definitions and constants, with these deviations: frost is computed, not photographed; results
are rounded, not cut off, and not saved as JPEG; the elastic transform samples once, not twice; zooms are about the
exact middle. Constants for images of other edges: see ``constants``.

Source: Hendrycks and Dietterich, ICLR 2019 (arXiv 1903.12261).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import numpy as np

from curate.evaluation.corruptions.constants import CORRUPTIONS, Level
from embeddings.errors import UnknownNameError

_HOME = {
    "noise": ("gaussian-noise", "shot-noise", "impulse-noise"),
    "blur": ("defocus-blur", "glass-blur", "motion-blur", "zoom-blur"),
    "weather": ("snow", "frost", "fog"),
    "digital": ("brightness", "contrast", "elastic", "pixelate", "jpeg"),
}
NAMES = tuple(name for names in _HOME.values() for name in names)

__all__ = ["CORRUPTIONS", "NAMES", "corrupt", "draws"]


def corrupt(image: np.ndarray, name: str, severity: int, rng: np.random.Generator) -> np.ndarray:
    """A corrupted image.

    Args:
        image: uint8 [H, W, 3]; the shorter edge decides how the constants are scaled.
        name: One of NAMES.
        severity: 0 (the image itself) to 5.
        rng: Draws noise, directions, flakes; see ``draws``.

    Returns:
        uint8 [H, W, 3].

    Raises:
        UnknownNameError: no such corruption.
        ValueError: no such severity.
    """
    if name not in NAMES:
        raise UnknownNameError("corruption", name, NAMES)
    if not 0 <= severity <= 5:
        raise ValueError(f"severity {severity}, wanted 0 to 5")
    if severity == 0:
        return image.copy()
    level = CORRUPTIONS[name].level(severity, min(image.shape[:2]))
    pixels = _function(name)(image.astype(np.float32) / np.float32(255), level, rng)
    return np.asarray(np.rint(255 * np.clip(pixels, 0, 1)), np.uint8)


def draws(seed: int, image: int, name: str, severity: int) -> np.random.Generator:
    """The generator of one corrupted image, whatever was drawn before; ``image`` is a number for its key, 0 or more."""
    return np.random.default_rng([seed, image, NAMES.index(name), severity])


def _function(name: str) -> Callable[[np.ndarray, Level, np.random.Generator], np.ndarray]:
    home = next(module for module, names in _HOME.items() if name in names)
    function: Callable[[np.ndarray, Level, np.random.Generator], np.ndarray]
    function = getattr(import_module(f"{__name__}.{home}"), name.replace("-", "_"))
    return function
