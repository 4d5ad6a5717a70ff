"""Brightness, contrast, saturation, hue, gray and solarization of a batch of images, each with its own draws.

All functions take and return float [n, 3, S, S] in 0..1 and equal torchvision's functions of the same names per image.
"""

from __future__ import annotations

import numpy as np
import torch

from curate.pretraining.augment.transfer import on_device

LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601, as torchvision rounds it
SOLARIZE_FROM = 128 / 255
TINY = 1e-20  # below every difference of two channels that is not zero


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
            if len(rows):
                at = on_device(rows, images.device)
                images[at] = adjust(images[at], on_device(factors[rows, kind], images.device))
    return images


def adjust_brightness(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """``factor * x``, clipped; factor [n]."""
    return (images * factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def adjust_contrast(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Away from or towards the image's mean gray, clipped; factor [n]."""
    return _blend(images, luma(images.mean(dim=(2, 3), keepdim=True)), factor)


def adjust_saturation(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Away from or towards each pixel's gray, clipped; factor [n]."""
    return _blend(images, luma(images), factor)


def adjust_hue(images: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Turns the color wheel at constant HSV saturation and value; turns [n] in -0.5..0.5.

    With chroma C = max - min and hue h in sixths of a turn, 0 <= h < 6, a channel is ``min + C clip(x, 0, 1)`` with
    x = |h - 3| - 1 for red, 2 - |h - 2| for green and 2 - |h - 4| for blue.
    """
    least, chroma, hue = _hue(images)
    hue += 6 * turns.view(-1, 1, 1)
    hue -= 6 * torch.floor(hue / 6)
    weights = (hue - 3).abs_().sub_(1), (hue - 2).abs_().neg_().add_(2), (hue - 4).abs_().neg_().add_(2)
    turned = torch.empty_like(images)
    for channel, weight in zip(turned.unbind(dim=1), weights, strict=True):
        torch.addcmul(least, chroma, weight.clamp_(0, 1), out=channel)
    return turned


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
    """Smallest channel, chroma and hue (sixths of a turn, 0 where there is no color), each [n, S, S].

    Cases are told apart by weights of 0 and 1: masks cost three times as much on a CPU.
    """
    red, green, blue = images.unbind(dim=1)
    value, least = torch.maximum(red, green), torch.minimum(red, green)
    value, least = torch.maximum(value, blue, out=value), torch.minimum(least, blue, out=least)
    chroma = value - least
    not_red, not_green = _is_positive(value - red), _is_positive(value - green)
    hue = torch.lerp(green - blue, torch.lerp(blue - red, red - green, not_green), not_red)
    hue /= chroma.clamp(min=TINY)
    hue += not_green.add_(1).mul_(2).mul_(not_red)
    return least, chroma, hue


def _is_positive(values: torch.Tensor) -> torch.Tensor:
    """1 where a value is above 0, 0 where it is 0; in place."""
    return values.mul_(1 / TINY).clamp_(max=1)
