"""Multinomial logistic regression with an L2 penalty, over a path of penalties.

    minimize over W [d, C], b [C]:   mean_i CE(y_i, softmax(x_i W + b))  +  penalty / 2 |W|^2

The optimum lies in the row space of the features, so the fit runs in the basis of their singular vectors: with n < d
images it has n coordinates instead of d, exactly. In that basis the curvature is near diagonal, s_j^2 h_c / n +
penalty with h_c = mean p_c (1 - p_c), and L-BFGS that starts from its inverse converges in a tenth of the steps.

From penalty to penalty two things are carried on. The start lies on the line through the last two solutions, over the
logarithm of the penalty. And what L-BFGS knows of the curvature stays: of a step s, the difference of the gradients
changes by exactly (new penalty - old) s. Over 13 penalties that takes a half to a third of the evaluations of starting
each from the last solution alone, and ends ten times nearer to the optimum. No optimizer of SciPy takes over what
another call learned, hence one of our own. scikit-learn's C is 1 / (n penalty), with two classes 2 / (n penalty).

Source: Liu, Nocedal 1989 (L-BFGS); Böhning 1992 (curvature of the multinomial likelihood).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import get_blas_funcs
from scipy.special import softmax
from threadpoolctl import ThreadpoolController

STRONG = 10.0  # with this penalty the curvature is that of zero weights
ROUGH = 1e-2
TOLERANCE = 1e-4  # of the scaled gradient; at 1e-3 an image or two in 300 are still undecided
RANK = 1e-12  # directions with less than this share of the largest squared singular value carry rounding only
SMALL = 1 << 26  # multiplications per product; below it threads mostly wait, on busy cores ten times as long
MEMORY = 10  # steps that L-BFGS learns from; 6 to 20 take about the same time
STEPS = 10_000  # at most, for one penalty
SHORTEST = 2.0**-30  # of a step
PATIENCE = 10  # steps without descent, after which rounding is all that is left
DESCENT = 1e-4  # share of the expected descent that a step must reach


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
    models = []
    with _threads(features, n_classes):
        fit = _Fit.of(features, labels)
        for coefficients in fit.along(penalties, tolerance):
            weights = np.zeros((features.shape[1], n_classes), features.dtype)
            weights[:, fit.present] = fit.basis @ coefficients[:-1]
            bias = np.full(n_classes, -np.inf, features.dtype)
            bias[fit.present] = coefficients[-1]
            models.append(Logistic(weights=weights, bias=bias))
    return models


def predictions_along(
    features: np.ndarray,
    labels: np.ndarray,
    penalties: Sequence[float],
    others: np.ndarray,
    *,
    tolerance: float = TOLERANCE,
) -> np.ndarray:
    """Most probable class int64 [penalties, m] of other features [m, d], by the model of each penalty.

    What ``logistic_path`` and ``predict`` would say, at the cost of products in r <= n dimensions instead of d.
    """
    with _threads(features, int(labels.max()) + 1):
        fit = _Fit.of(features, labels)
        seen = others @ fit.basis
        found = [seen @ c[:-1] + c[-1] for c in (c.astype(seen.dtype) for c in fit.along(penalties, tolerance))]
        return np.stack([fit.present[logits.argmax(axis=1)] for logits in found])


def _threads(features: np.ndarray, n_classes: int) -> AbstractContextManager[object]:
    """One thread while products are small."""
    n, d = features.shape
    limited: AbstractContextManager[object] = _libraries().limit(
        limits=1 if n * min(n, d) * n_classes < SMALL else None
    )
    return limited


@cache  # it takes milliseconds to find the loaded libraries
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def _row_space(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal basis [d, r] of the row space, largest singular value first, and the coordinates in it [n, r]."""
    n, d = features.shape
    wide = features.astype(np.float64, copy=False)
    values, vectors = np.linalg.eigh(wide @ wide.T if n < d else wide.T @ wide)
    keep = np.flatnonzero(values > RANK * max(values[-1], np.finfo(np.float64).tiny))[::-1]
    basis = vectors[:, keep]
    if n < d:
        singular = np.sqrt(values[keep])
        coordinates, basis = basis * singular, wide.T @ (basis / singular)
    else:
        coordinates = wide @ basis
    return basis.astype(features.dtype, copy=False), coordinates.astype(features.dtype, copy=False)


