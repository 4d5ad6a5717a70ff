"""dsir: importance resampling. A draw whose weights make it look like the target, cell by cell.

    w(x) = p_target(c(x)) / p_candidates(c(x)) ;   take the N largest  log w(x) + G(x),   G ~ Gumbel, one per image

c(x) is the nearest of at most 1,000 k-means centers in the pools' whitened directions, fitted on a sample of the pools
and the target together: one cell per 32 images of it. The N largest are a draw without replacement in which every next
image comes with probability proportional to w (Gumbel top-N), so the draw is nested.

    p_target(c) = (target images in c, by weight + p_candidates(c)) / (target images + 1)

The one pseudo-image keeps cells without target images open: 1 / (m + 1) of the draw goes by chance, more once the
target's cells run dry. Where the target's own images are candidates they are part of p_candidates, for it is the
candidates that are drawn from; a cell's images all weigh the same, whichever source they come from.

Cost: n k for the assignment (k <= 1,000 cells), one pass over the vectors; the draw itself is n log n, whatever N.

Deviations: cells of an image embedding stand in for hashed n-grams; the pseudo-image for a mixture with a smoothed
bag-of-words model.

Source: Xie, Santurkar, Ma and Liang, Data selection for language models via importance resampling (NeurIPS 2023);
Efraimidis and Spirakis (2006) and Vieira (2014) for the keys.
"""

from __future__ import annotations

import numpy as np

from curate.selection._candidates import Candidates, Choice
from curate.selection._directions import Whitening, project
from curate.selection._ledger import Ledger
from embeddings.clusters import fit_centers, nearest_centers

MAX_CELLS = 1000
IMAGES_PER_CELL = 32
DECIMALS = 6


def choose(candidates: Candidates, ledger: Ledger, *, seed: int) -> Choice:
    """Draws by importance. Score = -(log w + G): lower = drawn earlier."""
    frame = Whitening.of_pools(candidates)
    target, sample = frame.apply(candidates.target_vectors), frame.apply(candidates.pool_sample)
    both = np.concatenate([sample, target])
    centers = fit_centers(both, min(MAX_CELLS, max(1, len(both) // IMAGES_PER_CELL)), seed=seed)
    cells = nearest_centers(project(candidates, frame), centers, 1)[:, 0]
    wanted = np.bincount(nearest_centers(target, centers, 1)[:, 0], candidates.weights, len(centers))
    weights = cell_weights(wanted, np.bincount(cells, minlength=len(centers)))
    scores = -gumbel_keys(np.log(weights[cells]), candidates.draws(seed)).round(DECIMALS)
    rows = ledger.walk(np.argsort(scores, kind="stable"))
    parameters = {"cells": len(centers), "cells_with_target": int((wanted > 0).sum()), "directions": frame.directions}
    reasons = [f"dsir: cell {c}, {weights[c]:,.3g} times as common in the target as here" for c in cells[rows]]
    return Choice(rows=rows, scores=scores[rows], reasons=reasons, parameters=parameters)


def cell_weights(wanted: np.ndarray, held: np.ndarray) -> np.ndarray:
    """p_target / p_candidates [k], smoothed by one image drawn from the candidates.

    Args:
        wanted: [k] target images in every cell, by weight; of sum m.
        held: [k] candidates in every cell; a cell without any weighs nothing that matters.
    """
    share = held / held.sum()
    relative = np.divide(wanted, share, out=np.zeros(len(wanted)), where=held > 0)
    return np.asarray((relative + 1) / (wanted.sum() + 1))


def gumbel_keys(log_weights: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Log w + Gumbel noise, float64 [n]: the N largest are a draw without replacement by weight.

    Args:
        log_weights: [n], up to a constant.
        numbers: [n] uint64, a random number per image.
    """
    uniform = np.ldexp((numbers >> np.uint64(12)) + 0.5, -52)  # exact, and never 0 or 1
    return np.asarray(log_weights - np.log(-np.log(uniform)))
