"""Brightness, contrast, saturation, hue, gray and solarization of a batch of images, each with its own draws.

All functions take and return float [n, 3, S, S] in 0..1 and equal torchvision's functions of the same names per image.
"""

from __future__ import annotations

import numpy as np
import torch

LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601, as torchvision rounds it
SOLARIZE_FROM = 128 / 255


def jitter(images: torch.Tensor, factors: np.ndarray, order: np.ndarray) -> torch.Tensor:
    """Applies the four adjustments to each image in its own order, in place.

    Args:
        images: float [n, 3, S, S] in 0..1; overwritten.
        factors: float32 [n, 4]: brightness, contrast, saturation (1 = unchanged) and hue (turns, 0 = unchanged).
        order: int64 [n, 4]: which adjustment comes first, second, third, last; -1 = none.
    """
    for place in range(4):
        for kind, adjust in enumerate((adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)):
            rows = np.flatnonzero(order[:, place] == kind)
            images[rows] = adjust(images[rows], torch.from_numpy(factors[rows, kind]).to(images.device))
    return images


def adjust_brightness(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """``factor * x``, clipped; factor [n]."""
    return (images * factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def adjust_contrast(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Away from or towards the image's mean gray, clipped; factor [n]."""
    return _blend(images, luma(images).mean(dim=(2, 3), keepdim=True), factor)


def adjust_saturation(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Away from or towards each pixel's gray, clipped; factor [n]."""
    return _blend(images, luma(images), factor)


def adjust_hue(images: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Turns the color wheel at constant HSV saturation and value; turns [n] in -0.5..0.5.

    With value V, chroma C = max - min and hue h in sixths of a turn, channel k of (red, green, blue) is
    ``V - C clip(min(k + h, 4 - k - h), 0, 1)`` for k = 5, 3, 1, sums modulo 6.
    """
    value, chroma, hue = _hue(images)
    k = torch.tensor([5.0, 3.0, 1.0], device=images.device).view(1, 3, 1, 1)
    angle = torch.remainder(hue + k + 6 * turns.view(-1, 1, 1, 1), 6)
    return value - chroma * torch.minimum(angle, 4 - angle).clamp_(0, 1)


def to_gray(images: torch.Tensor) -> torch.Tensor:
    """All three channels set to the pixel's gray."""
    return luma(images).expand_as(images)


def solarize(images: torch.Tensor) -> torch.Tensor:
    """Inverts every value from 128 of 255 on."""
    return torch.where(images >= SOLARIZE_FROM, 1 - images, images)


def luma(images: torch.Tensor) -> torch.Tensor:
    """Gray [n, 1, S, S]: 0.2989 red + 0.587 green + 0.114 blue."""
    red, green, blue = torch.split(images, 1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def _blend(images: torch.Tensor, anchor: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return torch.lerp(anchor.expand_as(images), images, factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def _hue(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Value, chroma and hue (sixths of a turn, 0 where there is no color), each [n, 1, S, S]."""
    red, green, blue = torch.split(images, 1, dim=1)
    value = images.amax(dim=1, keepdim=True)
    chroma = value - images.amin(dim=1, keepdim=True)
    scale = torch.where(chroma > 0, chroma, 1)
    from_red, from_green, from_blue = (green - blue) / scale, 2 + (blue - red) / scale, 4 + (red - green) / scale
    hue = torch.where(value == red, from_red, torch.where(value == green, from_green, from_blue))
    return value, chroma, hue
