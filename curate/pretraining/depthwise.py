"""Faster training of depthwise convolutions on small maps, on a CPU.

Where the map is smaller than the kernel (the last stages of Lite0 below 160 pixels), oneDNN falls back to a reference
loop for the gradient of the weights, which then takes 80 times as long as the rest of the layer. The same gradient is
one product and sum per kernel tap that ever meets the map:

    dL/dw[c, i, j] = sum_{b, y, x} g[b, c, y, x] input[b, c, y + i - p, x + j - p]
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def speed_up_small_maps(module: nn.Module) -> None:
    """Lets the depthwise convolutions of stride 1 in a network train fast; its function and its state stay the same."""
    for layer in module.modules():
        if type(layer) is nn.Conv2d and _is_plain_depthwise(layer):
            layer.__class__ = SmallMapConv2d


class SmallMapConv2d(nn.Conv2d):
    """A depthwise convolution that takes the fast way where the map is smaller than the kernel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        if x.device.type != "cpu" or min(x.shape[2:]) >= max(self.kernel_size):
            return super().forward(x)
        result: torch.Tensor = _TapwiseConv.apply(x, self.weight)  # type: ignore[no-untyped-call]
        return result if self.bias is None else result + self.bias[:, None, None]


class _TapwiseConv(torch.autograd.Function):
    """Depthwise convolution with the gradient of the weights [C, 1, k, k] summed tap by tap."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, weight = ctx.saved_tensors
        flipped = weight.flip(2, 3)
        return F.conv2d(gradient, flipped, padding=weight.shape[-1] // 2, groups=len(weight)), _taps(
            x, gradient, weight
        )


def _taps(x: torch.Tensor, gradient: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Gradient of the weights, channels last inside so that every product runs over contiguous channels."""
    taps = torch.zeros_like(weight)
    half, lines, columns = weight.shape[-1] // 2, x.shape[2], x.shape[3]
    x, gradient = x.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
    for down in range(-min(half, lines - 1), min(half, lines - 1) + 1):
        for right in range(-min(half, columns - 1), min(half, columns - 1) + 1):
            inputs = x[:, max(0, down) : lines + down, max(0, right) : columns + right]
            outputs = gradient[:, max(0, -down) : lines - down, max(0, -right) : columns - right]
            taps[:, 0, half + down, half + right] = (inputs * outputs).sum(dim=(0, 1, 2))
    return taps


def _is_plain_depthwise(layer: nn.Conv2d) -> bool:
    """One filter per channel, stride 1, odd square kernel, zero padding that keeps the size."""
    kernel = layer.kernel_size[0]
    return (
        layer.groups == layer.in_channels == layer.out_channels
        and layer.kernel_size == (kernel, kernel)
        and layer.padding == (kernel // 2, kernel // 2)
        and layer.stride == layer.dilation == (1, 1)
        and kernel % 2 == 1
        and layer.padding_mode == "zeros"
    )
