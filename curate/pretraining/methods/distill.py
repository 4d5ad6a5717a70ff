"""Distillation: a network learns to say what a frozen public encoder says of the same view. The control arm of SSL.

    L = 1 - cos(A f(x) + b, (t(x) - m) / s)

with f the features that are trained, A, b a linear head that is dropped after training, t the teacher's features and
m, s their mean and deviation over all images seen before this step. Without m, what all images share would dominate the
cosine; without s, the few features of largest variance. A head that predicts the mean says 0 and gives 1; the best
constant is a little below, as long and short targets do not quite cancel (measured for lite0: .93).

The teacher never trains: eval mode, no gradient. It sees the very pixels of the student's view, scaled back to 0..255,
resized (bicubic, antialiased) to its own size and scaled as it wants them. Its weights do not stand in the state dict,
only their digest: a restart loads the encoder again and refuses one whose weights differ, be it from those in a state
of an earlier version, which holds them. The statistics grow after each step; the first step, which has none, takes
features as they come.

It costs one pass of the teacher per sample and needs a teacher that knows such images: what one does instead of
self-supervision if all one wants is a smaller encoder. A student that has its teacher's weights and sees the same size
is at the optimum from the start and can only lose.

Sources: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015 (arXiv 1503.02531); Romero et al.,
"FitNets: hints for thin deep nets", ICLR 2015 (arXiv 1412.6550): features as targets, behind a regressor that is
dropped; Beyer et al., "Knowledge distillation: a good teacher is patient and consistent", CVPR 2022 (arXiv 2106.05237):
teacher and student must see the same crop.
Deviations: the cosine in place of FitNets' squared error, for it bounds what one image can add.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from curate.pretraining import ranks
from curate.pretraining.augment.presets import Preset, per_view
from curate.pretraining.methods import Encoded
from curate.pretraining.recipe import CONTINUED, SCRATCH, Training
from curate.pretraining.sample import Seen
from embeddings.encoders import get_encoder
from embeddings.encoders.networks import Network
from embeddings.encoders.torch_encoder import TorchEncoder, weights_digest
from embeddings.encoders.transform import Transform
from embeddings.errors import ForeignFolderError, UsageError

TEACHER = "teacher."  # its names in the learner's state
FLOOR = 1e-4  # of each variance, as a share of the mean variance: silent features stay small


@dataclass(frozen=True, kw_only=True)
class Config:
    """The knobs of distillation."""

    training: Training
    teacher: str = "lite0"  # an encoder's name
    augmentation: tuple[str, ...] = ("natural-half",)

    def __post_init__(self) -> None:
        views(self)


class Distillation(nn.Module):
    """Backbone, linear head and frozen teacher."""

    coupled = False

    def __init__(self, network: Network, config: Config) -> None:
        super().__init__()
        self.backbone = network.module
        self.teacher = Teacher(config.teacher, network)
        self.head = nn.Linear(network.dim, self.teacher.dim)
        self.standard = Standard(self.teacher.dim)
        self.register_state_dict_post_hook(_leave_out_weights)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_require_same_weights)  # type: ignore[no-untyped-call]

    def encode(self, seen: Seen) -> Encoded:
        """Features [b, d] and the teacher's, standardized [b, dim of the teacher]."""
        features, known = self.backbone(seen.views[0]), self.teacher(seen.views[0])
        if self.training:
            self.standard.add(known)
        return Encoded((features, self.standard(known)), features)

    def project(self, parts: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Predictions of the teacher's features and these, each [b, dim of the teacher]."""
        features, targets = parts
        return self.head(features), targets

    def loss(self, parts: Sequence[torch.Tensor], *, share: float) -> torch.Tensor:
        """Mean angle between predictions and targets, as 1 - cosine."""
        return one_minus_cosine(*parts)

    def after_step(self, share: float) -> None:
        """Lets the statistics of the teacher's features grow."""
        self.standard.close()


class Teacher(nn.Module):
    """A frozen encoder behind the normalized views of another network."""

    mean: torch.Tensor  # [3, 1, 1] or [1, 1, 1], as the student's pixels are scaled, 0..255
    std: torch.Tensor
    own_mean: torch.Tensor
    own_std: torch.Tensor

    def __init__(self, name: str, network: Network) -> None:
        super().__init__()
        encoder = get_encoder(name, device="cpu", precision="float32")
        if not isinstance(encoder, TorchEncoder) or not isinstance(encoder.prepare, Transform):
            raise UsageError(f"Encoder {name!r} is no torch network.", hint="Choose another teacher, such as lite0.")
        self.dim, self._size = encoder.spec.dim, encoder.prepare.size
        self.network = copy.deepcopy(encoder.module)  # others use the encoder too, on their own device
        self._name, self._digest = name, weights_digest(self.network)
        scales = (network.mean, network.std, encoder.prepare.mean, encoder.prepare.std)
        for key, value in zip(("mean", "std", "own_mean", "own_std"), scales, strict=True):
            self.register_buffer(key, torch.tensor(value).reshape(-1, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> Teacher:
        """Stays in eval mode."""
        return super().train(False)

    def get_extra_state(self) -> torch.Tensor:
        """What a state dict holds of it: the digest of its weights, uint8 [32]."""
        return torch.frombuffer(bytearray.fromhex(self._digest), dtype=torch.uint8)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Makes sure that it is the teacher which the run was begun with.

        Raises:
            ForeignFolderError: it has other weights.
        """
        self.require(bytes(state.tolist()).hex())

    def require(self, digest: str) -> None:
        """Refuses to go on where the run learned from weights of another digest (sha256, hex).

        Raises:
            ForeignFolderError: as said.
        """
        if digest != self._digest:
            raise ForeignFolderError(
                f"The run learned from {self._name} with weights {digest[:12]}; here they are {self._digest[:12]}.",
                hint=f"Bring back the {self._name} it was begun with, or choose a new folder for --out.",
            )

    @torch.no_grad()
    def forward(self, view: torch.Tensor) -> torch.Tensor:
        """Normalized views [b, 3, S, S] of the student -> features, at least float32 [b, dim]."""
        pixels = view * self.std + self.mean
        if view.shape[-1] != self._size:
            pixels = F.interpolate(pixels, size=(self._size,) * 2, mode="bicubic", antialias=True).clamp(0, 255)
        features: torch.Tensor = self.network((pixels - self.own_mean) / self.own_std)
        return features.to(torch.promote_types(features.dtype, torch.float32))


def _leave_out_weights(learner: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """The teacher never changes, and its name and digest say which one it is."""
    for key in [key for key in state if key.startswith(f"{prefix}{TEACHER}network.")]:
        del state[key]


def _require_same_weights(learner: Distillation, incompatible: Any) -> None:
    """States of earlier versions hold the weights and no digest: both kinds are whole if it is the same teacher."""
    if f"{TEACHER}_extra_state" in incompatible.missing_keys:
        learner.teacher.require(weights_digest(learner.teacher.network))
    incompatible.missing_keys[:] = [key for key in incompatible.missing_keys if not key.startswith(TEACHER)]


class Standard(nn.Module):
    """Standardizes features by the mean and deviation of those seen before the current step, in float64."""

    sums: torch.Tensor
    fresh: torch.Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        empty = torch.zeros(3, dim, dtype=torch.float64)  # how many, their sum, the sum of their squares
        self.register_buffer("sums", empty)
        self.register_buffer("fresh", empty.clone())  # of the current step

    def add(self, features: torch.Tensor) -> None:
        """Notes features [b, dim] of the current step."""
        exact = features.double()
        self.fresh += torch.stack([torch.full_like(exact[0], len(exact)), exact.sum(dim=0), exact.square().sum(dim=0)])

    def close(self) -> None:
        """Ends the step."""
        self.sums += ranks.total(self.fresh)
        self.fresh.zero_()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features [b, dim], standardized; as they are before the first step has ended."""
        count, total, squares = self.sums
        if not count[0]:
            return features
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0)
        deviation = (variance + FLOOR * variance.mean()).sqrt()
        standardized: torch.Tensor = (features.double() - mean) / deviation
        return standardized.to(features.dtype)


def views(config: Config) -> tuple[Preset, ...]:
    """One view, which both see."""
    return per_view(config.augmentation, 1)


def chance_loss(config: Config, batch: int) -> float:
    """1: the mean of standardized features is 0, at right angles to everything."""
    return 1.0


def build(network: Network, config: Config) -> nn.Module:
    """The learner around a network.

    Raises:
        UnknownNameError: no such teacher.
        MissingExtraError: its weights are not on this machine.
        UsageError: it is no torch network.
    """
    return Distillation(network, config)


def one_minus_cosine(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean over images of 1 - cosine; at least float32 throughout.

    Args:
        predictions: [b, d], of any length; 0 counts as at right angles to everything.
        targets: [b, d], of any length.

    Returns:
        A scalar in 0..2, lower is closer.
    """
    with torch.autocast(predictions.device.type, enabled=False):
        kinds = (torch.promote_types(part.dtype, torch.float32) for part in (predictions, targets))
        return 1 - F.cosine_similarity(predictions.to(next(kinds)), targets.to(next(kinds))).mean()


# Measured with tiny-resnet@32 on stripes, C = 2,500 to 3,000, batch 16, learning rate 6e-3 (1.5e-3 at that batch, as
# below), teacher lite0@64: neighbors name .81 of strongly tinted ones (.61 if only batch norms see the views), .74 of
# noisy ones (.50). Not so with augmentation "natural-half" at batches of 32 and C = 1,500 to 2,000: .51 to .52 (.57).
RECIPES = {
    "scratch": Config(
        training=replace(SCRATCH, batch=32),
        augmentation=("natural",),
    ),
    "continued": Config(training=CONTINUED),
}
