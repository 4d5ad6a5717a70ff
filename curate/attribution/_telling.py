"""The images that tell a pool from the target, and the labels of the pool that pull it away.

Images are scored by the classifier two-sample test: log odds of being a target image, by a classifier that has not seen
the image, its copies or its group (``c2st``). Influence is how much the headline distance falls without an image
(``influence``). The two can disagree: the classifier sees how sets differ, influence which images the difference hangs
on. No two of the images that are shown are copies or of one group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from curate.attribution._slices import MAX_GROUPS
from curate.distances._c2st import c2st
from curate.distances._fold_errors import LEVEL
from curate.distances._influence import influence
from curate.distances._samples import Vectors, as_vectors
from curate.results import Estimate
from embeddings.moments import block_names
from embeddings.store import EmbeddingStore


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One image worth looking at."""

    key: str
    label: str | None
    score: float  # log odds of being a target image
    influence: float | None  # fall of the headline distance without it; None for target images


@dataclass(frozen=True, kw_only=True)
class Pull:
    """A slice of the pool."""

    name: str
    n: int  # images
    influence: Estimate  # fall of the headline distance without it, to first order; positive: it pulls the pool away


@dataclass(frozen=True, kw_only=True)
class Telling:
    """What tells a pool from the target, image by image and slice by slice."""

    auc: Estimate  # of the classifier; near 0.5 the scores mean little
    p: float
    target_unlike: tuple[Shown, ...]  # target images least like the pool
    pool_unlike: tuple[Shown, ...]  # pool images least like the target
    pool_like: tuple[Shown, ...]  # pool images most like the target
    pulling: tuple[Shown, ...]  # pool images with the largest influence
    by: str | None  # the pool's label or group; None where it has neither
    pulls: tuple[Pull, ...]  # slices of the pool, largest influence first

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        shown = {
            name: [asdict(image) for image in getattr(self, name)]
            for name in ("target_unlike", "pool_unlike", "pool_like", "pulling")
        }
        pulls = [{**asdict(pull), "influence": pull.influence.to_json()} for pull in self.pulls]
        return {"auc": self.auc.to_json(), "p": self.p, **shown, "by": self.by, "pulls": pulls}


def telling(target: Vectors, pool: Vectors, *, count: int = 12, seed: int = 0) -> Telling:
    """The images and slices that tell a pool from the target.

    Args:
        target: Array [n, d] or store; n >= 20.
        pool: The same, [m, d], from the same encoder; m >= 20.
        count: Images of each kind.
        seed: Another seed draws other folds.

    Returns:
        Telling, in squared embedding units where it is influence. The intervals of slices are for the choice of pool
        images (Student's t over groups and sets of copies); a slice of one such block has none.

    Raises:
        TooFewImagesError: fewer than 20 images on a side, or too few independent groups.
        EncoderMismatchError: different encoders.
        SourceError: an array that is not finite.
    """
    ours, theirs = as_vectors(target), as_vectors(pool)
    test, pulled = c2st(ours, theirs, seed=seed), influence(ours, theirs, seed=seed)
    of_target = _Images(ours, test.target_scores)
    of_pool = _Images(theirs, test.pool_scores, pulled)
    by, names = _slices_of(theirs)
    return Telling(
        auc=test.auc,
        p=test.p,
        target_unlike=of_target.show(-test.target_scores, count),
        pool_unlike=of_pool.show(test.pool_scores, count),
        pool_like=of_pool.show(-test.pool_scores, count),
        pulling=of_pool.show(-pulled, count),
        by=by,
        pulls=_pulls(pulled, names, of_pool.blocks, test.auc.n),
    )


class _Images:
    """One side, its scores and its blocks of images that cannot be separated."""

    def __init__(self, store: EmbeddingStore, scores: np.ndarray, pulled: np.ndarray | None = None) -> None:
        self.blocks = block_names(store.rows())
        self._keys, self._labels = store.column("key"), store.column("label")
        self._scores, self._pulled = scores, pulled

    def show(self, order: np.ndarray, count: int) -> tuple[Shown, ...]:
        """The ``count`` images with the smallest ``order`` [n], one of each block."""
        ranked = np.argsort(order, kind="stable")
        _, first = np.unique(self.blocks[ranked], return_index=True)
        return tuple(self._shown(row) for row in ranked[np.sort(first)[:count]].tolist())

    def _shown(self, row: int) -> Shown:
        pulled = None if self._pulled is None else float(self._pulled[row])
        return Shown(key=self._keys[row], label=self._labels[row], score=float(self._scores[row]), influence=pulled)


def _slices_of(pool: EmbeddingStore) -> tuple[str | None, list[str | None]]:
    """What cuts the pool into slices, and the slice of each row."""
    for by, most in (("label", len(pool)), ("group", MAX_GROUPS)):
        names = pool.column(by)
        if 2 <= len({name for name in names if name}) <= most:
            return by, names
    return None, []


def _pulls(pulled: np.ndarray, names: Sequence[str | None], blocks: np.ndarray, n: tuple[int, int]) -> tuple[Pull, ...]:
    members: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        if name:
            members.setdefault(name, []).append(row)
    found = [
        Pull(name=name, n=len(rows), influence=_total(pulled[rows], blocks[rows], n)) for name, rows in members.items()
    ]
    return tuple(sorted(found, key=lambda pull: (-(pull.influence.value or 0), pull.name)))


def _total(pulled: np.ndarray, blocks: np.ndarray, n: tuple[int, int]) -> Estimate:
    """Sum of influences [r] with the error of as many draws of blocks."""
    _, block = np.unique(blocks, return_inverse=True)
    sums = np.bincount(block, weights=pulled)
    facts = Estimate(
        value=float(pulled.sum()), n=n, unit="squared embedding units", method="influence, first order", null=0.0
    )
    if len(sums) < 2:
        return facts
    se = float(np.sqrt(len(sums)) * sums.std(ddof=1))
    reach = se * float(stats.t.ppf((1 + LEVEL) / 2, len(sums) - 1))
    return replace(facts, low=float(sums.sum() - reach), high=float(sums.sum() + reach), se=se)
