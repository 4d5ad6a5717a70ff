"""MoCo v3: from one view, predict the teacher's projection of the other view among those of all images of the batch.

    L = c(q1, k2) + c(q2, k1),   c(q, k) = -2 T / N sum_i log( exp(q_i . k_i / T) / sum_j exp(q_i . k_j / T) )

over N images; q are the normalized predictions of two views, k the teacher's normalized projections of them, which
get no gradient. The factor 2 T keeps the size of the gradient when the temperature changes. Images that cannot be told
apart give 4 T ln N. The teacher moves after each step along a cosine from .99 to 1 (``_teacher``).

Heads, all Linear without bias. Convolutional networks: projector of 2 layers (4096 - 256), the last batch norm without
weights; predictor of 2 layers without a batch norm at its end. Transformers: projector of 3 layers, predictor of 2,
both with that last batch norm; and their patch projection stays as it is, which keeps their training stable.

Source: Chen, Xie, He, "An empirical study of training self-supervised vision transformers", ICCV 2021 (arXiv
2104.02057), written from the paper alone. Reported there: ``REPORTED``.
Deviations: the paper crops at least .2 of an image for ResNet-50, "natural-first" .08 as it does for transformers;
positions and the start of queries, keys and values are those of the backbone. Ours beside ``RECIPES``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from curate.pretraining.augment.presets import BYOL_VIEWS, Preset, per_view
from curate.pretraining.methods._heads import is_transformer, mlp
from curate.pretraining.methods._teacher import Siamese, require_momentum
from curate.pretraining.recipe import CONTINUED, SCRATCH, Training
from embeddings.encoders.networks import Network
from embeddings.errors import UsageError

# Linear accuracy on ImageNet in percent, by backbone and epochs.
REPORTED = {
    ("resnet50", 100): 68.9,
    ("resnet50", 300): 72.8,
    ("resnet50", 1000): 74.6,
    ("vit-s/16", 300): 73.2,
    ("vit-b/16", 300): 76.7,
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """The knobs of MoCo v3."""

    training: Training
    temperature: float = 0.2
    dim: int = 256  # of the projections that are compared
    hidden: int = 4096  # width of the layers before them
    teacher_momentum: float = 0.99  # of the teacher at the start
    augmentation: tuple[str, ...] = BYOL_VIEWS

    def __post_init__(self) -> None:
        if self.temperature <= 0 or min(self.dim, self.hidden) < 1:
            raise UsageError(
                f"temperature {self.temperature}, dim {self.dim} and hidden {self.hidden} must be positive."
            )
        require_momentum(self.teacher_momentum)
        views(self)


class MoCoV3(Siamese):
    """Backbone, projector, predictor and teacher."""

    def __init__(self, network: Network, config: Config) -> None:
        deep = is_transformer(network.module)
        if deep:
            network.module.patch_embed.requires_grad_(False)
        inner = [config.hidden] * (2 if deep else 1)
        projector = mlp([network.dim, *inner, config.dim], bias=False, last_norm="plain")
        predictor = mlp([config.dim, config.hidden, config.dim], bias=False, last_norm="plain" if deep else None)
        compare = partial(info_nce, temperature=config.temperature)
        super().__init__(network.module, projector, predictor, start=config.teacher_momentum, compare=compare)


def views(config: Config) -> tuple[Preset, ...]:
    """Two views, each of its own kind."""
    return per_view(config.augmentation, 2)


def chance_loss(config: Config, batch: int) -> float:
    """4 T ln N: every image of the batch is as likely."""
    return 4 * config.temperature * math.log(batch)


def build(network: Network, config: Config) -> nn.Module:
    """The learner around a network."""
    return MoCoV3(network, config)


def info_nce(predictions: torch.Tensor, keys: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """2 T times the cross entropy of finding one's own key among all, the mean over images; at least float32.

    Args:
        predictions: [N, d], of any length, they are normalized here.
        keys: [N, d], in the same order; they get no gradient.
        temperature: T > 0.

    Returns:
        A scalar >= 0; 2 T ln N if all keys are equal.

    Source: arXiv 2104.02057, equation 1 and algorithm 1.
    """
    with torch.autocast(predictions.device.type, enabled=False):
        queries, keys = (
            F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=1) for x in (predictions, keys.detach())
        )
        own = torch.arange(len(queries), device=queries.device)
        return 2 * temperature * F.cross_entropy(queries @ keys.mT / temperature, own)


# "scratch" and "continued": rate, decay and batch are SimCLR's; the teacher starts at .9 because their runs have
# hundreds of steps, in which one that starts at .99 hardly moves. Measured with tiny-resnet@32 on 1,024 gray gratings
# of eight kinds under noise ("natural-half"), by neighbors: .90 at C = 2,048 (batch 32) and .97 at 5,120 (batch 64),
# where a network whose batch norms alone have seen the views has .77 (se .02). On tinted ones so few samples teach it
# the tints: worse than that.
RECIPES = {
    "paper": Config(  # ResNet-50, 300 epochs
        training=Training(optimizer="lars", learning_rate=0.3, weight_decay=1e-6, batch=4096, warmup=1 / 30),
        temperature=1.0,
    ),
    "paper-transformer": Config(  # ViT-S and ViT-B, 300 epochs
        training=Training(
            optimizer="adamw", learning_rate=1.5e-4, weight_decay=0.1, batch=4096, warmup=40 / 300, scaling=1.0
        ),
    ),
    "scratch": Config(training=SCRATCH, hidden=512, teacher_momentum=0.9),
    "continued": Config(training=CONTINUED, hidden=512, teacher_momentum=0.9),
}
