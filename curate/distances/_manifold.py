"""Precision, recall, density, coverage and authenticity of a pool, from one pass over all pairs.

With r_k(t) the distance of a target row to its k-th other target row, and r_k(p) the same in the pool:

    precision     share of pool rows inside a target ball      |t_i - p_j| <= r_k(t_i) for some i
    recall        share of target rows inside a pool ball      |t_i - p_j| <= r_k(p_j) for some j
    density       mean number of target balls that hold a pool row, over k
    coverage      share of target balls that hold a pool row
    authenticity  share of pool rows farther from their nearest target row than that row is from its own nearest

`<=` where the ``prdc`` package has `<`: the figures are equal unless a distance equals a radius, which is what copies
do. A set whose every row stands there seven times has precision 1 to itself here, and 0.28 there.

Two self-searches give the radii; one blocked pass in float32 over rows centered on the pooled mean finds every pair
that may be within one, and those are measured again in float64. Intervals come from a delete-a-fold jackknife over
target and pool whose radii are those of the reduced sets. They are conservative (cover 95-100% in simulations); the
usual binomial error takes the balls as given, and is 1.1 to 2.6 times too small (5 times where nearly all is covered).

Source: Kynkäänniemi et al. (NeurIPS 2019) for precision and recall; Naeem et al. (ICML 2020) for density and coverage;
Alaa et al., How faithful is your synthetic data? (ICML 2022) for authenticity.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array

from curate.distances._coverage import NEIGHBORS, NORMAL_95, expected_coverage, wilson
from curate.distances._left_out import WHOLE, fold_error, kth_distances
from curate.distances._samples import Vectors, as_vectors
from curate.results import Estimate
from embeddings.errors import TooFewImagesError
from embeddings.moments import FOLDS, Folded
from embeddings.neighbors import DECIMALS, error_bound, pair_distances
from embeddings.store import EmbeddingStore
from embeddings.vectors import Vectors as Rows
from embeddings.vectors import blocks

if TYPE_CHECKING:
    import torch

BLOCK = 2048  # rows a side of one block of distances
HELD_BYTES = 1 << 26  # of pool blocks, so that the target is read once for some of them and not once for each
READ_ROWS = 64  # widened to float64 at once; few stay in the cache
HITS = 1 << 18  # pairs counted at once
CROWDED = 1 / 16  # share of a block's pairs beyond which one float64 product is quicker than pair by pair
JACKKNIFE = f"jackknife over {FOLDS} folds of target and pool"


@dataclass(frozen=True, kw_only=True)
class Manifold:
    """What the balls of two sets say of each other; higher is closer, except authenticity."""

    precision: Estimate
    recall: Estimate
    density: Estimate  # null 1
    coverage: Estimate  # null below 1 where the pool is small
    authenticity: Estimate


def prdc(target: Vectors, pool: Vectors, *, k: int = NEIGHBORS) -> Manifold:
    """Precision, recall, density, coverage and authenticity of a pool.

    Args:
        target: Array [n, d] or store, n > k.
        pool: Array [m, d] or store from the same encoder, m > k.
        k: Neighbors that set the radii.

    Returns:
        Estimates in 0..1 (density: from 0, may exceed 1) with 95% intervals. ``null`` of density and coverage is what
        a pool from the target's own distribution reads; precision, recall and authenticity have none that holds in all
        dimensions. Authenticity 0 = every image copies a target image.

    Raises:
        TooFewImagesError: n <= k or m <= k.
        EncoderMismatchError: different encoders.
        SourceError: an array that is not finite.
    """
    ours, theirs = as_vectors(target), as_vectors(pool)
    ours.spec.require_same(theirs.spec, ("target", "pool"))
    for name, store in (("target", ours), ("pool", theirs)):
        if len(store) <= k:
            raise TooFewImagesError(
                f"The {name} has {len(store)} images; balls of {k} neighbors need at least {k + 1}.",
                hint="Add images, or ask for fewer neighbors.",
            )
    t, p = _Balls.of(ours, k), _Balls.of(theirs, k)
    counts = _Counts(t, p)
    counts.add_all()
    return _measured(counts, t, p, k)


@dataclass(frozen=True)
class _Balls:
    """One set, fold by fold, and the radii of its balls without each of its folds (last column: of the whole set)."""

    vectors: Rows
    order: np.ndarray  # [n] row numbers, fold by fold
    folds: np.ndarray  # [n] of the rows in that order
    units: int  # independent groups of rows
    nearest: np.ndarray  # [n, FOLDS + 1] squared; -inf where the row itself is left out
    radii: np.ndarray  # [n, FOLDS + 1] the same for the k-th neighbor

    @classmethod
    def of(cls, store: EmbeddingStore, k: int) -> _Balls:
        folded, vectors = Folded(store), store.vectors()
        folds = folded.folds()
        first, kth = kth_distances(vectors, vectors, folds, (1, k), exclude_self=True)
        order = np.argsort(folds, kind="stable")
        return cls(vectors, order, folds[order], len(np.unique(folded.blocks)), first[order], kth[order])

    def __len__(self) -> int:
        return len(self.order)

    def total(self) -> np.ndarray:
        """Sum [d] of the rows."""
        rows = (rows.sum(axis=0, dtype=np.float64) for _, rows in blocks(self.vectors))
        return np.asarray(sum(rows))

    def parts(self) -> list[slice]:
        """Consecutive blocks of places."""
        return [slice(start, min(start + BLOCK, len(self))) for start in range(0, len(self), BLOCK)]

    def bands(self) -> list[list[slice]]:
        """The same, as many together as may be held at once."""
        parts, width = self.parts(), max(1, HELD_BYTES // (4 * BLOCK * self.vectors.shape[1]))
        return [parts[start : start + width] for start in range(0, len(parts), width)]

    def read(self, part: slice, center: np.ndarray) -> np.ndarray:
        """Rows at some places, centered, in float64."""
        rows: np.ndarray = np.subtract(self.vectors[self.order[part]], center, dtype=np.float64)
        return rows

    def block(self, part: slice, center: np.ndarray) -> _Block:
        """The same in float32, with their norms and how far their balls reach."""
        import torch

        count, d = part.stop - part.start, len(center)
        rows, norms2 = np.empty((count, d), np.float32), np.empty(count)
        for start in range(0, count, READ_ROWS):
            few = slice(start, min(start + READ_ROWS, count))
            wide = self.read(slice(part.start + few.start, part.start + few.stop), center)
            rows[few], norms2[few] = wide, np.einsum("ij,ij->i", wide, wide)
        return _Block(torch.from_numpy(rows), norms2, _reach(norms2, self.radii[part].max(axis=1), d))


class _Counts:
    """Who holds whom. Column f counts without fold f of the set named, the last column counts all."""

    def __init__(self, ours: _Balls, theirs: _Balls) -> None:
        self._ours, self._theirs = ours, theirs
        n, m = len(ours), len(theirs)
        self._center = (ours.total() + theirs.total()) / (n + m)
        self.holding = np.zeros((m, FOLDS + 1), np.int32)  # target balls that hold a pool row; target folds
        self.held = np.zeros((n, FOLDS + 1), np.int32)  # pool rows in a target ball, its radius without target folds
        self.held_from = np.zeros((n, FOLDS), np.int32)  # pool rows of fold f in a target ball
        self.reaching = np.zeros((n, FOLDS + 1), np.int32)  # pool balls that hold a target row; pool folds
        self._near = np.full((FOLDS, m), np.inf, np.float32)  # squared, of a pool row to fold f of the target, about
        self._distance = np.full((m, FOLDS), np.inf)  # the same in float64, of the two nearest folds
        self._row = np.zeros((m, FOLDS), np.int64)  # and which target row that is

    def add_all(self) -> None:
        """Counts all pairs, block by block."""
        for band in self._theirs.bands():
            held = [(columns, self._theirs.block(columns, self._center)) for columns in band]
            for rows in self._ours.parts():
                x = self._ours.block(rows, self._center)
                for columns, y in held:
                    self._add(rows, columns, x, y)
            del held  # before the next band is read

    def authentic(self) -> np.ndarray:
        """Whether [m, FOLDS + 1] a pool row is no copy, without each target fold."""
        m = np.arange(len(self._row))
        found = np.empty((len(m), FOLDS + 1), bool)
        for fold in range(FOLDS + 1):
            distance = self._distance.copy()
            distance[:, fold : fold + 1] = np.inf
            from_fold = distance.argmin(axis=1)
            own = self._ours.nearest[self._row[m, from_fold], fold]
            found[:, fold] = distance[m, from_fold] > own
        return found

    def _add(self, rows: slice, columns: slice, x: _Block, y: _Block) -> None:
        distances = x.squared_distances(y)
        maybe = (distances <= x.reach[:, None]) | (distances <= y.reach)
        self._mark_nearest(rows, columns, distances, maybe, y)
        row, column = np.divmod(np.flatnonzero(maybe.numpy()), maybe.shape[1])
        crowd = None
        if len(row) > CROWDED * maybe.numel():
            a, b = self._ours.read(rows, self._center), self._theirs.read(columns, self._center)
            crowd = ((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T).round(DECIMALS)
        for start in range(0, len(row), HITS):
            i, j = row[start : start + HITS], column[start : start + HITS]
            place, other = rows.start + i, columns.start + j
            self._add_pairs(place, other, self._measure(place, other) if crowd is None else crowd[i, j])

    def _measure(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        x, y = self._ours, self._theirs
        return pair_distances(x.vectors, y.vectors, x.order[row], y.order[column])

    def _add_pairs(self, row: np.ndarray, column: np.ndarray, value: np.ndarray) -> None:
        self._note_nearest(row, column, value)
        in_target = value[:, None] <= self._ours.radii[row]
        in_pool = value[:, None] <= self._theirs.radii[column]
        fold = self._theirs.folds[column]
        _add_rows(self.holding, column, in_target)
        _add_rows(self.held, row, in_target)
        _add_rows(self.held_from, row, in_target[:, WHOLE:] & (fold[:, None] == np.arange(FOLDS)))
        _add_rows(self.reaching, row, in_pool)

    def _mark_nearest(
        self, rows: slice, columns: slice, distances: torch.Tensor, maybe: torch.Tensor, y: _Block
    ) -> None:
        """Marks what may be a pool row's nearest of a target fold, where that is one of its two nearest folds.

        No more are asked for: the nearest target row without one fold is in either of them.
        """
        folds = self._ours.folds[rows]
        starts = np.flatnonzero(np.diff(folds, prepend=-1))
        parts = [slice(first, last) for first, last in zip(starts, [*starts[1:], len(folds)], strict=True)]
        near = self._near[:, columns]
        for part in parts:
            np.minimum(near[folds[part.start]], distances[part].amin(dim=0).numpy(), out=near[folds[part.start]])
        second = np.partition(near, 1, axis=0)[1]
        for part in parts:
            maybe[part] |= distances[part] <= y.reach_of(np.minimum(near[folds[part.start]], second))

    def _note_nearest(self, row: np.ndarray, column: np.ndarray, value: np.ndarray) -> None:
        fold = self._ours.folds[row]
        nearer = np.flatnonzero(value < self._distance[column, fold])
        last_is_nearest = nearer[np.lexsort((-row[nearer], -value[nearer]))]
        place = column[last_is_nearest], fold[last_is_nearest]
        self._distance[place], self._row[place] = value[last_is_nearest], row[last_is_nearest]


@dataclass(frozen=True)
class _Block:
    """Centered rows in float32, and the approximate distance beyond which another row is in none of a row's balls."""

    rows: torch.Tensor  # [b, d]
    norms2: np.ndarray  # [b] float64
    reach: torch.Tensor  # [b]

    def squared_distances(self, other: _Block) -> torch.Tensor:
        """[b, c] by one matrix product."""
        import torch

        mine, others = (torch.from_numpy(norms2.astype(np.float32)) for norms2 in (self.norms2, other.norms2))
        squares = mine[:, None] + others
        return torch.addmm(squares, self.rows, other.rows.T, alpha=-2, out=squares)

    def reach_of(self, near: np.ndarray) -> torch.Tensor:
        """The same for the ball [b] that reaches to a row at approximate distance ``near``."""
        d = self.rows.shape[1]
        # The true distance t is at most near + e (8 |x|^2 + 2 t), by the error bound with (a + b)^2 <= 2 a^2 + 2 b^2.
        e = (d + 16) * 2.0**-24
        return _reach(self.norms2, np.maximum(near + 8 * e * self.norms2, 0.0) / (1 - 2 * e), d)


