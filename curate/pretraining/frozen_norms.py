"""Faster training of networks whose batch norms keep their statistics, on a CPU.

A frozen batch norm is one scale and one shift per channel, so the convolution before it can do its work:

    gamma (w * x + b - mean) / sqrt(var + eps) + beta = (s w) * x + s (b - mean) + beta,  s = gamma / sqrt(var + eps)

Autograd finds the gradients of w, gamma and beta through the small tensors s w and s. The maps are read and written
once less in each direction, and torch's slow gradient of a frozen batch norm is never taken.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils import parametrize

from embeddings.encoders.folding import TOLERANCE


def fold_frozen_norms(module: nn.Module, size: int) -> None:
    """Lets convolutions do the work of the batch norms after them while these are frozen; parameters and state stay.

    Nothing changes where that gives other features for noise of this edge in pixels: not every network calls its layers
    in the order in which it holds them.
    """
    if not any(_pairs(module)):
        return
    folded = copy.deepcopy(module)
    _fold(folded)
    if _agree(module, folded, size):
        _fold(module)


def _fold(module: nn.Module) -> None:
    for conv, norm in list(_pairs(module)):
        conv.__class__ = type("FoldedConv2d", (_FoldedConv2d, type(conv)), {})
        conv.__dict__["norm"] = norm  # it stays its parent's submodule
        norm.__class__ = type("FoldedNorm", (_FoldedNorm, type(norm)), {})


def _pairs(module: nn.Module) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Every convolution with the batch norm that follows it among its siblings."""
    before: nn.Module | None = None
    for child in module.children():
        if isinstance(before, nn.Conv2d) and isinstance(child, nn.BatchNorm2d) and _foldable(before, child):
            yield before, child
        yield from _pairs(child)
        before = child


def _foldable(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    known = norm.affine and norm.track_running_stats and not parametrize.is_parametrized(conv)
    return known and not isinstance(norm, _FoldedNorm)


def _agree(module: nn.Module, folded: nn.Module, size: int) -> bool:
    """Whether both give the same features in evaluation mode."""
    example = next(module.parameters())
    noise = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)).to(example)
    modes = [(layer, layer.training) for layer in module.modules()]
    with torch.no_grad():
        wanted, found = module.eval()(noise), folded.eval()(noise)
    for layer, training in modes:
        layer.training = training
    return torch.allclose(found, wanted, rtol=0, atol=TOLERANCE * float(wanted.abs().max()))


class _FoldedConv2d(nn.Conv2d):
    """Mixed into a convolution: while the norm is frozen, ``forward`` finds it in the weight and the bias it reads."""

    norm: nn.BatchNorm2d

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, K, H', W']."""
        if self.norm.training:
            return super().forward(x)
        plain = dict(self._parameters)
        self._parameters.update(self._with_norm())  # type: ignore[arg-type]
        try:
            return super().forward(x)
        finally:
            self._parameters.update(plain)

    def _with_norm(self) -> dict[str, torch.Tensor]:
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        offset = -norm.running_mean if self.bias is None else self.bias - norm.running_mean
        return {"weight": self.weight * scale[:, None, None, None], "bias": norm.bias + offset * scale}


class _FoldedNorm(nn.BatchNorm2d):
    """Mixed into the batch norm after it: what is left to do while its statistics stay."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> the same shape."""
        if self.training:
            return super().forward(x)
        for name in ("drop", "act"):  # timm's batch norms carry them
            x = getattr(self, name, nn.Identity())(x)
        return x
