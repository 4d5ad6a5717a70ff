"""Training with labels: a network and a linear head on it, by AdamW, counted in samples seen.

    minimize   mean CE(y, head(f(view of x)))  +  penalty / 2 |W|^2

The head standardizes features by a mean and a deviation that stay fixed, then is linear: with the network held still
and views that are whole images, its optimum is the linear probe's (``_linear``) of the same penalty. Order and views
are draws by seed, image and visit, those of pretraining; the learning rate warms up, then falls along half a cosine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from curate.evaluation._linear import Scaler, fitted
from curate.evaluation.finetuning.layers import DECAY, parameter_groups
from curate.pretraining.augment.draws import VIEW_DRAWS, draw, uniforms
from curate.pretraining.augment.presets import Preset
from curate.pretraining.augment.views import augment
from curate.pretraining.depthwise import speed_up_small_maps
from curate.pretraining.frozen_norms import fold_frozen_norms
from curate.pretraining.heap import resident_heap
from curate.pretraining.schedule import Images, Schedule, learning_rate_factor
from embeddings.encoders.networks import seeded
from embeddings.encoders.torch_encoder import Placement
from embeddings.encoders.transform import Transform
from embeddings.errors import TrainingError

STREAM = 3000  # of the generator that draws views

Told = Callable[[int], None]  # samples seen


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained with labels."""

    rates: tuple[float, ...]  # peak learning rates to choose among, lowest first
    passes: int  # over the training images, if no number of samples is asked for
    fewest: int  # samples then
    most: int
    preset: Preset
    batch: int = 32  # images per step; a quarter of the images if that is less
    warmup: float = 0.1  # share of the samples
    decay: float = DECAY  # of the learning rate from stage to stage
    weight_decay: float = 0.05
    smoothing: float = 0.0  # share of a label that goes to all classes alike
    keep_statistics: bool = True  # of batch norms; also leaves out dropout

    def samples(self, images: int) -> int:
        """Images seen by default."""
        return min(self.most, max(self.fewest, self.passes * images))


@dataclass(frozen=True)
class Lesson:
    """Labeled images as squares, a quarter larger than the views that are cut from them."""

    pixels: np.ndarray  # uint8 [N, E, E, 3], of more images; may lie in a file
    rows: np.ndarray  # int64 [n] of them
    hashes: np.ndarray  # uint64 [n]
    labels: np.ndarray  # int64 [n]

    def __len__(self) -> int:
        return len(self.hashes)

    def views(self, rows: np.ndarray, visits: np.ndarray, *, preset: Preset, size: int, seed: int) -> torch.Tensor:
        """float32 [b, 3, size, size] in 0..255."""
        pixels = torch.from_numpy(np.ascontiguousarray(self.pixels[self.rows[rows]].transpose(0, 3, 1, 2)))
        u = uniforms(seed, self.hashes[rows], visits, stream=STREAM, count=VIEW_DRAWS)
        return augment(pixels, draw(preset, u, stored=pixels.shape[-1], size=size), size=size).mul_(255)