def _reach(norms2: np.ndarray, radii: np.ndarray, d: int) -> torch.Tensor:
    import torch

    limit = radii + 10.0**-DECIMALS
    reach = (limit + error_bound(norms2, limit, d)).astype(np.float32)
    return torch.from_numpy(np.nextafter(reach, np.float32(np.inf)))


def _add_rows(total: np.ndarray, index: np.ndarray, rows: np.ndarray) -> None:
    """total[index] += rows, for an index that repeats."""
    first, last = index.min(), index.max() + 1
    place = coo_array((np.ones(len(index), np.int32), (index - first, np.arange(len(index)))))
    total[first:last] += place.tocsr() @ rows.astype(np.int32)


def _measured(counts: _Counts, ours: _Balls, theirs: _Balls, k: int) -> Manifold:
    n, m = len(ours), len(theirs)
    covered = np.column_stack([counts.held[:, WHOLE:] - counts.held_from, counts.held[:, WHOLE]]) > 0
    over_pool, over_target = _Mean(theirs, ours, "pool images"), _Mean(ours, theirs, "target images")
    density = over_pool.estimate(counts.holding / k)
    figures = {
        "precision": over_pool.share(counts.holding > 0),
        "recall": over_target.share(counts.reaching > 0),
        "density": replace(density, unit="target balls per pool image, over k", null=1.0),
        "coverage": replace(over_target.share(covered, counts.held > 0), null=expected_coverage(n, m, k)),
        "authenticity": replace(over_pool.share(counts.authentic()), lower_is_closer=True),
    }
    return Manifold(**{name: replace(e, n=(m, n), method=f"{name}, k={k}, {JACKKNIFE}") for name, e in figures.items()})


