"""Barlow Twins: two views of an image must agree in every feature, and no feature may tell what another tells.

    L = sum_i (1 - C_ii)^2 + lambda sum_{i != j} C_ij^2,   C = Z1' Z2 / B

with Z1, Z2 [B, D] the projections of the two views, each feature standardized over the whole batch by its biased
variance (else the diagonal of perfect twins would be (B - 1) / B, not 1). Collapsed projections have C = 0 and give D.
Projections that tell nothing of their image give D B / (B - 1) + lambda D (D - 1) / (B - 1), expected over all ways to
pair the views, whatever their distribution.

Head: three Linear layers without bias, batch norm and ReLU after the first two; dropped after training. Each view
passes the network on its own.

Source: Zbontar, Jing, Misra, LeCun, Deny, "Barlow Twins: self-supervised learning via redundancy reduction", ICML 2021
(arXiv 2103.03230). Reported there: ResNet-50 on ImageNet, linear probe 73.2 at batch 2048 and 1000 epochs. The released
code decays weights by 1e-6, the paper by 1.5e-6. "small-batch" is the best of the authors' learning rates at a batch of
256 (70.7 at 300 epochs; .7 at 128: 69.7; .3 at 512: 71.4).
``scale`` multiplies the loss. LARS steps on weights do not depend on it, those on biases and norms do: .024 times their
gradient, as released first, is what .024 times their rate is, as published and in "paper".
Deviations: the default projector is 256 wide, not 8192: a head of 135 million weights would learn in place of a small
network, and a batch of B images determines B^2 / 2 correlations at best. Our recipes have a lambda of .02, because that
of the paper weighs D (D - 1) correlations against D and fades as D shrinks.
"""

from __future__ import annotations

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


@dataclass(frozen=True, kw_only=True)
class Config:
    """The knobs of Barlow Twins."""

    training: Training
    width: int = 256  # of each of the projector's three layers
    off_diagonal: float = 0.0051  # lambda
    scale: float = 1.0  # of the loss
    augmentation: tuple[str, ...] = ("natural-half",)

    def __post_init__(self) -> None:
        if self.width < 1 or self.off_diagonal < 0 or self.scale <= 0:
            raise UsageError(
                f"width {self.width} and scale {self.scale} must be positive, "
                f"off_diagonal {self.off_diagonal} must not be negative."
            )
        views(self)


class BarlowTwins(nn.Module):
    """Backbone and projector."""

    coupled = True

    def __init__(self, network: Network, config: Config) -> None:
        super().__init__()
        self.backbone = network.module
        self.projector = mlp((network.dim, *[config.width] * 3), bias=False)
        self._off_diagonal, self._scale = config.off_diagonal, config.scale

    def encode(self, seen: Seen) -> Encoded:
        """Features of two views, each [b, d]."""
        features = [self.backbone(view) for view in seen.views]
        return Encoded(features, torch.cat(features))

    def project(self, parts: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Projections of two views, each [b, width]."""
        return [self.projector(part) for part in parts]

    def loss(self, parts: Sequence[torch.Tensor], *, share: float) -> torch.Tensor:
        """How far the cross-correlation of the projections is from the identity."""
        return self._scale * barlow_twins(*parts, off_diagonal=self._off_diagonal)


def views(config: Config) -> tuple[Preset, ...]:
    """Two views, drawn alike or each in its own way."""
    return per_view(config.augmentation, 2)


def chance_loss(config: Config, batch: int) -> float:
    """Scale times D: collapsed projections correlate with nothing."""
    return config.scale * config.width


def build(network: Network, config: Config) -> nn.Module:
    """The learner around a network."""
    return BarlowTwins(network, config)


def barlow_twins(first: torch.Tensor, second: torch.Tensor, *, off_diagonal: float) -> torch.Tensor:
    """Squared distance of the cross-correlation from the identity, off the diagonal weighted; at least float32.

    Args:
        first: [B, D], one view of each image; any scale and offset per feature, it is standardized here.
        second: [B, D], the other view, in the same order.
        off_diagonal: lambda >= 0.

    Returns:
        A scalar >= 0; D if all rows of a view are equal.

    Source: arXiv 2103.03230, equation 1 and algorithm 1.
    """
    with torch.autocast(first.device.type, enabled=False):
        one, two = (_standardized(z.to(torch.promote_types(z.dtype, torch.float32))) for z in (first, second))
        distance = one.mT @ two / len(one)
        distance.diagonal().sub_(1)
        on = distance.diagonal().square().sum()
        return off_diagonal * distance.square().sum() + (1 - off_diagonal) * on


def _standardized(z: torch.Tensor) -> torch.Tensor:
    """Each feature with mean 0 and biased variance 1 over the batch, as the papers' batch norm without weights does."""
    return F.batch_norm(z, None, None, training=True)


# Published recipes count on ResNet-50, batch 2048 and 1000 epochs, ten of them to warm up ("small-batch": 300).
_PAPER = Training(
    optimizer="lars", learning_rate=0.2, weight_decay=1.5e-6, batch=2048, warmup=0.01, floor=1e-3, bias_rate=0.024
)
_CODE = replace(_PAPER, weight_decay=1e-6)
_SMALL = replace(_CODE, learning_rate=0.4, batch=256, warmup=1 / 30)

# Measured with tiny-resnet@32 on 1,024 gray gratings of eight kinds under noise ("natural-half"), by neighbors: .93 at
# C = 2,048 (batch 32), where a network whose batch norms alone have seen the views has .77 (se .02). Where tints tell
# images apart, runs of 2,000 to 3,000 samples end below that at every rate, width and lambda tried; SimCLR does not.

RECIPES = {
    "paper": Config(training=_PAPER, width=8192, augmentation=BYOL_VIEWS),
    "code": Config(training=_CODE, width=8192, augmentation=BYOL_VIEWS),
    "small-batch": Config(training=_SMALL, width=8192, augmentation=BYOL_VIEWS),
    "scratch": Config(training=SCRATCH, off_diagonal=0.02),
    "continued": Config(training=CONTINUED, off_diagonal=0.02),
}