@dataclass(frozen=True)
class _Fit:
    """A path of solutions in the basis [d, r] of the features' row space."""

    present: np.ndarray  # class numbers that occur, ascending
    basis: np.ndarray
    problem: _Problem

    @classmethod
    def of(cls, features: np.ndarray, labels: np.ndarray) -> _Fit:
        """Nothing is fitted yet."""
        present, compact = np.unique(labels, return_inverse=True)
        basis, coordinates = _row_space(features)
        return cls(present, basis, _Problem(coordinates, compact, len(present)))

    def along(self, penalties: Sequence[float], tolerance: float) -> Iterator[np.ndarray]:
        """Coefficients [r + 1, classes present] of each penalty; a single class needs no weights."""
        path, reached = _Path(self.problem), STRONG
        for penalty in penalties:
            if len(self.present) == 1:
                yield self.problem.start()
                continue
            while reached > 10.001 * penalty:  # in steps of ten, or the curvature at the start misleads
                reached /= 10
                path.to(reached, max(tolerance, ROUGH))
            reached = penalty
            yield path.to(penalty, tolerance)


@dataclass(frozen=True)
class _Point:
    """The objective at some coefficients [r + 1, C]."""

    coefficients: np.ndarray
    value: float
    gradient: np.ndarray  # [r + 1, C]
    residual: np.ndarray  # [n, C] probabilities minus labels


class _Problem:
    """The objective in coordinates [r + 1, C]; the last row is the bias, which is not penalized."""

    def __init__(self, x: np.ndarray, labels: np.ndarray, n_classes: int) -> None:
        self.x, self.n_classes = x, n_classes  # x [n, r] with orthogonal columns
        self.own = np.arange(len(x)), labels
        self.spread = np.square(x, dtype=np.float64).mean(axis=0)[:, None]  # s_j^2 / n

    def start(self) -> np.ndarray:
        """Zero weights and the log of the class shares."""
        coefficients = np.zeros((self.x.shape[1] + 1, self.n_classes))
        coefficients[-1] = np.log(np.bincount(self.own[1], minlength=self.n_classes) / len(self.x))
        return coefficients

    def at(self, coefficients: np.ndarray, penalty: float) -> _Point:
        """Objective and gradient."""
        cast = coefficients.astype(self.x.dtype, copy=False)
        logits = self.x @ cast[:-1] + cast[-1]
        logits -= logits.max(axis=1, keepdims=True)
        chosen = logits[self.own]
        odds = np.exp(logits, out=logits)
        total = odds.sum(axis=1, keepdims=True)
        loss = (np.log(total[:, 0]) - chosen).mean(dtype=np.float64)
        residual = np.divide(odds, total, out=odds)
        residual[self.own] -= 1
        gradient = np.vstack([self.x.T @ residual, residual.sum(axis=0)], dtype=np.float64) / len(self.x)
        gradient[:-1] += penalty * coefficients[:-1]
        norm = np.vdot(coefficients[:-1], coefficients[:-1])
        return _Point(coefficients, float(loss + penalty / 2 * norm), gradient, residual)

    def inverse_curvature(self, point: _Point, penalty: float) -> np.ndarray:
        """One over the diagonal curvature [r + 1, C]."""
        off = np.abs(point.residual)  # p or 1 - p
        curvature = np.maximum((off * (1 - off)).mean(axis=0, dtype=np.float64), 1e-4)
        return np.asarray(1 / np.vstack([self.spread * curvature + penalty, curvature]))


