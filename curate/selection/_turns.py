"""Turns: one target after another takes the nearest candidate that is still open.

Target t takes its j-th turn, j = 0, 1, ..., at the time (j + u_t) / w_t, with u_t in [0, 1) drawn from the seed and w_t
its weight: with equal weights everybody has one turn a round, in an order that is the same in every round. The order is
drawn because in key order a last, partial round would serve the first classes only.

The result is that of the plain greedy over the full target x candidate table, which is never formed: every target holds
a list of its nearest open candidates, and where lists run out they are searched again among what is open. Memory beside
the candidates is some 16 bytes for each of ``LIST_ENTRIES`` and one block of the pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace
from typing import Any, Protocol, cast

import numpy as np

from curate.results import TARGET
from curate.selection._candidates import Candidates, Choice, Search, counter_hash
from curate.selection._directions import Whitening
from curate.selection._ledger import Ledger
from embeddings.neighbors import nearest
from embeddings.progress import Progress, silent
from embeddings.vectors import Vectors

LIST_ENTRIES = 1 << 22
REFILL_SHARE = 0.25


class Takers(Protocol):
    """Whose turn it is."""

    def __len__(self) -> int:
        """Targets m."""

    def __iter__(self) -> Iterator[int]:
        """Numbers of the targets, one for each turn."""

    def turns(self, n: int) -> np.ndarray:
        """Turns [m] int64 of every target among the next n, at most."""


class Preference(Protocol):
    """What a target takes of the candidates near it."""

    reach: int  # so many of the nearest open ones are looked at

    def pick(self, rows: np.ndarray, distances: np.ndarray) -> int:
        """Place of the one to be taken among candidates [r], r <= reach, the nearest first; it will be."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Schedule:
    """Whose turn it is, without end."""

    order: np.ndarray  # [m] targets by u_t
    weights: np.ndarray  # [m] float64, 0 or more and not all 0; a target of weight 0 has no turn

    @classmethod
    def of_targets(cls, candidates: Candidates, seed: int) -> Schedule:
        """Turns of the target's images: by a draw that depends on (seed, key), as often as they count."""
        drawn = counter_hash(f"{seed}\0{TARGET}\0{key}" for key in candidates.target_keys)
        return cls(order=np.argsort(drawn, kind="stable"), weights=candidates.weights)

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[int]:
        weights, m = self.weights.tolist(), len(self)
        turns = [(rank / m / weights[t], rank, 0, t) for rank, t in enumerate(self.order.tolist()) if weights[t] > 0]
        heapify(turns)
        while True:
            _, rank, j, target = turns[0]
            yield target
            heapreplace(turns, ((j + 1 + rank / m) / weights[target], rank, j + 1, target))

    def turns(self, n: int) -> np.ndarray:
        """Turns [m] int64 of every target among the next n, at most."""
        turns: np.ndarray = np.ceil(n * self.weights / self.weights.sum()).astype(np.int64)
        return turns


@dataclass(frozen=True, kw_only=True, eq=False)
class Turns:
    """Who took what, in order."""

    rows: np.ndarray  # [r] int64 candidate taken
    takers: np.ndarray  # [r] int64 target that took it
    distances: np.ndarray  # [r] float64 squared, rounded to 1e-6

    @classmethod
    def of(cls, taken: Iterable[tuple[int, int, float]]) -> Turns:
        """From candidate, taker and distance of every turn."""
        rows, takers, distances = np.array(list(taken), np.float64).reshape(-1, 3).T
        return cls(rows=rows.astype(np.int64), takers=takers.astype(np.int64), distances=distances)

    @classmethod
    def joined(cls, parts: Sequence[Turns]) -> Turns:
        """One after the other."""
        parts = [cls.of([]), *parts]
        return cls(
            rows=np.concatenate([part.rows for part in parts]),
            takers=np.concatenate([part.takers for part in parts]),
            distances=np.concatenate([part.distances for part in parts]),
        )

    def where(self, mask: np.ndarray) -> Turns:
        """Some of them."""
        return Turns(rows=self.rows[mask], takers=self.takers[mask], distances=self.distances[mask])

    @property
    def choices(self) -> np.ndarray:
        """How many candidates the taker has then [r] int64, from 1."""
        order = np.argsort(self.takers, kind="stable")
        takers = self.takers[order]
        choices = np.empty(len(order), np.int64)
        choices[order] = np.arange(len(order)) - np.searchsorted(takers, takers) + 1
        return choices


def take_turns(
    targets: np.ndarray,
    pool: Vectors,
    schedule: Takers,
    ledger: Ledger,
    *,
    within: np.ndarray | None = None,
    entries: int = LIST_ENTRIES,
    search: Search = nearest,
    progress: Progress = silent,
) -> Turns:
    """Every target, in its turn, takes its nearest open candidate; equal distances go to the lower row.

    Args:
        targets: [m, k].
        pool: [n, k], read in blocks.
        schedule: Turns of the m targets.
        ledger: Of the n candidates; ends the turns when it is done.
        within: [n] bool, candidates that may be taken; None: all.
        entries: List entries a search may make; changes speed and memory, never the result.
        search: Finds the nearest rows of a base, as ``nearest``.
        progress: Told after every round.

    Returns:
        What was taken; the ledger is not done if nothing within is open.
    """
    taken = []
    for turn in each_turn(targets, pool, schedule, ledger, within=within, entries=entries, search=search):
        taken.append(turn)
        if len(taken) % len(schedule) == 0:
            progress("select", len(taken), len(taken) + ledger.left)
    progress("select", len(taken), len(taken))
    return Turns.of(taken)


