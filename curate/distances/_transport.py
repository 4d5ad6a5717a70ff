"""Debiased entropic optimal transport between two weighted sets of points, for any cost.

    OT(a, b) = min over plans P of <P, C> + eps KL(P | a x b) = max over f, g of <f, a> + <g, b>
    S(a, b)  = OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2

The best plan is a b exp((f + g - C) / eps). Scaling iterations run on that kernel with the potentials f and g inside:
an iteration is two matrix-vector products, and nothing over- or underflows. An exact log-domain step renews f and g
whenever the factors outside grow large. eps falls from the largest cost by fours, each solution starting the next. The
terms of a set with itself use the symmetric update f <- (f + T f) / 2, which needs some ten iterations.

By the envelope theorem the derivative of S in the weight of a point is f_ab - f_aa: a standard error needs no refit.

Memory: cost and kernel of one term at a time, float64 (2 x 32 MB for 2,000 x 2,000 points), and one temporary.

Source: Feydy et al., Interpolating between optimal transport and MMD using Sinkhorn divergences (AISTATS 2019);
Schmitzer, Stabilized sparse scaling algorithms for entropy regularized transport problems (SISC 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

TOLERANCE = 1e-5  # mass in the wrong place, of 1; the value is off by about eps times its square
MAX_ITERATIONS = 5_000
ANNEALING = 4.0  # eps of one stage over that of the next
STAGE_ITERATIONS = 10
CHECK_EVERY = 10
MAX_LOG_FACTOR = 50.0


@dataclass(frozen=True, eq=False)
class Points:
    """A weighted set."""

    rows: np.ndarray  # [n, k] float64
    weights: np.ndarray  # [n] float64, positive, of sum 1
    classes: np.ndarray  # [n] int64, for costs that know of them

    def equals(self, other: Points) -> bool:
        """True for the same points with the same weights in the same order."""
        fields = ("rows", "weights", "classes")
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in fields)


Cost = Callable[[Points, Points], np.ndarray]  # [n, m] float64, not negative, 0 for a point and itself


@dataclass(frozen=True, eq=False)
class Divergence:
    """S of two sets and its derivatives."""

    value: float
    by_first: np.ndarray  # [n] derivative in the weight of each point of the first set, up to a constant
    by_second: np.ndarray  # [m]
    error: float  # mass in the wrong place, of 1; the largest of the three plans
    iterations: int  # of the slowest of the three

    @property
    def converged(self) -> bool:
        """True if every plan moves what it should."""
        return self.error <= TOLERANCE


def divergence(cost: Cost, a: Points, b: Points, epsilon: float) -> Divergence:
    """Debiased transport from a to b; 0 to the last bit for a set and itself.

    Args:
        cost: Costs between two sets.
        a: The first set.
        b: The second set.
        epsilon: Strength of the entropy in units of the cost, positive.
    """
    first = transport(cost, a, a, epsilon)
    if a.equals(b):
        second = across = first
    else:
        second, across = transport(cost, b, b, epsilon), transport(cost, a, b, epsilon)
    return Divergence(
        value=across.value - first.value / 2 - second.value / 2,
        by_first=across.f - first.f,
        by_second=across.g - second.g,
        error=max(s.error for s in (first, second, across)),
        iterations=max(s.iterations for s in (first, second, across)),
    )


@dataclass(frozen=True, eq=False)
class Potentials:
    """The solution of OT(a, b); f at any other point is the soft minimum of its costs to b (``soft_minimum``)."""

    f: np.ndarray  # [n] derivative of OT in the weight of each point of a, up to a constant
    g: np.ndarray  # [m] of b; equal to f for a set with itself
    value: float
    error: float  # mass in the wrong place, of 1
    iterations: int


def transport(cost: Cost, a: Points, b: Points, epsilon: float) -> Potentials:
    """Entropic transport from a to b, without the terms of either with itself.

    Args:
        cost: Costs between two sets.
        a: The first set.
        b: The second set; the same object as the first for a set with itself.
        epsilon: Strength of the entropy in units of the cost, positive.
    """
    return _Problem(cost(a, b), a.weights, b.weights, own=a is b).solve(epsilon)


def soft_minimum(cost: np.ndarray, g: np.ndarray, b: np.ndarray, eps: float) -> np.ndarray:
    """-eps log sum_j b_j exp((g_j - c_ij) / eps), [n]: the potential of points with costs [n, m] to a set."""
    exponent: np.ndarray = g - cost
    exponent /= eps
    top = exponent.max(axis=1)
    exponent -= top[:, None]
    return np.asarray(-eps * (top + np.log(np.exp(exponent, out=exponent) @ b)))


@dataclass(frozen=True, eq=False)
class _Problem:
    cost: np.ndarray  # [n, m]
    a: np.ndarray  # [n]
    b: np.ndarray  # [m]
    own: bool = False  # a set with itself: cost is symmetric, and f = g

    def solve(self, epsilon: float) -> Potentials:
        f, g, spent, error = np.zeros(len(self.a)), np.zeros(len(self.b)), 0, np.inf
        for eps in _stages(float(self.cost.max()), epsilon):
            end, error = (spent + STAGE_ITERATIONS if eps > epsilon else MAX_ITERATIONS), np.inf
            while spent < end and error > TOLERANCE:
                f, g = self._log_step(f, g, eps)
                u, v, error, used = self._scale(self._kernel(f, g, eps), end - spent)
                f, g, spent = f + eps * np.log(u), g + eps * np.log(v), spent + used
        return Potentials(f, g, float(f @ self.a + g @ self.b), error, spent)

    def _log_step(self, f: np.ndarray, g: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
        """One exact iteration."""
        new = soft_minimum(self.cost, g, self.b, eps)
        if self.own:
            return (f + new) / 2, (f + new) / 2
        return new, soft_minimum(self.cost.T, new, self.a, eps)

    def _kernel(self, f: np.ndarray, g: np.ndarray, eps: float) -> np.ndarray:
        kernel: np.ndarray = f[:, None] - self.cost
        kernel += g
        kernel /= eps
        return np.asarray(np.exp(kernel, out=kernel))

    def _scale(self, kernel: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray, float, int]:
        """Factors u [n], v [m] that mend the kernel's marginals, what they leave wrong, and the steps taken."""
        u, v, error, step = np.ones(len(self.a)), np.ones(len(self.b)), np.inf, 0
        while step < steps:
            step += 1
            if self.own:
                u = v = np.sqrt(u / (kernel @ (self.b * v)))
            else:
                u = 1 / (kernel @ (self.b * v))
                v = 1 / ((self.a * u) @ kernel)
            if step % CHECK_EVERY == 0 or step == steps:
                error = float(self.a @ np.abs(u * (kernel @ (self.b * v)) - 1))
                if error <= TOLERANCE or max(np.abs(np.log(w)).max() for w in (u, v)) > MAX_LOG_FACTOR:
                    break
        return u, v, error, step


def _stages(largest: float, epsilon: float) -> Iterator[float]:
    """From the largest cost down to epsilon."""
    eps = largest
    while eps > epsilon:
        yield eps
        eps /= ANNEALING
    yield epsilon
