"""The measures that ``score`` can take, by name: what each is called in the report, and what it needs.

The default ones cost at most three times the headline distance alone; the others are asked for by name. A measure
that cannot be taken (moments without vectors, too few images, no labels) is None with its reason, never an error: one
missing opinion does not void the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from curate import distances
from curate.distances._coverage import sampled_rows
from curate.distances._neurons import neurons_between
from curate.results import Estimate
from curate.scoring.sides import Side, Target
from embeddings.errors import EncoderMismatchError, TooFewImagesError, UsageError
from embeddings.histograms import NeuronHistograms
from embeddings.store import EmbeddingStore

QUADRATIC_ROWS = 2_500

Figures = dict[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One measure: the figures it gives, and how it is taken."""

    figures: tuple[str, ...]
    of: Callable[[Target, Side], Figures]
    needs: str = "vectors"  # vectors; histograms; all dimensions (moments not cut to some directions); moments

    def take(self, target: Target, pool: Side) -> Figures:
        """Its figures, or None with a reason for each of them."""
        lacking = _lacking(self.needs, target.side, pool)
        if lacking:
            return self._absent(target, pool, lacking)
        try:
            return self.of(target, pool)
        except (TooFewImagesError, UsageError, EncoderMismatchError) as error:  # the last: histograms of other ranges
            return self._absent(target, pool, error.message)

    def _absent(self, target: Target, pool: Side, reason: str) -> Figures:
        nothing = Estimate(value=None, n=(len(pool), len(target.side)), reason=reason)
        return dict.fromkeys(self.figures, nothing)


def _lacking(needs: str, *sides: Side) -> str:
    """Why a measure cannot be taken of some sides; empty if it can."""
    for side in sides:
        if needs == "vectors" and side.store is None:
            return f"needs vectors; {side.name} is a file of moments"
        if needs == "histograms" and side.store is None and side.histograms is None:
            return f"needs vectors or histograms; {side.name} is a file of moments without them"
        if needs == "all dimensions" and side.moments.rank is not None:
            return f"needs all {side.moments.dim:,} dimensions; {side.name} holds {side.moments.rank} directions"
    return ""


def _stores(target: Target, pool: Side) -> tuple[EmbeddingStore, EmbeddingStore]:
    assert target.store is not None
    assert pool.store is not None
    return target.store, pool.store


def _mean_gap(target: Target, pool: Side) -> Figures:
    """Squared distance of the means, without what chance adds to it: the part of the headline that is an offset."""
    (n, ours, a), (m, theirs, b) = target.moments.pooled(), pool.moments.pooled()
    gap = float(((ours - theirs) ** 2).sum() - np.trace(a) / n - np.trace(b) / m)
    unit, method = "squared embedding units", "squared distance of the means, debiased"
    return {"mean_gap": Estimate(value=gap, n=(m, n), unit=unit, method=method, null=0.0)}


def _mmd(target: Target, pool: Side) -> Figures:
    return {"mmd": distances.mmd(target.moments, pool.moments)}


def _neighbors(target: Target, pool: Side) -> Figures:
    found = target.spacing.to(_stores(target, pool)[1], pool.folds())
    return {"coverage": found.coverage, "to_pool": found.to_pool, "to_target": found.to_target}


def _copies(target: Target, pool: Side) -> Figures:
    return {"copies": distances.copies(*_stores(target, pool))}


def _full(target: Target, pool: Side) -> Figures:
    return {"frechet_full": target.full.to(pool.moments)}


def _sampled_stores(target: Target, pool: Side) -> tuple[EmbeddingStore, EmbeddingStore]:
    """At most so many rows a side, lowest key hash: for measures whose time grows with the square."""
    ours, theirs = (store.take(sampled_rows(store, QUADRATIC_ROWS)) for store in _stores(target, pool))
    return ours, theirs


def _manifold(target: Target, pool: Side) -> Figures:
    found = distances.prdc(*_sampled_stores(target, pool))
    return {name: getattr(found, name) for name in ("precision", "recall", "density", "authenticity")}


def _c2st(target: Target, pool: Side) -> Figures:
    found = distances.c2st(*_stores(target, pool))
    p = Estimate(value=found.p, n=found.auc.n, unit="p", lower_is_closer=False, method="sign flips of whole folds")
    return {"auc": found.auc, "pad": found.pad, "auc_p": p}


def _neurons(target: Target, pool: Side) -> Figures:
    range_of = next((side.histograms for side in (target.side, pool) if side.histograms), None)
    if range_of is None:
        return {"neurons": distances.neurons(*_stores(target, pool)).emd}
    ours, theirs = (_counted(side, range_of) for side in (target.side, pool))
    return {"neurons": neurons_between(ours, theirs).emd}


def _counted(side: Side, range_of: NeuronHistograms) -> NeuronHistograms:
    """The side's histograms, those of a store counted over a given range."""
    if side.histograms is not None:
        return side.histograms
    assert side.store is not None
    return range_of.emptied().count(side.store.vectors(), side.folds())


def _sliced(target: Target, pool: Side) -> Figures:
    return {"sliced": distances.sliced(*_stores(target, pool))}


def _gaussian(target: Target, pool: Side) -> Figures:
    sides = _sampled_stores(target, pool)
    return {
        "mmd_gaussian": distances.mmd(*sides, kernel="gaussian"),
        "mmd_gaussian_p": distances.mmd_permutation(*sides, kernel="gaussian"),
    }


def _kid(target: Target, pool: Side) -> Figures:
    return {"kid": distances.kid(*_stores(target, pool)).mean}


def _cmmd(target: Target, pool: Side) -> Figures:
    return {"cmmd": distances.cmmd(*_sampled_stores(target, pool))}


def _fd_infinity(target: Target, pool: Side) -> Figures:
    return {"fd_infinity": distances.fd_infinity(target.moments, pool.moments)}


def _sinkhorn(target: Target, pool: Side) -> Figures:
    return {"sinkhorn": distances.sinkhorn(*_stores(target, pool))}


def _otdd(target: Target, pool: Side) -> Figures:
    return {"otdd": distances.otdd(*_stores(target, pool))}


MEASURES = {
    "mean-gap": Measure(figures=("mean_gap",), of=_mean_gap, needs="moments"),
    "mmd": Measure(figures=("mmd",), of=_mmd, needs="all dimensions"),
    "neighbors": Measure(figures=("coverage", "to_pool", "to_target"), of=_neighbors),
    "copies": Measure(figures=("copies",), of=_copies),
    "full": Measure(figures=("frechet_full",), of=_full, needs="all dimensions"),
    "manifold": Measure(figures=("precision", "recall", "density", "authenticity"), of=_manifold),
    "c2st": Measure(figures=("auc", "pad", "auc_p"), of=_c2st),
    "neurons": Measure(figures=("neurons",), of=_neurons, needs="histograms"),
    "sliced": Measure(figures=("sliced",), of=_sliced),
    "gaussian": Measure(figures=("mmd_gaussian", "mmd_gaussian_p"), of=_gaussian),
    "kid": Measure(figures=("kid",), of=_kid),
    "cmmd": Measure(figures=("cmmd",), of=_cmmd),
    "fd-infinity": Measure(figures=("fd_infinity",), of=_fd_infinity, needs="all dimensions"),
    "sinkhorn": Measure(figures=("sinkhorn",), of=_sinkhorn),
    "otdd": Measure(figures=("otdd",), of=_otdd),
}
DEFAULT = ("mean-gap", "mmd", "neighbors", "copies", "full")
