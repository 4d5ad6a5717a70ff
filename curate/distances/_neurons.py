"""Neuron-wise histograms: how far the activations of each dimension have moved, in the units of the activation.

Per dimension the 1-D earth mover's distance W = integral |F_t - F_p| between the two sets' distribution functions F,
from histograms over a range fixed by the target. The first and last bin are open, and what lies beyond the range is
kept as counts and as summed distance to it, so a pool however far out is measured in full, not clamped. Inside the
range W is the trapezoid rule over bin edges: every value counts as the middle of its bin. A dimension that is constant
in the target has a range of width zero and all else lies beyond it, so W is exact there.

The plain W between two samples of one distribution is not zero but about 1 / sqrt n. The figure reported is therefore
cross-fitted: the sign of F_t - F_p at every edge comes from the other folds,

    W_cross = sum over folds f of h_f integral sign(F_t - F_p without f) (F_t - F_p in f),   h_f = share of fold f

the dual form of W with its potential fitted on other images: 0 on average under the null, and never above the truth on
average, as plain W is never below it. The interval runs from the lower end of the one to the upper end of the other
(delete-a-fold jackknife of each), so it covers small shifts too. Copies and groups share a fold across both sets.

Source: Ramtoula et al., Visual DNA: representing and comparing images using distributions of neuron activations
(CVPR 2023), whose figure is in bins, clamps what is out of range, and has no error.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import stats

from curate.distances._frechet import require_images
from curate.distances._jackknife import delete_fold_jackknife
from curate.distances._samples import Vectors, as_vectors, joint_folds
from curate.results import Estimate
from embeddings.errors import TooFewImagesError, UsageError
from embeddings.histograms import BINS, NeuronHistograms
from embeddings.moments import FOLDS

MIN_FOLDS = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class NeuronShift:
    """How far the neurons have moved, all together and one by one; activation units, lower = closer."""

    emd: Estimate  # cross-fitted, mean over neurons; 0 under the null
    plain: Estimate  # mean earth mover's distance of the two samples as they are, biased up; beside its null
    by_neuron: np.ndarray  # [d] float64 cross-fitted
    plain_by_neuron: np.ndarray  # [d] float64

    def most_moved(self, count: int = 10) -> np.ndarray:
        """Numbers of the neurons that moved most beyond what chance explains, most first."""
        return np.argsort(-self.by_neuron, kind="stable")[:count]


def neurons(target: Vectors, pool: Vectors, *, bins: int = BINS, seed: int = 0) -> NeuronShift:
    """Earth mover's distance of every neuron's activations between target and pool.

    Args:
        target: Array [n, d] or store; n >= 20.
        pool: The same, [m, d], from the same encoder; m >= 20.
        bins: Bins over the target's range of each neuron, at least 2; finer detail than a bin is not seen.
        seed: Another seed draws other folds.

    Returns:
        NeuronShift; its 95% interval covers at least 95%, also of small shifts.

    Raises:
        TooFewImagesError: fewer than 20 images on a side, or too few independent groups.
        EncoderMismatchError: different encoders.
        UsageError: fewer than 2 bins.
    """
    if bins < 2:
        raise UsageError(f"{bins} bins make no histogram.", hint="Ask for 2 or more.")
    ours, theirs = as_vectors(target), as_vectors(pool)
    ours.spec.require_same(theirs.spec, ("target", "pool"))
    folds = joint_folds(ours, theirs, salt=str(seed) if seed else "")
    empty = NeuronHistograms.spanning(ours.vectors(), bins=bins, encoder=ours.spec.fingerprint)
    shift = neurons_between(*(empty.count(store.vectors(), f) for store, f in zip((ours, theirs), folds, strict=True)))
    return replace(shift, emd=replace(shift.emd, seed=seed), plain=replace(shift.plain, seed=seed))


def neurons_between(target: NeuronHistograms, pool: NeuronHistograms) -> NeuronShift:
    """``neurons`` from histograms; copies of one image in both sets count as different images unless folds agree.

    Raises:
        TooFewImagesError: fewer than 20 images on a side, or too few independent groups.
        EncoderMismatchError: another encoder or another range.
    """
    target.require_same_range(pool)
    ours, theirs = Profile.of(target), Profile.of(pool)
    for name, side in (("target", ours), ("pool", theirs)):
        require_images(int(side.n.sum()), name)
    crossed, plain = _crossed(ours, theirs), _plain(ours, theirs)
    sizes = ours.n + theirs.n
    reach = float(stats.t.ppf(0.975, np.count_nonzero(sizes) - 1))
    error = crossed.error(sizes)
    emd = Estimate(
        value=crossed.mean,
        low=crossed.mean - reach * error,
        high=max(plain.mean, crossed.mean) + reach * plain.error(sizes),
        se=error,
        n=(int(theirs.n.sum()), int(ours.n.sum())),
        unit="activation",
        method=f"cross-fitted earth mover's distance, mean over neurons, {target.bins} bins",
        null=0.0,
    )
    null = (ours.areas * np.sqrt(2 / np.pi * (ours.variance() + theirs.variance()))).sum(axis=1).mean()
    method = f"earth mover's distance, mean over neurons, {target.bins} bins, not debiased"
    bare = replace(emd, value=plain.mean, low=None, high=None, se=None, method=method, null=float(null))
    return NeuronShift(emd=emd, plain=bare, by_neuron=crossed.by_neuron, plain_by_neuron=plain.by_neuron)


@dataclass(frozen=True)
class Profile:
    """Distribution function by fold and neuron, below the range, at every edge of it and above it, times images.

    Inside the range these are whole numbers, so that sets that agree at an edge differ there by exactly nothing.
    """

    n: np.ndarray  # [FOLDS]
    sums: np.ndarray  # [FOLDS, d, bins + 3]
    areas: np.ndarray  # [d, bins + 3] of activation that each entry stands for

    @classmethod
    def of(cls, histograms: NeuronHistograms) -> Profile:
        """The profile of some histograms."""
        inside = np.cumsum(histograms.counts, axis=2)[:, :, :-1]
        below, above = histograms.beyond[:, :, :1], histograms.beyond[:, :, 1:]
        areas = np.ones((histograms.dim, histograms.bins + 3))
        areas[:, 1:-1] = histograms.width[:, None]
        areas[:, [1, -2]] /= 2  # trapezoid rule
        return cls(histograms.n, np.concatenate([below, inside, -above], axis=2), areas)

    @cached_property
    def total(self) -> np.ndarray:
        """Sum [d, bins + 3] over all folds."""
        return np.asarray(self.sums.sum(axis=0))

    def without(self, *folds: int) -> np.ndarray:
        """Mean [d, bins + 3] over all folds but some."""
        left_out = sorted(set(folds))
        return np.asarray((self.total - self.sums[left_out].sum(axis=0)) / (self.n.sum() - self.n[left_out].sum()))

    def variance(self) -> np.ndarray:
        """Variance [d, bins + 3] of the mean over all folds, from their spread."""
        gaps = self.sums - self.n[:, None, None] * self.without()
        folds = np.count_nonzero(self.n)
        return np.asarray((gaps**2).sum(axis=0) / self.n.sum() ** 2 * folds / (folds - 1))


@dataclass(frozen=True)
class _Figure:
    """A distance by neuron [d], and its mean without each fold [FOLDS]."""

    by_neuron: np.ndarray
    left_out: np.ndarray

    @property
    def mean(self) -> float:
        """Mean over neurons."""
        return float(self.by_neuron.mean())

    def error(self, sizes: np.ndarray) -> float:
        """Standard error of the mean; sizes [FOLDS] count the images of both sides."""
        used = np.flatnonzero(sizes)
        return float(np.sqrt(delete_fold_jackknife(self.mean, self.left_out[used], sizes[used]).variance))


def _plain(target: Profile, pool: Profile) -> _Figure:
    """Earth mover's distance."""

    def distance(*folds: int) -> np.ndarray:
        return np.asarray((target.areas * np.abs(target.without(*folds) - pool.without(*folds))).sum(axis=1))

    return _Figure(distance(), np.array([distance(f).mean() for f in range(FOLDS)]))


