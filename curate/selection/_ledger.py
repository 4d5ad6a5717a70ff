"""What a selection may still take: the budget, caps and floors, kept while a method chooses.

A method never looks at limits; it asks which candidates are open, and takes one after the other:

    while not ledger.done:
        ledger.take(best_of(ledger.open))

A candidate is open while it is not taken, none of its sources, labels or groups is at its cap, and it is affordable:
what is left after it must pay for the cheapest images that the floors still need. With F_i the set of those images for
floor i, c_i the dearest of them (0 if i is met) and a the candidate's own amount, for every limit

    a <= spare + c_i,    spare = left - sum_i sum(F_i)

as it takes the place of the dearest if it serves that floor. So under images, or one priced limit beside them, floors
that can be met are met in any order of taking, and nothing opens that was closed.

Three wishes may end below a floor although they need not, and are then refused in words: floors of sources and of
labels that only the same images can meet (as long as spare is below 0, only images that serve two floors are open;
taking one may open others again); floors under bytes and money at once, as the cheapest need not be the smallest; and
caps of another kind, of labels say, that use up what a floor of a source needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

IMAGES = "images"
SLACK = 1e-9  # relative: sums of prices are off by rounding


@dataclass(frozen=True, kw_only=True, eq=False)
class Limit:
    """An amount that every candidate uses some of."""

    name: str  # images, bytes or money
    most: float
    amounts: np.ndarray  # [n] float64, 0 or more


@dataclass(frozen=True, kw_only=True, eq=False)
class Quota:
    """Caps and floors of the sources, labels or groups."""

    name: str  # source, label or group
    names: Sequence[str]  # [k]
    member: np.ndarray  # [n] int64 which of them a candidate is of; -1: none
    caps: np.ndarray  # [k] int64; a number above any count: no cap
    floors: np.ndarray  # [k] int64


class Ledger:
    """Which candidates may still be taken.

    ``open`` [n] is closed in place, and is a new array when something in it opens again.
    """

    def __init__(self, n: int, limits: Sequence[Limit], quotas: Sequence[Quota] = ()) -> None:
        self._order: list[int] = []
        self._free = np.ones(n, bool)  # neither taken nor of something at its cap
        self._quotas = [_Counting(quota) for quota in quotas]
        for quota in self._quotas:
            self._free[np.isin(quota.of.member, np.flatnonzero(quota.of.caps == 0))] = False
        floors = [quota for quota in self._quotas if quota.below]
        self._may_reopen, kinds = len(floors) > 1, _Kinds(floors, n)
        self._limits = [_Spending(limit, kinds, [_Reserve(limit, f, self._free) for f in floors]) for limit in limits]
        self._reopen()

    @classmethod
    def of_images(cls, n: int, most: int) -> Ledger:
        """A budget of images alone."""
        return cls(n, [Limit(name=IMAGES, most=most, amounts=np.ones(n))])

    @property
    def taken(self) -> np.ndarray:
        """Rows [r] int64 in the order taken."""
        return np.array(self._order, np.int64)

    @property
    def done(self) -> bool:
        """True if nothing more can be taken."""
        return not self._n_open

    @property
    def left(self) -> int:
        """Images that may still be taken, at most."""
        count = int(np.count_nonzero(self._free)) if self._may_reopen and not self.done else self._n_open
        return min([count, *(spending.images_left for spending in self._limits)])

    def take(self, row: int) -> bool:
        """Takes a candidate if it is open; closes what no longer fits."""
        if not self.open[row]:
            return False
        lost = [self._book(np.array([row]))]
        for full in [quota.count(row) for quota in self._quotas]:
            lost.append(full[self._free[full]])
            self._free[lost[-1]] = False
            self._close(lost[-1])
        for spending in self._limits:
            spending.lose(lost, self._free)
        self._close_beyond_reach()
        return True

    def walk(self, order: np.ndarray) -> np.ndarray:
        """Takes candidates [r] in an order, each once, if it is open at its turn, until done.

        Returns:
            The rows taken, in order.
        """
        if not self._quotas and all(spending.of.name == IMAGES for spending in self._limits):
            first: np.ndarray = order[self.open[order]][: self.left]
            self._book(first)
            self._close_beyond_reach()
            return first
        before = len(self._order)
        for row in order.tolist():
            if self.take(row) and self.done:
                break
        return self.taken[before:]

    def spent(self) -> dict[str, dict[str, float]]:
        """Limit -> what it allows, what was used, and whether it keeps out what the caps would let in."""
        return {s.of.name: {"most": s.of.most, "used": s.used, "binding": s.binds(self._free)} for s in self._limits}

    def full(self) -> list[str]:
        """The caps that hold candidates back, in words."""
        return [text for quota in self._quotas for text in quota.full()]

    def unmet(self) -> list[str]:
        """The floors that were not met, in words."""
        return [text for quota in self._quotas for text in quota.unmet()]

    def _book(self, rows: np.ndarray) -> np.ndarray:
        self._order.extend(rows.tolist())
        self._free[rows] = False
        self._close(rows)
        for spending in self._limits:
            spending.used += float(spending.of.amounts[rows].sum())
        return rows

    def _close(self, rows: np.ndarray) -> None:
        self._n_open -= int(np.count_nonzero(self.open[rows]))
        self.open[rows] = False

    def _close_beyond_reach(self) -> None:
        reopens = False
        for spending in self._limits:
            rows, rises = spending.move()
            self._close(rows)
            reopens |= rises
        if reopens:
            self._reopen()

    def _reopen(self) -> None:
        self.open = self._free.copy()
        for spending in self._limits:
            spending.move()
            self.open[spending.beyond_reach()] = False
        self._n_open = int(np.count_nonzero(self.open))


class _Counting:
    """How many are taken of every source, label or group."""

    def __init__(self, quota: Quota) -> None:
        self.of = quota
        self.counts = np.zeros(len(quota.names), np.int64)
        self.below = int(np.count_nonzero(quota.floors > 0))  # floors that are not met yet
        self._by_member = np.argsort(quota.member, kind="stable")
        self._starts = np.searchsorted(quota.member[self._by_member], np.arange(len(quota.names) + 1))

    def count(self, row: int) -> np.ndarray:
        """Counts a candidate; the rows of its source, label or group if that is now at its cap."""
        number = self.of.member[row]
        if number < 0:
            return np.empty(0, np.int64)
        self.counts[number] += 1
        self.below -= int(self.counts[number] == self.of.floors[number])
        return self._rows(number) if self.counts[number] >= self.of.caps[number] else np.empty(0, np.int64)

    def needed(self, number: int) -> int:
        """Images that a floor still needs."""
        return max(0, int(self.of.floors[number] - self.counts[number]))

    def full(self) -> list[str]:
        held = np.diff(self._starts)
        at = np.flatnonzero((self.counts >= self.of.caps) & (held > self.counts)).tolist()
        return [f"{self.of.name} {self.of.names[i]}: cap {self.of.caps[i]:,}" for i in at]

    def unmet(self) -> list[str]:
        below = np.flatnonzero(self.counts < self.of.floors).tolist()
        return [
            f"{self.of.name} {self.of.names[i]}: {self.counts[i]:,} of at least {self.of.floors[i]:,}" for i in below
        ]

    def _rows(self, number: int) -> np.ndarray:
        rows: np.ndarray = self._by_member[self._starts[number] : self._starts[number + 1]]
        return rows


class _Kinds:
    """Candidates that serve the same floors are of one kind."""

    def __init__(self, floors: Sequence[_Counting], n: int) -> None:
        code, serving = np.zeros(n, np.int64), []
        for quota in floors:
            has_floor = np.append(quota.of.floors > 0, False)  # the last is for -1
            serving.append(np.where(has_floor[quota.of.member], quota.of.member, -1))
            code = code * len(has_floor) + serving[-1] + 1
        _, first, self.of = np.unique(code, return_index=True, return_inverse=True)  # of [n]
        self.serve = [members[first] for members in serving]  # per quota [kinds]; -1: none of its floors
        self.count = len(first)


class _Reserve:
    """The cheapest free candidates that the floors of one quota still need, under one limit."""

    def __init__(self, limit: Limit, quota: _Counting, free: np.ndarray) -> None:
        self._amounts, self._quota, member = limit.amounts, quota, quota.of.member
        k = len(quota.of.names)
        self._rows = np.lexsort((limit.amounts, member))
        self._place = np.argsort(self._rows)  # [n] where a row stands in there
        self._starts = np.searchsorted(member[self._rows], np.arange(k + 1))
        self._ends, self._held = self._starts[:-1].copy(), np.zeros(k, np.int64)  # of what is reserved: free ones only
        self.total, self.dearest = 0.0, np.zeros(k + 1)  # the last is for -1
        for number in np.flatnonzero(quota.of.floors > 0).tolist():
            self._settle(number, free)

    def lose(self, rows: np.ndarray, free: np.ndarray) -> None:
        """Some rows are no longer free; needs may have changed."""
        member = self._quota.of.member[rows]
        touched = np.unique(member[member >= 0])
        reserved = (member >= 0) & (self._place[rows] < self._ends[member])
        np.subtract.at(self._held, member[reserved], 1)
        self.total -= float(self._amounts[rows[reserved]].sum())
        for number in touched[self._quota.of.floors[touched] > 0].tolist():
            self._settle(number, free)

    def _settle(self, number: int, free: np.ndarray) -> None:
        """Reserves as many as are needed, so that the last is the dearest."""
        need, held = self._quota.needed(number), int(self._held[number])
        start, end, stop = int(self._starts[number]), int(self._ends[number]), int(self._starts[number + 1])
        while held > need:
            end -= 1
            held -= self._count(end, free, -1)
        while held < need and end < stop:
            held += self._count(end, free, 1)
            end += 1
        while end > start and not free[self._rows[end - 1]]:
            end -= 1
        self._ends[number], self._held[number] = end, held
        self.dearest[number] = self._amounts[self._rows[end - 1]] if end > start else 0.0

    def _count(self, place: int, free: np.ndarray, sign: int) -> int:
        row = self._rows[place]
        self.total += sign * float(self._amounts[row]) * bool(free[row])
        return int(free[row])


class _Spending:
    """How much of a limit is used, and what is beyond reach."""

    def __init__(self, limit: Limit, kinds: _Kinds, reserves: Sequence[_Reserve]) -> None:
        self.of, self.used = limit, 0.0
        self._kinds, self._reserves = kinds, reserves
        self._cheapest = float(limit.amounts.min(initial=np.inf))
        self._dearest = float(limit.amounts.max(initial=0))
        self._rows = np.lexsort((-limit.amounts, kinds.of))  # of every kind the dearest first
        self._costs = -limit.amounts[self._rows]  # ascending within a kind
        self._starts = np.searchsorted(kinds.of[self._rows], np.arange(kinds.count + 1))
        self._reach = self._starts[:-1].copy()  # [kinds] the first that is affordable
        self._ample = True  # all are, so far

    @property
    def left(self) -> float:
        return self.of.most * (1 + SLACK) - self.used

    @property
    def images_left(self) -> int:
        return int(self.left / self._cheapest) if self._cheapest > 0 else len(self.of.amounts)

    def lose(self, rows: Sequence[np.ndarray], free: np.ndarray) -> None:
        """Rows that are no longer free; the floors may need others in their place."""
        for reserve in self._reserves:
            reserve.lose(np.concatenate(rows), free)

    def move(self) -> tuple[np.ndarray, bool]:
        """Rows that have become too dear since the last call, and whether others have become affordable."""
        closed = [np.empty(0, np.int64)]
        spare = self.left - sum(reserve.total for reserve in self._reserves)
        was_ample, self._ample = self._ample, spare >= self._dearest
        if was_ample and self._ample:
            return closed[0], False
        most = self._affordable(spare)
        falls, rises = self._moved(most)
        for kind in falls.tolist() + rises.tolist():
            start, stop = self._starts[kind], self._starts[kind + 1]
            before = self._reach[kind]
            self._reach[kind] = start + np.searchsorted(self._costs[start:stop], -most[kind])
            closed.append(self._rows[before : self._reach[kind]])
        return np.concatenate(closed), bool(len(rises))

    def beyond_reach(self) -> np.ndarray:
        """All rows that are too dear."""
        parts = [self._rows[start:reach] for start, reach in zip(self._starts[:-1], self._reach, strict=True)]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def binds(self, free: np.ndarray) -> bool:
        """True if it alone keeps some free candidate [n] out."""
        return bool((self.of.amounts[free] > self.left).any())

    def _affordable(self, spare: float) -> np.ndarray:
        """The largest amount [kinds] that fits."""
        if not self._reserves:
            return np.full(self._kinds.count, spare)
        needs = np.stack([r.dearest[serve] for r, serve in zip(self._reserves, self._kinds.serve, strict=True)])
        if spare >= 0:
            return np.asarray(spare + needs.sum(axis=0))
        serves_two = np.count_nonzero(needs > 0, axis=0) >= 2
        return np.where(serves_two, np.minimum(needs.sum(axis=0), self.left), 0.0)

    def _moved(self, most: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Kinds whose dearest affordable image no longer is, and those whose cheapest too dear one has become so."""
        first, stop = self._reach, self._starts[1:]
        last = len(self._costs) - 1
        falls = (first < stop) & (-self._costs[np.minimum(first, last)] > most)
        rises = (first > self._starts[:-1]) & (-self._costs[np.maximum(first - 1, 0)] <= most)
        return np.flatnonzero(falls), np.flatnonzero(rises)
