"""Every network of timm with public weights: ``timm:resnet50.a1_in1k``, ``timm:vit_small_patch14_dinov2.lvd142m``.

    timm:NAME         at the size of its pretrained configuration
    timm:NAME@SIZE    another edge; transformers get their positions interpolated by timm where they can

A name without its tag means the tag that timm takes by default. Resize, crop, resampling and scaling follow the
pretrained configuration; features are what timm gives without a classifier (pooled, [n, d]).
The few networks whose input is no square are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

from torch import nn

from embeddings.encoders.folding import fold_if_equal
from embeddings.encoders.hub_weights import HuggingFaceFile, Origin, TorchHubFile, find_weights
from embeddings.encoders.naming import UNKNOWN_LICENSE, unknown_encoder
from embeddings.encoders.tensors import fitting, read_tensors
from embeddings.encoders.torch_encoder import Placement, TorchEncoder, feature_count, weights_digest
from embeddings.encoders.torchvision_import import import_timm
from embeddings.encoders.transform import Transform
from embeddings.errors import UsageError, one_line
from embeddings.spec import EncoderSpec

PREFIX = "timm:"


def timm_names() -> list[str]:
    """Every name this file serves, each with its tag."""
    return [PREFIX + name for name in _configs()]


def make_timm(name: str, placement: Placement) -> TorchEncoder:
    """Builds ``timm:NAME`` or ``timm:NAME@SIZE``.

    Raises:
        UnknownNameError: timm has no such network with weights.
        MissingExtraError: the weights are neither on this machine nor to be had.
        CorruptError: the weights file is damaged or another network's.
        UsageError: the network does not take this size, or does not give one vector per image.
    """
    network, edge = _parse(name)
    config = _configs()[network]
    transform = config_transform(config, edge)
    module = load_public(network, edge)
    spec = EncoderSpec(
        name=PREFIX + network + f"@{transform.size}" * (transform.size != config.input_size[1]),
        dim=feature_count(module, transform.size),
        size=transform.size,
        preprocessing=f"{transform}; timm's features without classifier",
        weights=weights_digest(module),
        license=config.license or UNKNOWN_LICENSE,
    )
    module = fold_if_equal(module, transform.size)
    return TorchEncoder(module, spec=spec, transform=transform, placement=placement)


def describe(name: str) -> dict[str, Any]:
    """Size in pixels and license of a name, without its weights; its dimension is not known before it is built."""
    config = _configs()[name.removeprefix(PREFIX)]
    return {"size": config.input_size[1], "dim": None, "license": config.license or UNKNOWN_LICENSE}


def license_of(network: str) -> str:
    """What timm knows of the license of a network's weights; ``unknown`` where it has no such network."""
    config = _configs().get(network)
    return (config and config.license) or UNKNOWN_LICENSE


def config_transform(config: Any, size: int | None = None) -> Transform:
    """What timm's own evaluation transform does for a pretrained configuration, at its size or scaled to another."""
    edge = size or config.input_size[1]
    resized = int(edge // config.crop_pct)
    way = {"squash": "squash_side", "border": "longer_side"}.get(config.crop_mode, "shorter_side")
    side = None if way == "squash_side" and resized == edge else resized
    return Transform(
        size=edge,
        resampling=config.interpolation,
        mean=tuple(round(255 * v, 4) for v in config.mean),
        std=tuple(round(255 * v, 4) for v in config.std),
        **{way: side},
    )


def load_public(network: str, edge: int | None = None, **options: Any) -> nn.Module:
    """A network with its public weights and without its classifier.

    It is filled whole first, because timm lets gaps pass without a classifier.

    Args:
        network: timm's name with its tag.
        edge: of the images in pixels; default that of the weights.
        **options: of timm's ``create_model``.

    Raises:
        UsageError: the network cannot be built for this size.
        MissingExtraError: the weights are neither on this machine nor to be had.
        CorruptError: the weights file is damaged or another network's.
    """
    create, config = import_timm().create_model, _configs()[network]
    if edge and config.fixed_input_size:
        _check_size(create, network, edge)
        options = options | {"img_size": edge}
    path = find_weights(PREFIX + network, f"timm/{network}.safetensors", _origin(config))
    overlay = {"state_dict": read_tensors(path), "custom_load": False}
    with fitting(path):
        module: Any = create(network, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    module.reset_classifier(0)
    module.pretrained_cfg = {**module.pretrained_cfg, "state_dict": None}  # else the file stays in memory
    filled: nn.Module = module
    return filled


def tagged(network: str) -> str | None:
    """The name with its tag, the default one if it has none; None if timm has no weights for it."""
    if network not in _configs():
        config = (
            import_timm().models.get_pretrained_cfg(network, allow_unregistered=True) if "." not in network else None
        )
        network = f"{config.architecture}.{config.tag}" if config else ""
    return network if network in _configs() else None


def _parse(name: str) -> tuple[str, int | None]:
    """Network with its tag, and the edge if one was asked for."""
    match = re.fullmatch(r"([^@]+)(?:@([1-9]\d{0,4}))?", name.removeprefix(PREFIX))
    network = match and tagged(match[1])
    if not match or not network:
        raise unknown_encoder(name, timm_names())
    return network, int(match[2]) if match[2] else None


@cache
def _configs() -> dict[str, Any]:
    """Pretrained configuration of every name with a square input."""
    timm = import_timm()
    configs = {name: timm.models.get_pretrained_cfg(name) for name in timm.list_pretrained()}
    return {name: config for name, config in configs.items() if config.input_size[1] == config.input_size[2]}


def _check_size(create: Callable[..., nn.Module], network: str, edge: int) -> None:
    """Builds the network for this size without weights, so that no weights are blamed for what the size does."""
    try:
        module = create(network, num_classes=0, img_size=edge)
    except (AssertionError, RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UsageError(
            f"The network cannot be built for images of {edge}x{edge} pixels ({one_line(error)}).",
            hint="Leave out @SIZE.",
        ) from error
    feature_count(module, edge)


def _origin(config: Any) -> Origin:
    if config.hf_hub_id:
        return HuggingFaceFile(config.hf_hub_id, ("model.safetensors", "pytorch_model.bin"))
    return TorchHubFile(config.url)
