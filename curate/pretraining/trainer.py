"""One optimizer step: images to views, views to loss, loss to weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

import torch
from torch import nn

from curate.pretraining import ranks
from curate.pretraining.adaptation import ALL, keep_frozen_statistics
from curate.pretraining.augment.draws import VIEW_DRAWS, draw, uniforms
from curate.pretraining.augment.transfer import on_device
from curate.pretraining.augment.views import augment
from curate.pretraining.depthwise import speed_up_small_maps
from curate.pretraining.execution import Execution
from curate.pretraining.frozen_norms import fold_frozen_norms
from curate.pretraining.gradients import Step, backward, require_exact_chunks
from curate.pretraining.health import by_view, feature_spread, image_share, rank_me
from curate.pretraining.methods import Learner, load_method
from curate.pretraining.optimizers import build_optimizer, clip_gradients, set_rates
from curate.pretraining.sample import Sample, Seen
from curate.pretraining.settings import Settings
from embeddings.encoders.networks import seeded
from embeddings.errors import TrainingError

MEMORY = (
    "Go on with --set chunks=4 (for networks without batch norm, or with chunk_stats=true), or choose a new folder and "
    "a smaller batch or size."
)


@dataclass(frozen=True)
class Measured:
    """What one step yielded. Who asks for a figure waits for the device; a GPU that nobody asks works on."""

    raw_loss: torch.Tensor  # scalar
    raw_norm: torch.Tensor  # scalar, of the gradient
    learning_rate: float
    chance_loss: float
    views: torch.Tensor  # [k, b, d]: features of this process's b images, in k views
    diagnostics: Mapping[str, float] = field(default_factory=dict)  # the method's own, where they were wanted

    @cached_property
    def loss(self) -> float:
        """Of the whole batch, before the step."""
        return float(self.raw_loss)

    def to_json(self) -> dict[str, float]:
        """The figures that go into the curves."""
        return {
            "loss": self.loss,
            "chance_loss": self.chance_loss,
            "learning_rate": self.learning_rate,
            "gradient_norm": float(self.raw_norm),
            "feature_spread": feature_spread(self.views.flatten(0, 1)),
            "rank_me": rank_me(self.views.flatten(0, 1)),
            **({} if (share := image_share(self.views)) is None else {"image_share": share}),
            **self.diagnostics,
        }


class Trainer:
    """A learner and its optimizer on one device."""

    def __init__(self, settings: Settings, execution: Execution | None = None) -> None:
        """Builds the learner.

        Raises:
            UsageError: no such device, or chunks that batch norms do not allow.
            MissingExtraError: public weights that are not on this machine.
        """
        method, self.execution = load_method(settings.method), execution or Execution()
        self.settings, self.placement = settings, self.execution.place()
        self.network = settings.backbone.build(settings.seed)
        settings.adapt.apply(self.network.module, seed=settings.seed)
        speed_up_small_maps(self.network.module)
        if self._has_frozen_norms() and self.placement.device.type == "cpu":
            fold_frozen_norms(self.network.module, settings.backbone.size)
        with seeded(settings.seed):
            learner = method.build(self.network, settings.recipe)
        self.learner = self._placed(learner.train())
        self.optimizer = build_optimizer(self.learner, settings.recipe.training)
        self._presets, self._chance_loss = method.views(settings.recipe), method.chance_loss
        self._mean, self._std = (self._per_channel(v) for v in (self.network.mean, self.network.std))

    def step(
        self, sample: Sample, *, share: float, batch: int, images: int | None = None, logged: bool = True
    ) -> Measured:
        """Trains on one batch.

        Args:
            sample: this process's images of it.
            share: of C.
            batch: the run's nominal batch size, which scales the learning rate.
            images: of the whole batch over all processes; those of the sample if this one is alone.
            logged: whether the method's own figures are wanted; the same in all processes, which may exchange them.

        Raises:
            TrainingError: the batch does not fit into the memory of a GPU.
        """
        rate = set_rates(self.optimizer, self.settings.recipe.training, share=share, batch=batch)
        step = Step(share, images or len(sample), self.execution.chunks, low=self.placement.precision == "bfloat16")
        try:
            loss, norm, features = self._move(sample, step)
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"A batch of {len(sample)} images does not fit into the memory of {self.placement.device}.", hint=MEMORY
            ) from error
        chance = self._chance_loss(self.settings.recipe, step.images)
        diagnostics: dict[str, float] = getattr(self.learner, "diagnostics", dict)() if logged else {}
        return Measured(loss, norm, rate, chance, by_view(features, len(sample), step.chunks), diagnostics)

    def _move(self, sample: Sample, step: Step) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Takes the step; returns the loss before it, the norm of its gradient and the features of the images."""
        self.optimizer.zero_grad()
        seen = Seen(self.views(sample), sample, self.settings.seed)
        loss, features = backward(cast(Learner, self.learner), seen, step)
        ranks.add_gradients(self.learner.parameters())
        self._call("after_backward", step.share)
        norm = nn.utils.get_total_norm([p.grad for p in self.learner.parameters() if p.grad is not None])
        clip_gradients(self.learner, self.settings.recipe.training.clip)
        self.optimizer.step()
        self._call("after_step", step.share)
        return loss, norm, features

    def views(self, sample: Sample) -> list[torch.Tensor]:
        """The normalized views of a batch, each float32 [b, 3, S_v, S_v], channels last."""
        size, pixels = self.settings.backbone.size, on_device(sample.pixels, self.placement.device)
        views = []
        for number, preset in enumerate(self._presets):
            u = uniforms(self.settings.seed, sample.hashes, sample.visits, stream=number + 1, count=VIEW_DRAWS)
            drawn = draw(preset, u, stored=pixels.shape[-1], size=size)
            view = augment(pixels, drawn, size=preset.edge(size))
            view = view.mul_(255).sub_(self._mean).div_(self._std)
            view = view.double() if self.placement.precision == "float64" else view
            views.append(view.contiguous(memory_format=torch.channels_last))
        return views

    def _has_frozen_norms(self) -> bool:
        return self.settings.recipe.training.keep_statistics or self.settings.adapt.kind != ALL

    def _placed(self, learner: nn.Module) -> nn.Module:
        """The learner on its device, in its precision, ready to share a batch with other processes."""
        if self.settings.recipe.training.keep_statistics:
            _keep_statistics(learner)
        if self.settings.adapt.kind != ALL:
            keep_frozen_statistics(learner)
        if not self.execution.chunk_stats:
            require_exact_chunks(self.network.module, self.execution.chunks)
        learner = learner.double() if self.placement.precision == "float64" else learner
        learner = learner.to(self.placement.device)
        learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        ranks.share_batch_norms(learner)
        if self.execution.compile:
            self.network.module.compile()
        return learner

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
