"""cluster-balanced: the same number from every cluster of the pools, and of every cluster of clusters; no target.

K-means on the pools gives clusters, K-means on their centers clusters of clusters, and so on: centers of centers lie
more evenly over what the pools hold than the images do. The budget goes top-down: a node shares what it is given among
its children as evenly as they can fill it (water-filling), and a leaf draws at random.

    q_c = min(|c|, h)      for the children c of a node, at the water level h that makes the sum what it was given

The quotas are met one image at a time: each node gives to the child that had the fewest, of those with an open
candidate left. So what a cap closes is made up for next door, and the choice is nested.

Level 1 has a cluster for every 32 images of a sample of the pools, 1,024 at most, and each further level an eighth of
the one below, as long as that is 8 or more. On every level the centers are fitted three times more, to the points
nearest them, half of each cluster, so that dense places weigh less. Distances are Euclidean in the pools' 64 principal
directions, which are not whitened: nearly those in all dimensions, and cheap.

One pass over the n candidates finds their clusters, 2 n K k operations for K clusters and k directions; the fit takes
under a minute whatever n is. Memory: some numbers per candidate. The target is not looked at, so its weights have no
effect; its own images, where they are candidates, are drawn like any other.

Source: Vo et al., Automatic data curation for self-supervised learning: a clustering-based approach (2024), from the
paper's description alone. Deviations: centers of a sample, in principal directions; 3 resampling steps, not 10; at the
paper's scale level 1 has millions of clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heapreplace
from itertools import pairwise

import numpy as np

from curate.selection._candidates import BLOCK_ROWS, Candidates, Choice, unit_interval
from curate.selection._directions import Whitening
from curate.selection._ledger import Ledger
from curate.selection._turns import Reopening
from embeddings.clusters import fit_centers, nearest_centers
from embeddings.neighbors import pair_distances

MAX_CLUSTERS = 1024
IMAGES_PER_CLUSTER = 32
CLUSTERS_PER_CLUSTER = 8
FEWEST_CLUSTERS = 8
RESAMPLINGS = 3


def choose(candidates: Candidates, ledger: Ledger, *, seed: int) -> Choice:
    """Draws from the clusters until the ledger is done. Score = the random number, in [0, 1)."""
    sample = candidates.pool_sample
    frame = Whitening.of_pools(candidates).unscaled()
    levels = fit_levels(frame.apply(sample))
    leaf, numbers = _nearest_leaves(candidates, frame, levels[0]), candidates.draws(seed)
    rows = draw_balanced(leaf, parents_of(levels), numbers, ledger, seed=seed)
    sizes = np.bincount(leaf)
    return Choice(
        rows=rows,
        scores=unit_interval(numbers[rows]),
        reasons=[f"cluster-balanced: drawn from cluster {i + 1} of {sizes[i]:,} images" for i in leaf[rows]],
        parameters={
            "clusters": [len(centers) for centers in levels],
            "directions": frame.directions,
            "fitted_on": len(sample),
        },
    )


def fit_levels(points: np.ndarray) -> list[np.ndarray]:
    """Centers [k_l, k] of every level, clusters of images first.

    Args:
        points: [s, k] of length about 1.
    """
    levels: list[np.ndarray] = []
    clusters = max(1, min(MAX_CLUSTERS, len(points) // IMAGES_PER_CLUSTER))
    while clusters >= FEWEST_CLUSTERS or not levels:
        points = _spread_centers(points, clusters)
        levels.append(points)
        clusters = len(points) // CLUSTERS_PER_CLUSTER
    return levels


def _spread_centers(points: np.ndarray, k: int) -> np.ndarray:
    """K-means centers, fitted again to the points nearest them, half of each cluster."""
    centers = fit_centers(points, k)
    for _ in range(RESAMPLINGS):
        owner = nearest_centers(points, centers, 1)[:, 0]
        gap = pair_distances(points, centers, np.arange(len(points)), owner)
        order = np.lexsort((gap, owner))
        place = np.empty(len(points), np.int64)
        place[order] = np.arange(len(points)) - np.searchsorted(owner[order], owner[order])
        centers = fit_centers(points[place < max(1, len(points) // (2 * k))], k)
    return centers


def parents_of(levels: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For every level but the last, the number [k_l] of the cluster above that each cluster is in."""
    return [nearest_centers(below, above, 1)[:, 0] for below, above in pairwise(levels)]


