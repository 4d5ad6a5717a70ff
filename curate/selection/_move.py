"""move: the images that draw a starting model's own distribution toward the target; for continued pretraining.

Pretraining that goes on from a model mixes what it was trained on, A, with a little of what is chosen now. To first
order the distance of the mixture to the target T changes by the derivative of the distance in the mass at each image,

    S((1 - h) A + h x, T) = S(A, T) + h (u(x) - mean_A u) + O(h^2),    u = f_AT - f_AA,    score(x) = u(x) - mean_A u

with S the debiased Sinkhorn divergence of ``curate.distances.sinkhorn`` and f the dual potentials of its terms, which a
soft minimum of the costs carries to any image. The N lowest scores are taken: near to the target, and far from where A
has its mass; of two images as near to the target the one that A lacks more. Where the score is above 0 an image moves A
away from the target; ``parameters`` tell how many of the chosen do.

A is ``candidates.start``, a store of what the starting model was trained on (or a sample of it); without one the pools
stand in, at their sizes. Transport runs in the 16 leading principal directions of the pools, between at most 2,000
images of each side; target images count by their weight.

It is a first step, for a selection that is a small part of what the model sees: images beyond the target draw A more
than those in it (where T is A + c, the score is -2 c'(x - mean A)). Emoji as the target, eight pools as A, 457 images
chosen: S falls from 83 to 79, 66, 45 where they are 2, 10, 30% of the mixture (herding: 80, 71, 50), but is 92 for the
chosen alone (herding: 10, random: 90). To train on the chosen alone, take another method.

Cost: one pass over the vectors, 4,000 n k products and exponentials; two transports of at most 2,000 x 2,000 before.
The choice is nested and draws nothing.

Deviations: potentials are debiased (f_AT alone favors the middle of T, as an entropic plan shrinks); the image need not
be one of A; no rescaling of costs by class. Like the source it takes the lowest scores without regard to one another,
so a mode of the target that the pools are rich in may fill the budget: for coverage take near-first.

Source: Kang et al., Get more for less: principled data selection for warming up fine-tuning in LLMs (ICLR 2024), GOT-D;
Just et al., LAVA (ICLR 2023) for the calibrated gradient; Feydy et al. (AISTATS 2019) for S and its potentials.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from curate.distances._drawn_points import MAX_ROWS, draw
from curate.distances._kernels import squared_distances
from curate.distances._sinkhorn import DIRECTIONS, EPSILON
from curate.distances._transport import TOLERANCE, Points, Potentials, soft_minimum, transport
from curate.selection._candidates import BLOCK_ROWS, Candidates, Choice
from curate.selection._directions import Whitening
from curate.selection._ledger import Ledger

DECIMALS = 6


def choose(candidates: Candidates, ledger: Ledger, *, seed: int) -> Choice:
    """Takes the lowest scores. Score = derivative of S, squared embedding units: lower = moves more."""
    del seed
    frame = _unwhitened(Whitening.of_pools(candidates))
    start, target = _start(candidates, frame), _target(candidates, frame)
    gradient = Gradient.fit(start, target)
    scores = _scores(candidates, frame, gradient)
    rows = ledger.walk(np.argsort(scores, kind="stable"))
    parameters: dict[str, Any] = {
        "start": "pools" if candidates.start is None else "given",
        "start_images": len(start.rows),
        "target_images": len(target.rows),
        "directions": frame.directions,
        "converged": gradient.converged,
        "moving_away": int((scores[rows] > 0).sum()),
    }
    return Choice(rows=rows, scores=scores[rows], reasons=[_reason(s) for s in scores[rows]], parameters=parameters)


@dataclass(frozen=True, eq=False)
class Gradient:
    """Derivative of S(start, target) when mass moves from the start, evenly, to one point."""

    start: Points
    target: Points
    epsilon: float
    across: Potentials  # from start to target
    own: Potentials  # of the start with itself
    offset: float  # the mean over the start

    @classmethod
    def fit(cls, start: Points, target: Points) -> Gradient:
        """Solves both transports; entropy as a share of the median cost between the two, as ``sinkhorn`` has it."""
        costs = _cost(start, target)
        apart = costs[costs > 0]
        epsilon = EPSILON * float(np.median(apart)) if len(apart) else 1.0
        across, own = transport(_cost, start, target, epsilon), transport(_cost, start, start, epsilon)
        free = cls(start, target, epsilon, across, own, 0.0)
        return cls(start, target, epsilon, across, own, float(start.weights @ free(start.rows)))

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Derivatives [n] at points [n, k]."""
        toward = self._extended(points, self.target, self.across.g)
        away = self._extended(points, self.start, self.own.g)
        return np.asarray(toward - away - self.offset)

    @property
    def converged(self) -> bool:
        """True if both plans move what they should."""
        return max(self.across.error, self.own.error) <= TOLERANCE

    def _extended(self, points: np.ndarray, other: Points, potential: np.ndarray) -> np.ndarray:
        return soft_minimum(squared_distances(points, other.rows), potential, other.weights, self.epsilon)


def _cost(a: Points, b: Points) -> np.ndarray:
    return squared_distances(a.rows, b.rows)


def _unwhitened(frame: Whitening) -> Whitening:
    """The leading directions of a frame in the embedding's own units."""
    axes = frame.axes[:, -DIRECTIONS:]  # they ascend
    lengths = np.linalg.norm(axes, axis=0)
    return Whitening(mean=frame.mean, axes=axes / np.where(lengths > 0, lengths, 1.0))


def _start(candidates: Candidates, frame: Whitening) -> Points:
    """What the starting model was trained on; at most 2,000 images of it."""
    if candidates.start is not None:
        drawn = np.asarray(draw(candidates.start).vectors(), np.float32)
    else:
        drawn = candidates.pool_sample[_some(len(candidates.pool_sample))]
    return _points(frame.apply(drawn), np.ones(len(drawn)))


def _target(candidates: Candidates, frame: Whitening) -> Points:
    """At most 2,000 target images, by weight."""
    telling = np.flatnonzero(candidates.weights)
    telling = telling[_some(len(telling))]
    return _points(frame.apply(candidates.target_vectors[telling]), candidates.weights[telling])


def _some(n: int) -> np.ndarray:
    """Numbers of at most 2,000 of n rows, a fixed random sample."""
    return np.sort(np.random.default_rng(0).permutation(n)[:MAX_ROWS])


def _points(rows: np.ndarray, weights: np.ndarray) -> Points:
    return Points(rows.astype(np.float64), weights / weights.sum(), np.zeros(len(rows), np.int64))


def _scores(candidates: Candidates, frame: Whitening, gradient: Gradient) -> np.ndarray:
    """Derivative float64 [n] at every candidate, rounded to 1e-6."""
    n, scores = len(candidates), np.empty(len(candidates))
    for first in range(0, n, BLOCK_ROWS):
        rows = np.arange(first, min(first + BLOCK_ROWS, n))
        scores[rows] = gradient(frame.apply(candidates.vectors(rows)).astype(np.float64))
        candidates.progress("transport", int(rows[-1]) + 1, n)
    return scores.round(DECIMALS) + 0.0  # no negative zeros


def _reason(score: float) -> str:
    way = "toward the target" if score < 0 else "not toward the target"
    return f"move: moves the start {way} (derivative {score:,.4g})"
