"""Optimizers from a recipe: weight decay on weights only, rates set anew at each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from curate.pretraining.recipe import Training
from curate.pretraining.schedule import cosine, learning_rate_factor

WEIGHTS, VECTORS = 0, 1  # parameter groups: what decays, and biases and norms


def build_optimizer(module: nn.Module, training: Training) -> torch.optim.Optimizer:
    """The optimizer over all trainable parameters; vectors and scalars (biases, norms) do not decay."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    weights, vectors = [p for p in parameters if not _is_vector(p)], [p for p in parameters if _is_vector(p)]
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": training.weight_decay, "adapts": True},
        {"params": vectors, "weight_decay": 0.0, "adapts": False},
    ]
    if training.optimizer == "lars":
        return LARS(groups, lr=training.learning_rate, momentum=training.momentum, trust=training.trust)
    if training.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=training.learning_rate, momentum=training.momentum)
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=training.betas)


def excluded(module: nn.Module) -> list[str]:
    """Names of the trainable parameters without weight decay and, under LARS, without trust ratio."""
    return [name for name, parameter in module.named_parameters() if parameter.requires_grad and _is_vector(parameter)]


def _is_vector(parameter: torch.Tensor) -> bool:
    return parameter.ndim <= 1


def set_rates(optimizer: torch.optim.Optimizer, training: Training, *, share: float, batch: int) -> float:
    """Sets learning rate and weight decay at a share of C for a run with this batch size; returns the former."""
    rate = training.peak(batch) * learning_rate_factor(share, warmup=training.warmup, floor=training.floor)
    optimizer.param_groups[WEIGHTS]["lr"] = rate
    optimizer.param_groups[VECTORS]["lr"] = rate * (1.0 if training.bias_rate is None else training.bias_rate)
    if training.weight_decay_end is not None:
        decay = cosine(share, start=training.weight_decay, end=training.weight_decay_end)
        optimizer.param_groups[WEIGHTS]["weight_decay"] = decay
    return rate


def clip_gradients(module: nn.Module, limit: float | None) -> None:
    """Scales down the gradient of each parameter whose norm is above the limit, each on its own."""
    if limit is None:
        return
    for parameter in module.parameters():
        if parameter.grad is not None:
            torch.nn.utils.clip_grad_norm_(parameter, limit)


class LARS(torch.optim.Optimizer):
    """Momentum SGD whose step on each weight is scaled to the weight's own length.

        g = dL/dw + decay w,   m <- momentum m + q g,   w <- w - lr m,   q = trust |w| / |g|

    with q = 1 where either norm is zero, and on groups that do not adapt (biases, norms). The trust ratio holds at
    weight decay zero too: implementations that apply it only where weights decay take steps 190 times as long there.

    Source: You, Gitman, Ginsburg, "Large batch training of convolutional networks", 2017 (arXiv 1708.03888).
    """

    def __init__(self, groups: list[dict[str, Any]], *, lr: float, momentum: float, trust: float) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "trust": trust, "weight_decay": 0.0, "adapts": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step from the gradients at hand."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)

    def _move(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        gradient = parameter.grad.add(parameter, alpha=group["weight_decay"])  # type: ignore[union-attr]
        if group["adapts"]:
            lengths = parameter.norm(), gradient.norm()
            ratio = group["trust"] * lengths[0] / lengths[1]
            gradient.mul_(torch.where((lengths[0] > 0) & (lengths[1] > 0), ratio, 1.0))
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].mul_(group["momentum"]).add_(gradient)
        parameter.sub_(state["momentum"], alpha=group["lr"])
