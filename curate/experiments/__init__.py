"""Many ways to spend one budget, compared: files of arms.

Names are imported on first use, so that this package costs nothing until then.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.experiments._study import Study, evaluation_parts

__all__ = ["Study", "evaluation_parts"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}._study"), name)


def __dir__() -> list[str]:
    return __all__
