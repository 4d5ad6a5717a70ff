"""Every classification network of torchvision with its default weights: ``torchvision:resnet50``, and so on.

Images are resized, cropped and scaled as the weights' own transforms say; features are what enters the last linear
layer.
``torchvision:resnet50@128`` crops 128 px and scales the resize with it; transformers with fixed positions refuse that.
Weights come from torch.hub's cache, or are downloaded with a progress bar.
"""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from embeddings.encoders.hub_weights import require_hub_file
from embeddings.encoders.torch_encoder import Placement, TorchEncoder, feature_count, weights_digest
from embeddings.encoders.torchvision_import import import_torchvision
from embeddings.encoders.transform import Transform
from embeddings.errors import UnknownNameError, UsageError
from embeddings.store import EncoderSpec

PREFIX = "torchvision:"


def torchvision_names() -> list[str]:
    """Every name this file serves."""
    models = import_torchvision().models
    return [PREFIX + name for name in models.list_models(module=models)]


def make_torchvision(name: str, placement: Placement) -> TorchEncoder:
    """Builds ``torchvision:NAME`` or ``torchvision:NAME@SIZE``.

    Raises:
        UnknownNameError: torchvision has no such network.
        MissingExtraError: the weights are neither on this machine nor to be had.
        UsageError: the network does not take this size, or has no linear layer to drop.
    """
    network, _, edge = name.removeprefix(PREFIX).partition("@")
    known = torchvision_names()
    if PREFIX + network not in known or not re.fullmatch(r"([1-9]\d*)?", edge):
        raise UnknownNameError("encoder", name, known)
    models = import_torchvision().models
    weights = models.get_model_weights(network).DEFAULT
    require_hub_file(weights.url)
    module = drop_classifier(models.get_model(network, weights=weights, progress=False))
    transform = weights_transform(weights, int(edge) if edge else None)
    default = weights_transform(weights).size
    spec = EncoderSpec(
        name=PREFIX + network + f"@{transform.size}" * (transform.size != default),
        dim=feature_count(module, transform.size),
        size=transform.size,
        preprocessing=f"{transform}; input of the last linear layer",
        weights=weights_digest(module),
        license=weights.meta.get("license", "BSD-3-Clause"),
    )
    return TorchEncoder(module, spec=spec, transform=transform, placement=placement)


def drop_classifier(module: nn.Module) -> nn.Module:
    """The network without its last linear layer, in place.

    Raises:
        UsageError: it does not end in one.
    """
    name, head = list(module.named_children())[-1]
    if isinstance(head, nn.Linear):
        setattr(module, name, nn.Identity())
    elif isinstance(head, nn.Sequential) and isinstance(head[-1], nn.Linear):
        head[-1] = nn.Identity()
    else:
        raise UsageError(
            f"{type(module).__name__} does not end in a linear layer, so its features are not defined.",
            hint="Choose another network.",
        )
    return module


def weights_transform(weights: Any, size: int | None = None) -> Transform:
    """What the weights' own transforms do, at their own size or scaled to another."""
    own = weights.transforms()
    crop, resize = own.crop_size[0], own.resize_size[0]
    return Transform(
        size=size or crop,
        shorter_side=round(resize * (size or crop) / crop),
        resampling=own.interpolation.value,
        mean=tuple(round(255 * v, 4) for v in own.mean),
        std=tuple(round(255 * v, 4) for v in own.std),
    )
