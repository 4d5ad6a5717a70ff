"""K-means for cutting a set into parts: centers of a sample, and the nearest centers of any number of vectors.

    repeat:  owner(x) = argmin_c |x - c|^2 ;   c = mean of the sample rows that it owns      (Lloyd)

The centers start at distinct rows, drawn one after another with probability proportional to the squared distance to
those already drawn (k-means++), and are moved a few times; a center that owns nothing stays where it is. A sample of 50
to 256 rows per center is enough: more of them hardly lower the inertia. Neighbors are exact (``embeddings.neighbors``)
and everything else is summed in a fixed order, so the result does not depend on the order of the sample, FAISS, block
sizes or the thread count. Distances are told apart down to 1e-6: give vectors of length about 1.

Source: Lloyd, Least squares quantization in PCM (1982); Arthur and Vassilvitskii, k-means++ (SODA 2007).
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from embeddings.errors import UsageError
from embeddings.neighbors import nearest
from embeddings.vectors import Vectors, blocks

ROUNDS = 10  # most of the inertia is gone after 3
BLOCK_ROWS = 8192


def fit_centers(sample: np.ndarray, k: int, *, seed: int = 0) -> np.ndarray:
    """K-means centers of a sample.

    Args:
        sample: [s, d] of a real dtype; the start takes s d k steps, so project long vectors first.
        k: Centers wanted.
        seed: Of the draws.

    Returns:
        float32 [k, d], or as many as there are distinct rows if these are fewer; in no meaningful order.

    Raises:
        UsageError: k < 1, an empty sample, or values that are not finite.
    """
    if k < 1 or not len(sample):
        raise UsageError(
            f"{k} centers of {len(sample)} vectors were asked for; wanted 1 and 1 at least.",
            hint="Ask for one or more.",
        )
    if not np.isfinite(sample).all():
        raise UsageError("Vectors hold values that are not finite.", hint="Embed the source again.")
    rows, weights = np.unique(np.asarray(sample, np.float32), axis=0, return_counts=True)
    centers: np.ndarray = rows[_start(rows, weights, k, np.random.default_rng(seed))]
    owner = np.full(len(rows), -1)
    for _ in range(ROUNDS):
        before, owner = owner, nearest_centers(rows, centers, 1)[:, 0]
        if (owner == before).all():
            break
        centers = _means(rows, weights, owner, centers)
    return centers


def nearest_centers(vectors: Vectors, centers: np.ndarray, count: int) -> np.ndarray:
    """Numbers of the nearest centers of every vector, nearest first; of equally near ones the lower number first.

    Args:
        vectors: [n, d] of a real dtype, read once in blocks.
        centers: [k, d].
        count: Centers per vector, at most k.

    Returns:
        int64 [n, count].

    Raises:
        TooFewImagesError: count > k.
        UsageError: count < 1, different d, or values that are not finite.
    """
    found = np.empty((len(vectors), count), np.int64)
    for start in range(0, len(vectors), BLOCK_ROWS):
        found[start : start + BLOCK_ROWS] = nearest(vectors[start : start + BLOCK_ROWS], centers, count)[1]
    return found


def _start(rows: np.ndarray, weights: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers of at most k distinct rows [s, d], by k-means++."""
    x = rows - rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    norms = np.einsum("ij,ij->i", x, x)  # einsum adds in a fixed order, a BLAS need not
    gap, chosen = np.full(len(x), np.inf, np.float32), [int(rng.choice(len(x), p=weights / weights.sum()))]
    while len(chosen) < min(k, len(x)):
        last = chosen[-1]
        gap = np.minimum(gap, np.maximum(norms + norms[last] - 2 * np.einsum("ij,j->i", x, x[last]), 0))
        gap[chosen] = 0
        total = np.cumsum(gap * weights, dtype=np.float64)
        if total[-1] == 0:  # the rest is apart by less than float32 can tell
            break
        chosen.append(int(np.searchsorted(total, rng.random() * total[-1], side="right")))
    return np.array(chosen)


def _means(rows: np.ndarray, weights: np.ndarray, owner: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Means float32 [k, d] of the rows that each center owns; the center itself where there are none."""
    total, count = np.zeros(centers.shape), np.bincount(owner, weights, minlength=len(centers))
    for start, block in blocks(rows, dtype=np.float64):
        part = slice(start, start + len(block))
        member = csr_array((weights[part], (owner[part], np.arange(len(block)))), (len(centers), len(block)))
        total += member @ block
    means = np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], centers)
    return means.astype(np.float32)
