"""Members of a package that are loaded on first use: a name of one should not cost the libraries of all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def on_first_use(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and the ``__dir__`` of a package.

    Args:
        package: Its name; it has ``__all__``.
        homes: Member -> module that holds it; one with a leading dot is the package's own.
    """

    def member(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name], package), name)

    def members() -> list[str]:
        return sorted(import_module(package).__all__)

    return member, members
