"""Multinomial logistic regression with an L2 penalty, over a path of penalties.

    minimize over W [d, C], b [C]:   mean_i CE(y_i, softmax(x_i W + b))  +  penalty / 2 |W|^2

The optimum lies in the row space of the features, so the fit runs in the basis of their singular vectors: with n < d
images it has n coordinates instead of d, exactly. In that basis the curvature is near diagonal, s_j^2 h_c / n +
penalty with h_c = mean p_c (1 - p_c), and scaling by its root lets L-BFGS converge in a tenth of the steps. Each
penalty starts from a solution for one at most ten times stronger. scikit-learn's C is 1 / (n penalty),
with two classes 2 / (n penalty).

Source: Liu, Nocedal 1989 (L-BFGS); Böhning 1992 (curvature of the multinomial likelihood).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.optimize import minimize
from scipy.special import softmax
from threadpoolctl import ThreadpoolController

STRONG = 10.0  # with this penalty the curvature is that of zero weights
ROUGH = 1e-2
TOLERANCE = 1e-4  # of the scaled gradient; at 1e-3 an image or two in 300 are still undecided
RANK = 1e-12  # directions with less than this share of the largest squared singular value carry rounding only
SMALL = 1 << 26  # multiplications per product; below it threads mostly wait, on busy cores ten times as long


@dataclass(frozen=True, kw_only=True)
class Logistic:
    """A fitted model: ``weights`` [d, C], ``bias`` [C]; classes without a training image have bias -inf."""

    weights: np.ndarray
    bias: np.ndarray

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Most probable class int64 [m] of ``features`` [m, d]."""
        best: np.ndarray = (features @ self.weights + self.bias).argmax(axis=1)
        return best

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Probability float64 [m, C] of every class; 0 for classes without a training image."""
        return np.asarray(softmax((features @ self.weights + self.bias).astype(np.float64), axis=1))


def logistic_path(
    features: np.ndarray,
    labels: np.ndarray,
    n_classes: int,
    penalties: Sequence[float],
    *,
    tolerance: float = TOLERANCE,
) -> list[Logistic]:
    """Fits one model per penalty, in the given order (strongest first is fastest).

    Args:
        features: [n, d] float32 or float64, about zero mean and unit scale; products run in this precision.
        labels: int [n], 0 .. n_classes - 1; a class may be missing.
        n_classes: C.
        penalties: weights of |W|^2 / 2 against the mean cross-entropy, > 0.
        tolerance: stop when no entry of the scaled gradient exceeds it.

    Returns:
        One model per penalty.
    """
    n, d = features.shape
    with _threads().limit(limits=1 if n * min(n, d) * n_classes < SMALL else None):
        present, compact = np.unique(labels, return_inverse=True)
        basis = _row_space(features)
        problem = _Problem(features @ basis, compact, len(present))
        coefficients, reached, models = problem.start(), STRONG, []
        for penalty in penalties:
            while reached > 10.001 * penalty:  # in steps of ten, or the curvature at the start misleads
                reached /= 10
                coefficients = problem.solve(reached, coefficients, max(tolerance, ROUGH))
            reached = penalty
            coefficients = problem.solve(penalty, coefficients, tolerance)
            weights = np.zeros((d, n_classes), features.dtype)
            weights[:, present] = basis @ coefficients[:-1]
            bias = np.full(n_classes, -np.inf, features.dtype)
            bias[present] = coefficients[-1]
            models.append(Logistic(weights=weights, bias=bias))
    return models


@cache  # it takes milliseconds to find the loaded libraries
def _threads() -> ThreadpoolController:
    return ThreadpoolController()


def _row_space(features: np.ndarray) -> np.ndarray:
    """Orthonormal basis [d, r] of the row space, largest singular value first, by the smaller Gram matrix."""
    n, d = features.shape
    wide = features.astype(np.float64, copy=False)
    values, vectors = np.linalg.eigh(wide @ wide.T if n < d else wide.T @ wide)
    keep = np.flatnonzero(values > RANK * max(values[-1], np.finfo(np.float64).tiny))[::-1]
    basis = vectors[:, keep]
    if n < d:
        basis = wide.T @ basis / np.sqrt(values[keep])
    return np.asarray(basis, dtype=features.dtype)


class _Problem:
    """The objective in coordinates [r + 1, C]; the last row is the bias, which is not penalized."""

    def __init__(self, features: np.ndarray, labels: np.ndarray, n_classes: int) -> None:
        self.x, self.n_classes = features, n_classes  # x [n, r] with orthogonal columns
        self.hot = np.eye(n_classes, dtype=features.dtype)[labels]
        self.spread = np.square(features, dtype=np.float64).mean(axis=0)[:, None]  # s_j^2 / n

    def start(self) -> np.ndarray:
        """Zero weights and the log of the class shares."""
        coefficients = np.zeros((self.x.shape[1] + 1, self.n_classes))
        coefficients[-1] = np.log(self.hot.mean(axis=0, dtype=np.float64))
        return coefficients

    def solve(self, penalty: float, coefficients: np.ndarray, tolerance: float) -> np.ndarray:
        """The optimum for one penalty, from a start; a single class needs no weights."""
        if self.n_classes == 1:
            return coefficients
        scale = self._scale(penalty, coefficients)
        shape = coefficients.shape

        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = self.value(flat.reshape(shape) * scale, penalty)
            return value, (gradient * scale).ravel()

        options = {"gtol": tolerance, "ftol": 0.0, "maxiter": 10_000, "maxfun": 20_000}
        found = minimize(objective, (coefficients / scale).ravel(), jac=True, method="L-BFGS-B", options=options)
        solution: np.ndarray = found.x.reshape(shape) * scale
        return solution

    def value(self, coefficients: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
        """Objective and gradient [r + 1, C]."""
        logits, total, odds = self._softmax(coefficients)
        loss = np.log(total).mean(dtype=np.float64) - (logits * self.hot).sum(dtype=np.float64) / len(logits)
        residual = (odds / total - self.hot) / len(logits)
        gradient = np.vstack([self.x.T @ residual, residual.sum(axis=0)], dtype=np.float64)
        gradient[:-1] += penalty * coefficients[:-1]
        return float(loss + penalty / 2 * np.square(coefficients[:-1]).sum()), gradient

    def _softmax(self, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Logits shifted to a maximum of 0, sum of odds [n, 1], odds [n, C]."""
        cast = coefficients.astype(self.x.dtype, copy=False)
        logits = self.x @ cast[:-1] + cast[-1]
        logits -= logits.max(axis=1, keepdims=True)
        odds = np.exp(logits)
        return logits, odds.sum(axis=1, keepdims=True), odds

    def _scale(self, penalty: float, coefficients: np.ndarray) -> np.ndarray:
        """One over the root of the diagonal curvature at a start [r + 1, C]."""
        _, total, odds = self._softmax(coefficients)
        share = odds / total
        curvature = np.maximum((share * (1 - share)).mean(axis=0, dtype=np.float64), 1e-4)
        return np.asarray(np.vstack([self.spread * curvature + penalty, curvature]) ** -0.5)
