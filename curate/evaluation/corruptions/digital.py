"""Light, stretching, resolution and compression; images are float32 [H, W, 3] in 0..1."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from curate.evaluation.corruptions.constants import Level
from curate.evaluation.corruptions.filters import displaced, gaussian_blur


def brightness(pixels: np.ndarray, level: Level, rng: np.random.Generator) -> np.ndarray:
    """Adds to the value of HSV; hue and saturation stay, so all channels grow by one factor."""
    value = pixels.max(axis=2, keepdims=True)
    brighter = np.minimum(value + np.float32(level[0]), 1)
    return np.asarray(np.where(value > 0, pixels * (brighter / np.maximum(value, np.float32(1 / 255))), brighter))


def contrast(pixels: np.ndarray, level: Level, rng: np.random.Generator) -> np.ndarray:
    """Towards the image's mean color."""
    mean = pixels.mean(axis=(0, 1), keepdims=True)
    return np.asarray(mean + np.float32(level[0]) * (pixels - mean))


def elastic(pixels: np.ndarray, level: Level, rng: np.random.Generator) -> np.ndarray:
    """Moves three corners at random, and every pixel by a smooth random field; sampled once, where the published
    code samples twice.
    """
    strength, sigma, reach = level
    height, width = pixels.shape[:2]
    corners = _corners(height, width)
    moved = corners + rng.uniform(-reach, reach, corners.shape)
    jolts = 2 * rng.random((height, width, 2), np.float32) - 1
    field = strength * gaussian_blur(jolts, sigma, mode="reflect", truncate=3.0)
    places = np.indices((height, width)).transpose(1, 2, 0) + field
    back = np.linalg.solve(np.column_stack([moved, np.ones(3)]), corners)  # affine, [3, 2]
    down, right = (places @ back[:2] + back[2]).transpose(2, 0, 1)
    return displaced(pixels, down, right)


def pixelate(pixels: np.ndarray, level: Level, rng: np.random.Generator) -> np.ndarray:
    """Shrunk and enlarged again, Pillow BOX both times."""
    image = _picture(pixels)
    width, height = (max(1, int(edge * level[0])) for edge in image.size)
    box = Image.Resampling.BOX
    return _values(image.resize((width, height), box).resize(image.size, box))


def jpeg(pixels: np.ndarray, level: Level, rng: np.random.Generator) -> np.ndarray:
    """Compressed, with Pillow's default subsampling of color."""
    buffer = io.BytesIO()
    _picture(pixels).save(buffer, "JPEG", quality=int(level[0]))
    return _values(Image.open(buffer))


def _corners(height: int, width: int) -> np.ndarray:
    """Three corners [3, 2] (down, right) of a square about the middle."""
    middle, reach = np.array([height // 2, width // 2], np.float64), min(height, width) / 3
    return middle + reach * np.array([[1, 1], [-1, 1], [-1, -1]])


def _picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(255 * pixels).astype(np.uint8))


def _values(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.float32) / 255
