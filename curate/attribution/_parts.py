"""The part of a pool that lies far from the target, however near the rest of it is.

A pool of many near images and some far ones can be near as a whole. So target and pool, equally many images of each,
are cut together into clusters. A cluster of the pool is *foreign* if it holds hardly any target images, at most a fifth
of what it would hold if both were alike. That alone says little: a pool in another style has clusters of its own, and
is near. So foreign clusters are measured as a set of their own, by the headline distance: the *far part* is the largest
set of them, those with the largest gap to their nearest target images first, whose index is surely above a limit. The
rest is measured in the same way.

Why not image by image: under Lite0 a digit lies as near to its nearest emoji as emoji lie to each other, and an emoji
of another style farther from them than many a garment.

Share told of 900 images, of which some are garments, digits or photographs among emoji of five sets, or digits or emoji
among garments:

    far images         25%          43%          75%      none: emoji of other styles, clip art
    share told    14 to 27%    24 to 47%    59 to 75%     0 to 14%

It is rather too small, since clusters in which far and near images mix are not counted. Of a near pool in another style
up to a seventh is told, small groups of its own such as flags, which are narrow and so read far.

Source: Sajjadi et al., Assessing generative models via precision and recall (NeurIPS 2018), for clusters of the union.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from curate.attribution._paired import refits_to
from curate.distances._coverage import NEIGHBORS, sampled_rows
from curate.distances._frechet import MIN_IMAGES, NORMAL_95, TargetFrame
from curate.distances._jackknife import delete_fold_jackknife
from curate.results import Estimate
from embeddings.clusters import fit_centers, nearest_centers
from embeddings.errors import TooFewImagesError
from embeddings.moments import FOLDS
from embeddings.neighbors import nearest
from embeddings.store import EmbeddingStore

ROWS = 1_000  # of a side
CLUSTERS = 20
PER_CLUSTER = 10  # images, of both sides: smaller sets are cut into fewer
FOREIGN = 0.2  # of the target images expected


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A pool's far part and the rest of it."""

    share: Estimate  # of the pool's images that are in the far part
    far: Estimate  # index of that part; without value where there is none
    rest: Estimate  # index of the others

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        return {name: getattr(self, name).to_json() for name in ("share", "far", "rest")}


def far_part(
    target: EmbeddingStore,
    pool: EmbeddingStore,
    frame: TargetFrame,
    folds: np.ndarray,
    *,
    limit: float,
    seed: int = 0,
) -> Parts:
    """The part of a pool that is surely farther than a limit.

    Args:
        target: Store [n, d]; at most 1,000 of its rows, and of the pool's, are looked at (lowest key hash).
        pool: The same, from the same encoder.
        frame: Of the target.
        folds: [m] of the pool's rows.
        limit: Index from which a set is far.
        seed: Of the clusters.

    Returns:
        Parts; lower = closer. Intervals are 95% and take the clusters as given.

    Raises:
        TooFewImagesError: fewer than 20 images on a side.
        EncoderMismatchError: different encoders.
    """
    size = min(len(target), len(pool), ROWS)
    if size < MIN_IMAGES:
        raise TooFewImagesError(
            f"{size} images on a side; parts of a pool are told from {MIN_IMAGES}.", hint="Add images."
        )
    target.spec.require_same(pool.spec, ("target", "pool"))
    ours, theirs = (sampled_rows(store, size) for store in (target, pool))
    vectors = np.asarray(pool.vectors()[theirs], np.float64)
    seen = _Seen(frame, vectors, folds[theirs], (size, len(target)))
    far, index = np.zeros(size, bool), seen.unknown("no part of it is surely far")
    for part in _unions(_foreign(np.asarray(target.vectors()[ours], np.float64), vectors, seed)):
        found = seen.index(part)
        if found.low is not None and found.low >= limit:
            far, index = part, found
            break
    return Parts(share=seen.share(far), far=index, rest=seen.index(~far))


@dataclass(frozen=True)
class _Seen:
    """The pool's images that are looked at, and what they are measured by."""

    frame: TargetFrame
    vectors: np.ndarray  # [m, d]
    folds: np.ndarray  # [m]
    n: tuple[int, int]

    def unknown(self, reason: str) -> Estimate:
        """No index."""
        unit = "index, 0 = the target itself, 50 = its own total variance"
        return Estimate(value=None, n=self.n, unit=unit, method="100 F / (F + tr S)", null=0.0, reason=reason)

    def share(self, part: np.ndarray) -> Estimate:
        """Share of some rows [m] bool."""
        value, sizes = float(part.mean()), np.bincount(self.folds, minlength=FOLDS)
        held = np.flatnonzero(sizes)
        left_out = np.array([part[self.folds != fold].mean() for fold in held if len(held) > 1])
        se = float(np.sqrt(delete_fold_jackknife(value, left_out, sizes[held]).variance)) if len(held) > 1 else 0.0
        return Estimate(
            value=value,
            low=max(value - NORMAL_95 * se, 0.0),
            high=min(value + NORMAL_95 * se, 1.0),
            se=se,
            n=self.n,
            unit="share of pool images",
            method=f"foreign clusters that together are surely far, jackknife over {FOLDS} folds",
            null=0.0,
        )

    def index(self, part: np.ndarray) -> Estimate:
        """Index of some rows [m] bool."""
        if part.sum() < MIN_IMAGES:
            return self.unknown(f"{int(part.sum())} images are too few to measure")
        try:
            value, se = refits_to(self.frame.halves, self.vectors[part], self.folds[part]).measured()
        except TooFewImagesError as error:
            return self.unknown(error.message)
        total = self.frame.total_variance
        ends = (max(value + sign * NORMAL_95 * se, -total / 2) for sign in (-1, 0, 1))
        low, middle, high = (100 * f / max(f + total, np.finfo(float).tiny) for f in ends)
        return replace(self.unknown(""), value=middle, low=low, high=high, n=(int(part.sum()), self.n[1]))


def _foreign(target: np.ndarray, pool: np.ndarray, seed: int) -> list[np.ndarray]:
    """Rows [m] bool of every foreign cluster of the pool [m, d], largest gap to the target [m, d] first."""
    both = np.concatenate([target, pool])
    both = both - both.mean(axis=0)
    both /= max(float(np.sqrt((both**2).sum(axis=1).mean())), np.finfo(float).tiny)  # as fit_centers wants them
    count = max(min(CLUSTERS, len(both) // PER_CLUSTER), 1)
    cluster = nearest_centers(both, fit_centers(both, count, seed=seed), 1)[:, 0]
    ours, theirs = cluster[: len(target)], cluster[len(target) :]
    kept = [theirs == number for number in range(count) if _is_foreign(theirs == number, ours == number)]
    return sorted(kept, key=lambda rows: -_gap(target, pool[rows]))


def _is_foreign(pool: np.ndarray, target: np.ndarray) -> bool:
    """Whether a cluster holds some of the pool and hardly any of the target."""
    both = pool.sum() + target.sum()
    return bool(pool.any() and target.sum() <= FOREIGN * both / 2)


def _gap(target: np.ndarray, rows: np.ndarray) -> float:
    """Squared length of the mean step from rows [m, d] to their nearest target images."""
    found = nearest(rows, target, min(NEIGHBORS, len(target)))[1]
    return float(((rows - target[found].mean(axis=1)).mean(axis=0) ** 2).sum())


def _unions(clusters: list[np.ndarray]) -> Iterator[np.ndarray]:
    """The union of all clusters, of all but the last, and so on to the first alone."""
    for end in range(len(clusters), 0, -1):
        yield np.any(clusters[:end], axis=0)
