"""Accuracy by group, and how much of the gap between groups is more than noise.

    rate of a group      sum over strata k of w_k (share of its images in k that are right), sum of w_k = 1
    gap                  largest rate - smallest rate

With one stratum a rate is the accuracy. With the classes as strata and their shares among all compared images as w it
is the accuracy the group would have under the class mix of all: direct standardization.

The gap of noisy groups is positive even if none exists. Its null is had by exchanging groups: between units of one
group each, within units (a part seen by two cameras) that hold images of several, and always within a stratum; the
p value is (1 + #{exchanged >= observed}) / (exchanges + 1). For one image a unit this is exact: it rejects at level a
at most a share a of the time. A bootstrap adds that noise once more, so draws of a gap, and of the worst rate, are
moved to have the value as their mean: the interval is that of the reading at this many test images, null included.

Source: Fleiss, Levin and Paik 2003 (standardization); Phipson and Smyth 2010 (p values are never 0).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from curate.evaluation._intervals import Measured
from curate.evaluation._scores import centered

EXCHANGES = 1_000
EQUAL = 1e-12  # gaps nearer than that are ties


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Test images by group and stratum; those with a -1 in either are not compared."""

    groups: np.ndarray  # int64 [m], 0 to G - 1
    strata: np.ndarray  # int64 [m], 0 to K - 1
    shares: np.ndarray  # float64 [K], w
    n_groups: int  # G

    @classmethod
    def plain(cls, groups: np.ndarray, n_groups: int) -> Cells:
        """All images in one stratum."""
        return cls(groups=groups, strata=np.zeros(len(groups), np.int64), shares=np.ones(1), n_groups=n_groups)

    @classmethod
    def by_class(cls, groups: np.ndarray, n_groups: int, labels: np.ndarray, units: np.ndarray, *, least: int) -> Cells:
        """The classes of which every group has at least so many units as strata; K may be 0.

        Args:
            groups: int64 [m], -1 for none.
            n_groups: G.
            labels: Class numbers int64 [m].
            units: int64 [m].
            least: Units.
        """
        classes = np.unique(labels)
        kept = [c for c in classes if _units_of(groups, units, labels == c, n_groups).min(initial=least) >= least]
        strata = np.full(len(labels), -1, np.int64)
        for number, c in enumerate(kept):
            strata[labels == c] = number
        sizes = np.bincount(strata[(strata >= 0) & (groups >= 0)], minlength=len(kept)).astype(np.float64)
        return cls(groups=groups, strata=strata, shares=sizes / max(1.0, sizes.sum()), n_groups=n_groups)

    @property
    def compared(self) -> np.ndarray:
        """True for the images [m] that are in a cell."""
        return np.asarray((self.groups >= 0) & (self.strata >= 0))

    def rates(self, correct: np.ndarray, resamples: Iterable[np.ndarray]) -> np.ndarray:
        """Rate of every group on every resample of the images, [draws, G]; NaN where a draw has none of it.

        Args:
            correct: bool [m].
            resamples: Blocks [b, m] of how often each image counts.
        """
        rows = np.flatnonzero(self.compared)
        cell, shape = self._cell(self.groups)[rows], (len(self.groups), self.n_groups * len(self.shares))
        drawn, right = (csr_array((v, (rows, cell)), shape).T for v in (np.ones(len(rows)), correct[rows] * 1.0))
        return np.concatenate([self._rates((drawn @ w.T).T, (right @ w.T).T) for w in resamples])

    def exchanged_gaps(self, correct: np.ndarray, units: np.ndarray, *, seed: int) -> np.ndarray:
        """Gaps [EXCHANGES] where the group makes no difference.

        Args:
            correct: bool [m].
            units: int64 [m].
            seed: Of the exchanges.
        """
        kept, rng = self.compared, np.random.default_rng([seed, 3])
        exchange = Exchange.of(self.groups[kept], units[kept], self.strata[kept])
        inside = Cells(groups=self.groups[kept], strata=self.strata[kept], shares=self.shares, n_groups=self.n_groups)
        return np.array([inside._gap(exchange.draw(rng), correct[kept]) for _ in range(EXCHANGES)])

    def _gap(self, groups: np.ndarray, correct: np.ndarray) -> float:
        cell, size = self._cell(groups), self.n_groups * len(self.shares)
        n, right = np.bincount(cell, minlength=size), np.bincount(cell, weights=correct, minlength=size)
        return float(gap(self._rates(n[None], right[None]))[0])

    def _cell(self, groups: np.ndarray) -> np.ndarray:
        return np.asarray(groups * len(self.shares) + self.strata)

    def _rates(self, drawn: np.ndarray, right: np.ndarray) -> np.ndarray:
        """[b, G] from images per cell [b, G K], and how many of them are right; a stratum without any has no weight."""
        n, hits = (x.reshape(len(x), self.n_groups, len(self.shares)) for x in (drawn, right))
        weight = (n > 0) * self.shares
        total = weight.sum(axis=2)
        rates = (weight * hits / np.maximum(n, 1)).sum(axis=2) / np.where(total > 0, total, np.nan)
        return np.asarray(rates)


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """Who may change groups with whom."""

    groups: np.ndarray  # int64 [m]
    block: np.ndarray  # int64 [m]: images of one unit and stratum
    is_mixed: np.ndarray  # bool [blocks]: images of several groups
    first: np.ndarray  # int64 [blocks]: an image of each
    strata: np.ndarray  # int64 [blocks]

    @classmethod
    def of(cls, groups: np.ndarray, units: np.ndarray, strata: np.ndarray) -> Exchange:
        """Of images with their group, unit and stratum, int64 [m] each."""
        pairs = np.stack([units, strata], axis=1)
        _, first, block = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
        block = block.reshape(-1)
        is_mixed = np.bincount(block, weights=groups != groups[first][block]) > 0
        return cls(groups=groups, block=block, is_mixed=is_mixed, first=first, strata=strata[first])

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Groups int64 [m] after an exchange."""
        pure = np.flatnonzero(~self.is_mixed)
        whole = self.groups[self.first]
        whole[pure] = _shuffled(whole[pure], self.strata[pure], rng)
        groups = whole[self.block]
        mixed = np.flatnonzero(self.is_mixed[self.block])
        groups[mixed] = _shuffled(self.groups[mixed], self.block[mixed], rng)
        return np.asarray(groups)


def gap(rates: np.ndarray) -> np.ndarray:
    """Largest less smallest of the rates [b, G] that are known, [b]."""
    return np.asarray(np.fmax.reduce(rates, axis=1) - np.fmin.reduce(rates, axis=1))


def worst(rates: np.ndarray) -> np.ndarray:
    """Smallest of the rates [b, G] that are known, [b]."""
    return np.asarray(np.fmin.reduce(rates, axis=1))


def p_value(observed: float, exchanged: np.ndarray) -> float:
    """Share of exchanges with a gap as large, the observed one among them."""
    return float((1 + (exchanged >= observed - EQUAL).sum()) / (1 + len(exchanged)))


def known(value: float, draws: np.ndarray) -> Measured:
    """A figure whose draws may lack it; these count as its value."""
    return Measured(value=float(value), draws=np.where(np.isnan(draws), value, draws))


def extreme(value: float, draws: np.ndarray) -> Measured:
    """A figure in 0..1 that noise moves one way only: its draws, moved to have the value as their mean."""
    moved = centered(known(value, draws))
    return Measured(value=moved.value, draws=moved.draws.clip(0, 1))


def units_by_group(groups: np.ndarray, units: np.ndarray, n_groups: int) -> np.ndarray:
    """Different units of every group, int64 [G]; a group of -1 is none."""
    return _units_of(groups, units, np.ones(len(groups), bool), n_groups)


def _units_of(groups: np.ndarray, units: np.ndarray, among: np.ndarray, n_groups: int) -> np.ndarray:
    pairs = np.unique(np.stack([groups, units], axis=1)[among & (groups >= 0)], axis=0)
    return np.bincount(pairs[:, 0], minlength=n_groups)


def _shuffled(values: np.ndarray, within: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Values [n] in a random order among those with the same ``within`` [n]."""
    shuffled = np.empty_like(values)
    shuffled[np.argsort(within, kind="stable")] = values[np.lexsort((rng.random(len(values)), within))]
    return shuffled