class Head(nn.Module):
    """Fixed standardization, then a linear map to the classes that have training images."""

    mean: torch.Tensor  # float64 [d]
    scale: torch.Tensor  # float64 [d], infinite where a feature is constant

    def __init__(self, dim: int, n_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, n_classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("mean", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(dim, dtype=torch.float64))

    @classmethod
    def of_probe(cls, features: np.ndarray, labels: np.ndarray, penalty: float) -> Head:
        """The linear probe of features [n, d] and labels int [n], 0 .. C - 1, each with an image."""
        scaler = Scaler.of(features)
        model = fitted(scaler(features), labels, penalty)
        head = cls(features.shape[1], len(model.bias))
        with torch.no_grad():
            head.linear.weight.copy_(torch.from_numpy(model.weights.T))
            head.linear.bias.copy_(torch.from_numpy(model.bias))
            head.mean.copy_(torch.from_numpy(scaler.mean))
            head.scale.copy_(torch.from_numpy(scaler.scale))
        return head

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features [b, d] -> logits [b, C]."""
        logits: torch.Tensor = self.linear((features - self.mean.to(features)) / self.scale.to(features))
        return logits

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """float64 [k, C] of features [k, d]."""
        with torch.no_grad():
            logits = self.forward(torch.from_numpy(np.asarray(features, np.float32)).to(self.linear.weight.device))
        found: np.ndarray = torch.softmax(logits.double(), dim=1).cpu().numpy()
        return found


@dataclass(frozen=True)
class Classifier:
    """A network, its head and how pixels are fed to it."""

    network: nn.Module
    head: Head
    transform: Transform
    placement: Placement = field(default_factory=lambda: Placement(torch.device("cpu"), "float32"))

    def logits(self, views: torch.Tensor) -> torch.Tensor:
        """Views float32 [b, 3, S, S] in 0..255 -> [b, C]."""
        device, low = self.placement.device, self.placement.precision == "bfloat16"
        mean, std = (_channels(value).to(device) for value in (self.transform.mean, self.transform.std))
        x = ((views.to(device) - mean) / std).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            features: torch.Tensor = self.network(x)
        return self.head(features.float())  # type: ignore[no-any-return]

    def prepare(self, *, keep_statistics: bool) -> None:
        """Puts network and head in place for training; what is frozen stays so."""
        speed_up_small_maps(self.network)
        if keep_statistics and self.placement.device.type == "cpu":
            fold_frozen_norms(self.network, self.transform.size)
        self.network.train(not keep_statistics).to(self.placement.device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.head.to(self.placement.device)


def train(
    classifier: Classifier,
    lesson: Lesson,
    recipe: Recipe,
    *,
    rate: float,
    penalty: float,
    samples: int,
    seed: int,
    told: Told,
) -> None:
    """Trains what is not frozen of a classifier, in place.

    Args:
        classifier: network and head.
        lesson: images and labels.
        recipe: how.
        rate: peak learning rate.
        penalty: of the head's squared weights.
        samples: images seen, in all.
        seed: of order and views.
        told: called after every step.

    Raises:
        TooFewImagesError: fewer than 8 images.
        UsageError: fewer samples than a batch.
        TrainingError: the loss is not finite.
    """
    images = Images(lesson.hashes, *(np.full(len(lesson), value, np.int64) for value in (1, 0)))
    schedule = Schedule(images, samples=samples, batch=recipe.batch, seed=seed)
    classifier.prepare(keep_statistics=recipe.keep_statistics)
    groups = parameter_groups(classifier.network, classifier.head, decay=recipe.decay, weight_decay=recipe.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=rate)
    with resident_heap(), seeded(seed):
        for batch in schedule.batches():
            for group in optimizer.param_groups:
                share = batch.middle / samples
                group["lr"] = rate * group["factor"] * learning_rate_factor(share, warmup=recipe.warmup)
            size = classifier.transform.size
            views = lesson.views(batch.rows, batch.visits, preset=recipe.preset, size=size, seed=seed)
            loss = _loss(classifier, views, lesson.labels[batch.rows], penalty, recipe.smoothing)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if not math.isfinite(float(loss.detach())):
                raise TrainingError(f"The loss is not finite after {batch.end:,} samples at the rate {rate:g}.")
            told(batch.end)


def _loss(
    classifier: Classifier, views: torch.Tensor, labels: np.ndarray, penalty: float, smoothing: float
) -> torch.Tensor:
    logits = classifier.logits(views)
    truth = torch.from_numpy(labels).to(logits.device)
    weights = classifier.head.linear.weight
    return F.cross_entropy(logits, truth, label_smoothing=smoothing) + penalty / 2 * weights.square().sum()


def _channels(value: float | tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float32).reshape(-1, 1, 1)