def _nearest_leaves(candidates: Candidates, frame: Whitening, centers: np.ndarray) -> np.ndarray:
    """Number [n] of the cluster that each candidate is in, block by block."""
    n = len(candidates)
    leaf = np.empty(n, np.int64)
    for start in range(0, n, BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, n))
        leaf[rows] = nearest_centers(frame.apply(candidates.vectors(rows)), centers, 1)[:, 0]
        candidates.progress("cluster", int(rows[-1]) + 1, n)
    return leaf


def draw_balanced(
    leaf: np.ndarray, parents: Sequence[np.ndarray], numbers: np.ndarray, ledger: Ledger, *, seed: int
) -> np.ndarray:
    """Takes candidates until the ledger is done, each time from where the fewest were taken.

    Args:
        leaf: [n] cluster of each candidate.
        parents: Level by level, the cluster above [k_l] that each cluster is in.
        numbers: [n] uint64; a leaf gives its lowest first.
        ledger: Of the n candidates.
        seed: Of the order of clusters that had equally many.

    Returns:
        Rows [r] int64 in the order taken.
    """
    root, reopened = _tree(leaf, parents, numbers, np.random.default_rng(seed)), Reopening(ledger)
    rows: list[int] = []
    while not ledger.done:
        if reopened():
            root.restart()
        row = root.take(ledger)
        if row is None:
            break
        rows.append(row)
    return np.array(rows, np.int64)


class _Leaf:
    """Candidates of one cluster, in the order in which it gives them."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows, self._next = rows, 0

    def take(self, ledger: Ledger) -> int | None:
        """Takes the next candidate that is open, if there is one."""
        while self._next < len(self._rows):
            row = int(self._rows[self._next])
            self._next += 1
            if ledger.take(row):
                return row
        return None

    def restart(self) -> None:
        """Looks again at what was closed."""
        self._next = 0


class _Node:
    """Clusters that share what their cluster is given."""

    def __init__(self, children: Sequence[_Leaf | _Node]) -> None:
        self._children, self._taken = children, [0] * len(children)
        self._fill()

    def take(self, ledger: Ledger) -> int | None:
        """Takes a candidate of the child that had the fewest, of those that have one."""
        while self._fewest:
            child = self._fewest[0][1]
            row = self._children[child].take(ledger)
            if row is not None:
                self._taken[child] += 1
                heapreplace(self._fewest, (self._taken[child], child))
                return row
            heappop(self._fewest)
        return None

    def restart(self) -> None:
        """Looks again at what was closed."""
        for child in self._children:
            child.restart()
        self._fill()

    def _fill(self) -> None:
        self._fewest = [(taken, child) for child, taken in enumerate(self._taken)]
        heapify(self._fewest)


def _tree(leaf: np.ndarray, parents: Sequence[np.ndarray], numbers: np.ndarray, rng: np.random.Generator) -> _Node:
    """The root; children in a random order."""
    order = np.lexsort((numbers, leaf))
    ids = np.unique(leaf)
    nodes: list[_Leaf | _Node] = [_Leaf(rows) for rows in np.split(order, np.searchsorted(leaf[order], ids[1:]))]
    for above in parents:
        group = above[ids]
        ids = np.unique(group)
        nodes = [_Node([nodes[i] for i in rng.permutation(np.flatnonzero(group == number))]) for number in ids]
    return _Node([nodes[i] for i in rng.permutation(len(nodes))])
