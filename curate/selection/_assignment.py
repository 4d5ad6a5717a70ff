"""assignment: every target image gets its share of the budget so that the summed distance is least.

    min  sum_(t, x) |z(t) - z(x)|^2      each candidate x at most once, target image t exactly q_t times

in the pools' whitened principal directions (``_directions``), with the quotas q_t of the turns (``_turns``): N / m each
where all images count alike. Turns give the nearest to whoever comes first; here it goes where it saves most.

What is matched at least cost is a sparse graph: every target's nearest candidates, and what turns would give it. The
second part makes it feasible, and the result never costs more than turns. Whether longer lists could change it is told
by prices: u_t, the least that one more image for t would cost, through a chain of swaps. A candidate farther from t
than u_t cannot pay; where u_t is beyond t's list, the list is doubled and all is matched again. So the result is that
of the full m x n table; or, where the graph would exceed ``EDGES``, ``parameters["optimal"]`` is false: not proven.

A budget too large for one graph is met in rounds, each of least cost on what the others left; what a cap closes on the
way is matched again among what is open. A budget in bytes or money is matched for the most images that it may hold.

Cost: one pass over the n candidates, 2 n m k operations per search for k directions, and a matching by shortest
augmenting paths for each lengthening of the lists, some 10 s for 10,000 images; N beyond that is met in rounds, so in
time linear in N. Memory: 4 k bytes per candidate, and some 30 bytes for each of ``EDGES``.
Not nested: a larger budget may swap.

Source: Jonker and Volgenant, A shortest augmenting path algorithm for dense and sparse linear assignment problems
(1987), as in ``scipy.sparse.csgraph``. Deviations: the graph holds the nearest candidates only, with the proof above.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from curate.selection._candidates import Candidates, Choice, Search
from curate.selection._directions import Whitening, project
from curate.selection._ledger import Ledger
from curate.selection._turns import Schedule, Turns, choice_of, subset, take_turns
from embeddings.neighbors import DECIMALS, nearest
from embeddings.progress import Progress, silent
from embeddings.vectors import Vectors

EDGES = 1 << 21
SPARE = 16  # candidates in the first lists beyond four per image wanted
UNIT = 10.0**DECIMALS  # costs are whole numbers of 1e-6, so that sums of them are exact


def choose(candidates: Candidates, ledger: Ledger, *, seed: int) -> Choice:
    """Matches until the ledger is done. Score = squared distance in whitened directions."""
    frame = Whitening.of_pools(candidates)
    targets, pool = frame.apply(candidates.target_vectors), project(candidates, frame)
    schedule = Schedule.of_targets(candidates, seed)
    search = candidates.search
    assigned = assign(targets, pool, schedule, ledger, search=search, progress=candidates.progress)
    optimal = assigned.optimal and search is nearest  # an index may miss what the proof needs
    return choice_of(candidates, assigned.turns, frame, "assignment", rounds=assigned.rounds, optimal=optimal)


@dataclass(frozen=True, kw_only=True, eq=False)
class Assigned:
    """Who was given what, in the order of the turns."""

    turns: Turns
    rounds: int
    optimal: bool  # True if it is proven that no round could have cost less


def assign(
    targets: np.ndarray,
    pool: Vectors,
    schedule: Schedule,
    ledger: Ledger,
    *,
    edges: int = EDGES,
    search: Search = nearest,
    progress: Progress = silent,
) -> Assigned:
    """Gives every target what its turns entitle it to, at least summed cost.

    Args:
        targets: [m, k].
        pool: [n, k].
        schedule: Turns of the m targets.
        ledger: Of the n candidates; ends the rounds when it is done.
        edges: Of a graph, beyond what makes it feasible; fewer may cost optimality.
        search: Finds the nearest rows of a base, as ``nearest``.
        progress: Told after every round.
    """
    coming, waiting = iter(schedule), np.empty(0, np.int64)
    parts: list[Turns] = []
    optimal = True
    while not ledger.done:
        size = _round_size(schedule, min(ledger.left, int(np.count_nonzero(ledger.open))), edges)
        waiting = np.append(waiting, list(islice(coming, max(0, size - len(waiting))))).astype(np.int64)
        numbers = np.flatnonzero(ledger.open)
        nearby = _Lists(targets, subset(pool, numbers), search)
        turns, proven = _match_round(nearby, _Due(waiting[:size], len(targets)), edges)
        turns = replace(turns, rows=numbers[turns.rows])
        taken = np.array([ledger.take(row) for row in turns.rows.tolist()], bool)
        waiting, optimal = np.append(turns.takers[~taken], waiting[size:]), optimal and proven
        parts.append(turns.where(taken))
        so_far = sum(len(part.rows) for part in parts)
        progress("select", so_far, so_far + ledger.left)
    return Assigned(turns=Turns.joined(parts), rounds=len(parts), optimal=optimal)


class _Due:
    """The targets whose turn it is in one round."""

    def __init__(self, takers: np.ndarray, m: int) -> None:
        self.takers, self._m = takers, m

    def __len__(self) -> int:
        return self._m

    def __iter__(self) -> Iterator[int]:
        return iter(self.takers.tolist())

    def turns(self, n: int) -> np.ndarray:
        """Turns [m] of every target, at most."""
        return np.bincount(self.takers, minlength=self._m)


class _Lists:
    """The nearest candidates of every target, as many as asked for."""

    def __init__(self, targets: np.ndarray, pool: Vectors, search: Search) -> None:
        self.targets, self.pool, self.search = targets, pool, search
        self.rows = [np.empty(0, np.int64)] * len(targets)
        self.costs = [np.empty(0)] * len(targets)

    def lengthen(self, lengths: np.ndarray) -> None:
        """Searches again for the targets whose lists are shorter than asked for [m]."""
        short = np.flatnonzero(lengths > [len(rows) for rows in self.rows])
        for length in np.unique(lengths[short]):
            same = short[lengths[short] == length]
            distances, rows = self.search(self.targets[same], self.pool, int(length))
            for target, near, far in zip(same, rows, distances, strict=True):
                self.rows[target], self.costs[target] = near, (far * UNIT).round()

    def reach(self) -> np.ndarray:
        """Cost [m] below which no candidate is missing from a list."""
        whole = len(self.pool)
        return np.array([np.inf if len(c) == whole else c.max(initial=-1) for c in self.costs])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Graph:
    """Edges by target, then candidate."""

    target: np.ndarray  # [e] int64
    row: np.ndarray  # [e] int64 candidate
    cost: np.ndarray  # [e] float64, whole numbers

    @classmethod
    def of(cls, lists: _Lists, turns: Turns) -> _Graph:
        """What is on the lists, and what turns would give."""
        lengths = [len(rows) for rows in lists.rows]
        target = np.append(np.repeat(np.arange(len(lengths)), lengths), turns.takers)
        row = np.concatenate([*lists.rows, turns.rows])
        cost = np.concatenate([*lists.costs, (turns.distances * UNIT).round()])
        _, first = np.unique(target * len(lists.pool) + row, return_index=True)
        return cls(target=target[first], row=row[first], cost=cost[first])

    def cheapest(self, quotas: np.ndarray) -> np.ndarray:
        """Edges [N], by target, that give every target its number [m] of candidates at least cost."""
        start = np.searchsorted(self.target, np.arange(len(quotas) + 1))
        slots = np.repeat(np.arange(len(quotas)), quotas)  # a target of quota q is q equal rows
        degree = np.diff(start)[slots]
        pointer = np.append(0, np.cumsum(degree))
        edge = np.arange(pointer[-1]) + np.repeat(start[slots] - pointer[:-1], degree)
        used, column = np.unique(self.row, return_inverse=True)
        # A stored 0 would be no edge, and adding 1 to every cost changes no order.
        table = csr_array((self.cost[edge] + 1, column[edge], pointer), shape=(len(slots), len(used)))
        slot, matched = min_weight_full_bipartite_matching(table)
        key = self.target * len(used) + column
        edges: np.ndarray = np.searchsorted(key, slots[slot] * len(used) + matched)
        return edges

    def prices(self, chosen: np.ndarray, m: int) -> np.ndarray:
        """What one more candidate would cost every target [m], given the cheapest edges.

        It takes a free one, or one of another target, which then needs one more itself.
        """
        owner, paid = (np.full(self.row.max() + 1, fill) for fill in (m, 0.0))
        owner[self.row[chosen]], paid[self.row[chosen]] = self.target[chosen], self.cost[chosen]
        owner, extra = owner[self.row], self.cost - paid[self.row]
        extra[owner == self.target] = np.inf
        present, start = np.unique(self.target, return_index=True)
        price = np.append(np.full(m, np.inf), 0.0)
        while True:
            lower = np.minimum.reduceat(extra + price[owner], start)
            if (lower >= price[present]).all():
                return price[:m]
            price[present] = np.minimum(price[present], lower)


def _match_round(lists: _Lists, due: _Due, edges: int) -> tuple[Turns, bool]:
    """The cheapest choice, in the order of the turns, and whether it is proven that there is no cheaper one."""
    n, quotas = len(lists.pool), due.turns(len(due.takers))
    turns = take_turns(lists.targets, lists.pool, due, Ledger.of_images(n, len(due.takers)), search=lists.search)
    lengths = np.minimum(_first_lengths(quotas), n)
    while True:
        lists.lengthen(lengths)
        graph = _Graph.of(lists, turns)
        chosen = graph.cheapest(quotas)
        beyond = (graph.prices(chosen, len(quotas)) > lists.reach()) & (quotas > 0)
        lengths = np.where(beyond, np.minimum(2 * lengths, n), lengths)
        if not beyond.any() or quotas @ lengths > edges:
            return _in_turns(graph, chosen, due.takers), not beyond.any()


def _in_turns(graph: _Graph, chosen: np.ndarray, takers: np.ndarray) -> Turns:
    """A target's nearest candidate goes to its first turn, and so on."""
    row, cost = graph.row[chosen], graph.cost[chosen]
    place = np.empty(len(takers), np.int64)
    place[np.argsort(takers, kind="stable")] = np.lexsort((row, cost, graph.target[chosen]))
    return Turns(rows=row[place], takers=takers, distances=cost[place] / UNIT)


def _first_lengths(quotas: np.ndarray) -> np.ndarray:
    """Length [m] of the first lists: few different ones, so few searches."""
    lengths: np.ndarray = np.where(quotas > 0, 2 ** np.ceil(np.log2(4 * quotas + SPARE)), 0).astype(np.int64)
    return lengths


def _round_size(schedule: Schedule, n: int, edges: int) -> int:
    """Images of the next round, of n at most: as many as leave half of the edges to longer lists."""
    while n > 1 and (quotas := schedule.turns(n)) @ _first_lengths(quotas) > edges / 2:
        n //= 2
    return n
