"""How near some images are to a target, by three figures: headline distance and index, share within reach, variance.

An image is within reach if it is no farther from the nearest target image than 95% of the target's own images are from
the nearest one of another fold; cosine distance, centered on the pools.

Source: share within reach = the precision of Kynkäänniemi et al. (NeurIPS 2019) with one radius for all target images;
errors: delete-a-fold jackknife (distances/_fold_errors.py, _refits.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate.distances._fold_errors import fold_error
from curate.distances._frechet import Projected, TargetFrame, refit_half
from curate.distances._refits import Refits
from curate.results import Estimate
from curate.scoring.verdicts import shift_index
from embeddings.errors import TooFewImagesError
from embeddings.moments import FOLDS, Moments
from embeddings.neighbors import nearest

REACH = 0.95  # of the target's own images lie within reach


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """Vectors with the folds they belong to; copies and images of one group share a fold."""

    vectors: np.ndarray  # [m, d]
    folds: np.ndarray  # [m] integers below FOLDS


class Nearness:
    """All that is measured against one target."""

    def __init__(self, target: Sample, center: np.ndarray) -> None:
        self._frame = TargetFrame.of(Moments.from_vectors(target.vectors, target.folds))
        if not self._frame.total_variance:
            raise TooFewImagesError(
                f"The target's {len(target.folds)} images are all the same picture to the encoder.",
                hint="Use more images, or another encoder.",
            )
        self._center, self._folds = center, target.folds
        self._directions = _unit(target.vectors, center)
        self._own = self._nearest(self._directions)
        self._own[np.arange(len(self._folds)), self._folds] = np.inf

    def distance(self, images: Sample) -> Estimate:
        """Headline distance, the same figure as of the images' moments, without forming their scatter in all of d."""
        sizes = np.bincount(images.folds, minlength=FOLDS)
        folds = np.flatnonzero(sizes).tolist()
        first, second = (
            refit_half(half, [_projected(images, direction.basis) for direction in half], folds)
            for half in self._frame.halves
        )
        return Refits((first, second), sizes[folds], len(self._folds), self._frame.k).estimate()

    def index(self, images: Sample) -> Estimate:
        """Index of the headline distance."""
        return shift_index(self.distance(images), self._frame.total_variance)

    def variance(self, images: Sample) -> float:
        """Total variance of the images, over the target's."""
        return float(images.vectors.var(axis=0, ddof=1).sum()) / self._frame.total_variance

    def share(self, images: Sample) -> Estimate:
        """Share of the images within reach."""
        distances = self._nearest(_unit(images.vectors, self._center))

        def within(target: np.ndarray, pool: np.ndarray) -> float:
            own = self._own[np.isin(self._folds, target)][:, target].min(axis=1)
            found = distances[np.isin(images.folds, pool)][:, target].min(axis=1)
            return float(np.mean(found <= np.quantile(own, REACH)))

        sizes = [np.bincount(folds, minlength=FOLDS) for folds in (self._folds, images.folds)]
        value, error = within(*map(np.flatnonzero, sizes)), fold_error(within, *sizes)
        low, high = error.interval(value)
        return Estimate(
            value=value,
            low=max(low or 0.0, 0.0),
            high=min(1.0 if high is None else high, 1.0),
            se=error.se,
            n=(len(images.folds), len(self._folds)),
            unit="share",
            lower_is_closer=False,
            method=f"share within {REACH:.0%} of the target's own nearest distances",
            null=REACH,
        )

    def _nearest(self, directions: np.ndarray) -> np.ndarray:
        """Squared distance [n, FOLDS] to the nearest target image of every fold; inf where a fold has none."""
        found = np.full((len(directions), FOLDS), np.inf)
        for fold in np.unique(self._folds):
            found[:, fold] = nearest(directions, self._directions[self._folds == fold], 1)[0][:, 0]
        return found


def _unit(vectors: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Directions [n, d] float32 from the center; a vector at the center stays zero."""
    gap = vectors - center
    norms = np.linalg.norm(gap, axis=1, keepdims=True)
    directions: np.ndarray = (gap / np.where(norms > 0, norms, 1.0)).astype(np.float32)
    return directions


def _projected(images: Sample, basis: np.ndarray) -> Projected:
    """Moments by fold in one basis [d, k], from vectors."""
    d, k = basis.shape
    mean, scatter, outer = np.zeros((FOLDS, d)), np.zeros((FOLDS, k, k)), np.zeros(FOLDS)
    for fold in np.unique(images.folds):
        part = images.vectors[images.folds == fold]
        mean[fold] = part.mean(axis=0)
        gap = part - mean[fold]
        inside = gap @ basis
        scatter[fold] = inside.T @ inside
        outer[fold] = max(float((gap**2).sum() - (inside**2).sum()), 0.0)
    inner = mean @ basis
    return Projected(np.bincount(images.folds, minlength=FOLDS), inner, mean - inner @ basis.T, scatter, outer)
