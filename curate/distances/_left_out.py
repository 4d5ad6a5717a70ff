"""k-th nearest distances with every fold of the base left out in turn: what a jackknife of k-NN measures is made of.

One search finds three times the neighbors that are needed; what is left of them without a fold is nearly always enough.
Where it is not (a fold that holds a whole neighborhood: one group, many copies) the query is searched again without it.
The result is that of searching every reduced base anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from curate.distances._jackknife import delete_fold_jackknife
from embeddings.moments import FOLDS
from embeddings.neighbors import nearest
from embeddings.vectors import Vectors

SPARE = 3
WHOLE = FOLDS  # the column with no fold left out


def kth_distances(
    queries: Vectors, base: Vectors, folds: np.ndarray, ranks: Sequence[int], *, exclude_self: bool = False
) -> list[np.ndarray]:
    """Squared distance of every query to its k-th nearest base row, for some k, without each fold of the base.

    Args:
        queries: [q, d].
        base: [n, d], read in blocks.
        folds: [n] fold of every base row.
        ranks: The values of k.
        exclude_self: Queries are the base; a row is no neighbor of its own.

    Returns:
        Per k a float64 [q, FOLDS + 1], column f without fold f, the last one of the whole base. inf where fewer than k
        rows are left; with ``exclude_self`` -inf where the row itself is left out.

    Raises:
        TooFewImagesError: no base row has k neighbors.
    """
    most = len(base) - exclude_self
    width = max(*ranks, min(SPARE * max(ranks), most))
    distances, rows = nearest(queries, base, width, exclude_self=exclude_self)
    found = [np.column_stack([np.zeros((len(queries), FOLDS)), distances[:, k - 1]]) for k in ranks]
    for fold in range(FOLDS):
        count = (folds[rows] != fold).cumsum(axis=1)
        left_out = folds == fold if exclude_self else np.zeros(len(queries), bool)
        for k, column in zip(ranks, found, strict=True):
            column[:, fold] = np.take_along_axis(distances, (count >= k).argmax(axis=1)[:, None], axis=1)[:, 0]
            short = np.flatnonzero((count[:, -1] < k) & ~left_out)
            if len(short):
                kept = _Kept(base, np.flatnonzero(folds != fold))
                again = width < most and len(kept) >= k + exclude_self
                column[short, fold] = _search_again(queries, short, kept, k + exclude_self) if again else np.inf
            column[left_out, fold] = -np.inf
    return found


def fold_error(theta: float, samples: Sequence[tuple[Callable[[int], float], np.ndarray]]) -> float | None:
    """Standard error of a figure by the jackknife over independent samples; None if one of them is a single fold.

    The jackknife's correction is not used: these figures depend on n by nature, and it would carry them to endless n.
    The error is conservative for figures of ranks and balls: 1.1 to 1.8 times the true one in simulations.

    Args:
        theta: The figure.
        samples: Per sample the figure without one of its folds, and the fold of each of its rows.
    """
    variance = 0.0
    for without, folds in samples:
        held, sizes = np.unique(folds, return_counts=True)
        if len(held) < 2:
            return None
        left_out = np.array([without(int(fold)) for fold in held])
        if not np.isfinite(left_out).all():
            return None
        variance += delete_fold_jackknife(theta, left_out, sizes).variance
    return float(np.sqrt(variance))


class _Kept:
    """Some rows of an array [n, d], read when they are asked for."""

    def __init__(self, vectors: Vectors, rows: np.ndarray) -> None:
        self._vectors, self._rows = vectors, rows
        self.shape, self.dtype = (len(rows), vectors.shape[1]), vectors.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        found: np.ndarray = self._vectors[self._rows[index]]
        return found


def _search_again(queries: Vectors, short: np.ndarray, kept: _Kept, k: int) -> np.ndarray:
    """k-th distance [s] of some queries; a query that is in the base is its own nearest row, at distance 0."""
    distances, _ = nearest(queries[short], cast(Vectors, kept), k)
    return np.asarray(distances[:, -1])
