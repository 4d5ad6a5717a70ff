"""Fréchet distance in the target's main directions plus an isotropic remainder, cross-fitted: the headline distance.

With V the top k principal directions [d, k] and P = V V':

    F(a, b) = FD(V'a, V'b) + |(I-P)(m_a - m_b)|^2 + (sqrt tr[(I-P) S_a] - sqrt tr[(I-P) S_b])^2

the squared 2-Wasserstein distance between Gaussians whose covariance outside the k directions is taken as isotropic, so
nothing outside the basis is lost. (Full-dimension FD needs n far above d: at d = 1280 two random halves of one set read
291 at n = 250 where the truth is 0.)

The basis must not come from the images it is measured on (that reads 66 where the truth is 0). So the target is split
in two by fold: V from one half, F of the other half against the pool; swap; average. A delete-a-fold jackknife over
target and pool, V held fixed, removes the bias and gives the standard error (_refits.py); the two directions share the
pool, so its folds are left out of both at once. The basis depends on the target alone: adding a pool never changes
another pool's number.

A basis of m images falls short of the one of endless images, and F of a far pool with it, by about c / m. So F is also
taken in bases of two parts of those images and carried to endless m: F + s (F - mean of the parts' F), with s from the
three sizes (about .9). The reading then hardly depends on the size of the target: the index of digits, clip art and
photographs to garments reads 45 [42, 48], 37 [35, 40] and 42 [39, 44] against 100 target images and 46, 39 and 44
against 10,000. (Without it, and with as many as 32 directions, it read 44, 34 and 39 against 100; 48, 41 and 47.)

Calibration on real 1280-d embeddings: benchmarks/calibration.py. Where target and pool are alike the error is 1.1 to
1.6 times the true spread, since a jackknife counts twice what two folds do together; taking that out covered too little
of small shifts.

Source: Dowson and Landau (1982) for FD between Gaussians; Heusel et al. (NeurIPS 2017) for its use on image features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curate.distances._refits import HalfRefits, Refits
from curate.distances._roots import covariance_root, principal_directions, root_trace
from curate.distances._samples import Sample, as_moments
from curate.results import Estimate
from embeddings.errors import TooFewImagesError
from embeddings.moments import FOLDS, Moments

DIRECTIONS = 16
PER_DIRECTION = 6  # target images that carry one: 100 carry all of them, so nearly all sizes use the same
MIN_IMAGES = 20
MIN_PART = 4  # images for a basis
NORMAL_95 = 1.959964


@dataclass(frozen=True)
class Gaussian:
    """Mean and covariance inside the basis, mean and total variance outside it."""

    mean: np.ndarray  # [k]
    outer_mean: np.ndarray  # [d], orthogonal to the basis
    covariance: np.ndarray  # [k, k]
    outer_variance: float


@dataclass(frozen=True)
class Projected:
    """Moments seen in one basis, fold by fold."""

    n: np.ndarray  # [FOLDS]
    mean: np.ndarray  # [FOLDS, k]
    outer_mean: np.ndarray  # [FOLDS, d]
    scatter: np.ndarray  # [FOLDS, k, k]
    outer_scatter: np.ndarray  # [FOLDS] trace of the scatter outside the basis

    @property
    def folds(self) -> list[int]:
        """Folds that hold images."""
        return [int(f) for f in np.flatnonzero(self.n)]

    def gaussian(self, folds: Sequence[int]) -> Gaussian:
        """Unbiased moments over some folds."""
        n, chosen = self.n[folds].astype(float), list(folds)
        mean, outer_mean = n @ self.mean[chosen] / n.sum(), n @ self.outer_mean[chosen] / n.sum()
        gap, outer_gap = self.mean[chosen] - mean, self.outer_mean[chosen] - outer_mean
        scatter = self.scatter[chosen].sum(axis=0) + (gap.T * n) @ gap
        outer = self.outer_scatter[chosen].sum() + n @ (outer_gap**2).sum(axis=1)
        degrees = max(n.sum() - 1, 1.0)
        return Gaussian(mean, outer_mean, scatter / degrees, float(outer / degrees))


@dataclass(frozen=True)
class Direction:
    """One direction of the cross-fit: a basis from a half of the target or a part of it, the other half to measure."""

    basis: np.ndarray  # [d, k]
    target: Projected
    folds: list[int]  # folds of the half to measure
    weight: float  # of F in this basis; those of a half sum to 1


Half = tuple[Direction, ...]  # all bases in which one half of the target is measured


@dataclass(frozen=True)
class TargetFrame:
    """All that the headline distance needs to know of the target; made once, used for every pool."""

    halves: tuple[Half, Half]
    k: int
    total_variance: float  # tr S of the whole target
    moments: Moments

    @classmethod
    def of(cls, target: Moments, k: int = DIRECTIONS) -> TargetFrame:
        """Splits the target by fold and takes k = min(k, n // 6) directions from each half.

        Raises:
            TooFewImagesError: under 4 images, or too few independent groups to cross-fit.
        """
        n, _, covariance = target.pooled()
        k = max(1, min(k, n // PER_DIRECTION))
        halves = [[f for f in range(FOLDS) if f % 2 == side and target.n[f]] for side in (0, 1)]
        if any(len(half) < 2 or target.n[half].sum() < 4 for half in halves):
            raise TooFewImagesError(
                f"The target's {n} images form too few independent groups to split in two.",
                hint="Use more images, or a finer group column (rows of one group and exact copies count as one).",
            )
        first, second = (_measured_half(target, fit, measure, k) for fit, measure in (halves, halves[::-1]))
        return cls((first, second), k, float(np.trace(covariance)), target)


def frechet(target: Sample, pool: Sample, *, k: int = DIRECTIONS, seed: int = 0) -> Estimate:
    """Headline distance of a pool to the target: cross-fitted rank-k Fréchet distance, debiased, with its error.

    Args:
        target: Array [n, d], store or Moments; n >= 20.
        pool: The same, from the same encoder; m >= 20.
        k: Directions; reduced to n // 6.
        seed: Another seed draws other folds (not for Moments, whose folds are fixed).

    Returns:
        Estimate in squared units of the embedding. Lower = closer; 0 = same distribution; unbiased under the null, so
        it may be slightly negative. 95% interval by Student's t.

    Raises:
        TooFewImagesError: fewer than 20 images on a side, or too few independent groups.
        EncoderMismatchError: different encoders.
    """
    moments = as_moments(target, seed=seed)
    require_images(len(moments), "target")
    return frechet_to(TargetFrame.of(moments, k), as_moments(pool, seed=seed))


def frechet_to(frame: TargetFrame, pool: Moments, *, minimum: int = MIN_IMAGES) -> Estimate:
    """``frechet`` against a prepared target.

    Raises:
        TooFewImagesError: fewer than ``minimum`` pool images, or all of them in one group.
    """
    return refit_frechet(frame, pool, minimum=minimum).estimate()


def refit_frechet(frame: TargetFrame, pool: Moments, *, minimum: int = MIN_IMAGES) -> Refits:
    """The headline distance with folds left out: what its error and the order of two pools follow from.

    Raises:
        TooFewImagesError: fewer than ``minimum`` pool images, or all of them in one group.
        EncoderMismatchError: different encoders.
    """
    frame.moments.require_same_encoder(pool)
    require_images(len(pool), "pool", minimum)
    folds = [int(f) for f in np.flatnonzero(pool.n)]
    if len(folds) < 2:
        raise TooFewImagesError(
            f"The pool's {len(pool)} images form one group (copies and groups count as one).",
            hint="Use more images, or a finer group column.",
        )
    projected = iter(_project(pool, [direction.basis for half in frame.halves for direction in half]))
    first, second = (refit_half(half, [next(projected) for _ in half], folds) for half in frame.halves)
    return Refits((first, second), pool.n[folds], len(frame.moments), frame.k)


def refit_half(half: Half, pool: Sequence[Projected], folds: list[int]) -> HalfRefits:
    """F from one half of the target, carried to endless images, with folds left out.

    Args:
        half: The half in all its bases.
        pool: The pool in the same bases.
        folds: Folds of the pool that hold images.
    """
    refits = [_refit(direction, seen, folds) for direction, seen in zip(half, pool, strict=True)]
    return HalfRefits.sum([(direction.weight, found) for direction, found in zip(half, refits, strict=True)])


def fitting_parts(fit: list[int], sizes: np.ndarray) -> list[tuple[float, list[int]]]:
    """Weights and folds of the bases that together stand for a basis of endless images.

    Args:
        fit: Folds of the half that gives the bases.
        sizes: [FOLDS] images of every fold.
    """
    parts = [fit[: len(fit) // 2], fit[len(fit) // 2 :]]
    images = [int(sizes[part].sum()) for part in parts]
    if min(images) < MIN_PART:
        return [(1.0, fit)]
    share = 1 / (sum(images) * sum(1 / n for n in images) / len(images) - 1)
    return [(1 + share, fit), *((-share / 2, part) for part in parts)]


def gaussian_distance(a: Gaussian, b: Gaussian) -> float:
    """F between two Gaussians seen in the same basis."""
    inside = ((a.mean - b.mean) ** 2).sum() + bures(a.covariance, b.covariance)
    outside = ((a.outer_mean - b.outer_mean) ** 2).sum()
    return float(inside + outside + (np.sqrt(a.outer_variance) - np.sqrt(b.outer_variance)) ** 2)


def bures(a: np.ndarray, b: np.ndarray) -> float:
    """Trace term tr A + tr B - 2 tr (A B)^(1/2) of two covariances [d, d], safe for rank-deficient ones."""
    return float(np.trace(a) + np.trace(b) - 2 * root_trace(covariance_root(a, len(a) + 1), b))


def require_images(n: int, name: str, minimum: int = MIN_IMAGES) -> None:
    """Refuses a set too small to be measured.

    Raises:
        TooFewImagesError: fewer than ``minimum`` images.
    """
    if n < minimum:
        raise TooFewImagesError(
            f"The {name} has {n} image{'s' if n != 1 else ''}; a distance needs at least {minimum}.",
            hint="Add images, or leave this set out.",
        )


def _measured_half(target: Moments, fit: list[int], measure: list[int], k: int) -> Half:
    weights, bases = [], []
    for weight, folds in fitting_parts(fit, target.n):
        n, _, covariance = target.pooled(folds)
        weights.append(weight)
        bases.append(principal_directions(covariance_root(covariance, n), k))
    seen = zip(bases, _project(target, bases), weights, strict=True)
    return tuple(Direction(basis, projected, measure, weight) for basis, projected, weight in seen)


def _project(moments: Moments, bases: Sequence[np.ndarray]) -> list[Projected]:
    """The moments in each of some bases."""
    scatters, traces = moments.projected_scatter(*bases)
    found = []
    for basis, scatter in zip(bases, scatters, strict=True):
        inside, outer = moments.mean @ basis, traces - np.trace(scatter, axis1=1, axis2=2)
        outside = moments.mean - inside @ basis.T
        found.append(Projected(moments.n, inside, outside, scatter, np.maximum(outer, 0.0)))
    return found


def _refit(direction: Direction, pool: Projected, folds: list[int]) -> HalfRefits:
    """F on everything, without each target fold, and without each pool fold."""
    held = direction.folds
    target, whole = direction.target.gaussian(held), pool.gaussian(folds)
    targets = [direction.target.gaussian(_without(held, f)) for f in held]
    return HalfRefits(
        whole=gaussian_distance(target, whole),
        target=np.array([gaussian_distance(t, whole) for t in targets]),
        pool=np.array([gaussian_distance(target, pool.gaussian(_without(folds, f))) for f in folds]),
        sizes=direction.target.n[held],
    )


def _without(folds: list[int], left_out: int) -> list[int]:
    return [f for f in folds if f != left_out]
