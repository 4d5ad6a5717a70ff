"""The far part of a selection: the same number from every cluster of what is far.

K-means on a sample of the far candidates gives a cluster for every 32 of them, 1,024 at most. Clusters take turns, in
an order drawn from the seed, and give a random one of their candidates each time, until the ledger is done.
"""

from __future__ import annotations

import numpy as np

from curate.selection._candidates import SAMPLE_ROWS, Candidates
from curate.selection._ledger import Ledger
from embeddings.clusters import fit_centers, nearest_centers

MAX_CLUSTERS, IMAGES_PER_CLUSTER = 1024, 32


def draw_far(candidates: Candidates, points: np.ndarray, ledger: Ledger, far: np.ndarray, *, seed: int) -> np.ndarray:
    """Takes far candidates until the ledger is done or none of them is open.

    Args:
        candidates: All n.
        points: [n, k] of length about 1.
        ledger: Of the n candidates.
        far: [n] bool.
        seed: Of the draws.

    Returns:
        Rows [r] int64 in the order taken.
    """
    rows = np.flatnonzero(far & ledger.open)
    if not len(rows):
        return rows
    numbers = candidates.draws(seed)[rows]
    drawn = rows[np.argsort(numbers, kind="stable")]
    clusters = min(MAX_CLUSTERS, -(-len(rows) // IMAGES_PER_CLUSTER))
    centers = fit_centers(points[drawn[:SAMPLE_ROWS]], clusters, seed=seed)
    cluster = np.random.default_rng(seed).permutation(len(centers))[nearest_centers(points[drawn], centers, 1)[:, 0]]
    by_cluster = np.argsort(cluster, kind="stable")
    turn = np.empty(len(rows), np.int64)
    turn[by_cluster] = np.arange(len(rows)) - np.searchsorted(cluster[by_cluster], cluster[by_cluster])
    return ledger.walk(drawn[np.lexsort((cluster, turn))])
