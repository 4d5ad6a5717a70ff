"""How varied one set is by itself, or the union of several."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.diversity._duplicates import duplicates
    from curate.diversity._effective_rank import effective_rank
    from curate.diversity._unique import Unique, unique
    from curate.diversity._vendi import vendi

__all__ = ["Unique", "duplicates", "effective_rank", "unique", "vendi"]

# Loaded on first use: a name of one should not cost the libraries of all.
_MODULES = {
    "Unique": "_unique",
    "duplicates": "_duplicates",
    "effective_rank": "_effective_rank",
    "unique": "_unique",
    "vendi": "_vendi",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
