"""knn-quota: every target image takes turns taking the nearest candidate that is still open.

Distances are Euclidean in the pools' whitened principal directions (``_directions``), turns those of ``_turns``. The
quota, one image per target image and turn, keeps dense modes of the pool from drowning the rare ones, as a global top-N
does. The target's own images, where they are candidates, lie at distance 0 and go first: with N >= m all of them are
in, and they count as unique images of the budget.

This is the plain control of every method that ranks images by nearness: no gate, no balance.

One pass over the n candidates projects them; a search costs 2 n m k operations for k directions, and there are some
log(N / m) of them. Memory: 4 k bytes per candidate. Nested: the first images of a larger budget are the smaller
selection.

Source: the retrieval of DINOv2 (Oquab et al., 2023), where each image of the curated sets brings in its nearest of the
pool. Deviations: whitened directions for the cosine, turns over what is still open for searches that may find the same
image twice, a budget for a number of neighbors.
"""

from __future__ import annotations

from curate.selection._candidates import Candidates, Choice
from curate.selection._directions import Whitening, project
from curate.selection._ledger import Ledger
from curate.selection._turns import Schedule, choice_of, take_turns


def choose(candidates: Candidates, ledger: Ledger, *, seed: int) -> Choice:
    """Takes turns until the ledger is done. Score = squared distance in whitened directions."""
    frame = Whitening.of_pools(candidates)
    targets, pool = frame.apply(candidates.target_vectors), project(candidates, frame)
    schedule = Schedule.of_targets(candidates, seed)
    turns = take_turns(targets, pool, schedule, ledger, search=candidates.search, progress=candidates.progress)
    return choice_of(candidates, turns, frame, "knn-quota")
