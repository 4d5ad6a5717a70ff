"""near-first: every target image in turn takes, of the images near it, the one that keeps the balance.

1. Gate: an image outside the pools that ``curate score`` judges same or near must be nearer by ``OUTSIDE`` h^2 to go
   before one of theirs; h^2 is the median squared distance of a target image to its nearest candidate. Without a
   report, or where no pool is near, all pools are alike.
2. Quota: target images take turns (``_turns``), so that dense modes of the pool do not drown the rare ones.
3. Balance: in its turn an image takes, of the 16 nearest open candidates, the one that brings mean and covariance of
   all that is chosen nearest to the target's (``_balance``). An image of the target itself, at distance 0, is taken at
   once: with N >= m all of them are in, and they count as unique images of the budget.
4. Pools like the target: where the score judges a pool same, and its index is at most ``chance_index``, what m images
   of the target itself read on average, its n images tell what the target is like better than m do. After the target's
   own images such pools go first, until they run out: round after round, of every stratum of 16 images that lie
   together (``_strata``), in an order drawn by lot, the one that keeps the balance. Not where images differ in weight
   or price.
5. Far part, only if ``far`` asks for it: the last share of the budget is drawn from pools that are not near, the same
   number from every cluster of theirs.

Distances are Euclidean in the pools' 64 principal directions, not whitened: whitening blows up directions in which
images hardly differ. Figures (benchmarks/selection_quality.py, distance to unseen target images under the selecting
encoder / under one with other weights): quota in whitened directions 16 / 17, in plain ones 9 / 13, with balance 4 / 9;
drawn from the near pools 29 / 34, from all 81 / 83. Where near images run out, a gate that admits nothing else is worse
by a tenth under either, and once worse than a draw from all pools; no gate at all is worse by a tenth under
`color-texture`, which prefers 2 h^2. From pools of the target's own kind, by strata against a plain draw (unbiased
distance to unseen images under other weights, less that of the draw; its error): 51 garments seen -1.4 (.4), 61 digits
-1.3 (.4), 405 line drawings -1.8 (.3), 108 line drawings -1.9 (.4).

Price counts as distance too: h^2 ln(1 + p / mean price). Of equally near images the cheapest goes first.

Cost: one pass over the n candidates projects them; a search costs 2 n m k operations for k directions, and there are
some log(N / m) of them; N picks of 16 k^2. Memory: 4 k bytes per candidate. Without a far part nested: the first images
of a larger budget are the smaller selection.

Source: the retrieval of DINOv2 (Oquab et al., 2023) for the quota; ``_balance`` for the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import numpy as np

from curate.distances._frechet import DIRECTIONS, PER_DIRECTION
from curate.results import FAR, SAME
from curate.selection._balance import Balance
from curate.selection._candidates import Candidates, Choice
from curate.selection._directions import Whitening, project
from curate.selection._far import draw_far
from curate.selection._ledger import Ledger
from curate.selection._strata import strata
from curate.selection._turns import Schedule, Turns, each_turn, is_taker, reasons, subset
from embeddings.neighbors import nearest

REACH = 16  # nearest open candidates that a target image chooses among
OUTSIDE = 0.5  # h^2 that lie between the near pools and the others
KNOWN = 65_536  # images of pools like the target that tell its moments, at most
TYPICAL = 256  # target images that tell h^2
METHOD = "near-first"


def choose(candidates: Candidates, ledger: Ledger, *, seed: int) -> Choice:
    """Takes until the ledger is done. Score = squared distance to the taker, price and gate included; drawn: 0."""
    frame = Whitening.of_pools(candidates).unscaled()
    targets, pool = frame.apply(candidates.target_vectors), project(candidates, frame)
    gate = near_pools(candidates)
    outside = ~candidates.own & ~np.isin(candidates.source, [candidates.names.index(name) for name in gate])
    alike = pools_alike(candidates)
    table = _Table(candidates, targets, pool, apart=outside & bool(gate), alike=candidates.rows_of(*alike))
    near = table.turns(ledger, seed, far=candidates.far)
    drawn = draw_far(candidates, pool, ledger, outside, seed=seed) if candidates.far else np.empty(0, np.int64)
    turns, before = Turns.joined([near, table.turns(ledger, seed)]), len(near.rows)
    told, codes = table.reasons(turns), table.codes(turns)
    told[before:before] = [f"{METHOD}: drawn evenly from what is far"] * len(drawn)
    codes[before:before] = [FAR] * len(drawn)
    return Choice(
        rows=np.insert(turns.rows, before, drawn),
        scores=np.insert(turns.distances, before, np.zeros(len(drawn))),
        reasons=told,
        codes=codes,
        parameters={
            "directions": frame.directions,
            "fitted_on": len(candidates.pool_sample),
            "drawn_pools": alike,
            "near_pools": gate,
            "reach": REACH,
            "target_images": len(targets),
        },
    )


def near_pools(candidates: Candidates) -> list[str]:
    """Names of the pools that the report judges same or near, nearest first; none without a report."""
    return [name for name in candidates.report.near if name in candidates.stores] if candidates.report else []


def pools_alike(candidates: Candidates) -> list[str]:
    """Names of the pools judged same whose index is at most what so few target images have by chance, nearest first.

    None where the target's images differ in weight or the pools' in price: the report knows of neither.
    """
    prices = () if candidates.prices is None else candidates.prices[~candidates.own]
    if candidates.report is None or len(np.unique(prices)) > 1 or len(np.unique(candidates.weights)) > 1:
        return []
    index = {pool.name: pool.index.value for pool in candidates.report.pools if pool.verdict == "same"}
    chance = chance_index(candidates.target_vectors) if index else 0.0
    told = [(name, index.get(name)) for name in near_pools(candidates)]
    return [name for name, value in told if value is not None and value <= chance]


def chance_index(vectors: np.ndarray) -> float:
    """Index that the headline distance of m images [m, d] to the endless set they are drawn from has on average.

    The biased one, in k directions of variances l_i, for a Gaussian set of total variance v:

        F = (v + 1/2 sum_ij l_i l_j / (l_i + l_j) + 1/4 sum_i l_i) / m,   index = 100 F / (F + v)
    """
    (m, d), gaps = vectors.shape, vectors - vectors.mean(axis=0, dtype=np.float64)
    scatter = gaps.T @ gaps if m > d else gaps @ gaps.T
    total, k = float(np.trace(scatter)), max(1, min(DIRECTIONS, m // PER_DIRECTION))
    if not total:
        return 0.0
    main = np.maximum(np.linalg.eigvalsh(scatter)[-k:], 1e-12 * total)  # all over (m - 1), as the total is
    pairs = np.outer(main, main) / np.add.outer(main, main)
    chance = (1 + (pairs.sum() / 2 + main.sum() / 4) / total) / m
    return float(100 * chance / (1 + chance))


def set_apart(apart: np.ndarray, prices: np.ndarray | None) -> np.ndarray:
    """How much farther, in units of h^2, candidates [n] are than they look, float64.

    Args:
        apart: [n] bool, candidates outside the near pools.
        prices: [n] money per image, 0 or more; None: all are free.
    """
    dear = np.zeros(len(apart)) if prices is None or not (prices > 0).any() else prices / prices[prices > 0].mean()
    farther: np.ndarray = OUTSIDE * apart + np.log1p(dear)
    return farther


class _Table:
    """Target's images and candidates in the same coordinates, and what was taken of them so far."""

    def __init__(
        self, candidates: Candidates, targets: np.ndarray, pool: np.ndarray, *, apart: np.ndarray, alike: np.ndarray
    ) -> None:
        """Of the candidates, those outside the near pools [n] bool, and the rows [r] of pools like the target."""
        self._candidates, self._targets, self._pool, self._apart, self._alike = candidates, targets, pool, apart, alike
        known = alike[np.argsort(candidates.draws(0)[alike], kind="stable")[:KNOWN]] if len(alike) else alike
        counts = np.concatenate([candidates.weights, np.full(len(known), candidates.weights.mean())])
        self._balance = Balance(np.concatenate([targets, pool[known]]), counts, pool, reach=REACH)
        farther = set_apart(apart, candidates.prices)
        if farther.any():  # a coordinate of their own, in which the target's images are 0
            farther = np.sqrt(farther * _typical_distance(targets, pool, ~candidates.own))[:, None]
            self._targets = np.hstack([targets, np.zeros((len(targets), 1), np.float32)])
            self._pool = np.hstack([pool, farther.astype(np.float32)])

    def turns(self, ledger: Ledger, seed: int, *, far: float = 0.0) -> Turns:
        """Picks until nothing is open, or what is left of the budget is its far share."""
        schedule, done = Schedule.of_targets(self._candidates, seed), len(ledger.taken)
        picks = chain(self._kin(ledger, schedule, seed), self._each(ledger, schedule))
        taken: list[tuple[int, int, float]] = []
        while (left := ledger.left) > far * (done + len(taken) + left) and (turn := next(picks, None)):
            taken.append(turn)
            if len(taken) % len(schedule) == 0:
                self._candidates.progress("select", done + len(taken), done + len(taken) + left - 1)
        self._candidates.progress("select", done + len(taken), done + len(taken))
        return Turns.of(taken)

    def _each(
        self, ledger: Ledger, schedule: Schedule, within: np.ndarray | None = None
    ) -> Iterator[tuple[int, int, float]]:
        """Turn after turn: candidate, taker and distance."""
        settings: dict[str, Any] = {"preference": self._balance, "search": self._candidates.search}
        return each_turn(self._targets, self._pool, schedule, ledger, within=within, **settings)

    def _kin(self, ledger: Ledger, schedule: Schedule, seed: int) -> Iterator[tuple[int, int, float]]:
        """The target's own images in turn; then, round after round, one of every stratum of pools like it: taker -1."""
        if not ledger.open[self._alike].any():
            return
        yield from islice(self._each(ledger, schedule, self._candidates.own), len(schedule))
        draws, parts = self._candidates.draws(seed), strata(self._pool, self._alike, REACH)
        parts.sort(key=lambda rows: (draws[rows[0]], rows[0]))
        while parts := [rows for part in parts if len(rows := part[ledger.open[part]])]:
            for part in parts:
                if len(rows := part[ledger.open[part]]):
                    row = int(rows[self._balance.pick_any(rows)])
                    ledger.take(row)
                    yield row, -1, 0.0

    def reasons(self, turns: Turns) -> list[str]:
        """Why each of the rows taken is."""
        told, names = reasons(self._candidates, turns, METHOD), self._candidates.names
        for i in np.flatnonzero(turns.takers < 0).tolist():
            pool = names[self._candidates.source[turns.rows[i]]]
            told[i] = f"{METHOD}: drawn from {pool}, which cannot be told from the target"
        return told

    def codes(self, turns: Turns) -> list[str]:
        """What kind of pick each of the rows taken is."""
        codes = np.where(self._apart[turns.rows], "next", np.where(turns.takers < 0, SAME, "near"))
        listed: list[str] = np.where(is_taker(self._candidates, turns), "own-image", codes).tolist()
        return listed


def _typical_distance(targets: np.ndarray, pool: np.ndarray, others: np.ndarray) -> float:
    """h^2: median squared distance of target images [m, k] to the nearest of some candidates [n] bool."""
    rows = np.flatnonzero(others)
    if not len(rows):
        return 0.0
    some = targets[np.unique(np.linspace(0, len(targets) - 1, min(TYPICAL, len(targets))).astype(int))]
    return float(np.median(nearest(some, subset(pool, rows), 1)[0]))
