"""Vendi score: the effective number of different images in a set.

    exp( (1 - q)^-1 log sum_i l_i^q ),   l_i = eigenvalues of K / n,   K the cosine similarities      (q = 1: Shannon)

The eigenvalues are those of the mean of u u' over unit vectors u, [d, d], so no [n, n] matrix is needed. n orthogonal
images score n, copies of one image 1; the most there can be is min(n, d).

It grows with n, steeply while n is not far above the dimensions used: sets of different size compare only when both
are rarefied to one size, that is, measured on random subsets of it (order of a seeded draw, without replacement).

Source: Friedman and Dieng, The Vendi Score (TMLR 2023); Pasarkar and Dieng (2023) for q; Hurlbert (1971) for
rarefaction.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import linalg, special

from curate.distances._left_out import fold_error
from curate.diversity._union import Union, as_union
from curate.results import Estimate
from embeddings.errors import SourceError, TooFewImagesError, UsageError
from embeddings.moments import FOLDS, fold_of
from embeddings.store import EmbeddingStore
from embeddings.vectors import blocks

DRAWS = 8  # subsets a rarefied score is the mean of
Score = Callable[[np.ndarray], float]  # rows that are kept [n] bool -> score


def vendi(sample: Union, *, q: float = 1.0, rarefied: int | None = None, seed: int = 0) -> Estimate:
    """Vendi score of a set, or of the union of several.

    Args:
        sample: Array [n, d], store, or a sequence of them; no vector of zeros.
        q: Order of the entropy: 1 Shannon, 2 sensitive to common images, below 1 to rare ones, inf to the commonest.
        rarefied: Measure on 8 random subsets of this size and take the mean.
        seed: Of the subsets.

    Returns:
        Estimate of 1..min(n, d) effective images, higher = more varied, not corrected for n; ``n`` is (images, size
        measured at). 95% interval from the jackknife over folds (all draws repeated without each fold).

    Raises:
        TooFewImagesError: fewer images than ``rarefied``.
        UsageError: q < 0, or ``rarefied`` < 1.
        SourceError: an array that is not finite, or a vector of zeros, which has no direction.
    """
    store = as_union(sample)
    n, size = len(store), len(store) if rarefied is None else rarefied
    _check(n, size, q)
    folds = fold_of(store.rows())
    score = _whole(store, folds, q) if size == n else _rarefied(store, size, q, seed)
    value = score(np.ones(n, dtype=bool))
    error = fold_error(value, [(lambda fold: score(folds != fold), folds)])
    low, high = _interval(value, error, len(np.unique(folds)))
    ceiling = min(size, store.spec.dim)
    return Estimate(
        value=value,
        low=low and max(low, 1.0),
        high=high and min(high, float(ceiling)),
        se=error,
        n=(n, size),
        unit=f"effective images, at most {ceiling}",
        lower_is_closer=False,
        method=f"Vendi score, q={q:g}, cosine, at n={size:,}, jackknife over {FOLDS} folds",
        seed=None if size == n else seed,
    )


def _check(n: int, size: int, q: float) -> None:
    if not q >= 0 or size < 1:
        raise UsageError(f"Vendi score with q = {q} at size {size}; wanted q >= 0 and a size >= 1.", hint="Try q = 1.")
    if size > n:
        raise TooFewImagesError(f"{n} images cannot be rarefied to {size}.", hint=f"Rarefy to {n} or fewer.")


def _interval(value: float, error: float | None, folds: int) -> tuple[float | None, float | None]:
    """95% interval on the scale of the entropy, with Student's t: few folds know their spread poorly."""
    if error is None:
        return None, None
    reach = float(np.exp(special.stdtrit(folds - 1, 0.975) * error / value))
    return value / reach, value * reach


def _whole(store: EmbeddingStore, folds: np.ndarray, q: float) -> Score:
    """The score of the rows that are kept, which are whole folds."""
    if len(store) <= store.spec.dim:
        rows = units(store, np.arange(len(store)))
        gram = rows @ rows.T
        return lambda kept: _score(gram[np.ix_(kept, kept)] / kept.sum(), q)
    scatter = np.zeros((FOLDS, store.spec.dim, store.spec.dim))
    for start, block in blocks(store.vectors(), dtype=np.float64):
        unit, fold = _unit(block, store, start), folds[start : start + len(block)]
        for f in np.unique(fold):
            scatter[f] += unit[fold == f].T @ unit[fold == f]

    def score(kept: np.ndarray) -> float:
        return _score(scatter[np.unique(folds[kept])].sum(axis=0) / kept.sum(), q)

    return score


def _rarefied(store: EmbeddingStore, size: int, q: float, seed: int) -> Score:
    """The mean score of some subsets of the rows that are kept; the same draws, whatever is kept."""
    rng = np.random.default_rng(seed)
    draws = [rng.permutation(len(store)) for _ in range(DRAWS)]

    def score(kept: np.ndarray) -> float:
        # Without a fold fewer rows than the size may be left; all of them are then measured.
        subsets = (np.sort(draw[kept[draw]][:size]) for draw in draws)
        return float(np.mean([_score(_similarity(units(store, rows)), q) for rows in subsets]))

    return score


def units(store: EmbeddingStore, rows: np.ndarray) -> np.ndarray:
    """Some rows [r, d] in float64, scaled to length 1.

    Raises:
        SourceError: one of them is zero.
    """
    return _unit(np.asarray(store.vectors()[rows], np.float64), store, rows)


def _unit(vectors: np.ndarray, store: EmbeddingStore, rows: np.ndarray | int) -> np.ndarray:
    """Vectors [r, d] over their lengths; ``rows`` are their numbers in the store, or the first of them."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    zero = np.flatnonzero(norms == 0)
    if len(zero):
        row = rows + zero[0] if isinstance(rows, int) else rows[zero[0]]
        raise SourceError(
            f"Vector {store.column('key')[row]!r} is zero ({len(zero)} such rows); a cosine needs a direction.",
            hint="Remove these rows.",
        )
    return np.asarray(vectors / norms)


def _similarity(rows: np.ndarray) -> np.ndarray:
    """A matrix with the nonzero eigenvalues of K / n, the smaller one."""
    product: np.ndarray = (rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows) / len(rows)
    return product


def _score(matrix: np.ndarray, q: float) -> float:
    if q == 2:  # needs no eigenvalues
        return float(1 / (matrix**2).sum())
    values = linalg.eigvalsh(matrix)
    values = values[values > values.max() * len(values) * np.finfo(float).eps]
    if q == 1:
        return float(np.exp(-(values * np.log(values)).sum()))
    return float(1 / values.max() if np.isinf(q) else (values**q).sum() ** (1 / (1 - q)))
