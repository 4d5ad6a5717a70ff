"""uniform: the same number from every source, drawn at random within it.

Sources take turns, so that what a small source cannot give is shared by the others, and the draw is nested.
"""

from __future__ import annotations

import numpy as np

from curate.selection._candidates import Candidates, Choice, unit_interval
from curate.selection._ledger import Ledger


def choose(candidates: Candidates, ledger: Ledger, *, seed: int) -> Choice:
    """Draws equal shares; the target's own images are a source like any other."""
    numbers, source = candidates.draws(seed), candidates.source
    order = np.lexsort((numbers, source))
    turn = np.empty(len(source), np.int64)
    turn[order] = np.arange(len(source)) - np.searchsorted(source, source)[order]
    rows = ledger.walk(np.lexsort((source, turn)))
    reasons = [f"uniform: draw {turn[row] + 1:,} from {candidates.names[source[row]]}" for row in rows]
    return Choice(rows=rows, scores=unit_interval(numbers[rows]), reasons=reasons)
