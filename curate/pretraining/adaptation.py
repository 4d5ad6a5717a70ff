"""How much of a backbone is trained: all of it, its last stages, or a low-rank change of its weights.

all       everything
last:N    the last N stages; those before keep their weights and their batch norms' statistics
lora:R    W + B A in place of every weight W of a Linear or an undivided convolution, with A [R, in] random and
          B [out, R] zero at the start; W itself, and all else, stays. What is written is an ordinary network again,
          with the change inside its weights.

A stage is a child of the network that has parameters, or a member of a child that is a list of such (the blocks of a
transformer). Heads of the method are always trained.

Source of the low-rank change: Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022
(arXiv 2106.09685).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from embeddings.encoders.networks import seeded
from embeddings.errors import UsageError

ALL, LAST, LORA = "all", "last", "lora"
PARAMETRIZED = "parametrizations"  # where torch keeps what makes a weight


@dataclass(frozen=True)
class Adaptation:
    """What is trained of a backbone."""

    kind: str = ALL
    count: int = 0  # stages, or rank

    @classmethod
    def parse(cls, text: str) -> Adaptation:
        """Reads ``all``, ``last:N`` or ``lora:R``.

        Raises:
            UsageError: it is none of these.
        """
        kind, _, count = text.partition(":")
        if text == ALL:
            return cls()
        if kind not in (LAST, LORA) or not count.isdigit() or int(count) < 1:
            raise UsageError(
                f"{text!r} is no way to adapt a backbone.", hint="Write all, last:N (stages) or lora:R (rank)."
            )
        return cls(kind, int(count))

    def __str__(self) -> str:
        return self.kind if self.kind == ALL else f"{self.kind}:{self.count}"

    def apply(self, backbone: nn.Module, *, seed: int) -> None:
        """Freezes what is not trained, in place.

        Raises:
            UsageError: more stages than the network has, or nothing in it that takes a low-rank change.
        """
        if self.kind == LAST:
            _train_last(backbone, self.count)
        elif self.kind == LORA:
            with seeded(seed):
                _add_low_rank(backbone, self.count)


def plain_state(backbone: nn.Module) -> dict[str, torch.Tensor]:
    """The network's state under its own names, low-rank changes inside its weights."""
    state = {name: value for name, value in backbone.state_dict().items() if PARAMETRIZED not in name}
    changed = [(name, layer) for name, layer in backbone.named_modules() if parametrize.is_parametrized(layer)]
    return state | {f"{name}.weight": layer.get_submodule(PARAMETRIZED)["weight"]() for name, layer in changed}


def keep_frozen_statistics(learner: nn.Module) -> None:
    """Puts batch norms whose weights are frozen into evaluation mode; those without weights follow their network."""
    for layer in learner.modules():
        if isinstance(layer, _BatchNorm) and layer.affine and not layer.weight.requires_grad:
            layer.eval()


def stages_of(backbone: nn.Module) -> list[nn.Module]:
    """The stages of a network, in their order."""
    found: list[nn.Module] = []
    for child in backbone.children():
        members = [c for c in child.children() if _has_parameters(c)]
        listed = isinstance(child, nn.Sequential | nn.ModuleList) and len(members) > 1
        found += members if listed else [child] * _has_parameters(child)
    return found


class LowRank(nn.Module):
    """W + B A, in the shape of W."""

    def __init__(self, weight: torch.Tensor, rank: int) -> None:
        super().__init__()
        wide = weight[0].numel()
        self.down = nn.Parameter(torch.randn(rank, wide) / math.sqrt(wide))
        self.up = nn.Parameter(torch.zeros(len(weight), rank))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """[out, in, ...] -> the same shape."""
        return weight + (self.up @ self.down).view_as(weight)


def _train_last(backbone: nn.Module, count: int) -> None:
    stages = stages_of(backbone)
    if count > len(stages):
        raise UsageError(
            f"The last {count} stages were to be trained; the backbone has {len(stages)}.",
            hint=f"Ask for at most {len(stages)}, or for all.",
        )
    backbone.requires_grad_(False)
    for stage in stages[-count:]:
        stage.requires_grad_(True)


def _add_low_rank(backbone: nn.Module, rank: int) -> None:
    backbone.requires_grad_(False)
    layers = [layer for layer in backbone.modules() if _takes_low_rank(layer)]
    if not layers:
        raise UsageError("The backbone has no layer that takes a low-rank change.", hint="Use last:N, or all.")
    for layer in layers:
        weight = layer.get_parameter("weight")
        parametrize.register_parametrization(layer, "weight", LowRank(weight, min(rank, *weight.flatten(1).shape)))


def _takes_low_rank(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)


def _has_parameters(layer: nn.Module) -> bool:
    return any(True for _ in layer.parameters())
