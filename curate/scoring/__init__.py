"""How far every pool is from a target, and what to do about it.

sides -> measures -> verdicts -> disagreement, judge -> scorer: a set becomes figures, figures a verdict and an action.
"""

from typing import TYPE_CHECKING

from embeddings.on_first_use import on_first_use

if TYPE_CHECKING:
    from curate.scoring.scorer import score, score_each
    from curate.scoring.verdicts import MIDDLE, NEAR, shift_index, verdict_of

__all__ = ["MIDDLE", "NEAR", "score", "score_each", "shift_index", "verdict_of"]

# Loaded on first use: what shows a score needs none of the distances.
_MODULES = {
    "MIDDLE": ".verdicts",
    "NEAR": ".verdicts",
    "score": ".scorer",
    "score_each": ".scorer",
    "shift_index": ".verdicts",
    "verdict_of": ".verdicts",
}
__getattr__, __dir__ = on_first_use(__name__, _MODULES)
