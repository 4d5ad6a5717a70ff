"""How far every pool is from a target, and what to do about it.

sides -> measures -> verdicts -> disagreement, judge -> scorer: a set becomes figures, figures a verdict and an action.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.scoring.scorer import score, score_each
    from curate.scoring.verdicts import MIDDLE, NEAR, shift_index, verdict_of

__all__ = ["MIDDLE", "NEAR", "score", "score_each", "shift_index", "verdict_of"]

# Loaded on first use: what shows a score needs none of the distances.
_MODULES = {
    "MIDDLE": "verdicts",
    "NEAR": "verdicts",
    "score": "scorer",
    "score_each": "scorer",
    "shift_index": "verdicts",
    "verdict_of": "verdicts",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
