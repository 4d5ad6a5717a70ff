"""k-NN distances both ways, in units of the target's own spacing.

    to_pool     median over target images of the distance to their k-th nearest pool image,    over the spacing
    to_target   median over pool images of the distance to their k-th nearest target image,    over the spacing
    spacing     median over target images of the distance to their k-th nearest other target image

1 = as near as the target's own neighbors. to_pool is large where the pool misses parts of the target, to_target where
it holds what the target does not. Distances to k-th neighbors shrink as the base grows, as (k / m)^(1 / D) with D the
local dimension: a pool of the target's own distribution reads ((n - 1) / m)^(1 / D), the null, D being estimated from
the target's k-th and 2k-th neighbors. Both sets are represented by at most 2,000 rows (lowest key hash), except that
the target's rows look for neighbors in the whole pool.

The same search answers coverage (``_coverage.py``): which target rows have a pool row within their own k-th distance.

Source: Loftsgaarden and Quesenberry (1965) for k-NN distances; Levina and Bickel (NeurIPS 2004) for D.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import digamma

from curate.distances._coverage import MAX_TARGET_ROWS, NEIGHBORS, NORMAL_95, coverage_estimate, sampled_rows
from curate.distances._left_out import WHOLE, fold_error, kth_distances
from curate.distances._samples import Vectors, as_vectors
from curate.results import Estimate
from embeddings.errors import TooFewImagesError
from embeddings.moments import FOLDS, fold_of
from embeddings.store import EmbeddingStore


@dataclass(frozen=True, kw_only=True)
class Neighbors:
    """k-NN distances between two sets, row by row and in sum; lower is closer."""

    to_pool: Estimate
    to_target: Estimate
    coverage: Estimate  # higher is closer
    spacing: float  # in units of the embedding
    of_target: np.ndarray  # [q] float64: distance of some target rows to their k-th nearest pool row
    of_pool: np.ndarray  # [p] float64: distance of some pool rows to their k-th nearest of those target rows
    target_rows: np.ndarray  # [q] int64 row numbers
    pool_rows: np.ndarray  # [p] int64 row numbers


def knn(target: Vectors, pool: Vectors, *, k: int = NEIGHBORS, limit: int | None = MAX_TARGET_ROWS) -> Neighbors:
    """k-th neighbor distances from target to pool and from pool to target.

    Args:
        target: Array [n, d] or store, n > k.
        pool: Array [m, d] or store from the same encoder, m >= k.
        k: Which neighbor.
        limit: Most rows of each set to look from; None for all of them.

    Returns:
        Two Estimates in multiples of the target's spacing with 95% intervals (jackknife over folds of target and pool,
        every search repeated without each fold) and nulls; their value is None if the spacing is 0. The arrays are
        plain Euclidean distances.

    Raises:
        TooFewImagesError: n <= k or m < k.
        EncoderMismatchError: different encoders.
        SourceError: an array that is not finite.
    """
    ours, theirs = as_vectors(target), as_vectors(pool)
    ours.spec.require_same(theirs.spec, ("target", "pool"))
    return TargetSpacing.of(ours, fold_of(ours.rows()), k, limit=limit).to(theirs, fold_of(theirs.rows()))


@dataclass(frozen=True, kw_only=True)
class TargetSpacing:
    """Some target rows and the distances among them; made once for all pools."""

    k: int
    limit: int | None
    rows: np.ndarray  # [q] int64 row numbers
    vectors: np.ndarray  # [q, d]
    folds: np.ndarray  # [q]
    own: np.ndarray  # [q, FOLDS + 1] squared distance to the k-th other row, column f without fold f
    exponent: float  # 1 / D

    @classmethod
    def of(
        cls, target: EmbeddingStore, folds: np.ndarray, k: int = NEIGHBORS, *, limit: int | None = MAX_TARGET_ROWS
    ) -> TargetSpacing:
        """Distances among at most ``limit`` target rows; ``folds`` [n] are those of all rows.

        Raises:
            TooFewImagesError: the target has no more than k images.
        """
        _require_rows(target, "target", k + 1, k)
        rows = sampled_rows(target, limit)
        vectors, folds = target.vectors()[rows], folds[rows]
        ranks = (k, 2 * k) if len(rows) > 2 * k else (k,)
        own = kth_distances(vectors, vectors, folds, ranks, exclude_self=True)
        exponent = _inverse_dimension(own[0][:, WHOLE], own[-1][:, WHOLE], k)
        return cls(k=k, limit=limit, rows=rows, vectors=vectors, folds=folds, own=own[0], exponent=exponent)

    def to(self, pool: EmbeddingStore, pool_folds: np.ndarray) -> Neighbors:
        """Distances from these rows to a pool with folds [m], and back.

        Raises:
            TooFewImagesError: the pool has fewer than k images.
        """
        _require_rows(pool, "pool", self.k, self.k)
        pool_rows = sampled_rows(pool, self.limit)
        first, kth = kth_distances(self.vectors, pool.vectors(), pool_folds, (1, self.k))
        back = kth_distances(pool.vectors()[pool_rows], self.vectors, self.folds, (self.k,))[0]
        found = _Distances(
            k=self.k,
            own=np.sqrt(np.maximum(self.own, 0.0)),  # rows that are left out are marked -inf, and never read
            of_target=np.sqrt(kth),
            of_pool=np.sqrt(back),
            target_folds=self.folds,
            pool_folds=pool_folds,
            near_folds=pool_folds[pool_rows],
        )
        n, m = len(self.rows), len(pool)
        to_pool, to_target = (((n - 1) / base) ** self.exponent for base in (m, n))
        return Neighbors(
            to_pool=_estimate(found, found.to_pool, n=(m, n), null=to_pool),
            to_target=_estimate(found, found.to_target, n=(len(pool_rows), n), null=to_target),
            coverage=coverage_estimate(first[:, WHOLE] <= self.own[:, WHOLE], m, self.k),
            spacing=found.spacing(),
            of_target=found.of_target[:, WHOLE],
            of_pool=found.of_pool[:, WHOLE],
            target_rows=self.rows,
            pool_rows=pool_rows,
        )


@dataclass(frozen=True, kw_only=True)
class _Distances:
    """Distances to k-th neighbors, column f without fold f of the base, and figures with folds left out."""

    k: int
    own: np.ndarray  # [q, FOLDS + 1] among the target rows
    of_target: np.ndarray  # [q, FOLDS + 1] to the pool
    of_pool: np.ndarray  # [p, FOLDS + 1] to the target rows
    target_folds: np.ndarray  # [q]
    pool_folds: np.ndarray  # [m] of the whole pool
    near_folds: np.ndarray  # [p] of the pool rows that look for neighbors

    def spacing(self, target: int = WHOLE) -> float:
        """Median distance between target neighbors without one fold."""
        return float(np.median(self.own[self.target_folds != target, target]))

    def to_pool(self, target: int = WHOLE, pool: int = WHOLE) -> float:
        """Relative distance from target to pool without one fold of either."""
        return _over(np.median(self.of_target[self.target_folds != target, pool]), self.spacing(target))

    def to_target(self, target: int = WHOLE, pool: int = WHOLE) -> float:
        """Relative distance from pool to target without one fold of either."""
        return _over(np.median(self.of_pool[self.near_folds != pool, target]), self.spacing(target))


def _require_rows(store: EmbeddingStore, name: str, least: int, k: int) -> None:
    if len(store) < least:
        raise TooFewImagesError(
            f"The {name} has {len(store)} images; distances to neighbor {k} need at least {least}.",
            hint="Add images, or ask for fewer neighbors.",
        )


def _inverse_dimension(near: np.ndarray, far: np.ndarray, k: int) -> float:
    """1 / D from squared distances [q] to the k-th and 2k-th neighbor; nan if they say nothing.

    In D dimensions the log distance to the k-th neighbor is digamma(k) / D on average, plus what all k share.
    """
    told = (near > 0) & (far > near)
    if not told.any():
        return float("nan")
    return float(np.log(far[told] / near[told]).mean() / 2 / (digamma(2 * k) - digamma(k)))


def _estimate(found: _Distances, figure: Callable[[int, int], float], *, n: tuple[int, int], null: float) -> Estimate:
    facts = Estimate(
        value=None,
        n=n,
        unit="target spacings",
        method=f"median distance to neighbor {found.k}, jackknife over {FOLDS} folds of target and pool",
        null=null if np.isfinite(null) else None,
    )
    if not found.spacing():
        return replace(
            facts, reason="half of the target's images or more are copies of others: no spacing to compare to"
        )
    value = figure(WHOLE, WHOLE)
    pool_folds = found.pool_folds if figure == found.to_pool else found.near_folds
    parts = [(lambda f: figure(f, WHOLE), found.target_folds), (lambda f: figure(WHOLE, f), pool_folds)]
    error = fold_error(value, parts)
    if error is None:
        return replace(facts, value=value)
    low, high = max(value - NORMAL_95 * error, 0.0), value + NORMAL_95 * error
    return replace(facts, value=value, low=low, high=high, se=error)


def _over(distance: float, spacing: float) -> float:
    """Their ratio; inf where there is no spacing, or too few rows for one."""
    return float(distance / spacing) if 0 < spacing < np.inf else float("inf")
