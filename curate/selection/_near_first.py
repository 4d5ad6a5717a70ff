"""near-first: every target image takes turns taking the nearest image that is still free.

Distances are Euclidean in the pools' whitened principal directions,

    z(x) = diag(l)^(-1/2) V' (x - m),   m, V, l from the pools' candidates alone, every image with the same weight

k = 64 directions, fewer where the pools are small: one per 32 images, at least 4. (Pools of 160 real images: with 64
directions the choice is no nearer to the target than a random draw, with 5 its distance is a sixth of that.)

The quota, one image per target image and turn, keeps dense modes of the pool from drowning the rare ones, as a global
top-N does. Turns go round in an order drawn from the seed, for in key order a last, partial round would serve the first
classes only. The target's own images, where they are candidates, lie at distance 0 and go first: with N >= n_target
all of them are in, and they count as unique images of the budget.

The result is that of the plain greedy over the full target x candidate table, which is never formed: every target image
holds a list of its nearest free candidates, and where lists run out they are searched again among what is free. Memory
is 4 k bytes per candidate, twice that during a second search, and some 16 bytes for each of ``LIST_ENTRIES``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from curate.results import TARGET
from curate.selection._candidates import BLOCK_ROWS, Candidates, Choice, counter_hash
from embeddings.moments import Moments
from embeddings.neighbors import Engine, nearest
from embeddings.progress import Progress, silent

DIRECTIONS, MIN_DIRECTIONS = 64, 4
IMAGES_PER_DIRECTION = 32
LIST_ENTRIES = 1 << 22
REFILL_SHARE = 0.25


def choose(candidates: Candidates, *, budget: int, seed: int) -> Choice:
    """Takes turns until the budget is met; never runs out. Score = squared distance in whitened directions."""
    frame = Whitening.fit(candidates.pool_sample)
    targets, pool = frame.apply(candidates.target_vectors), _project(candidates, frame)
    keys = candidates.target_keys
    order = np.argsort(counter_hash(f"{seed}\0{TARGET}\0{key}" for key in keys), kind="stable")
    turns = take_turns(targets, pool, order, budget, progress=candidates.progress)
    parameters = {"directions": frame.directions, "fitted_on": len(candidates.pool_sample), "target_images": len(keys)}
    return Choice(
        rows=turns.rows, scores=turns.distances, reasons=_reasons(candidates, turns, keys), parameters=parameters
    )


@dataclass(frozen=True, kw_only=True)
class Whitening:
    """Principal directions of a sample, scaled to unit variance."""

    mean: np.ndarray  # [d] float64
    axes: np.ndarray  # [d, k] float64; a direction without variance is zero

    @classmethod
    def fit(cls, sample: np.ndarray) -> Whitening:
        """From vectors [s, d], s >= 1."""
        n, d = sample.shape
        k = min(DIRECTIONS, max(MIN_DIRECTIONS, n // IMAGES_PER_DIRECTION), d)
        if n == 1:
            return cls(mean=sample[0].astype(np.float64), axes=np.zeros((d, k)))
        _, mean, covariance = Moments.from_vectors(sample, np.zeros(n, np.uint8)).pooled()
        variances, vectors = linalg.eigh(covariance, subset_by_index=(d - k, d - 1))
        real = variances > 1e-9 * variances[-1]  # below: rounding of the vectors
        return cls(mean=mean, axes=vectors * np.where(real, 1 / np.sqrt(np.where(real, variances, 1.0)), 0.0))

    @property
    def directions(self) -> int:
        """Directions with variance."""
        return int(self.axes.any(axis=0).sum())

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """[n, d] to float32 [n, k]."""
        directions: np.ndarray = (vectors - self.mean) @ self.axes
        return directions.astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Turns:
    """Who took what, in order."""

    rows: np.ndarray  # [N] candidate taken
    takers: np.ndarray  # [N] target image that took it
    distances: np.ndarray  # [N] float64 squared, rounded to 1e-6


def take_turns(
    targets: np.ndarray,
    pool: np.ndarray,
    order: np.ndarray,
    budget: int,
    *,
    entries: int = LIST_ENTRIES,
    engine: Engine | None = None,
    progress: Progress = silent,
) -> Turns:
    """In every round every target, in turn, takes its nearest free candidate; equal distances go to the lower row.

    Args:
        targets: [m, k].
        pool: [n, k], n >= budget.
        order: [m] the turns of a round.
        budget: N.
        entries: list entries a search may make; changes speed and memory, never the result.
        engine: for the search.
        progress: told after every round.

    Returns:
        N distinct rows with their takers.
    """
    taken = np.zeros(len(pool), dtype=bool)
    lists = _FreeLists(targets, pool, taken, lambda q, b, k: nearest(q, b, k, engine=engine), entries)
    rows, distances, takers = np.empty(budget, np.int64), np.empty(budget), np.resize(order, budget)
    for i, target in enumerate(takers.tolist()):
        if i % len(order) == 0:
            progress("select", i, budget)
        turns_left = -(-(budget - i) // len(order))
        rows[i], distances[i] = lists.take(target, turns_left)
    progress("select", budget, budget)
    return Turns(rows=rows, takers=takers, distances=distances)


Search = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]


class _FreeLists:
    """For every target its nearest candidates in order, searched again among the free ones when a list runs out."""

    def __init__(self, targets: np.ndarray, pool: np.ndarray, taken: np.ndarray, search: Search, entries: int) -> None:
        self._targets, self._pool, self._taken, self._search, self._entries = targets, pool, taken, search, entries
        self._numbers = np.arange(len(pool))  # candidates still in the pool array
        self._rows = [np.empty(0, np.int64)] * len(targets)
        self._distances = [np.empty(0)] * len(targets)
        self._length = 0

    def take(self, target: int, turns_left: int) -> tuple[int, float]:
        """Takes the target's nearest free candidate: its row and squared distance."""
        if not self._advance(target):
            self._refill(turns_left)
            self._advance(target)
        row, distance = self._rows[target][0], self._distances[target][0]
        self._taken[row] = True
        return int(row), float(distance)

    def _advance(self, target: int) -> bool:
        """Drops what is taken from the head of a list; False if nothing is left."""
        rows = self._rows[target]
        busy = self._taken[rows]
        head = int(busy.argmin()) if len(rows) and not busy.all() else len(rows)
        self._rows[target], self._distances[target] = rows[head:], self._distances[target][head:]
        return head < len(rows)

    def _refill(self, turns_left: int) -> None:
        """Searches again among what is free, with longer lists, for the targets whose lists will not last.

        Lists grow fourfold (a search costs the same for 20 neighbors and for 100) and a quarter of the targets takes
        part in any case. As a list runs out only after as many picks as it is long, the number of searches grows with
        the logarithm of the budget, not with the number of targets.
        """
        still = ~self._taken[self._numbers]
        self._numbers, self._pool = self._numbers[still], self._pool[still]
        left = np.array([np.count_nonzero(~self._taken[rows]) for rows in self._rows])
        short = np.flatnonzero(left <= max(turns_left - 1, np.quantile(left, REFILL_SHARE, method="lower")))
        self._length = max(1, min(4 * max(self._length, turns_left + 16), self._entries // len(short)))
        distances, columns = self._search(self._targets[short], self._pool, min(self._length, len(self._pool)))
        for target, near, far in zip(short, columns, distances, strict=True):
            self._rows[target], self._distances[target] = self._numbers[near], far.copy()


def _project(candidates: Candidates, frame: Whitening) -> np.ndarray:
    """Whitened directions float32 [n, k] of all candidates, block by block."""
    n = len(candidates)
    out = np.empty((n, frame.axes.shape[1]), np.float32)
    for start in range(0, n, BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, n))
        out[rows] = frame.apply(candidates.vectors(rows))
        candidates.progress("project", int(rows[-1]) + 1, n)
    return out


def _reasons(candidates: Candidates, turns: Turns, keys: np.ndarray) -> list[str]:
    """Which turn of which target image took the candidate."""
    own = (candidates.source[turns.rows] == 0) & (candidates.place[turns.rows] == candidates.queries[turns.takers])
    rounds = np.arange(len(turns.rows)) // len(keys) + 1
    return [
        "near-first: an image of the target itself" if mine else f"near-first: choice {turn:,} of target {keys[taker]}"
        for mine, turn, taker in zip(own, rounds, turns.takers, strict=True)
    ]
