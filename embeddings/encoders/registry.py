"""Names of encoders and what they stand for; a family is one file and one line here.

    built in    lite0, lite0@224, lite0:untrained, random:SEED, color-texture, inception, run:DIR
    libraries   torchvision:NAME, timm:NAME, open_clip:ARCH/TAG, each with its own public weights
    others      the name of a plugin, or module:function (see ``user``); never where one of the above has the name

Listing the built-in names and the specs of those that need no network imports no torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from embeddings.encoders import Encoder, color_texture, lite0
from embeddings.encoders.naming import search, unknown_encoder
from embeddings.errors import MissingExtraError, UnknownNameError
from embeddings.spec import EncoderSpec

BUILT_IN = (*lite0.NAMES, "random", color_texture.NAME, "inception")
FAMILIES = {
    "inception": "embeddings.encoders.inception:make_inception",
    "lite0": "embeddings.encoders.lite0:make_lite0",
    "open_clip": "embeddings.encoders.open_clip:make_open_clip",
    "random": "embeddings.encoders.controls:make_random",
    "run": "embeddings.encoders.checkpoint:make_run",
    "timm": "embeddings.encoders.timm:make_timm",
    "torchvision": "embeddings.encoders.torchvision:make_torchvision",
}
LIBRARIES = ("torchvision", "timm", "open_clip")  # families that list names of their own
GROUP = "curate.encoders"  # of plugins
_State = tuple[object, ...]
KNOWN: dict[str, dict[str, Any]] = {  # of those whose module needs torch to be imported
    "inception": {"size": 299, "dim": 2048, "license": "Apache-2.0"},
    "lite0:untrained": {"size": lite0.SIZE, "dim": lite0.DIM, "license": "Apache-2.0"},
    "random": {"size": 128, "dim": 512},
}


def get_encoder(name: str, *, device: str = "auto", precision: str = "auto", compile: bool = False) -> Encoder:
    """Builds the encoder of this name: ``lite0``, ``timm:resnet50@128``, ``run:DIR``, ``my_module:function``.

    Args:
        name: see ``encoder_names``; ``run:`` takes the folder of a pretraining run.
        device: ``auto`` (CUDA, else the CPU), or a name that torch knows.
        precision: ``auto`` (bfloat16 on CUDA, else float32), ``float32`` or ``bfloat16``.
        compile: Let torch.compile go over the network: faster after a minute's wait, equal up to rounding.

    Raises:
        UnknownNameError: no such encoder; names the nearest.
        MissingExtraError: its weights or its library are not on this machine.
        CorruptError: its weights do not read back.
        UsageError: no such device, a size the network does not take, or a function of others that fails.
    """
    return _build_once(name, device, precision, compile, _state(name))


def encoder_spec(name: str) -> EncoderSpec:
    """What this encoder will write into its stores; for ``lite0`` and ``color-texture`` without importing torch.

    Raises:
        UnknownNameError: no such encoder.
    """
    return lite0.public_spec(name) or color_texture.public_spec(name) or _built_spec(name, _state(name))


def encoder_names(pattern: str = "*") -> list[str]:
    """Names that match a pattern: ``*`` for the built-in ones, ``timm:*`` or ``*:resnet*`` for a library's too.

    Where nothing built in matches and no library is named, all of them are searched: ``*dinov2*``, or ``dinov2``.
    Torch is imported only when libraries are searched.
    """
    library, colon, _ = pattern.partition(":")
    if not colon:
        return search(pattern, [*BUILT_IN, *_plugins()]) or search(pattern, _library_names())
    chosen = [name for name in LIBRARIES if search(library, [name])]
    return search(pattern, [*BUILT_IN, *_plugins(), *_library_names(chosen)])


def describe_encoder(name: str) -> dict[str, Any]:
    """``{"name", "size", "dim", "license"}`` of a name from ``encoder_names``, as far as it is known without weights.

    Nothing is downloaded and no network is built; None where that would be needed.
    """
    spec = lite0.public_spec(name) or color_texture.public_spec(name)
    if spec:
        return {"name": name, "size": spec.size, "dim": spec.dim, "license": spec.license or None}
    known = KNOWN.get(name, {})
    if not known and _family(name) in LIBRARIES:
        known = importlib.import_module(f"embeddings.encoders.{_family(name)}").describe(name)
    return {"name": name, "size": None, "dim": None, "license": None, **known}


@lru_cache(maxsize=2)  # one command asks for the same encoder once per source
def _build_once(name: str, device: str, precision: str, compile: bool, state: _State) -> Encoder:
    return _build(name, device, precision, compile)


@lru_cache(maxsize=256)  # for specs alone no network is built a second time
def _built_spec(name: str, state: _State) -> EncoderSpec:
    return get_encoder(name).spec


def _state(name: str) -> _State:
    """What tells that the files of a run have changed between two calls; nothing of other encoders."""
    if _family(name) != "run":
        return ()
    folder = Path(name.partition(":")[2])
    found = [place.stat() for place in (folder / "backbone.json", folder / "backbone.safetensors") if place.exists()]
    return (str(folder.absolute()), *((s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in found))


def _build(name: str, device: str, precision: str, compile: bool) -> Encoder:
    family = _family(name)
    if family == color_texture.NAME:
        return color_texture.make_color_texture(name)
    plugin = None if family in FAMILIES else _plugins().get(family)
    if family not in FAMILIES and plugin is None and not _is_function(name):
        raise _unknown(name)
    from embeddings.encoders.torch_encoder import Placement

    placement = Placement.choose(device, precision, compile=compile)
    if family in FAMILIES:
        module, function = FAMILIES[family].split(":")
        make: Any = getattr(importlib.import_module(module), function)
        encoder: Encoder = make(name, placement)
        return encoder
    from embeddings.encoders.user import make_from_function, make_from_plugin

    return make_from_plugin(name, placement, plugin) if plugin else make_from_function(name, placement)


def _family(name: str) -> str:
    return name.partition(":")[0].partition("@")[0]


def _unknown(name: str) -> UnknownNameError:
    known = [*BUILT_IN, *_plugins(), *_library_names()]
    otherwise = [*BUILT_IN, "run:DIR", "module:function", *(f"{library}:NAME" for library in LIBRARIES)]
    return unknown_encoder(name, known, otherwise=otherwise)


def _library_names(libraries: Iterable[str] = LIBRARIES) -> list[str]:
    """Every name of these libraries, as far as they are installed."""
    names: list[str] = []
    for library in libraries:
        module = importlib.import_module(f"embeddings.encoders.{library}")
        with suppress(MissingExtraError):
            names += getattr(module, f"{library}_names")()
    return names


def _plugins() -> dict[str, metadata.EntryPoint]:
    """Entry points by name, none of them loaded."""
    if os.environ.get("CURATE_DISABLE_PLUGINS") == "1":
        return {}
    return {point.name: point for point in metadata.entry_points(group=GROUP)}


def _is_function(name: str) -> bool:
    """Whether a name is ``module:function`` of a module that Python finds; the module is not loaded."""
    match = re.fullmatch(r"([A-Za-z_]\w*)(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", name)
    try:
        return bool(match and importlib.util.find_spec(match[1]))
    except (ImportError, ValueError):
        return False
