"""Ridge classification on one-hot labels: what the probe of a run, the audit of augmentations and group reading use.

    minimize over W [d, C]:   |Y - X W|^2 + n penalty |W|^2,   the prediction is the largest entry of x W + mean of Y

X are the features, each standardized by its mean and deviation over the n rows; Y the one-hot labels, centered. One
decomposition X = U s V' serves all penalties and both ways to predict:

    Ridge          of other rows:   W = X' U diag(1 / (s^2 + n penalty)) U' Y
    cross_fitted   of the rows themselves, each by a fit without its fold F, in closed form:

        y_F - p_F = (I - H_FF)^-1 (y_F - h_F),   H = 1/n + U diag(s^2 / (s^2 + n penalty)) U'

with h the fit to all rows and p the prediction. There, scale and offset of the features are those of all rows, which
tells nothing of a label.

Source: Hoerl, Kennard, "Ridge regression: biased estimation for nonorthogonal problems", 1970.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

PENALTIES = (10.0, 1.0, 0.1, 0.01, 1e-3)  # strongest first; ties go to the stronger one
CONSTANT = 1e-6  # a deviation below this share of the largest is rounding
SILENT = 1e-12  # so is a squared singular value below this share of the largest


@dataclass(frozen=True)
class Scale:
    """Mean and deviation of features, each [d]; an infinite deviation for those that are constant."""

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Scale:
        """Of rows float64 [n, d]."""
        deviation = rows.std(axis=0)
        return cls(rows.mean(axis=0), np.where(deviation > CONSTANT * deviation.max(initial=0.0), deviation, np.inf))

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Rows [..., d] with mean 0 and deviation 1 where the scale was taken; constant features are 0."""
        found: np.ndarray = (rows - self.mean) / self.deviation
        return found


@dataclass(frozen=True)
class Ridge:
    """Classifiers of one set of rows, one per penalty."""

    scale: Scale
    weights: np.ndarray  # [penalties, d, C]
    bias: np.ndarray  # [C]

    @classmethod
    def fit(cls, rows: np.ndarray, labels: np.ndarray, n_classes: int, *, penalties: Sequence[float]) -> Ridge:
        """Fits rows [n, d] with class numbers [n]."""
        rows = rows.astype(np.float64)
        scale, hot = Scale.of(rows), np.eye(n_classes)[labels]
        x, bias = scale(rows), hot.mean(axis=0)
        basis, squares = decomposed(x)
        seen = basis.T @ (hot - bias)
        weights = [x.T @ (basis @ (seen / (squares + len(x) * penalty)[:, None])) for penalty in penalties]
        return cls(scale, np.stack(weights), bias)

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Class numbers [penalties, ...] of rows [..., d]."""
        x = self.scale(rows).reshape(-1, len(self.scale.mean))
        found = np.stack([(x @ weights + self.bias).argmax(axis=1) for weights in self.weights])
        return found.reshape(-1, *rows.shape[:-1])


def cross_fitted(
    features: np.ndarray, labels: np.ndarray, folds: np.ndarray, *, penalties: Sequence[float] = PENALTIES
) -> np.ndarray:
    """Class of every row by the classifier that has not seen its fold, int64 [n].

    The penalty of a fold is the one under which the other folds are named best.

    Args:
        features: [n, d], any scale and offset.
        labels: class numbers int [n], 0 to C - 1.
        folds: int [n], two different ones at least.
        penalties: strongest first.
    """
    rows = features.astype(np.float64)
    basis, squares = decomposed(Scale.of(rows)(rows))
    hot = np.eye(int(labels.max()) + 1)[labels]
    named = np.stack([_left_out(basis, squares / (squares + len(hot) * p), hot, folds) for p in penalties])
    hits = named == labels
    chosen = np.empty(len(labels), np.int64)
    for fold in np.unique(folds):
        others = folds != fold
        chosen[~others] = named[hits[:, others].sum(axis=1).argmax(), ~others]
    return chosen


def decomposed(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left singular vectors [n, r] and squared singular values [r] of x [n, d], by the smaller Gram matrix."""
    wide = len(x) < x.shape[1]
    gram = torch.from_numpy(x @ x.T if wide else x.T @ x)
    squares, vectors = (part.numpy() for part in torch.linalg.eigh(gram))  # 15 times as fast as numpy's, on one core
    kept = squares > SILENT * max(squares[-1], np.finfo(np.float64).tiny)
    squares, vectors = squares[kept], vectors[:, kept]
    return (vectors if wide else x @ vectors / np.sqrt(squares)), squares


def _left_out(basis: np.ndarray, shrink: np.ndarray, hot: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Class int64 [n] of every row without its fold, under one penalty."""
    residuals = hot - hot.mean(axis=0) - basis @ (shrink[:, None] * (basis.T @ hot))
    named = np.empty(len(hot), np.int64)
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        seen = 1 / len(hot) + (basis[rows] * shrink) @ basis[rows].T
        named[rows] = (hot[rows] - np.linalg.solve(np.eye(len(rows)) - seen, residuals[rows])).argmax(axis=1)
    return named