def _crossed(target: Profile, pool: Profile) -> _Figure:
    """Cross-fitted distance.

    Raises:
        TooFewImagesError: fewer than 3 folds hold images of both sides.
    """
    shared = np.flatnonzero((target.n > 0) & (pool.n > 0))
    if len(shared) < MIN_FOLDS:
        raise TooFewImagesError(
            f"{len(shared)} of {FOLDS} folds hold images of both sides; {MIN_FOLDS} are needed.",
            hint="Use more images, or a finer group column (rows of one group and exact copies count as one).",
        )
    precision = np.zeros(FOLDS)
    precision[shared] = 1 / (1 / target.n[shared] + 1 / pool.n[shared])
    parts = np.zeros((FOLDS, FOLDS, len(target.total)))  # of fold f without g; g = f leaves out f alone
    for f in shared.tolist():
        gap = precision[f] * target.areas * (target.sums[f] / target.n[f] - pool.sums[f] / pool.n[f])
        for g in range(FOLDS):
            parts[f, g] = (np.sign(target.without(f, g) - pool.without(f, g)) * gap).sum(axis=1)
    own = np.arange(FOLDS)
    whole = parts[own, own]
    parts[own, own] = 0.0
    left_out = parts.sum(axis=0).mean(axis=1) / (precision.sum() - precision)
    return _Figure(whole.sum(axis=0) / precision.sum(), left_out)
