"""SimCLR: two views of an image must find each other among all other views of the batch.

    L = -1/(2B) sum_i log( exp(s(i, p(i)) / T) / sum_{j != i} exp(s(i, j) / T) ),   s = cosine, p(i) = the other view

over the 2B views of B images: the mean over anchors, as in the paper (the released code sums the two directions, which
is twice this value). Only the view itself is left out of the denominator, the partner stays in. Views that cannot be
told apart give ln(2B - 1).

Head: Linear - BN - ReLU - Linear - BN, as wide as the features, 128 out; dropped after training. Both views pass the
network as one batch, so batch norm sees 2B views.

Source: Chen, Kornblith, Norouzi, Hinton, "A simple framework for contrastive learning of visual representations",
ICML 2020 (arXiv 2002.05709). Reported there: ResNet-50 on ImageNet, linear probe 69.3 at batch 4096 and 1000 epochs.
Paper's ImageNet recipe: batch 4096, LARS, learning rate 4.8, weight decay 1e-6, temperature .1, augmentation "natural".
Deviations: AdamW, small batches and half the color jitter (``RECIPES``, made for small data); temperature .2; the last
batch norm of the head keeps its bias.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from curate.pretraining.augment.presets import Preset, preset
from curate.pretraining.methods import Encoded
from curate.pretraining.recipe import Training
from curate.pretraining.sample import Seen
from embeddings.encoders.networks import Network
from embeddings.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Config:
    """The knobs of SimCLR."""

    training: Training
    temperature: float = 0.2
    dim: int = 128  # of the projections that are compared
    augmentation: str = "natural-half"

    def __post_init__(self) -> None:
        if self.temperature <= 0 or self.dim < 1:
            raise UsageError(f"temperature {self.temperature} and dim {self.dim} must be positive.")
        preset(self.augmentation)


class SimCLR(nn.Module):
    """Backbone and projection head."""

    coupled = True

    def __init__(self, network: Network, config: Config) -> None:
        super().__init__()
        self.backbone, dim = network.module, network.dim
        self.head = nn.Sequential(
            nn.Linear(dim, dim, bias=False),
            nn.BatchNorm1d(dim),
            nn.ReLU(inplace=True),
            nn.Linear(dim, config.dim, bias=False),
            nn.BatchNorm1d(config.dim),
        )
        self._temperature = config.temperature

    def encode(self, seen: Seen) -> Encoded:
        """Projections of two views, each [b, dim]."""
        features = self.backbone(torch.cat(list(seen.views)))
        return Encoded(self.head(features).chunk(2), features)

    def loss(self, parts: Sequence[torch.Tensor], *, share: float) -> torch.Tensor:
        """NT-Xent of the projections."""
        return nt_xent(*parts, temperature=self._temperature)


def views(config: Config) -> tuple[Preset, Preset]:
    """Both views are drawn alike."""
    return preset(config.augmentation), preset(config.augmentation)


def chance_loss(config: Config, batch: int) -> float:
    """ln(2B - 1): every other view is as likely to be the partner."""
    return math.log(2 * batch - 1)


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
        views = F.normalize(views if views.dtype == torch.float64 else views.float(), dim=1)
        logits = views @ views.mT / temperature
        itself = torch.eye(len(views), dtype=torch.bool, device=views.device)
        partner = torch.arange(len(views), device=views.device).roll(len(first))
        return F.cross_entropy(logits.masked_fill(itself, -math.inf), partner)


# Measured on 1,500 emoji of three styles, judged on a fourth by linear accuracy in nine categories (se .01). Scratch,
# tiny-resnet@32, C = 10,000: untrained .55; .57 to .60 for batches of 32 to 256, temperatures of .1 and .2, AdamW and
# SGD alike. Continued, lite0@64, C = 3,000 to 4,000: frozen .743; .745 to .75 as below; .741 with full augmentation;
# .667 if the backbone's batch norms take the statistics of the views instead of keeping those of its weights.
RECIPES = {
    "scratch": Config(training=Training(optimizer="adamw", learning_rate=4e-3, weight_decay=1e-2, batch=128)),
    "continued": Config(
        training=Training(optimizer="adamw", learning_rate=3e-4, weight_decay=1e-2, batch=64, keep_statistics=True)
    ),
}
