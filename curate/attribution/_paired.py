"""The headline distance before and after a step, compared on the same images: figures whose noise cancels.

    r = F / tr S_target

F as in distances/_frechet.py: cross-fitted directions of the target, an isotropic remainder, delete-a-fold jackknife.
Both samples are small (n < d), so it is computed from the vectors without any [d, d] matrix; the figures are the same.
A step that destroys information shrinks F and tr S alike; r tells them apart from a step that brings two sets together.
The error of tr S counts: without a fold of the half that is measured, tr S changes as that half's own.

All jackknife terms are linear in the refits, so the difference of two distances on the same folds has the difference
of their refits, and an error of its own that is far below that of either. The errors are the plain jackknife's, which
are somewhat too large where two sets are alike (distances/_refits.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from curate.distances._frechet import DIRECTIONS, PER_DIRECTION, Direction, Half, Projected, fitting_parts, refit_half
from curate.distances._jackknife import delete_fold_jackknife
from embeddings.errors import TooFewImagesError
from embeddings.moments import FOLDS


class Variance(NamedTuple):
    """Total variance of the target, and what becomes of a half's when one of its folds is left out."""

    total: float
    without: tuple[np.ndarray, np.ndarray]  # per direction: share of it [folds of the half that is measured]


class Measured(NamedTuple):
    """A figure without its leading bias, and its standard error."""

    value: float
    se: float


@dataclass(frozen=True)
class Refits:
    """A figure in both directions of the cross-fit: on everything, and without each fold."""

    theta: np.ndarray  # [2]
    without_target: tuple[np.ndarray, np.ndarray]  # per direction: [folds of the half that is measured]
    without_pool: np.ndarray  # [2, folds of the pool]
    target_sizes: tuple[np.ndarray, np.ndarray]
    pool_sizes: np.ndarray

    def combined(self, other: Refits, *, own: float, others: float) -> Refits:
        """This times ``own`` plus the other times ``others``, both on the same folds."""

        def mix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            return own * a + others * b

        targets = tuple(mix(a, b) for a, b in zip(self.without_target, other.without_target, strict=True))
        return replace(
            self,
            theta=mix(self.theta, other.theta),
            without_target=(targets[0], targets[1]),
            without_pool=mix(self.without_pool, other.without_pool),
        )

    def over(self, variance: Variance) -> Refits:
        """This over the target's total variance."""
        total = variance.total
        targets = tuple(
            left / (total * ratio) for left, ratio in zip(self.without_target, variance.without, strict=True)
        )
        return replace(
            self,
            theta=self.theta / total,
            without_target=(targets[0], targets[1]),
            without_pool=self.without_pool / total,
        )

    def measured(self) -> Measured:
        """The mean of both directions; they share the pool, so its folds are left out of both at once."""
        theta = float(self.theta.mean())
        of_pool = delete_fold_jackknife(theta, self.without_pool.mean(axis=0), self.pool_sizes)
        parts = zip(self.theta, self.without_target, self.target_sizes, strict=True)
        of_target = [delete_fold_jackknife(float(whole), left, sizes) for whole, left, sizes in parts]
        value = theta + of_pool.correction + sum(j.correction for j in of_target) / 2
        return Measured(float(value), float(np.sqrt(of_pool.variance + sum(j.variance for j in of_target) / 4)))


