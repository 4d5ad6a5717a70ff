"""SimCLR: two views of an image must find each other among all other views of the batch.

    L = -1/(2B) sum_i log( exp(s(i, p(i)) / T) / sum_{j != i} exp(s(i, j) / T) ),   s = cosine, p(i) = the other view

over the 2B views of B images: the mean over anchors, as in the paper (the released code sums the two directions, which
is twice this value). Only the view itself is left out of the denominator, the partner stays in. Views that cannot be
told apart give ln(2B - 1).

Head: Linear - BN - ReLU - Linear - BN, as wide as the features, 128 out; dropped after training. Both views pass the
network as one batch, so batch norm sees 2B views.

Source: Chen, Kornblith, Norouzi, Hinton, "A simple framework for contrastive learning of visual representations",
ICML 2020 (arXiv 2002.05709). Reported there: ResNet-50 on ImageNet, linear probe 69.3 at batch 4096 and 1000 epochs.
"paper" scales the learning rate with the batch, "paper-sqrt" with its root, which the authors prefer below 4096 and for
few epochs; they meet at 4096. "code" is the released one: the sum of both directions, and a hundred times the decay.
"small-batch" is the paper's CIFAR-10 recipe (appendix B.9).
Deviations: AdamW, small batches and half the color jitter (``RECIPES``, made for small data); temperature .2; a head as
wide as the features rather than 2048 (the same for the paper's ResNet-50); its last batch norm keeps its bias.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from curate.pretraining.augment.presets import Preset, per_view
from curate.pretraining.methods import Encoded
from curate.pretraining.methods._heads import mlp
from curate.pretraining.recipe import CONTINUED, SCRATCH, Training
from curate.pretraining.sample import Seen
from embeddings.encoders.networks import Network
from embeddings.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Config:
    """The knobs of SimCLR."""

    training: Training
    temperature: float = 0.2
    dim: int = 128  # of the projections that are compared
    width: int | None = None  # of the head's hidden layer; default that of the features
    scale: float = 1.0  # of the loss
    augmentation: tuple[str, ...] = ("natural-half",)

    def __post_init__(self) -> None:
        for name in ("temperature", "dim", "width", "scale"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise UsageError(f"{name} is {value}; wanted more than 0.")
        views(self)


class SimCLR(nn.Module):
    """Backbone and projection head."""

    coupled = True

    def __init__(self, network: Network, config: Config) -> None:
        super().__init__()
        self.backbone, dim = network.module, network.dim
        self.head = mlp((dim, config.width or dim, config.dim), bias=False, last_norm="affine")
        self._temperature, self._scale = config.temperature, config.scale

    def encode(self, seen: Seen) -> Encoded:
        """Features of two views, each [b, d]."""
        features = self.backbone(torch.cat(list(seen.views)))
        return Encoded(features.chunk(2), features)

    def project(self, parts: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Projections of two views, each [b, dim]."""
        projections: torch.Tensor = self.head(torch.cat(list(parts)))
        return projections.chunk(2)

    def loss(self, parts: Sequence[torch.Tensor], *, share: float) -> torch.Tensor:
        """NT-Xent of the projections."""
        return self._scale * nt_xent(*parts, temperature=self._temperature)


def views(config: Config) -> tuple[Preset, ...]:
    """Two views, drawn alike or each in its own way."""
    return per_view(config.augmentation, 2)


def chance_loss(config: Config, batch: int) -> float:
    """Scale times ln(2B - 1): every other view is as likely to be the partner."""
    return config.scale * math.log(2 * batch - 1)


def build(network: Network, config: Config) -> nn.Module:
    """The learner around a network."""
    return SimCLR(network, config)


def nt_xent(first: torch.Tensor, second: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """Normalized temperature-scaled cross entropy, the mean over all 2B views; at least float32 throughout.

    Args:
        first: [B, d], one view of each image; any length, it is normalized here.
        second: [B, d], the other view, in the same order.
        temperature: T > 0.

    Returns:
        A scalar >= 0, in nats; ln(2B - 1) if all views are equal.

    Source: arXiv 2002.05709, equation 1.
    """
    with torch.autocast(first.device.type, enabled=False):
        views = torch.cat([first, second])
        views = F.normalize(views.to(torch.promote_types(views.dtype, torch.float32)), dim=1)
        logits = views @ views.mT / temperature
        itself = torch.eye(len(views), dtype=torch.bool, device=views.device)
        partner = torch.arange(len(views), device=views.device).roll(len(first))
        return F.cross_entropy(logits.masked_fill(itself, -math.inf), partner)


# Published recipes count on ResNet-50, batch 4096 and 1000 epochs, ten of them to warm up.
_PAPER = Config(
    training=Training(optimizer="lars", learning_rate=0.3, weight_decay=1e-6, batch=4096, warmup=0.01),
    temperature=0.1,
    width=2048,
    augmentation=("natural",),
)
_SQRT = replace(_PAPER.training, learning_rate=0.075 * math.sqrt(256), scaling=0.5)  # .075 sqrt(B)
_CODE = replace(_PAPER.training, weight_decay=1e-4)
_CIFAR = replace(_PAPER.training, learning_rate=1.0, weight_decay=1e-4, batch=512)

# Measured on 1,500 emoji of three styles, judged on a fourth by linear accuracy in nine categories (se .01). Scratch,
# tiny-resnet@32, C = 10,000: untrained .55; .57 to .60 for batches of 32 to 256, temperatures of .1 and .2, AdamW and
# SGD alike. Continued, lite0@64, C = 3,000 to 4,000: frozen .743; .745 to .75 as below; .741 with full augmentation;
# .667 if the backbone's batch norms take the statistics of the views instead of keeping those of its weights.
RECIPES = {
    "paper": _PAPER,
    "paper-sqrt": replace(_PAPER, training=_SQRT),
    "code": replace(_PAPER, training=_CODE, scale=2.0),
    "small-batch": Config(training=_CIFAR, temperature=0.5),
    "scratch": Config(training=SCRATCH),
    "continued": Config(training=CONTINUED),
}
