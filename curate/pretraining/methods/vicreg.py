"""VICReg: two views of an image must agree, while every feature keeps varying and no two features vary together.

    L = 25 mean((Z1 - Z2)^2) + 25 (v(Z1) + v(Z2)) / 2 + 1 (c(Z1) + c(Z2))

    v(Z) = mean_j max(0, 1 - sqrt(Var_j + 1e-4)),   c(Z) = 1/D sum_{i != j} Cov_ij^2

with Z1, Z2 [B, D] the expanded features of the two views, not normalized; variance and covariance over the whole batch,
divided by B - 1. Constant features give 25 (1 - sqrt(1e-4)) = 24.75, which is not the least that can be had without
knowing the image: features that differ between views at random, with a variance of v - 1e-4, give

    25 (1 - sqrt(v)) + 50 (v - 1e-4),   least at sqrt(v) = 1/4:   25 - 25/8 - .005 = 21.87

Runs that learn nothing settle there (two runs on noisy stripes: 21.84, 22.00), so this, not 24.75, is the chance loss.

Head (the expander): three Linear layers, batch norm and ReLU after the first two, no bias in the last; dropped after
training. Each view passes the network on its own.

Source: Bardes, Ponce, LeCun, "VICReg: variance-invariance-covariance regularization for self-supervised learning",
ICLR 2022 (arXiv 2105.04906). Reported there: ResNet-50 on ImageNet, linear probe 73.2 at batch 2048 and 1000 epochs.
The variance terms of the two views are halved, as in the released code; summed, they would be twice the published
weight. "code" is the released recipe, whose views are BYOL's asymmetric pair; "small-batch" its setting for batch 512
and 100 epochs.
Deviations: the default expander is 256 wide, not 8192: a head of 135 million weights would learn in place of a small
network, and a batch of B images determines B^2 / 2 covariances at best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from curate.pretraining.augment.presets import BYOL_VIEWS, Preset, per_view
from curate.pretraining.methods import Encoded
from curate.pretraining.methods._heads import mlp
from curate.pretraining.recipe import CONTINUED, SCRATCH, Training
from curate.pretraining.sample import Seen
from embeddings.encoders.networks import Network
from embeddings.errors import UsageError

EPSILON = 1e-4  # added to each variance: keeps the gradient of its root finite


@dataclass(frozen=True, kw_only=True)
class Config:
    """The knobs of VICReg."""

    training: Training
    width: int = 256  # of each of the expander's three layers
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    augmentation: tuple[str, ...] = ("natural-half",)

    def __post_init__(self) -> None:
        for name, least in {"width": 1, "invariance": 0, "variance": 0, "covariance": 0}.items():
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}; wanted at least {least}.")
        views(self)


class VICReg(nn.Module):
    """Backbone and expander."""

    coupled = True

    def __init__(self, network: Network, config: Config) -> None:
        super().__init__()
        self.backbone = network.module
        self.expander = mlp((network.dim, *[config.width] * 3), bias="hidden")
        self._config = config

    def encode(self, seen: Seen) -> Encoded:
        """Features of two views, each [b, d]."""
        features = [self.backbone(view) for view in seen.views]
        return Encoded(features, torch.cat(features))

    def project(self, parts: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Expanded features of two views, each [b, width]."""
        return [self.expander(part) for part in parts]

    def loss(self, parts: Sequence[torch.Tensor], *, share: float) -> torch.Tensor:
        """The three terms of the expanded features."""
        (first, second), knobs = parts, self._config
        weights = {"invariance": knobs.invariance, "variance": knobs.variance, "covariance": knobs.covariance}
        return vicreg(first, second, **weights)


def views(config: Config) -> tuple[Preset, ...]:
    """Two views, drawn alike or each in its own way."""
    return per_view(config.augmentation, 2)


def chance_loss(config: Config, batch: int) -> float:
    """The least that independent features which tell nothing of their image can reach; 21.87 at the usual weights."""
    best = config.variance / (4 * config.invariance) if config.invariance else 1.0
    deviation = min(max(best, math.sqrt(EPSILON)), 1.0)
    return config.variance * (1 - deviation) + 2 * config.invariance * (deviation**2 - EPSILON)


def build(network: Network, config: Config) -> nn.Module:
    """The learner around a network."""
    return VICReg(network, config)


def vicreg(
    first: torch.Tensor, second: torch.Tensor, *, invariance: float, variance: float, covariance: float
) -> torch.Tensor:
    """Weighted sum of the invariance, variance and covariance terms; at least float32 throughout.

    Args:
        first: [B, D], one view of each image; B >= 2.
        second: [B, D], the other view, in the same order.
        invariance: weight of the mean squared difference of the views.
        variance: weight of the hinge on the standard deviations, the mean of both views.
        covariance: weight of the squared covariances, the sum of both views.

    Returns:
        A scalar >= 0.

    Source: arXiv 2105.04906, equations 1 to 6 and algorithm 1.
    """
    with torch.autocast(first.device.type, enabled=False):
        one, two = (z.to(torch.promote_types(z.dtype, torch.float32)) for z in (first, second))
        spread, together = ((term(one), term(two)) for term in (variance_hinge, covariance_energy))
        return invariance * F.mse_loss(one, two) + variance * sum(spread) / 2 + covariance * sum(together)


def variance_hinge(z: torch.Tensor) -> torch.Tensor:
    """Mean shortfall of the standard deviations [D] of z [B, D] below 1."""
    return F.relu(1 - (z.var(dim=0) + EPSILON).sqrt()).mean()


def covariance_energy(z: torch.Tensor) -> torch.Tensor:
    """Sum of the squared covariances of different features of z [B, D], per feature."""
    centered = z - z.mean(dim=0)
    covariances = centered.mT @ centered / (len(z) - 1)
    covariances.diagonal().zero_()
    return covariances.square().sum() / z.shape[1]


# Published recipes count on ResNet-50, batch 2048 and 1000 epochs, ten of them to warm up ("small-batch": 100). The
# paper's views are alike, with the mean of the pair's blur and solarization.
_CODE = Training(optimizer="lars", learning_rate=0.2, weight_decay=1e-6, batch=2048, warmup=0.01, floor=1e-3)
_PAPER = replace(_CODE, floor=0.002 / 1.6)  # down to .002
_SMALL = replace(_CODE, learning_rate=0.3, batch=512, warmup=0.1)

# Measured with tiny-resnet@32 on 1,024 gray gratings of eight kinds under noise ("natural-half"), by neighbors: .96 at
# C = 2,048 (batch 32) and .99 at 5,120 (batch 64), where a network whose batch norms alone have seen the views has .77
# (se .02). Where tints tell images apart, so few samples teach it the tints: worse than that.

RECIPES = {
    "paper": Config(training=_PAPER, width=8192, augmentation=BYOL_VIEWS),
    "code": Config(training=_CODE, width=8192, augmentation=BYOL_VIEWS),
    "small-batch": Config(training=_SMALL, width=8192, augmentation=BYOL_VIEWS),
    "scratch": Config(training=SCRATCH, augmentation=("natural",)),
    "continued": Config(training=CONTINUED),
}
