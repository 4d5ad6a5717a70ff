"""global-top: the N candidates nearest to any target image. Kept as a warning, not as advice.

    score(x) = min_t |z(x) - z(t)|^2      in the pools' whitened principal directions (``_directions``)

The common shortcut. Nothing bounds how many images one target image may bring in, so the few modes of the target that
happen to be dense in the pools fill the budget and the others get little or nothing: on synthetic pools of 60 modes
its Fréchet distance to the target was 2.5 to 7 times that of ``knn-quota`` at the same budget, and once worse than that
of a random draw (0.31 to 0.19). The mean similarity of what it takes is the best there is: that is why it looks right.

Weights change nothing but that images of weight 0 are not searched for: the nearest image is as near however often it
counts. The seed has no effect: equal distances go to the lower row. One pass over the n candidates, 2 n m k operations
for k directions; memory: 16 bytes per candidate. Nested.

Source: common practice. Deviations: it is mostly done by cosine; the distance here is that of ``knn-quota``, so that a
comparison of the two shows what the quota does and nothing else.
"""

from __future__ import annotations

import numpy as np

from curate.selection._candidates import BLOCK_ROWS, Candidates, Choice
from curate.selection._directions import Whitening
from curate.selection._ledger import Ledger
from embeddings.neighbors import nearest

WARNING = "Drains the few modes that are dense in the pools; sometimes worse than a random draw. Do not train on this."


def choose(candidates: Candidates, ledger: Ledger, *, seed: int) -> Choice:
    """Ranks all candidates by their nearest target image. Score = squared distance in whitened directions."""
    frame = Whitening.of_pools(candidates)
    counting = np.flatnonzero(candidates.weights)
    distances, owner = _nearest_targets(candidates, frame, frame.apply(candidates.target_vectors)[counting])
    rows = ledger.walk(np.argsort(distances, kind="stable"))
    keys = candidates.target_keys[counting[owner[rows]]]
    return Choice(
        rows=rows,
        scores=distances[rows],
        reasons=[f"global-top: target {key} is the nearest" for key in keys],
        parameters={"directions": frame.directions, "target_images": len(counting), "warning": WARNING},
    )


def _nearest_targets(candidates: Candidates, frame: Whitening, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared distance [n] to, and number [n] of, the nearest of some targets [m, k]."""
    n = len(candidates)
    distances, owner = np.empty(n), np.empty(n, np.int64)
    for start in range(0, n, BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, n))
        near, numbers = nearest(frame.apply(candidates.vectors(rows)), targets, 1)
        distances[rows], owner[rows] = near[:, 0], numbers[:, 0]
        candidates.progress("rank", int(rows[-1]) + 1, n)
    return distances, owner
