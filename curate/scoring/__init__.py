"""How far every pool is from a target, and what to do about it.

sides -> measures -> verdicts -> disagreement, judge -> scorer: a set becomes figures, figures a verdict and an action.
"""

from curate.scoring.scorer import score, score_each
from curate.scoring.verdicts import MIDDLE, NEAR, shift_index, verdict_of

__all__ = ["MIDDLE", "NEAR", "score", "score_each", "shift_index", "verdict_of"]
