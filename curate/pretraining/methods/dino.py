"""DINO: from any view, predict over K prototypes the distribution that the teacher sees in another, global view.

    L = - mean_{g, v != g} sum_k P_g[k] log Q_v[k],   P = softmax((t - c) / T_t),   Q = softmax(s / T_s)

t and s are the outputs of teacher and student; g runs over the two global views, v over all views, and a view is not
compared with itself. The center c keeps one prototype from winning everywhere, the low T_t keeps the distribution from
becoming uniform: c <- .9 c + .1 mean(t), over all global views of the batch, after the batch has used the old c. T_t
rises in a line from .04 to .07 over the first share ``temperature_warmup`` of C. The prototypes stand still during the
first share ``freeze``. The teacher moves after each step along a cosine to 1 (``_teacher``).

Uniform distributions give ln K. If the loss stays there, lower ``teacher_temperature`` or freeze for longer; never
raise it to sharpen. In ``diagnostics`` the teacher's entropy tells the two collapses apart: ln K is uniform, 0 with a
divergence of 0 is one prototype for all.

Head: 3-layer perceptron with GELU (2048 - 2048 - 256), weights drawn from a normal of .02, with batch norms only if the
backbone has some; then cosines with K prototypes. Views of one size pass the backbone as one batch, as in the released
code, and all features of a batch pass the head as one.

Source: Caron et al., "Emerging properties in self-supervised vision transformers", ICCV 2021 (arXiv 2104.14294) and its
code (facebookresearch/dino, Apache-2.0). Reported there: ``REPORTED``.
Deviations: what is kept after training is the student (the authors evaluate the teacher), so that all methods hand over
the same thing; stochastic depth is the backbone's own; prototypes keep length 1 for every backbone (the authors free it
for ViT-S). Ours beside ``RECIPES``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from curate.pretraining import ranks
from curate.pretraining.augment.presets import Preset, per_view
from curate.pretraining.methods import Encoded
from curate.pretraining.methods._heads import mlp
from curate.pretraining.methods._teacher import Teacher, require_momentum
from curate.pretraining.recipe import Training
from curate.pretraining.sample import Seen
from curate.pretraining.schedule import ramp
from embeddings.encoders.networks import Network
from embeddings.errors import UsageError

GLOBAL = 2  # views that the teacher sees
CENTER_MOMENTUM = 0.9
INIT_STD = 0.02

# Linear and k-NN accuracy on ImageNet in percent, by backbone and epochs.
REPORTED = {
    ("vit-s/16", 100): (73.8, 69.3),  # the code's plain run
    ("vit-s/16", 800): (77.0, 74.5),
    ("vit-b/16", 400): (78.2, 76.1),
    ("resnet50", 800): (75.3, 67.5),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """The knobs of DINO; shares are shares of C."""

    training: Training
    prototypes: int = 65_536  # K
    dim: int = 256  # in which they lie
    hidden: int = 2048  # width of the layers before
    student_temperature: float = 0.1
    teacher_temperature: float = 0.07  # after the warm-up
    teacher_temperature_start: float = 0.04
    temperature_warmup: float = 0.0375  # share
    freeze: float = 0.00125  # share in which the prototypes stand still
    teacher_momentum: float = 0.996  # of the teacher at the start
    local_views: int = 8
    augmentation: tuple[str, ...] = ("dino-first", "dino-second", "dino-local")

    def __post_init__(self) -> None:
        temperatures = self.student_temperature, self.teacher_temperature, self.teacher_temperature_start
        wanted = {
            "prototypes": self.prototypes > 1,
            "dim and hidden": min(self.dim, self.hidden) > 0,
            "temperatures": min(temperatures) > 0,
            "temperature_warmup and freeze": all(0 <= share <= 1 for share in (self.temperature_warmup, self.freeze)),
            "local_views": 0 <= self.local_views <= 64,
        }
        for name, holds in wanted.items():
            if not holds:
                raise UsageError(f"Out of range in {self}: {name}.", hint="See curate.pretraining.methods.dino.")
        require_momentum(self.teacher_momentum)
        views(self)


class DINO(nn.Module):
    """Backbone, head, teacher and center."""

    coupled = False  # given the center; its head has batch norms only where the backbone has some itself
    center: torch.Tensor  # [K]
    _seen: torch.Tensor  # [K + 1]: sum of the teacher's outputs since the last step, and how many they are

    def __init__(self, network: Network, config: Config) -> None:
        super().__init__()
        self.backbone, self.head = network.module, Head(network, config)
        self.teacher = Teacher(self.backbone, self.head, start=config.teacher_momentum)
        self.register_buffer("center", torch.zeros(config.prototypes))
        self.register_buffer("_seen", torch.zeros(config.prototypes + 1), persistent=False)
        self._config = config
        self._measured: dict[str, torch.Tensor] = {}

    def encode(self, seen: Seen) -> Encoded:
        """Features of all views [b, V, d] and the teacher's of the global ones [b, 2, d]."""
        whole, small = list(seen.views[:GLOBAL]), list(seen.views[GLOBAL:])
        batches = [torch.cat(same) for same in (whole, small) if same]
        features = [self.backbone(batch) for batch in batches]
        parts = _by_image(torch.cat(features), len(seen)), _by_image(self.teacher.encode(batches[0]), len(seen))
        return Encoded(parts, features[0])

    def project(self, parts: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """The outputs for all views [b, V, K] and the teacher's for the global ones [b, 2, K]."""
        student, teacher = self.head(parts[0].flatten(0, 1)), self.teacher.project(parts[1].flatten(0, 1))
        if self.training:
            self._seen += torch.cat([teacher.sum(dim=0), teacher.new_full((1,), len(teacher))])
        return tuple(out.view(len(part), -1, out.shape[1]) for out, part in zip((student, teacher), parts, strict=True))

    def loss(self, parts: Sequence[torch.Tensor], *, share: float) -> torch.Tensor:
        """Cross entropy between the views, at the temperature of this share."""
        student, teacher = parts
        config = self._config
        start, end = config.teacher_temperature_start, config.teacher_temperature
        temperature = ramp(share, start=start, end=end, over=config.temperature_warmup)
        targets = distribution(teacher - self.center, temperature=temperature)
        loss = cross_entropy(student, targets, temperature=config.student_temperature)
        entropy = torch.special.entr(targets).sum(dim=-1).mean()
        self._measured = {"teacher_entropy": entropy, "divergence": loss.detach() - entropy}
        return loss

    def after_backward(self, share: float) -> None:
        """Drops the gradient of the prototypes, and with it their weight decay, while they stand still."""
        if share < self._config.freeze:
            self.head.prototypes.weight.grad = None

    def after_step(self, share: float) -> None:
        """Moves the teacher, then the center by what the teacher put out for the whole batch."""
        self.teacher.follow(self.backbone, self.head, share=share)
        total = ranks.total(self._seen)
        self.center.lerp_(total[:-1] / total[-1], 1 - CENTER_MOMENTUM)
        self._seen.zero_()

    def diagnostics(self) -> dict[str, float]:
        """Of the last step: the teacher's entropy and the student's divergence from it, in nats, and the center."""
        found = {name: float(value) for name, value in self._measured.items()}
        return found | {"center_norm": float(self.center.norm()), "teacher_momentum": self.teacher.momentum}


class Head(nn.Module):
    """Features [n, d] to cosines with the prototypes [n, K]."""

    def __init__(self, network: Network, config: Config) -> None:
        super().__init__()
        widths = [network.dim, config.hidden, config.hidden, config.dim]
        norms = any(isinstance(layer, nn.BatchNorm2d) for layer in network.module.modules())
        self.mlp = mlp(widths, bias=True, hidden_norm=norms, activation=nn.GELU)
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=INIT_STD)
                nn.init.zeros_(layer.bias)
        self.prototypes = nn.Linear(config.dim, config.prototypes, bias=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Weight normalization with gains fixed at 1; at least float32, as bfloat16 blurs what T_t sharpens."""
        points = self.mlp(features)
        with torch.autocast(points.device.type, enabled=False):
            points = F.normalize(points.to(torch.promote_types(points.dtype, torch.float32)), dim=1)
            return F.linear(points, F.normalize(self.prototypes.weight, dim=1))


def views(config: Config) -> tuple[Preset, ...]:
    """Two global views of their own kinds, then the local ones."""
    *whole, local = per_view(config.augmentation, GLOBAL + 1)
    return (*whole, *[local] * config.local_views)


def chance_loss(config: Config, batch: int) -> float:
    """Of K equally likely prototypes: ln K."""
    return math.log(config.prototypes)


def build(network: Network, config: Config) -> nn.Module:
    """The learner around a network."""
    return DINO(network, config)


def distribution(outputs: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """Softmax of centered outputs [..., K] at a temperature > 0, without gradient; at least float32."""
    with torch.autocast(outputs.device.type, enabled=False):
        exact = outputs.detach().to(torch.promote_types(outputs.dtype, torch.float32))
        return (exact / temperature).softmax(dim=-1)


def cross_entropy(student: torch.Tensor, targets: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """Cross entropy of every view with every other global view, the mean over pairs and images; at least float32.

    Args:
        student: outputs [b, V, K] for all views, the G global ones first.
        targets: the teacher's distributions [b, G, K], in the same order; they get no gradient.
        temperature: of the student, > 0.

    Returns:
        A scalar >= 0, in nats; ln K if the student's outputs are all equal.

    Source: arXiv 2104.14294, equations 2 and 3.
    """
    with torch.autocast(student.device.type, enabled=False):
        exact = student.to(torch.promote_types(student.dtype, torch.float32))
        logs = (exact / temperature).log_softmax(dim=-1)
        pairs = -(targets.detach().to(logs.dtype) @ logs.mT).mean(dim=0)  # [G, V]
        others = ~torch.eye(*pairs.shape, dtype=torch.bool, device=pairs.device)
        return pairs[others].mean()


def _by_image(features: torch.Tensor, images: int) -> torch.Tensor:
    """[b, V, d] of features [V b, d], view after view."""
    return features.view(-1, images, features.shape[1]).transpose(0, 1)


# "scratch" is for hundreds of steps: with the paper's 256 dimensions the cosines with prototypes are so small that
# the teacher stays uniform (loss at ln K); in 16 they are not. Measured with tiny-resnet@32 on 1,024 gray gratings of
# eight kinds under noise ("natural-half"), by neighbors, two seeds at C = 2,048 (batch 32): .90 and .84, where a
# network whose batch norms alone have seen the views has .77 (se .02); .84 at C = 5,120. Its loss still ends near ln K.
# "continued" is not tuned. Cost on one core, a batch of 64, ms per image: 7.1 without local views, 10.2 with two, 12.3
# with eight; 29.6 with K = 65,536.
_PAPER = Training(
    optimizer="adamw",
    learning_rate=5e-4,
    weight_decay=0.04,
    weight_decay_end=0.4,
    batch=1024,
    warmup=0.0125,
    floor=5e-4,
    scaling=1.0,
    clip=3.0,
)

RECIPES = {
    "paper": Config(training=_PAPER),  # ViT-S/16, 800 epochs
    "code": Config(  # its plain run: ViT-S/16, 100 epochs, constant temperature
        training=replace(_PAPER, batch=512, warmup=0.1, floor=1e-3),
        teacher_temperature=0.04,
        temperature_warmup=0.0,
        freeze=0.01,
    ),
    "scratch": Config(
        training=Training(optimizer="adamw", learning_rate=8e-3, weight_decay=0.04, batch=128, clip=3.0),
        prototypes=256,
        dim=16,
        hidden=512,
        teacher_temperature=0.04,
        temperature_warmup=0.0,
        freeze=0.01,
        teacher_momentum=0.99,
        local_views=0,
    ),
    "continued": Config(
        training=Training(
            optimizer="adamw", learning_rate=3e-4, weight_decay=0.04, batch=64, clip=3.0, keep_statistics=True
        ),
        prototypes=1024,
        hidden=512,
        temperature_warmup=0.3,
        freeze=0.01,
        teacher_momentum=0.9,
        local_views=2,
    ),
}
