"""How near some images are to target images that no selector saw, from vectors in memory.

Distances are those of the tool without its file formats: the headline distance with folds drawn by position, MMD^2,
coverage; and the Vendi score.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from curate.distances import mmd
from curate.distances._coverage import TargetBalls, coverage_of
from curate.distances._frechet import DIRECTIONS, PER_DIRECTION, Direction, Half, Projected, fitting_parts, refit_half
from curate.distances._refits import Refits
from embeddings.moments import FOLDS
from embeddings.store import EmbeddingStore

FOLD = np.random.default_rng(5).integers(0, FOLDS, 100_000)
VENDI_IMAGES = 457
Figures = dict[str, float]


class Judge:
    """The target images that judge, under one encoder."""

    def __init__(self, target: np.ndarray) -> None:
        self._target, self._k = target, max(1, min(DIRECTIONS, len(target) // PER_DIRECTION))
        self.total_variance = float(target.var(axis=0, ddof=1, dtype=np.float64).sum())
        self._halves = [self._half(fit) for fit in (0, 1)]

    def _half(self, fit: int) -> Half:
        """What ``TargetFrame`` holds of a half, from vectors: a twentieth of the time for so few."""
        fold = FOLD[: len(self._target)]
        parts = fitting_parts([f for f in range(FOLDS) if f % 2 == fit], np.bincount(fold, minlength=FOLDS))
        images = [self._target[np.isin(fold, folds)].astype(np.float64) for _, folds in parts]
        bases = [np.linalg.svd(x - x.mean(axis=0), full_matrices=False)[2][: self._k].T for x in images]
        held = [f for f in range(FOLDS) if f % 2 != fit]
        seen = zip(bases, project(self._target, bases, fold), parts, strict=True)
        return tuple(Direction(basis, found, held, weight) for basis, found, (weight, _) in seen)

    def refits(self, pool: np.ndarray) -> Refits:
        """The headline distance with folds left out."""
        n = np.bincount(fold := FOLD[: len(pool)], minlength=FOLDS)
        folds = np.flatnonzero(n).tolist()
        seen = iter(project(pool, [direction.basis for half in self._halves for direction in half], fold))
        first, second = (refit_half(half, [next(seen) for _ in half], folds) for half in self._halves)
        return Refits((first, second), n[folds], len(self._target), self._k)

    def figures(self, chosen: np.ndarray) -> Figures:
        """Figures of some images [n, d]: MMD^2 of at most 2,000 of them, times 1,000; diversity of 457 of them."""
        store = EmbeddingStore.from_vectors(chosen)
        balls = TargetBalls.of(EmbeddingStore.from_vectors(self._target))
        few = np.random.default_rng(0).permutation(len(chosen))[:VENDI_IMAGES]
        some = chosen[np.random.default_rng(1).permutation(len(chosen))[:2000]]
        return {
            "frechet": self.refits(chosen).estimate().value or 0.0,
            "mmd": 1000 * (mmd(self._target, some).value or 0.0),
            "coverage": coverage_of(balls, store).value or 0.0,
            "vendi": effective_number(chosen[few]),
            "images": len(chosen),
        }


def effective_number(vectors: np.ndarray) -> float:
    """Vendi score of a few images, from their own table of cosines."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    shares = np.linalg.eigvalsh((unit @ unit.T).astype(np.float64) / len(unit))
    return float(np.exp(stats.entropy(np.maximum(shares, 0.0))))


def project(vectors: np.ndarray, bases: list[np.ndarray], fold: np.ndarray) -> list[Projected]:
    """Moments of vectors [n, d] in each of some bases [d, k], fold by fold."""
    x, n = vectors.astype(np.float64), np.bincount(fold, minlength=FOLDS)
    mean, total, found = np.zeros((FOLDS, x.shape[1])), np.zeros(FOLDS), []
    for f in np.flatnonzero(n):
        mean[f] = x[fold == f].mean(axis=0)
        total[f] = ((x[fold == f] - mean[f]) ** 2).sum()
    for basis in bases:
        z, inside, scatter = x @ basis, mean @ basis, np.zeros((FOLDS, basis.shape[1], basis.shape[1]))
        for f in np.flatnonzero(n):
            gap = z[fold == f] - inside[f]
            scatter[f] = gap.T @ gap
        outer = np.maximum(total - np.trace(scatter, axis1=1, axis2=2), 0.0)
        found.append(Projected(n, inside, mean - inside @ basis.T, scatter, outer))
    return found
