"""Crop, resize, flip and blur of a batch of images, each with its own parameters.

A resize with antialiasing is linear and separable, so per image it is two small matrices, ``rows @ image @ columns.T``,
and per batch two batched matrix products. The flip reverses the rows of ``columns``; the blur is two more matrices.
"""

from __future__ import annotations

import numpy as np
import torch

from curate.pretraining.augment.transfer import on_device


def crop_resize(images: torch.Tensor, box: np.ndarray, flip: np.ndarray, *, size: int) -> torch.Tensor:
    """Cuts a box out of each image and resizes it to ``size``, bilinear with antialiasing; flips where asked.

    Equals ``torchvision.transforms.functional.resized_crop(..., antialias=True)`` per image.

    Args:
        images: uint8 [n, 3, H, W].
        box: int64 [n, 4]: top, left, height, width.
        flip: bool [n]: mirror left and right.
        size: edge of the result in pixels.

    Returns:
        float32 [n, 3, size, size] in 0..1.
    """
    n, channels, height, width = images.shape
    box_there = on_device(box, images.device)
    rows = resize_matrices(box_there[:, 0], box_there[:, 2], (size, height))
    columns = resize_matrices(box_there[:, 1], box_there[:, 3], (size, width)) / 255
    columns = torch.where(on_device(flip, images.device)[:, None, None], columns.flip(1), columns)
    lines = images.permute(0, 2, 1, 3).float().reshape(n, height * channels, width)  # a row of all channels together
    lines = torch.bmm(lines, columns.mT).view(n, height, channels * size)
    return torch.bmm(rows, lines).view(n, size, channels, size).transpose(1, 2).contiguous()


def quarter_turn(images: torch.Tensor, turns: int) -> torch.Tensor:
    """Images [n, C, S, S] turned counterclockwise by a number of quarters."""
    return torch.rot90(images, turns, dims=(2, 3))


def resize_matrices(start: torch.Tensor, length: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """float32 [n, out, in]: the triangle filter that resizes the span ``start, start + length`` to ``out`` samples.

    On the device where ``start`` and ``length``, int64 [n], are: at 224 pixels these are a hundred megabytes a view.

    Row i weighs input j by ``max(0, 1 - |j + 1/2 - c_i| / max(s, 1))`` with ``s = length / out`` and
    ``c_i = start + (i + 1/2) s``, zero outside of the span, normalized to a sum of one.
    """
    out, size = shape
    first, span = (values.view(-1, 1, 1) for values in (start, length))
    scale = span / out
    centers = first + (torch.arange(out, device=start.device).view(1, -1, 1) + 0.5) * scale
    inputs = torch.arange(size, device=start.device).view(1, 1, -1)
    weights = (1 - (inputs + 0.5 - centers).abs() / scale.clamp(min=1)).clamp(min=0)
    weights = weights * ((inputs >= first) & (inputs < first + span))
    return weights / weights.sum(dim=2, keepdim=True)


def gaussian_blur(images: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Blurs each image with its own standard deviation, edges mirrored, kernel cut at a tenth of the edge.

    The kernel has ``2 r + 1`` taps with ``r = max(1, S // 20)``, the nearest odd size below SimCLR's tenth.

    Args:
        images: float [n, 3, S, S].
        sigma: float [n], > 0, in pixels.
    """
    size = images.shape[-1]
    blur = blur_matrices(sigma, size, radius=blur_radius(size))[:, None]
    return blur @ images @ blur.mT


def blur_radius(size: int) -> int:
    """Taps on either side of the center, for images of this edge."""
    return max(1, size // 20)


def blur_matrices(sigma: torch.Tensor, size: int, *, radius: int) -> torch.Tensor:
    """Row i holds the Gaussian around i, tails mirrored at the edge pixels; float [n, size, size]."""
    offsets = torch.arange(-radius, radius + 1, device=sigma.device)
    kernel = torch.softmax(-0.5 * (offsets / sigma[:, None]) ** 2, dim=1)
    inputs = (torch.arange(size, device=sigma.device)[:, None] + offsets).abs()
    inputs = size - 1 - (size - 1 - inputs).abs()
    matrices = torch.zeros(len(sigma), size, size, device=sigma.device)
    return matrices.scatter_add_(2, inputs.expand(len(sigma), -1, -1), kernel[:, None].expand(-1, size, -1))
