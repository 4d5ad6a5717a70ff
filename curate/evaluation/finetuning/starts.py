"""Networks to be trained with labels: that of an encoder as it is, or one with random weights.

``lite0`` and runs are built anew, with their batch norms. Of all other encoders the network is a copy of the one that
embeds, in which batch norms are mostly folded into the convolutions before them; it starts as the same function.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import nn

from curate.pretraining.backbones import resolve_backbone
from embeddings.encoders import Encoder
from embeddings.encoders.checkpoint import PREFIX as RUN
from embeddings.encoders.checkpoint import load_backbone
from embeddings.encoders.networks import build_network
from embeddings.encoders.torch_encoder import TorchEncoder
from embeddings.encoders.transform import Transform
from embeddings.errors import UsageError
from embeddings.spec import EncoderSpec

LITE0, STAND_IN = "lite0", "resnet18"


@dataclass(frozen=True, kw_only=True)
class Start:
    """A network before it is trained."""

    name: str  # of the network
    spec: EncoderSpec  # as an encoder; of random weights, those of seed 0
    transform: Transform
    build: Callable[[int], nn.Module]  # seed -> a new one on the CPU; seeds differ only where weights are random

    @property
    def larger(self) -> Transform:
        """The same view of an image, a quarter larger, for crops to be cut from."""
        sides = {side: getattr(self.transform, side) for side in ("shorter_side", "longer_side", "squash_side")}
        scaled = {side: edge and edge * 5 // 4 for side, edge in sides.items()}
        return replace(self.transform, size=self.transform.size * 5 // 4, **scaled)


def can_finetune(encoder: Encoder) -> str:
    """Why an encoder cannot be fine-tuned; "" if it can."""
    if not isinstance(encoder, TorchEncoder) or not isinstance(encoder.prepare, Transform):
        return "it is no torch network that is fed squares of pixels"
    return "" if any(True for _ in encoder.module.parameters()) else "it has no weights"


def require_tunable(name: str, encoder: Encoder) -> None:
    """Refuses an encoder that cannot be fine-tuned.

    Raises:
        UsageError: it cannot.
    """
    if why := can_finetune(encoder):
        raise UsageError(f"Encoder {name!r} cannot be fine-tuned: {why}.", hint="Leave out finetune, or this encoder.")


def pretrained(name: str, encoder: Encoder) -> Start:
    """The network of an encoder with this name.

    Raises:
        UsageError: the encoder cannot be fine-tuned.
    """
    require_tunable(name, encoder)
    assert isinstance(encoder, TorchEncoder)
    family = name.partition("@")[0]
    bare = load_backbone(Path(name.removeprefix(RUN)))[0].name if name.startswith(RUN) else family
    build = partial(_built, name if name.startswith(RUN) or family == LITE0 else "", encoder.module)
    return Start(name=bare, spec=encoder.spec, transform=encoder.prepare, build=build)


def untrained(backbone: str | None, encoder: Encoder) -> Start:
    """A network with random weights at an encoder's size: of this name, or else the encoder's own, or a ResNet-18.

    Raises:
        UnknownNameError: no such network.
        UsageError: the network does not take this size.
    """
    spec = encoder.spec
    name = backbone or (LITE0 if spec.name.startswith(LITE0) else STAND_IN)
    found = resolve_backbone(name, init="scratch", size=spec.size)
    network = found.build(0)
    transform = Transform(size=spec.size, mean=network.mean, std=network.std)
    described = EncoderSpec(
        name=f"{name}:untrained@{spec.size}",
        dim=network.dim,
        size=spec.size,
        preprocessing=f"{transform}; pooled features",
        weights="",
    )
    return Start(name=name, spec=described, transform=transform, build=lambda seed: found.build(seed).module)


def _built(name: str, module: nn.Module, seed: int) -> nn.Module:
    if name.startswith(RUN):
        return load_backbone(Path(name.removeprefix(RUN)))[0].module
    if name:
        return build_network(LITE0, init="public").module
    return copy.deepcopy(module).float().cpu().requires_grad_(True)
