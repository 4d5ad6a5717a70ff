"""One optimizer step: images to views, views to loss, loss to weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from curate.pretraining.augment.draws import VIEW_DRAWS, draw, uniforms
from curate.pretraining.augment.views import augment
from curate.pretraining.depthwise import speed_up_small_maps
from curate.pretraining.gradients import backward
from curate.pretraining.health import feature_spread
from curate.pretraining.methods import Learner, load_method
from curate.pretraining.optimizers import build_optimizer, clip_gradients, set_rates
from curate.pretraining.sample import Sample, Seen
from curate.pretraining.settings import Settings
from embeddings.encoders.networks import seeded
from embeddings.encoders.torch_encoder import Placement


@dataclass(frozen=True)
class Measured:
    """What one step yielded."""

    loss: float
    learning_rate: float
    chance_loss: float
    features: torch.Tensor  # [views x b, d]

    def to_json(self) -> dict[str, float]:
        """The figures that go into the curves."""
        return {
            "loss": self.loss,
            "chance_loss": self.chance_loss,
            "learning_rate": self.learning_rate,
            "feature_spread": feature_spread(self.features),
        }


class Trainer:
    """A learner and its optimizer on one device: bfloat16 on a GPU, float32 elsewhere."""

    def __init__(self, settings: Settings, device: str = "auto") -> None:
        method = load_method(settings.method)
        self.settings, self.placement = settings, Placement.choose(device)
        self.network = settings.backbone.build(settings.seed)
        speed_up_small_maps(self.network.module)
        with seeded(settings.seed):
            learner = method.build(self.network, settings.recipe)
        self.learner = learner.train().to(self.placement.device)
        if settings.recipe.training.keep_statistics:
            _keep_statistics(self.learner)
        self.learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = build_optimizer(self.learner, settings.recipe.training)
        self._presets, self._chance_loss = method.views(settings.recipe), method.chance_loss
        self._mean, self._std = (self._per_channel(v) for v in (self.network.mean, self.network.std))

    def step(self, sample: Sample, *, share: float, batch: int) -> Measured:
        """Trains on one batch at a share of C; ``batch`` is the run's nominal size, which scales the learning rate."""
        training = self.settings.recipe.training
        rate = set_rates(self.optimizer, training, share=share, batch=batch)
        seen, place = Seen(self.views(sample), sample, self.settings.seed), self.placement
        self.optimizer.zero_grad()
        loss, features = backward(cast(Learner, self.learner), seen, share=share, low=place.precision == "bfloat16")
        self._call("after_backward", share)
        clip_gradients(self.learner, training.clip)
        self.optimizer.step()
        self._call("after_step", share)
        chance = self._chance_loss(self.settings.recipe, len(sample))
        return Measured(float(loss), rate, chance, features)

    def views(self, sample: Sample) -> list[torch.Tensor]:
        """The normalized views of a batch, each float32 [b, 3, S_v, S_v], channels last."""
        size, pixels = self.settings.backbone.size, torch.from_numpy(sample.pixels).to(self.placement.device)
        views = []
        for number, preset in enumerate(self._presets):
            u = uniforms(self.settings.seed, sample.hashes, sample.visits, stream=number + 1, count=VIEW_DRAWS)
            drawn = draw(preset, u, stored=pixels.shape[-1], size=size)
            view = augment(pixels, drawn, size=preset.edge(size))
            view = view.mul_(255).sub_(self._mean).div_(self._std)
            views.append(view.contiguous(memory_format=torch.channels_last))
        return views

    def _call(self, hook: str, share: float) -> None:
        if found := getattr(self.learner, hook, None):
            found(share)

    def _per_channel(self, value: float | Sequence[float]) -> torch.Tensor:
        return torch.tensor(value, dtype=torch.float32, device=self.placement.device).reshape(-1, 1, 1)


def _keep_statistics(learner: nn.Module) -> None:
    """Lets the batch norms of backbones, a teacher's too, use and leave their means and variances; the rest trains."""
    for layer in learner.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