class _Path:
    """Solutions from penalty to penalty."""

    def __init__(self, problem: _Problem) -> None:
        self._problem, self._solution = problem, problem.start()
        self._penalty = 0.0  # of the solution; 0: none yet
        self._slope = np.zeros(1)  # change of the solution with the logarithm of the penalty
        self._known = _Curvature(problem.x.dtype)

    def to(self, penalty: float, tolerance: float) -> np.ndarray:
        """The coefficients at the next penalty."""
        step = float(np.log(penalty / self._penalty)) if self._penalty else 0.0
        self._known.shift(penalty - self._penalty, self._problem.n_classes)
        found = self._solve(penalty, self._solution + step * self._slope, tolerance)
        if step:
            self._slope = (found - self._solution) / step
        self._penalty, self._solution = penalty, found
        return found

    def _solve(self, penalty: float, start: np.ndarray, tolerance: float) -> np.ndarray:
        point = self._problem.at(start, penalty)
        inverse = self._problem.inverse_curvature(point, penalty)
        scale, lowest, idle = np.sqrt(inverse), np.inf, 0
        for _ in range(STEPS):
            idle = 0 if point.value < lowest else idle + 1
            lowest = min(lowest, point.value)
            if np.abs(point.gradient * scale).max() <= tolerance or idle > PATIENCE:
                break
            following = self._descend(point, penalty, self._known.newton(point.gradient, inverse))
            if following is None:
                break
            self._known.learn(following.coefficients - point.coefficients, following.gradient - point.gradient)
            point = following
        return point.coefficients

    def _descend(self, point: _Point, penalty: float, direction: np.ndarray) -> _Point | None:
        """The point a step away, halved until it descends; None if rounding hides every descent."""
        slope, length = np.vdot(point.gradient, direction), 1.0
        rounding = np.finfo(self._problem.x.dtype).eps * abs(point.value)
        while length >= SHORTEST:
            found = self._problem.at(point.coefficients + length * direction, penalty)
            if found.value <= point.value + DESCENT * length * slope + rounding:
                return found
            length /= 2
        return None


class _Step(NamedTuple):
    """A step that was made, flat."""

    step: np.ndarray  # change of the coefficients
    change: np.ndarray  # of the gradient
    product: float  # of the two, > 0


class _Curvature:
    """What the last steps told of the curvature, from which L-BFGS makes its next one."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._steps: deque[_Step] = deque(maxlen=MEMORY)
        self._dtype = dtype
        self._add = get_blas_funcs("axpy", dtype=dtype)  # y += a x in place

    def learn(self, step: np.ndarray, change: np.ndarray) -> None:
        """Keeps a step if the gradient rose along it, as it must but for rounding."""
        step, change = (side.astype(self._dtype, copy=False).ravel() for side in (step, change))
        product = float(step @ change)
        if product > RANK * float(np.linalg.norm(step) * np.linalg.norm(change)):
            self._steps.append(_Step(step, change, product))

    def shift(self, penalty: float, n_biases: int) -> None:
        """The penalty has risen by so much; it is not on the last coefficients."""
        steps = list(self._steps)
        self._steps.clear()
        for step, change, _ in steps:
            change[:-n_biases] += penalty * step[:-n_biases]
            self.learn(step, change)

    def newton(self, gradient: np.ndarray, inverse: np.ndarray) -> np.ndarray:
        """Minus the gradient by the curvature: that of the steps, elsewhere the diagonal one, in their scale."""
        rest, inverse, shares = -gradient.astype(self._dtype).ravel(), inverse.ravel(), []
        for step, change, product in reversed(self._steps):
            shares.append(float(step @ rest) / product)
            self._add(change, rest, a=-shares[-1])
        if self._steps:
            _, change, product = self._steps[-1]
            rest *= product / float(change @ (inverse * change))
        rest *= inverse
        for (step, change, product), share in zip(self._steps, reversed(shares), strict=True):
            self._add(step, rest, a=share - float(change @ rest) / product)
        return rest.reshape(gradient.shape)
