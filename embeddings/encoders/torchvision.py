"""Every classification network of torchvision with its default weights: ``torchvision:resnet50``, and so on.

Images are resized, cropped and scaled as the weights' own transforms say; features are what enters the last linear
layer.
``torchvision:resnet50@128`` crops 128 px and scales the resize with it; transformers with fixed positions refuse that.
Weights are looked for in the weights folder (``torchvision/FILE``) and in torch.hub's cache, else downloaded with a
progress bar. Batch norms are folded where that is found to change nothing.
"""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from embeddings.encoders.folding import fold_if_equal
from embeddings.encoders.hub_weights import TorchHubFile, find_weights
from embeddings.encoders.naming import unknown_encoder
from embeddings.encoders.tensors import load_tensors, read_tensors
from embeddings.encoders.torch_encoder import Placement, TorchEncoder, feature_count, weights_digest
from embeddings.encoders.torchvision_import import import_torchvision
from embeddings.encoders.transform import Transform
from embeddings.errors import UsageError
from embeddings.spec import EncoderSpec

PREFIX = "torchvision:"
LICENSE = "BSD-3-Clause"  # torchvision's own, where the weights name no other


def torchvision_names() -> list[str]:
    """Every name this file serves."""
    models = import_torchvision().models
    return [PREFIX + name for name in models.list_models(module=models)]


def make_torchvision(name: str, placement: Placement) -> TorchEncoder:
    """Builds ``torchvision:NAME`` or ``torchvision:NAME@SIZE``.

    Raises:
        UnknownNameError: torchvision has no such network.
        MissingExtraError: the weights are neither on this machine nor to be had.
        CorruptError: the weights file is damaged or another network's.
        UsageError: the network does not take this size, or has no linear layer to drop.
    """
    network, _, edge = name.removeprefix(PREFIX).partition("@")
    known = torchvision_names()
    if PREFIX + network not in known or not re.fullmatch(r"([1-9]\d*)?", edge):
        raise unknown_encoder(name, known)
    weights = import_torchvision().models.get_model_weights(network).DEFAULT
    module = drop_classifier(load_public(network))
    transform = weights_transform(weights, int(edge) if edge else None)
    default = weights_transform(weights).size
    spec = EncoderSpec(
        name=PREFIX + network + f"@{transform.size}" * (transform.size != default),
        dim=feature_count(module, transform.size),
        size=transform.size,
        preprocessing=f"{transform}; input of the last linear layer",
        weights=weights_digest(module),
        license=weights.meta.get("license", LICENSE),
    )
    module = fold_if_equal(module, transform.size)
    return TorchEncoder(module, spec=spec, transform=transform, placement=placement)


def describe(name: str) -> dict[str, Any]:
    """Size in pixels and license of a name, without its weights; its dimension is not known before it is built."""
    weights = import_torchvision().models.get_model_weights(name.removeprefix(PREFIX)).DEFAULT
    return {"size": weights_transform(weights).size, "dim": None, "license": weights.meta.get("license", LICENSE)}


def load_public(network: str) -> Any:
    """A network of torchvision with its default weights and its classifier.

    Torchvision's own way to load them lets the file run code, so they are read by ours.

    Raises:
        MissingExtraError: the weights are neither on this machine nor to be had.
        CorruptError: the weights file is damaged or another network's.
    """
    models = import_torchvision().models
    weights = models.get_model_weights(network).DEFAULT
    origin = TorchHubFile(weights.url)
    path = find_weights(PREFIX + network, f"torchvision/{origin.name}", origin)
    module = build_untrained(network)
    load_tensors(module, {_current_name(name): tensor for name, tensor in read_tensors(path).items()}, path)
    if network == "googlenet":  # as torchvision does: the side classifiers served its training only
        module.aux1 = module.aux2 = None
    return module


def build_untrained(network: str) -> Any:
    """A network of torchvision with random weights and its classifier, of the shape that its default weights have."""
    models = import_torchvision().models
    return models.get_model(network, weights=None, **_options(network, models.get_model_weights(network).DEFAULT))


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


def _options(network: str, weights: Any) -> dict[str, Any]:
    """What a network must be built with to be the one that its weights were trained in."""
    if network in ("googlenet", "inception_v3"):  # ported from TensorFlow, which scales pixels to -1..1
        return {"transform_input": True, "init_weights": False}
    if network.startswith("vit_"):
        return {"image_size": weights.meta["min_size"][0]}
    return {}


def _current_name(name: str) -> str:
    """DenseNet's files are older than the rule that a module's name has no dot: norm.1 is norm1 now."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)
