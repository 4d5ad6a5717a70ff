"""The methods by name, one module each; loaded when asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from curate.selection._candidates import Choice
from embeddings.errors import UnknownNameError

METHODS = {
    "best-pool": "curate.selection._best_pool:choose",
    "near-first": "curate.selection._near_first:choose",
    "pool-gated": "curate.selection._pool_gated:choose",
    "random": "curate.selection._random:choose",
    "uniform": "curate.selection._uniform:choose",
}
NEEDS_REPORT = frozenset({"best-pool", "pool-gated"})  # those that go by the verdicts of `curate score`


def load_method(name: str) -> Callable[..., Choice]:
    """``choose(candidates, *, budget, seed) -> Choice`` of the method of this name.

    Raises:
        UnknownNameError: no such method.
    """
    if name not in METHODS:
        raise UnknownNameError("selection method", name, METHODS)
    module, function = METHODS[name].split(":")
    method: Callable[..., Choice] = getattr(import_module(module), function)
    return method
