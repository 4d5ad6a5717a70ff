"""k-NN coverage: the share of target images that have a pool image as near as their own k-th target neighbor.

    coverage = mean_i 1[ min_j |t_i - p_j| <= r_k(t_i) ],   r_k = distance to the k-th other target row

Under the null (same distribution, N target rows, M pool rows) it reads 1 - prod_{i=1..k} (N - i)/(N + M - i), not 1;
that figure is printed beside the value. Computed on at most 2,000 target rows (lowest key hash), so a large target
costs no more than a small one. `<=` keeps duplicates from counting as misses.

Source: Naeem et al., Reliable fidelity and diversity metrics for generative models (ICML 2020).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from curate.distances._samples import Vectors, as_vectors
from curate.results import Estimate
from embeddings.errors import TooFewImagesError
from embeddings.neighbors import nearest
from embeddings.store import EmbeddingStore

NEIGHBORS = 5
MAX_TARGET_ROWS = 2_000
NORMAL_95 = 1.959964


@dataclass(frozen=True)
class TargetBalls:
    """Target rows and the squared radius that holds their k nearest target rows; made once for all pools."""

    centers: np.ndarray  # [N, d]
    radii: np.ndarray  # [N] squared
    k: int

    @classmethod
    def of(cls, target: EmbeddingStore, k: int = NEIGHBORS) -> TargetBalls:
        """Balls around at most 2,000 target rows.

        Raises:
            TooFewImagesError: the target has no more than k images.
        """
        rows = sampled_rows(target)
        if len(rows) <= k:
            raise TooFewImagesError(
                f"The target has {len(rows)} images; coverage with k = {k} neighbors needs at least {k + 1}.",
                hint="Add target images.",
            )
        centers = np.asarray(target.vectors()[rows], np.float32)
        distances, _ = nearest(centers, centers, k, exclude_self=True)
        return cls(centers, distances[:, -1], k)


def coverage(target: Vectors, pool: Vectors, *, k: int = NEIGHBORS) -> Estimate:
    """Share of the target's images that the pool covers.

    Args:
        target: Array [n, d] or store, n > k.
        pool: The same, from the same encoder.
        k: Neighbors that set the radius.

    Returns:
        Estimate in 0..1, higher = closer; ``null`` is what it would read for a pool from the target's own distribution.
        Binomial (Wilson) interval over target rows.

    Raises:
        TooFewImagesError: n <= k.
        EncoderMismatchError: different encoders.
    """
    ours, theirs = as_vectors(target), as_vectors(pool)
    ours.spec.require_same(theirs.spec, ("target", "pool"))
    return coverage_of(TargetBalls.of(ours, k), theirs)


def coverage_of(balls: TargetBalls, pool: EmbeddingStore) -> Estimate:
    """``coverage`` against prepared target balls."""
    distances, _ = nearest(balls.centers, pool.vectors(), 1)
    return coverage_estimate(distances[:, 0] <= balls.radii, len(pool), balls.k)


def coverage_estimate(covered: np.ndarray, m: int, k: int) -> Estimate:
    """The estimate for target rows [n] that are covered or not by m pool rows."""
    n, value = len(covered), float(covered.mean())
    low, high = wilson(value, n)
    return Estimate(
        value=value,
        low=low,
        high=high,
        n=(m, n),
        unit="share of target images",
        lower_is_closer=False,
        method=f"k-NN coverage, k={k}",
        null=expected_coverage(n, m, k),
    )


def expected_coverage(n: int, m: int, k: int) -> float:
    """Expected coverage of n target rows by m rows of the same distribution."""
    i = np.arange(1, k + 1)
    return float(1 - np.prod(np.maximum(n - i, 0) / (n + m - i)))


def sampled_rows(store: EmbeddingStore, limit: int | None = MAX_TARGET_ROWS) -> np.ndarray:
    """Rows with the lowest key hash, ascending, at most ``limit``: a random sample that any machine draws alike."""
    if limit is None or len(store) <= limit:
        return np.arange(len(store))
    keys = store.column("key")
    hashes = np.array([hashlib.sha256(key.encode()).hexdigest() for key in keys])
    return np.sort(np.argsort(hashes, kind="stable")[:limit])


def wilson(share: float, n: float) -> tuple[float, float]:
    """95% interval of a share of n independent units; sound at 0 and 1, where it keeps a width."""
    z2 = NORMAL_95**2
    center, spread = share + z2 / (2 * n), NORMAL_95 * np.sqrt(share * (1 - share) / n + z2 / (4 * n**2))
    return float((center - spread) / (1 + z2 / n)), float((center + spread) / (1 + z2 / n))
