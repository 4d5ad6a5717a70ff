"""Nearest neighbors of different blocks: what is not to be taken in by copies and by rows of one group.

A block is what ``block_names`` says cannot be separated: a group, or all copies of a picture. Of every block only its
nearest row counts, so six takes of one scene are one neighbor, and a scene is no neighbor of its own takes.
"""

from __future__ import annotations

import numpy as np

from embeddings.errors import TooFewImagesError
from embeddings.neighbors import nearest
from embeddings.vectors import Vectors

QUERIES = 1024  # answered at once where many neighbors must be looked at
WIDER = 4


def nearest_blocks(
    queries: Vectors, base: Vectors, blocks: np.ndarray, k: int, *, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest row of each of the k nearest blocks of every query, exactly.

    Args:
        queries: [m, d].
        base: [n, d].
        blocks: [n] integer block of every base row.
        k: Blocks per query.
        own: [m] block of every query, which is left out; None leaves out none.

    Returns:
        Squared distances, float64 [m, k], ascending, rounded to 1e-6, and row numbers of ``base``, int64 [m, k].

    Raises:
        TooFewImagesError: a query has fewer than k blocks to look at.
    """
    found = len(np.unique(blocks)) - (own is not None)
    if found < k:
        raise TooFewImagesError(
            f"{k} neighbors were asked for among {found} independent images.",
            hint="Add images, or use a finer group column (rows of one group and exact copies count as one).",
        )
    m, width = len(queries), min(k + 1, len(base))
    distances, rows, left = np.empty((m, k)), np.empty((m, k), np.int64), np.arange(m)
    while len(left):
        short = []
        size = m if len(left) == m else QUERIES
        for part in (left[start : start + size] for start in range(0, len(left), size)):
            near, where = nearest(queries if len(part) == m else queries[part], base, width)
            first = _first_of_block(blocks[where], None if own is None else own[part])
            place, done = first.cumsum(axis=1), first.sum(axis=1) >= k
            column = np.stack([(place[done] > j).argmax(axis=1) for j in range(k)], axis=1)
            distances[part[done]] = np.take_along_axis(near[done], column, axis=1)
            rows[part[done]] = np.take_along_axis(where[done], column, axis=1)
            short.append(part[~done])
        left, width = np.concatenate(short), min(WIDER * width, len(base))
    return distances, rows


def independent_images(blocks: np.ndarray) -> float:
    """How many independent images a mean over rows [n] of some blocks is worth: (sum of sizes)^2 / sum of squares."""
    _, sizes = np.unique(blocks, return_counts=True)
    return float(sizes.sum() ** 2 / (sizes.astype(np.float64) ** 2).sum())


def _first_of_block(blocks: np.ndarray, own: np.ndarray | None) -> np.ndarray:
    """Whether [m, w] a neighbor is the first one of its block, and of another block than the query's own."""
    order = np.argsort(blocks, axis=1, kind="stable")
    ordered = np.take_along_axis(blocks, order, axis=1)
    first = np.empty(blocks.shape, bool)
    changes = np.diff(ordered, axis=1, prepend=ordered[:, :1] - 1) != 0
    np.put_along_axis(first, order, changes, axis=1)
    return first if own is None else first & (blocks != own[:, None])
