"""Optimal transport dataset distance: how far labeled images are to be moved, when a change of class costs too.

    C((x, y), (x', y')) = |x - x'|^2 + W2^2(N_y, N_y')

N_y is the Gaussian fitted to class y of its own set, so the names of classes do not matter and neither does whether the
two sets share any. The cost goes into the debiased Sinkhorn divergence of ``sinkhorn``, in the same principal
directions. All three of its terms use the same rows, drawn by lowest key hash, so the distance of a set to itself is 0
at any size; drawing the two sides of an own term independently, as published code does, makes it positive.

Class covariances are those of the drawn rows (divided by the count: copies change nothing, and a class of one image has
covariance 0). A null, but no interval: the derivative in the weights does not see that the classes are estimated.

Source: Alvarez-Melis and Fusi, Geometric dataset distances via optimal transport (NeurIPS 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curate.distances._drawn_points import draw, drawn_points
from curate.distances._kernels import squared_distances
from curate.distances._samples import Vectors, as_vectors
from curate.distances._sinkhorn import DIRECTIONS, EPSILON, UNIT, Transport, check_settings, describe
from curate.distances._transport import Points
from curate.results import Estimate
from embeddings.errors import UsageError
from embeddings.store import EmbeddingStore

Labels = Sequence[str | int | None] | np.ndarray


def otdd(
    target: Vectors,
    pool: Vectors,
    *,
    labels: tuple[Labels | None, Labels | None] = (None, None),
    dim: int = DIRECTIONS,
    epsilon: float = EPSILON,
    seed: int = 0,
) -> Estimate:
    """Debiased optimal transport dataset distance of a labeled pool and a labeled target.

    Args:
        target: Array [n, d] or store; at most 2,000 of its labeled rows are used (lowest key hash).
        pool: The same, [m, d], from the same encoder.
        labels: Labels of the rows of target and pool as given, [n] and [m]; None: the store's label column. A row
            without a label (None or "") is left out and counted in ``method``.
        dim: Principal directions of target and pool at equal weight.
        epsilon: Entropy, as a share of the median cost between target and pool.
        seed: Other than 0: other folds for the null.

    Returns:
        Estimate in squared units of the embedding, 0 or more, without interval. Lower = closer; ``null`` is what a pool
        of the target's own distribution reads at these sizes. ``value`` is None, with a reason, where a side carries no
        label, or if the iterations do not converge.

    Raises:
        EncoderMismatchError: different encoders.
        UsageError: labels of another number than rows, no direction, or an epsilon that is not positive.
        SourceError: an array that is not finite, not [n, d], or empty.
    """
    check_settings(dim, epsilon)
    ours, theirs = as_vectors(target), as_vectors(pool)
    ours.spec.require_same(theirs.spec, ("target", "pool"))
    sides = _labeled("target", target, ours, labels[0]), _labeled("pool", pool, theirs, labels[1])
    for name, side in zip(("target", "pool"), sides, strict=True):
        if not len(side):
            reason = f"the {name} carries no labels; name the column that holds them"
            return Estimate(value=None, n=(len(theirs), len(ours)), unit=UNIT, method="OTDD", seed=seed, reason=reason)
    x, y = draw(sides[0]), draw(sides[1])
    points = drawn_points(x, y, (_codes(x), _codes(y)), dim=dim, seed=seed)
    method = f"OTDD, {points[0].points.shape[1]} directions, {describe(epsilon)}"
    method += _told((len(ours) - len(sides[0]), len(theirs) - len(sides[1])))
    return Transport.relative(_cost, points, epsilon).estimate(method, seed=seed)


def class_distances(a: Points, b: Points) -> np.ndarray:
    """Squared 2-Wasserstein distances [C, C'] between the Gaussians of the classes of two sets."""
    ours, theirs = _Gaussians.of(a), _Gaussians.of(b)
    bures = ours.traces[:, None] + theirs.traces - 2 * _root_traces(ours.covariances, theirs.covariances)
    squares = np.square(ours.means[:, None] - theirs.means).sum(axis=2) + np.maximum(bures, 0.0)
    if a is b:  # without the rounding errors
        np.fill_diagonal(squares, 0.0)
        squares = (squares + squares.T) / 2
    return np.asarray(squares)


@dataclass(frozen=True, eq=False)
class _Gaussians:
    """One Gaussian per class code; codes without rows have zeros."""

    means: np.ndarray  # [C, k]
    covariances: np.ndarray  # [C, k, k]

    @classmethod
    def of(cls, points: Points) -> _Gaussians:
        count, k = int(points.classes.max()) + 1, points.rows.shape[1]
        means, covariances = np.zeros((count, k)), np.zeros((count, k, k))
        for code in np.unique(points.classes):
            rows = points.classes == code
            weight = points.weights[rows] / points.weights[rows].sum()
            means[code] = weight @ points.rows[rows]
            centered = points.rows[rows] - means[code]
            covariances[code] = (centered.T * weight) @ centered
        return cls(means, covariances)

    @property
    def traces(self) -> np.ndarray:
        """Total variance [C]."""
        return np.asarray(np.trace(self.covariances, axis1=1, axis2=2))


def _root_traces(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Tr (A_i B_j)^(1/2) [C, C'] of covariances [C, k, k] and [C', k, k], a row of pairs at a time."""
    values, vectors = np.linalg.eigh(a)
    roots = (vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]) @ vectors.transpose(0, 2, 1)
    products = (np.linalg.eigvalsh(root @ b @ root) for root in roots)
    return np.stack([np.sqrt(np.maximum(p, 0.0)).sum(axis=1) for p in products])


def _cost(a: Points, b: Points) -> np.ndarray:
    return np.asarray(squared_distances(a.rows, b.rows) + class_distances(a, b)[a.classes][:, b.classes])


def _labeled(name: str, sample: Vectors, store: EmbeddingStore, given: Labels | None) -> EmbeddingStore:
    """The rows of a store that carry a label, labels as given put in its label column."""
    names = store.column("label") if given is None else list(given)
    if len(names) != len(store):
        raise UsageError(
            f"{len(names)} labels for the {name}'s {len(store)} images.", hint="Give one label per row, or None."
        )
    if given is not None and not isinstance(sample, EmbeddingStore):  # the store of an array is sorted by key
        names = [names[int(key)] for key in store.column("key")]
    labels = pa.array([None if label in (None, "") else str(label) for label in names], pa.string())
    rows = store.rows()
    rows = rows.set_column(rows.schema.get_field_index("label"), "label", labels)
    there = np.flatnonzero(labels.is_valid())
    return EmbeddingStore(spec=store.spec, rows=rows, vectors=store.vectors()).take(there)


def _codes(store: EmbeddingStore) -> np.ndarray:
    """Class [n] int64 of every row."""
    return np.unique(store.column("label"), return_inverse=True)[1].astype(np.int64)


def _told(unlabeled: tuple[int, int]) -> str:
    """What was left out, for ``Estimate.method``."""
    return f"; without label: {unlabeled[0]:,} target, {unlabeled[1]:,} pool images" if any(unlabeled) else ""
