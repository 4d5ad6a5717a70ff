"""Any classification network of torchvision or timm as one to train: ``torchvision:NAME``, ``timm:NAME``.

Built for one size, with public weights or with random ones as its library draws them, without its classifier (and
without side classifiers, which serve supervised training only). Parameters keep the library's names.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from embeddings.encoders import timm, torchvision
from embeddings.encoders.naming import unknown_encoder
from embeddings.encoders.torchvision_import import import_timm, import_torchvision
from embeddings.encoders.transform import Transform
from embeddings.encoders.transformers import FLEXIBLE
from embeddings.errors import UsageError, one_line

LARGEST_DEFAULT = 224  # pixels; some of timm's weights were made for several times as much
PLAIN_TRANSFORMERS = ["vision_transformer", "deit"]  # files of timm


def is_of_library(name: str) -> bool:
    """Whether a name means a network of a library.

    Raises:
        UnknownNameError: it does, and the library has none of that name.
    """
    if name.startswith(timm.PREFIX):
        if _timm_config(bare_name(name)) is None:
            raise unknown_encoder(name, timm.timm_names())
        return True
    if name.startswith(torchvision.PREFIX) and name not in torchvision.torchvision_names():
        raise unknown_encoder(name, torchvision.torchvision_names())
    return name.startswith(torchvision.PREFIX)


def bare_name(name: str) -> str:
    """The name in its library."""
    return name.partition(":")[2]


def is_published(name: str) -> bool:
    """Whether there are public weights of a network, here or elsewhere."""
    return not name.startswith(timm.PREFIX) or timm.tagged(bare_name(name)) is not None


def own_size(name: str) -> int:
    """Edge in pixels of the images that a network is trained on by default."""
    if name.startswith(timm.PREFIX):
        return min(LARGEST_DEFAULT, int(_timm_config(bare_name(name)).input_size[1]))
    return _weights_transform(bare_name(name)).size


def build_library(name: str, *, size: int, public: bool) -> tuple[nn.Module, Transform]:
    """A network for images of ``size`` pixels without its classifier, and the transform that scales its pixels.

    Raises:
        UsageError: it cannot be built for this size, or its features are not defined.
        MissingExtraError: the public weights are neither on this machine nor to be had.
        CorruptError: the weights file is damaged or another network's.
    """
    model = bare_name(name)
    if name.startswith(torchvision.PREFIX):
        return build_torchvision(model, public=public), _weights_transform(model)
    build = _public_timm if public else _untrained_timm
    return build(model, size), timm.config_transform(_timm_config(model))


def build_torchvision(model: str, *, public: bool) -> nn.Module:
    """A network of torchvision without its classifiers."""
    module = torchvision.load_public(model) if public else torchvision.build_untrained(model)
    for name in ("aux1", "aux2", "AuxLogits"):  # of GoogLeNet and Inception
        if hasattr(module, name):
            module.aux_logits = False
            setattr(module, name, None)
    return torchvision.drop_classifier(module)


def _public_timm(model: str, size: int) -> nn.Module:
    return timm.load_public(timm.tagged(model) or model, size, **_flexible(model))


def _untrained_timm(model: str, size: int) -> nn.Module:
    fixed = {"img_size": size} if _timm_config(model).fixed_input_size else {}
    try:
        module: nn.Module = import_timm().create_model(model, num_classes=0, **_flexible(model), **fixed)
    except (AssertionError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UsageError(
            f"timm's {model} cannot be built for images of {size}x{size} pixels ({one_line(error)}).",
            hint=f"Its own size is {own_size(timm.PREFIX + model)}.",
        ) from error
    return module


def _flexible(model: str) -> dict[str, Any]:
    return FLEXIBLE if import_timm().models.is_model_in_modules(model, PLAIN_TRANSFORMERS) else {}


def _timm_config(model: str) -> Any:
    """The pretrained configuration of a name with or without its tag; None if there is no such network or tag."""
    try:
        return import_timm().models.get_pretrained_cfg(timm.tagged(model) or model)
    except RuntimeError:  # a wrong tag
        return None


def _weights_transform(model: str) -> Transform:
    return torchvision.weights_transform(import_torchvision().models.get_model_weights(model).DEFAULT)
