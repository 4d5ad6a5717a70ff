"""random: a uniform draw from all candidates. The control that every selection has to beat.

Deviations: none; the draw is nested (the first n of a larger budget are the smaller selection).
"""

from __future__ import annotations

import numpy as np

from curate.selection._candidates import Candidates, Choice, drawn
from curate.selection._ledger import Ledger


def choose(candidates: Candidates, ledger: Ledger, *, seed: int) -> Choice:
    """Draws from all candidates alike, so a source is represented by its size."""
    reason = "random: drawn from all candidates"
    return drawn(candidates, ledger, np.arange(len(candidates)), seed=seed, reason=reason)
