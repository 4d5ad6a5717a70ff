"""Encoders of others: a function of the user's own, ``module:function``, or an installed plugin.

The function is called without arguments, or with ``(name, placement)`` if it takes two: the name as it was typed and
where to run (``placement.device``, ``placement.precision``). It gives a torch network with pooled features [n, d] and
the ``Transform`` that feeds it; everything else is done here:

    # my_encoders.py, anywhere that Python imports from (PYTHONPATH=. for the working folder)
    import torch
    from embeddings.encoders.transform import Transform

    def pooled():
        network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten())
        return network, Transform(size=64, mean=127.5, std=127.5)

    $ PYTHONPATH=. curate embed photos/ --encoder my_encoders:pooled --out stores/photos

Or it gives a whole ``embeddings.encoders.Encoder``, of torch or not, with a spec (and license) of its own.

A plugin is a package with an entry point of the group ``curate.encoders`` that leads to such a function. The entry
point's name is the encoder's, and it may go on after a colon (``acme``, ``acme:large``). Plugins are looked for only
where no family of ours has that name, and not at all with ``CURATE_DISABLE_PLUGINS=1``.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from importlib import metadata
from typing import Any

from torch import nn

from embeddings.encoders import Encoder
from embeddings.encoders.naming import UNKNOWN_LICENSE
from embeddings.encoders.torch_encoder import Placement, TorchEncoder, feature_count, weights_digest
from embeddings.encoders.transform import Transform
from embeddings.errors import CurateError, UsageError, one_line
from embeddings.spec import EncoderSpec

PARTS = ("spec", "batch_size", "precision", "parallel", "prepare", "encode")  # of an Encoder


def make_from_plugin(name: str, placement: Placement, plugin: metadata.EntryPoint) -> Encoder:
    """Builds the encoder of a plugin.

    Raises:
        UsageError: the plugin does not load, fails, or gives something else; names it.
    """
    owner = f" of {plugin.dist.name}" if plugin.dist else ""
    title = f"Plugin {plugin.name!r} ({plugin.value}{owner})"
    try:
        function = plugin.load()
    except Exception as error:  # whatever a package of others raises while it is imported
        raise UsageError(
            f"{title} does not load: {type(error).__name__}: {one_line(error)}.",
            hint="Mend or uninstall it, or set CURATE_DISABLE_PLUGINS=1.",
        ) from error
    return _made(title, name, placement, function)


def make_from_function(name: str, placement: Placement) -> Encoder:
    """Builds ``module:function``.

    Raises:
        UsageError: the module does not load or has no such function, or that fails or gives something else.
    """
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # whatever the user's module raises while it is imported
        raise UsageError(
            f"Encoder {name!r}: {module} does not load: {type(error).__name__}: {one_line(error)}.",
            hint=f"Run `python -c 'import {module}'` to see where it fails.",
        ) from error
    return _made(f"Encoder {name!r}", name, placement, function)


def _made(title: str, name: str, placement: Placement, function: Any) -> Encoder:
    if not callable(function):
        raise UsageError(f"{title} is no function.", hint="Name a function that gives an encoder, as module:function.")
    try:
        made = _called(function, name, placement)
    except CurateError:
        raise
    except Exception as error:
        raise UsageError(
            f"{title} failed: {type(error).__name__}: {one_line(error)}.", hint="--debug shows where."
        ) from error
    match made:
        case (nn.Module() as network, Transform() as transform):
            return _from_network(name, placement, network, transform)
    missing = [part for part in PARTS if not hasattr(made, part)]
    if missing:
        raise UsageError(
            f"{title} gave a {type(made).__name__} without {', '.join(missing)}.",
            hint="Give (torch network, Transform), or an object with all parts of embeddings.encoders.Encoder.",
        )
    encoder: Encoder = made
    return encoder


def _called(function: Callable[..., Any], name: str, placement: Placement) -> Any:
    parameters = inspect.signature(function).parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return function(name, placement) if len(needed) == 2 else function()


def _from_network(name: str, placement: Placement, module: nn.Module, transform: Transform) -> TorchEncoder:
    spec = EncoderSpec(
        name=name,
        dim=feature_count(module, transform.size),
        size=transform.size,
        preprocessing=f"{transform}; features of the user's network",
        weights=weights_digest(module),
        license=UNKNOWN_LICENSE,
    )
    return TorchEncoder(module, spec=spec, transform=transform, placement=placement)
