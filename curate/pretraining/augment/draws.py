"""What chance decides for each view, as a pure function of (seed, image, visit, stream).

A counter-based generator maps that tuple to bits directly, so no state exists that batch size, order, workers or a
restart could disturb. Philox 4x32-10, vectorized over images: ten rounds of

    (c0, c1, c2, c3) <- (hi(M1 c2) ^ c1 ^ k0, lo(M1 c2), hi(M0 c0) ^ c3 ^ k1, lo(M0 c0)),   (k0, k1) += (W0, W1)

with hi and lo the 32-bit halves of a 64-bit product.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from curate.pretraining.augment.presets import Preset

M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = 0x9E3779B9, 0xBB67AE85
WORD = 0xFFFFFFFF
ORDER_STREAM = 0  # decides the order of visits; view v draws from stream v + 1
LEARNER_STREAM = 1000  # what a method draws for itself, as which patches are masked
VIEW_DRAWS = 36  # uniform numbers that one view needs
ATTEMPTS = 10  # at a crop of random area and shape that fits into the image, before the whole image is taken
JITTER_ORDERS = np.array(list(permutations(range(4))))  # of brightness, contrast, saturation, hue


@dataclass(frozen=True)
class Draws:
    """What was drawn for n views."""

    box: np.ndarray  # int64 [n, 4]: top, left, height, width of the crop, in pixels of the stored image
    flip: np.ndarray  # bool [n]
    turns: np.ndarray  # int64 [n]: quarter turns, 0 to 3
    jitter: np.ndarray  # float32 [n, 4]: factors of brightness, contrast, saturation; turns of the color wheel
    order: np.ndarray  # int64 [n, 4]: which of these four comes first, second, third, last; -1 = none
    gray: np.ndarray  # bool [n]
    sigma: np.ndarray  # float32 [n]: blur, in pixels of the view; 0 = none
    solarize: np.ndarray  # bool [n]

    def __len__(self) -> int:
        return len(self.box)


def philox(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Random bits, uint32 [n, 4], of counters uint32 [n, 4] under a key of two 32-bit words."""
    c0, c1, c2, c3 = (np.ascontiguousarray(word, dtype=np.uint32) for word in counter.T)
    k0, k1 = key
    for _ in range(10):
        product0, product1 = c0 * M0, c2 * M1
        c0, c2 = _high(product1) ^ c1 ^ np.uint32(k0), _high(product0) ^ c3 ^ np.uint32(k1)
        c1, c3 = product1.astype(np.uint32), product0.astype(np.uint32)
        k0, k1 = (k0 + W0) & WORD, (k1 + W1) & WORD
    return np.stack([c0, c1, c2, c3], axis=1)


def image_hash(source: str, key: str) -> int:
    """64 bits that stand for an image's identity."""
    return int.from_bytes(hashlib.sha256(f"{source}\0{key}".encode()).digest()[:8], "little")


def uniforms(seed: int, images: np.ndarray, visits: np.ndarray, *, stream: int, count: int) -> np.ndarray:
    """Uniform numbers in (0, 1), float64 [n, count], for image hashes uint64 [n] at their visits int64 [n]."""
    blocks = -(-count // 4)
    counter = np.empty((len(images), blocks, 4), np.uint32)
    counter[..., 0] = (images & np.uint64(WORD))[:, None]
    counter[..., 1] = (images >> np.uint64(32))[:, None]
    counter[..., 2] = np.asarray(visits)[:, None]
    counter[..., 3] = (stream << 16) + np.arange(blocks)
    bits = philox(counter.reshape(-1, 4), (seed & WORD, seed >> 32 & WORD))
    return (bits.reshape(len(images), 4 * blocks)[:, :count] + 0.5) * 2.0**-32


def draw(preset: Preset, u: np.ndarray, *, stored: int, size: int) -> Draws:
    """Turns uniform numbers [n, VIEW_DRAWS] into the draws of n views.

    Args:
        preset: ranges and probabilities.
        u: from ``uniforms``, one row per view.
        stored: edge of the square stored images, in pixels.
        size: edge of a whole view, in pixels; the preset's own views may be smaller.
    """
    attempts, (top, left, flip, jitter, order, gray, blur, sigma), factors = u[:, :20], u[:, 20:28].T, u[:, 28:32]
    turn, which, solarize = u[:, 32:35].T
    center, span = np.array([1, 1, 1, 0]), [preset.brightness, preset.contrast, preset.saturation, preset.hue]
    orders = JITTER_ORDERS[(order * len(JITTER_ORDERS)).astype(np.int64)]
    low, high = (edge * size / 224 for edge in preset.blur_sigma)
    blurred = (blur < preset.blur) & (size >= preset.blur_from)
    turned = (turn < preset.quarter_turns) * (1 + (which * 3).astype(np.int64))
    return Draws(
        box=_boxes(preset, attempts, np.stack([top, left], axis=1), stored),
        flip=flip < preset.flip,
        turns=turned,
        jitter=(center + (2 * factors - 1) * span).astype(np.float32),
        order=np.where((jitter < preset.jitter)[:, None], orders, -1),
        gray=gray < preset.gray,
        sigma=np.where(blurred, low + (high - low) * sigma, 0).astype(np.float32),
        solarize=solarize < preset.solarize,
    )


def _boxes(preset: Preset, attempts: np.ndarray, corner: np.ndarray, stored: int) -> np.ndarray:
    """int64 [n, 4]: the first of ten random rectangles that fits, at a uniform place; else the whole image."""
    area, shape = attempts.reshape(len(attempts), ATTEMPTS, 2).transpose(2, 0, 1)
    low, high = preset.crop_area
    area = stored**2 * (low + (high - low) * area)
    low, high = (math.log(ratio) for ratio in preset.crop_ratio)
    stretch = np.exp((low + (high - low) * shape) / 2)  # square root of width / height
    edges = np.rint(np.sqrt(area)[..., None] * np.stack([1 / stretch, stretch], axis=-1)).astype(np.int64)
    fits = ((edges > 0) & (edges <= stored)).all(axis=-1)
    first = edges[np.arange(len(edges)), fits.argmax(axis=1)]
    edges = np.where(fits.any(axis=1)[:, None], first, stored)
    return np.concatenate([np.floor(corner * (stored - edges + 1)).astype(np.int64), edges], axis=1)


def _high(product: np.ndarray) -> np.ndarray:
    return (product >> np.uint64(32)).astype(np.uint32)