def each_turn(
    targets: np.ndarray,
    pool: Vectors,
    schedule: Takers,
    ledger: Ledger,
    *,
    within: np.ndarray | None = None,
    preference: Preference | None = None,
    entries: int = LIST_ENTRIES,
    search: Search = nearest,
) -> Iterator[tuple[int, int, float]]:
    """``take_turns`` one by one, for those who may stop: candidate, taker and distance, once it is taken.

    With a preference every target takes, in its turn, what is preferred among its nearest open candidates.
    """
    lists = _FreeLists(targets, pool, ledger, within, search)
    reach = preference.reach if preference else 1
    for target in schedule:
        rows, distances = NONE_NEAR if ledger.done else lists.nearest_open(target, reach, schedule, entries)
        if not len(rows):
            return
        place = preference.pick(rows, distances) if preference else 0
        ledger.take(int(rows[place]))
        yield int(rows[place]), target, float(distances[place])


def choice_of(candidates: Candidates, turns: Turns, frame: Whitening, method: str, **parameters: Any) -> Choice:
    """The turns of a method in whitened directions as its choice. Score = squared distance to the taker."""
    return Choice(
        rows=turns.rows,
        scores=turns.distances,
        reasons=reasons(candidates, turns, method),
        codes=np.where(is_taker(candidates, turns), "own-image", method).tolist(),
        parameters={
            "directions": frame.directions,
            "fitted_on": len(candidates.pool_sample),
            "target_images": len(candidates.queries),
            **parameters,
        },
    )


def reasons(candidates: Candidates, turns: Turns, method: str) -> list[str]:
    """Which choice of which target image the candidates [r] were."""
    own = is_taker(candidates, turns)
    keys = candidates.target_keys[turns.takers]
    return [
        f"{method}: an image of the target itself" if mine else f"{method}: choice {choice:,} of target {key}"
        for mine, choice, key in zip(own, turns.choices, keys, strict=True)
    ]


def is_taker(candidates: Candidates, turns: Turns) -> np.ndarray:
    """True for the candidates [r] that are the very image that took them."""
    same_row = candidates.place[turns.rows] == candidates.queries[turns.takers]
    own: np.ndarray = candidates.own[turns.rows] & same_row
    return own


class Reopening:
    """Tells whether candidates have opened again since the last call, as they may when a floor is met."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._open = ledger, ledger.open

    def __call__(self) -> bool:
        """True once after each time; costs next to nothing where the ledger only closes."""
        before, self._open = self._open, self._ledger.open
        return before is not self._open and bool((self._open > before).any())


NONE_NEAR = np.empty(0, np.int64), np.empty(0)


class _FreeLists:
    """For every target its nearest open candidates in order, searched again when a list runs out."""

    def __init__(
        self, targets: np.ndarray, pool: Vectors, ledger: Ledger, within: np.ndarray | None, search: Search
    ) -> None:
        self._targets, self._pool, self._ledger, self._within, self._search = targets, pool, ledger, within, search
        self._reopened, self._length = Reopening(ledger), 0
        self._forget()

    def nearest_open(self, target: int, count: int, schedule: Takers, entries: int) -> tuple[np.ndarray, np.ndarray]:
        """The target's nearest open candidates, ``count`` or all there are, and their squared distances."""
        if self._reopened():
            self._forget()
        if self._advance(target) < count and not self._whole[target]:
            self._refill(schedule.turns(self._ledger.left), count, entries)
            self._advance(target)
        return self._rows[target][:count], self._distances[target][:count]

    def _forget(self) -> None:
        self._rows = [np.empty(0, np.int64)] * len(self._targets)
        self._distances = [np.empty(0)] * len(self._targets)
        self._whole = np.zeros(len(self._targets), bool)  # lists that hold every open candidate

    def _advance(self, target: int) -> int:
        """Drops what is closed from a list; how many are left."""
        open_ = self._ledger.open[self._rows[target]]
        self._rows[target], self._distances[target] = self._rows[target][open_], self._distances[target][open_]
        return len(self._rows[target])

    def _refill(self, turns: np.ndarray, count: int, entries: int) -> None:
        """Searches again among what is open, with longer lists, for the targets whose lists will not last.

        Lists grow fourfold (a search costs the same for 20 neighbors and for 100) and a quarter of the targets takes
        part in any case. As a list runs out only after as many picks as it is long, the number of searches grows with
        the logarithm of the budget, not with the number of targets.
        """
        free = self._ledger.open if self._within is None else self._ledger.open & self._within
        numbers = np.flatnonzero(free)
        if not len(numbers):
            return
        left = np.array([np.count_nonzero(free[rows]) for rows in self._rows])
        lasting = np.maximum(turns + count - 2, np.quantile(left, REFILL_SHARE, method="lower"))
        short = np.flatnonzero((left <= lasting) & (turns > 0))
        wanted = 4 * max(self._length, int(turns[short].max()) + count + 15)
        self._length = max(count, min(wanted, entries // len(short)))
        base = subset(self._pool, numbers)
        distances, columns = self._search(self._targets[short], base, min(self._length, len(numbers)))
        for target, near, far in zip(short, columns, distances, strict=True):
            self._rows[target], self._distances[target] = numbers[near], far.copy()
        self._whole[short] = self._length >= len(numbers)


def subset(vectors: Vectors, numbers: np.ndarray) -> Vectors:
    """Some rows [r] of vectors, as vectors [r, k]; copied only where they are read."""
    return cast(Vectors, _Subset(vectors, numbers))


class _Subset:
    def __init__(self, vectors: Vectors, numbers: np.ndarray) -> None:
        self._vectors, self._numbers = vectors, numbers
        self.shape, self.dtype = (len(numbers), vectors.shape[1]), vectors.dtype

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> np.ndarray:
        rows: np.ndarray = self._vectors[self._numbers[index]]
        return rows
