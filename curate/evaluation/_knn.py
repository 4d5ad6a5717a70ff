"""k-NN accuracy: neighbors by cosine vote with weight exp(cosine / T).

    score_c = sum over the k nearest training images of class c of exp(cos / T),   prediction = argmax score

k and T are those of the grid that are most accurate on held-out training images; equal accuracies go to the smaller k,
then the smaller T, equal scores to the class that sorts first.

Source: Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product

import numpy as np

from curate.evaluation._probe import Hits, Probe, cross_fit, held_out_accuracy
from curate.evaluation._split import Parts, Split
from embeddings.neighbors import nearest

NEIGHBORS = (1, 3, 5, 10, 20, 50, 100)
TEMPERATURES = (0.02, 0.05, 0.1, 0.2, 0.5)


def knn_probe(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, held_out: Parts, *, n_classes: int | None = None
) -> Probe:
    """Predicts test images from their nearest training images, k and T chosen on held-out training images.

    Args:
        train: Features [n, d].
        labels: Class numbers int [n].
        test: Features [m, d].
        held_out: Parts of the training rows to choose on.
        n_classes: C, if classes with higher numbers than those of the training images are to have a column.
    """
    n_classes = n_classes or int(labels.max()) + 1
    accuracy = held_out_accuracy(_hits(train, labels, [held_out], n_classes), held_out)
    return _settle(train, labels, test, accuracy, n_classes=n_classes)


def knn_probes(features: np.ndarray, labels: np.ndarray, parts: Sequence[Split], *, n_classes: int) -> list[Probe]:
    """The probe of every fold; arguments as ``linear_probes``."""
    hits = _hits(features, labels, [part.held_out for part in parts], n_classes)
    return cross_fit(parts, features, labels, hits, partial(_settle, n_classes=n_classes))


def _hits(features: np.ndarray, labels: np.ndarray, held_out: Sequence[Parts], n_classes: int) -> Hits:
    """Which images each setting tells right, k being at most the images of the smallest part that is fitted to."""
    units, grid = unit_rows(features), _grid(min(len(fit) for parts in held_out for fit, _ in parts))

    def hits(fit: np.ndarray, asked: np.ndarray) -> np.ndarray:
        votes = _votes(units[fit], labels[fit], units[asked], grid, n_classes)
        return np.array([scores.argmax(axis=1) == labels[asked] for scores in votes])

    return hits


def _settle(train: np.ndarray, labels: np.ndarray, test: np.ndarray, accuracy: np.ndarray, *, n_classes: int) -> Probe:
    """The probe under the best setting."""
    units, best = unit_rows(train), int(accuracy.argmax())
    setting = _grid(len(train))[best]  # a smaller grid is the beginning of a larger one

    def classify(features: np.ndarray) -> np.ndarray:
        (scores,) = _votes(units, labels, unit_rows(features), [setting], n_classes)
        return np.asarray(scores / scores.sum(axis=1, keepdims=True))

    settings = dict(zip(("k", "temperature"), setting, strict=True))
    return Probe(probabilities=classify(test), classify=classify, settings=settings, validation=float(accuracy[best]))


def knn_predict(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, k: int, temperature: float, *, n_classes: int
) -> np.ndarray:
    """Class numbers int64 [m] of test images under given settings; k is at most the number of training images."""
    (scores,) = _votes(unit_rows(train), labels, unit_rows(test), [(min(k, len(train)), temperature)], n_classes)
    return np.asarray(scores.argmax(axis=1))


def vote(cosines: np.ndarray, labels: np.ndarray, temperature: float, n_classes: int) -> np.ndarray:
    """Score of every class [m, C] from the neighbors' cosines [m, k] and class numbers [m, k]."""
    weights = np.exp((cosines - cosines.max(axis=1, keepdims=True)) / temperature)
    cells = labels + n_classes * np.arange(len(labels))[:, None]
    scores = np.bincount(cells.ravel(), weights.ravel(), minlength=n_classes * len(labels))
    return scores.reshape(len(labels), n_classes)


def _votes(
    base: np.ndarray, labels: np.ndarray, queries: np.ndarray, grid: list[tuple[int, float]], n_classes: int
) -> Iterator[np.ndarray]:
    """Scores [m, C] under every setting, one after the other, from one search."""
    distances, rows = nearest(queries, base, max(k for k, _ in grid))
    cosines, near = 1 - distances / 2, labels[rows]
    return (vote(cosines[:, :k], near[:, :k], t, n_classes) for k, t in grid)


def _grid(n: int) -> list[tuple[int, float]]:
    """(k, T) with k no larger than the images to search among."""
    return list(product([k for k in NEIGHBORS if k <= n], TEMPERATURES))


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Rows at length 1, float32; a zero row stays zero."""
    wide = np.asarray(features, dtype=np.float32)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    unit: np.ndarray = wide / np.where(length > 0, length, 1)
    return unit
