"""Names of encoders and what they stand for; a family is one file and one line here."""

from __future__ import annotations

import fnmatch
import importlib
from functools import lru_cache
from typing import Any

from embeddings.encoders import Encoder
from embeddings.encoders.lite0 import NAMES as LITE0_NAMES
from embeddings.encoders.lite0 import public_spec
from embeddings.errors import UnknownNameError
from embeddings.store import EncoderSpec

BUILT_IN = (*LITE0_NAMES, "random")
FAMILIES = {
    "lite0": "embeddings.encoders.lite0:make_lite0",
    "random": "embeddings.encoders.controls:make_random",
    "run": "embeddings.encoders.checkpoint:make_run",
    "torchvision": "embeddings.encoders.torchvision:make_torchvision",
}


def get_encoder(name: str, *, device: str = "auto", precision: str = "auto") -> Encoder:
    """Builds the encoder of this name: ``lite0``, ``random:1``, ``torchvision:resnet50@128``, ``run:DIR``.

    Args:
        name: see ``encoder_names``; ``run:`` takes the folder of a pretraining run.
        device: ``auto`` (CUDA, else the CPU), or a name that torch knows.
        precision: ``auto`` (bfloat16 on CUDA, else float32), ``float32`` or ``bfloat16``.

    Raises:
        UnknownNameError: no such encoder; names the nearest.
        MissingExtraError: its weights are not on this machine.
        UsageError: no such device, or a size the network does not take.
    """
    if _family(name) == "run":  # a folder's content may change between two calls
        return _build(name, device, precision)
    return _build_once(name, device, precision)


def encoder_spec(name: str) -> EncoderSpec:
    """What this encoder will write into its stores; for ``lite0`` without importing torch.

    Raises:
        UnknownNameError: no such encoder.
    """
    return public_spec(name) or get_encoder(name).spec


def encoder_names(pattern: str = "*") -> list[str]:
    """Names that match a pattern: ``*`` for the built-in ones, ``torchvision:*`` or ``*:resnet*`` for a library's too.

    Torch is imported only when the pattern asks for a library.
    """
    names = fnmatch.filter(BUILT_IN, pattern)
    library, colon, _ = pattern.partition(":")
    if colon and fnmatch.fnmatch("torchvision", library):
        names += fnmatch.filter(_torchvision_names(), pattern)
    return names


@lru_cache(maxsize=2)  # one command asks for the same encoder once per source
def _build_once(name: str, device: str, precision: str) -> Encoder:
    return _build(name, device, precision)


def _build(name: str, device: str, precision: str) -> Encoder:
    from embeddings.encoders.torch_encoder import Placement

    family = _family(name)
    if family not in FAMILIES:
        raise UnknownNameError("encoder", name, [*BUILT_IN, "run:DIR", *_torchvision_names()])
    module, function = FAMILIES[family].split(":")
    make: Any = getattr(importlib.import_module(module), function)
    encoder: Encoder = make(name, Placement.choose(device, precision))
    return encoder


def _family(name: str) -> str:
    return name.partition(":")[0].partition("@")[0]


def _torchvision_names() -> list[str]:
    from embeddings.encoders.torchvision import torchvision_names

    return torchvision_names()
