"""Batch norms folded into the convolutions before them: the same function, fewer passes over memory (1.1 to 1.9x)."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

TOLERANCE = 1e-4  # of the largest feature


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Folds, in place, every batch norm that directly follows a convolution among its siblings; leaves eval mode on.

    Only for networks that call their layers in the order in which they hold them, as all of ``networks`` do.
    Computed in float64, so that only the convolution itself rounds.
    """
    _fold_children(module.eval().double())
    return module.float()


def fold_if_equal(module: nn.Module, size: int) -> nn.Module:
    """The network with its batch norms folded if that gives the same features, else the network as it was.

    For networks of others, whose order of calls is not known: both are run on a batch of noise of this edge in pixels,
    and the features must agree to ``TOLERANCE``.
    """
    if not count_batch_norms(module):
        return module
    noise = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = module.eval()(noise)
    try:
        folded = fold_batch_norms(copy.deepcopy(module))
        with torch.inference_mode():
            found = folded(noise)
    except (AttributeError, RuntimeError, TypeError):  # built in a way that cannot be taken apart
        return module
    equal = torch.allclose(found, wanted, rtol=0, atol=TOLERANCE * float(wanted.abs().max()))
    return folded if equal else module


def count_batch_norms(module: nn.Module) -> int:
    """How many batch norms a network holds; what folding leaves of them runs on its own."""
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())


def _fold_children(module: nn.Module) -> None:
    before: tuple[str, nn.Module] | None = None
    for name, child in list(module.named_children()):
        if before and isinstance(before[1], nn.Conv2d) and isinstance(child, nn.BatchNorm2d):
            setattr(module, before[0], fuse_conv_bn_eval(before[1], child))
            setattr(module, name, getattr(child, "act", nn.Identity()))  # timm's batch norms carry their activation
        else:
            _fold_children(child)
        before = name, child