@dataclass(frozen=True)
class _Mean:
    """Means over the rows of one set that also depend on another one."""

    averaged: _Balls
    other: _Balls
    rows: str

    def share(self, without_other: np.ndarray, without_own: np.ndarray | None = None) -> Estimate:
        """A share, with the wider of the jackknife's interval and Wilson's, which has a width at 0 and 1."""
        estimate = replace(self.estimate(without_other, without_own), unit=f"share of {self.rows}")
        if estimate.value is None or estimate.low is None or estimate.high is None:
            return estimate
        low, high = wilson(estimate.value, self.averaged.units)
        return replace(estimate, low=max(min(low, estimate.low), 0.0), high=min(max(high, estimate.high), 1.0))

    def estimate(self, without_other: np.ndarray, without_own: np.ndarray | None = None) -> Estimate:
        """Mean over rows, with the jackknife over both sets.

        Args:
            without_other: [r, FOLDS + 1] figure of each row without each fold of the other set.
            without_own: The same without each fold of its own set, where that changes the figure of a row that stays.
        """
        folds, whole = self.averaged.folds, without_other[:, WHOLE]
        value = float(whole.mean())

        def own(fold: int) -> float:
            rows = whole if without_own is None else without_own[:, fold]
            return float(rows[folds != fold].mean())

        def other(fold: int) -> float:
            return float(without_other[:, fold].mean())

        error = fold_error(value, [(own, folds), (other, self.other.folds)])
        if error is None:
            return Estimate(value=value, lower_is_closer=False)
        low, high = max(value - NORMAL_95 * error, 0.0), value + NORMAL_95 * error
        return Estimate(value=value, low=low, high=high, se=error, lower_is_closer=False)