@dataclass(frozen=True)
class Frame:
    """What a target sample is measured by; made once for all pools."""

    halves: tuple[Half, Half]
    variance: Variance

    @classmethod
    def of(cls, vectors: np.ndarray, folds: np.ndarray) -> Frame:
        """Splits vectors [n, d] in two by fold and takes min(16, n // 6) directions of each half.

        Raises:
            TooFewImagesError: too few independent groups to cross-fit, or images that are all the same.
        """
        k = max(1, min(DIRECTIONS, len(vectors) // PER_DIRECTION))
        halves = [[int(f) for f in np.unique(folds) if f % 2 == side] for side in (0, 1)]
        if any(len(half) < 2 for half in halves):
            raise TooFewImagesError(
                f"The target's {len(vectors)} images form too few independent groups to split in two.",
                hint="Use more images, or a finer group column (rows of one group and exact copies count as one).",
            )
        total = float(vectors.var(axis=0, ddof=1).sum())
        if not total > 0:
            raise TooFewImagesError(
                f"The target's {len(vectors)} images look all the same: nothing to measure a distance by.",
                hint="Use other target images.",
            )
        found = [_measured_half(vectors, folds, fit, measure, k) for fit, measure in (halves, halves[::-1])]
        without = tuple(_shares_without(vectors, folds, half[0].folds) for half in found)
        return cls((found[0], found[1]), Variance(total, (without[0], without[1])))

    def to(self, vectors: np.ndarray, folds: np.ndarray) -> Refits:
        """``refits_to`` the halves of this one."""
        return refits_to(self.halves, vectors, folds)


def refits_to(halves: tuple[Half, Half], vectors: np.ndarray, folds: np.ndarray) -> Refits:
    """F of a pool's vectors [m, d] from the halves of a target.

    Raises:
        TooFewImagesError: the pool forms one group.
    """
    held = [int(f) for f in np.unique(folds)]
    if len(held) < 2:
        raise TooFewImagesError(
            f"The pool's {len(vectors)} images form one group (copies and groups count as one).",
            hint="Use more images, or a finer group column.",
        )
    first, second = (refit_half(half, [_project(vectors, folds, d.basis) for d in half], held) for half in halves)
    return Refits(
        theta=np.array([first.whole, second.whole]),
        without_target=(first.target, second.target),
        without_pool=np.stack([first.pool, second.pool]),
        target_sizes=(first.sizes, second.sizes),
        pool_sizes=np.bincount(folds, minlength=FOLDS)[held],
    )


def _measured_half(vectors: np.ndarray, folds: np.ndarray, fit: list[int], measure: list[int], k: int) -> Half:
    directions = []
    for weight, part in fitting_parts(fit, np.bincount(folds, minlength=FOLDS)):
        basis = _principal_directions(vectors[np.isin(folds, part)], k)
        directions.append(Direction(basis, _project(vectors, folds, basis), measure, weight))
    return tuple(directions)


def _shares_without(vectors: np.ndarray, folds: np.ndarray, half: list[int]) -> np.ndarray:
    """Total variance of a half of the target without each of its folds, over that of the half."""

    def total(rows: np.ndarray) -> float:
        return float(vectors[rows].var(axis=0, ddof=1).sum()) if rows.sum() > 1 else 0.0

    whole = np.isin(folds, half)
    shares = np.array([total(whole & (folds != fold)) for fold in half]) / max(total(whole), np.finfo(float).tiny)
    return np.where(shares > 0, shares, 1.0)


def _principal_directions(vectors: np.ndarray, k: int) -> np.ndarray:
    """Orthonormal directions [d, <= k] of largest variance of vectors [n, d]."""
    _, lengths, directions = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    kept = lengths > lengths.max(initial=0.0) * max(vectors.shape) * np.finfo(float).eps
    return np.asarray(directions[kept][:k].T)


def _project(vectors: np.ndarray, folds: np.ndarray, basis: np.ndarray) -> Projected:
    """Moments by fold inside and outside a basis [d, k]."""
    d, k = basis.shape
    n, mean, outer_mean = np.zeros(FOLDS, np.int64), np.zeros((FOLDS, k)), np.zeros((FOLDS, d))
    scatter, outer_scatter = np.zeros((FOLDS, k, k)), np.zeros(FOLDS)
    for fold in np.unique(folds):
        part = vectors[folds == fold]
        center = part.mean(axis=0)
        gap, inside = part - center, (part - center) @ basis
        n[fold], mean[fold] = len(part), center @ basis
        outer_mean[fold] = center - mean[fold] @ basis.T
        scatter[fold] = inside.T @ inside
        outer_scatter[fold] = max((gap**2).sum() - np.trace(scatter[fold]), 0.0)
    return Projected(n, mean, outer_mean, scatter, outer_scatter)
