"""BYOL: from one view, predict the teacher's projection of the other view; no image is compared with another.

    L = d(p1, z2) + d(p2, z1),   d(p, z) = 2 - 2 cos(p, z), the mean over images

p are the predictions from two views, z the teacher's projections of them, which get no gradient. The two directions are
added, as in the paper: averaging them halves the learning rate of LARS's unadapted parameters and has cost a library
11 points. The teacher moves after each step along a cosine to 1 (``_teacher``).

Predictions that have nothing to do with their targets give 4. Features that are all alike give 0, the least there is:
what speaks of a collapse here is the spread of the features, never the loss.

Heads: projector and predictor are Linear 4096 - BN - ReLU - Linear 256, the last Linear without bias.

Source: Grill et al., "Bootstrap your own latent: a new approach to self-supervised learning", NeurIPS 2020 (arXiv
2006.07733). Reported there: ``REPORTED``. Recipes by length are those of the released configuration (deepmind-research,
Apache-2.0, byol/configs/byol.py). Deviations: ours beside ``RECIPES``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from curate.pretraining.augment.presets import BYOL_VIEWS, Preset, per_view
from curate.pretraining.methods._heads import mlp
from curate.pretraining.methods._teacher import Siamese, require_momentum
from curate.pretraining.recipe import CONTINUED, SCRATCH, Training
from embeddings.encoders.networks import Network
from embeddings.errors import UsageError

# Linear accuracy on ImageNet in percent, by backbone and epochs.
REPORTED = {("resnet50", 300): 72.5, ("resnet50", 1000): 74.3}


@dataclass(frozen=True, kw_only=True)
class Config:
    """The knobs of BYOL."""

    training: Training
    dim: int = 256  # of projections and predictions
    hidden: int = 4096  # width of the layer before them
    teacher_momentum: float = 0.996  # of the teacher at the start
    augmentation: tuple[str, ...] = BYOL_VIEWS

    def __post_init__(self) -> None:
        if min(self.dim, self.hidden) < 1:
            raise UsageError(f"dim {self.dim} and hidden {self.hidden} must be positive.")
        require_momentum(self.teacher_momentum)
        views(self)


class BYOL(Siamese):
    """Backbone, projector, predictor and teacher."""

    def __init__(self, network: Network, config: Config) -> None:
        projector, predictor = (
            mlp([width, config.hidden, config.dim], bias="hidden") for width in (network.dim, config.dim)
        )
        super().__init__(network.module, projector, predictor, start=config.teacher_momentum, compare=distance)


def views(config: Config) -> tuple[Preset, ...]:
    """Two views, each of its own kind."""
    return per_view(config.augmentation, 2)


def chance_loss(config: Config, batch: int) -> float:
    """4: predictions at right angles to their targets, in both directions."""
    return 4.0


def build(network: Network, config: Config) -> nn.Module:
    """The learner around a network."""
    return BYOL(network, config)


def distance(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Squared distance of normalized predictions from normalized targets, the mean over images; at least float32.

    Args:
        predictions: [N, d], of any length.
        targets: [N, d], in the same order; they get no gradient.

    Returns:
        A scalar in [0, 4]: 2 - 2 cos.

    Source: arXiv 2006.07733, equation 2.
    """
    with torch.autocast(predictions.device.type, enabled=False):
        first, second = (
            F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=1)
            for x in (predictions, targets.detach())
        )
        return (2 - 2 * (first * second).sum(dim=1)).mean()


def _published(learning_rate: float, *, weight_decay: float, teacher_momentum: float, epochs: int) -> Config:
    """The released recipe for ResNet-50 and this many epochs, ten of them to warm up."""
    training = Training(
        optimizer="lars", learning_rate=learning_rate, weight_decay=weight_decay, batch=4096, warmup=10 / epochs
    )
    return Config(training=training, teacher_momentum=teacher_momentum)


# "scratch" and "continued": rate, decay and batch are SimCLR's; the teacher starts at .9 because their runs have
# hundreds of steps, in which one that starts at .996 hardly moves. Measured with tiny-resnet@32 on 1,024 gray gratings
# of eight kinds under noise ("natural-half"), by neighbors: .80 at C = 2,048 (batch 32) and .85 at 5,120 (batch 64),
# where a network whose batch norms alone have seen the views has .77 (se .02): it needs more samples than MoCo v3.
RECIPES = {
    "paper": _published(0.2, weight_decay=1.5e-6, teacher_momentum=0.996, epochs=1000),
    "paper-300": _published(0.3, weight_decay=1e-6, teacher_momentum=0.99, epochs=300),
    "paper-100": _published(0.45, weight_decay=1e-6, teacher_momentum=0.99, epochs=100),
    "paper-40": _published(0.45, weight_decay=1e-6, teacher_momentum=0.97, epochs=40),
    "scratch": Config(training=SCRATCH, hidden=512, teacher_momentum=0.9),
    "continued": Config(training=CONTINUED, hidden=512, teacher_momentum=0.9),
}
