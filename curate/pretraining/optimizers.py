"""Optimizers from a recipe: weight decay on weights only, the learning rate set anew at each step."""

from __future__ import annotations

import torch
from torch import nn

from curate.pretraining.recipe import Training
from curate.pretraining.schedule import learning_rate_factor


def build_optimizer(module: nn.Module, training: Training) -> torch.optim.Optimizer:
    """The optimizer over all trainable parameters; vectors and scalars (biases, norms) do not decay."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if training.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=training.learning_rate, momentum=training.momentum)
    return torch.optim.AdamW(groups, lr=training.learning_rate)


def set_learning_rate(optimizer: torch.optim.Optimizer, training: Training, *, share: float, batch: int) -> float:
    """Sets and returns the learning rate at a share of C for a run with this batch size."""
    rate = training.peak(batch) * learning_rate_factor(share, warmup=training.warmup)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate
