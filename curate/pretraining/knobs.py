"""The knobs of a run by name, as text: ``temperature=0.1``, ``batch=64``, ``augmentation=inspection``.

A name is one of the run's own (``Options``), of the method's Config or of its Training; ``recipe=NAME`` starts from
another of the method's recipes. Values are read as the type of the knob: a comma separates several, ``none`` is None.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Union, get_args, get_origin, get_type_hints

from curate.pretraining.methods import MethodConfig, default_recipe, find_recipe
from curate.pretraining.recipe import Training
from embeddings.errors import UnknownNameError, UsageError

RECIPE, TRAINING = "recipe", "training"
RUN: dict[str, Any] = {
    "size": int,
    "order": str,
    "adapt": str,
    "precision": str,
    "chunks": int,
    "chunk_stats": bool,
    "compile": bool,
    "abort": bool,
    "probe": str,
    "tracker": str,
    "keep": int,
    "cache": float,
}


def read_knobs(pairs: Sequence[str], *, method: str, init: str) -> dict[str, Any]:
    """Keyword arguments for ``plan`` and ``pretrain`` from NAME=VALUE texts.

    Args:
        pairs: the texts; of a name that occurs twice the last one counts.
        method: whose knobs they are.
        init: scratch, public or run:DIR, which decides the recipe to start from.

    Raises:
        UnknownNameError: no such method, recipe or knob.
        UsageError: no ``=``, or a value of another type.
    """
    named = dict(split_pair(pair) for pair in pairs)
    recipe = named.pop(RECIPE, None)
    config = find_recipe(method, recipe) if recipe else default_recipe(method, init)
    known = {**RUN, **types_of(config), **types_of(config.training)}
    for name in named:
        if name not in known:
            raise UnknownNameError(f"knob of {method}", name, (RECIPE, *known))
    values = {name: read_value(name, text, known[name]) for name, text in named.items()}
    run = {name: value for name, value in values.items() if name in RUN}
    return {"config": with_knobs(config, {k: v for k, v in values.items() if k not in RUN}), **run}


def with_knobs(config: MethodConfig, values: Mapping[str, Any]) -> MethodConfig:
    """The config with some of its knobs, or of its training's, set."""
    outer, inner = types_of(config), types_of(config.training)
    training = replace(config.training, **{k: v for k, v in values.items() if k in inner})
    return replace(config, training=training, **{k: v for k, v in values.items() if k in outer})


def flat(config: MethodConfig) -> dict[str, Any]:
    """Every knob of a config and of its training, by name."""
    return {
        **{name: getattr(config, name) for name in types_of(config)},
        **{name: getattr(config.training, name) for name in types_of(config.training)},
    }


def types_of(config: MethodConfig | Training) -> dict[str, Any]:
    """The type of each knob, by name."""
    hints = get_type_hints(type(config))
    return {field.name: hints[field.name] for field in fields(config) if field.name != TRAINING}


def split_pair(pair: str) -> tuple[str, str]:
    """Name and value of NAME=VALUE.

    Raises:
        UsageError: no ``=``, or no name.
    """
    name, equals, value = pair.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"{pair!r} does not set a knob.", hint="Write NAME=VALUE, as temperature=0.1.")
    return name.strip(), value.strip()


def read_value(name: str, text: str, kind: Any) -> Any:
    """The value of a knob of a type.

    Raises:
        UsageError: the text is not one.
    """
    try:
        return _convert(text, kind)
    except ValueError as error:
        raise UsageError(f"{name} cannot be {text!r}.", hint=f"Wanted: {_in_words(kind)}.") from error


def _convert(text: str, kind: Any) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        inner = next(arg for arg in get_args(kind) if arg is not types.NoneType)
        return None if text.lower() == "none" else _convert(text, inner)
    if get_origin(kind) is tuple:
        inner, *_ = get_args(kind)
        values = tuple(_convert(part.strip(), inner) for part in text.split(",") if part.strip())
        if not values or (get_args(kind)[-1] is not Ellipsis and len(values) != len(get_args(kind))):
            raise ValueError(text)
        return values
    if kind is bool:
        return {"true": True, "false": False}[text.lower()] if text.lower() in ("true", "false") else _refuse(text)
    return kind(text)


def _refuse(text: str) -> Any:
    raise ValueError(text)


def _in_words(kind: Any) -> str:
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join("none" if arg is types.NoneType else _in_words(arg) for arg in get_args(kind))
    if get_origin(kind) is tuple:
        many = get_args(kind)[-1] is Ellipsis
        return f"{'one or more' if many else len(get_args(kind))} of {_in_words(get_args(kind)[0])}, comma between"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}.get(kind, str(kind))
