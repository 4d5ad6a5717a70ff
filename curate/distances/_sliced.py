"""Sliced Wasserstein distance: mean squared 2-Wasserstein distance of one-dimensional projections.

    SW^2 = mean over unit u of the integral over q in 0..1 of (Q_ux(q) - Q_uy(q))^2,   Q the quantile function

Q is interpolated between the sorted values, the i-th of n standing at (i - 1/2) / n, and the integral is the mean over
as many midpoints as the larger sample has rows (at most 16,384): with equal sizes that is the exact distance of the two
sets. The directions are fixed by the seed and orthonormal in sets of d, so fewer of them cover d dimensions than if
they were independent, and the distance of X and X + c is exactly |c|^2 / d once d of them are used.

The plug-in figure is biased up, since two samples of one distribution never have equal quantiles: by the variance of
either sample's quantile function. Each sample's is half of what it reads against itself. Halves and fifths of it (whole
folds) are measured against each other, and a power law carries the figure to its full size. A delete-a-fold jackknife
would be no substitute: quantiles are not smooth in n, at n = 100 it is off by 2 standard errors. It does give the
standard error, directions held fixed. MIND is 3 d SW^2.

Source: Rabin et al. (2011); Bonneel et al., Sliced and Radon Wasserstein barycenters, JMIV 51 (2015).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from curate.distances._fold_errors import fold_error_of
from curate.distances._kernels import Side, middle
from curate.distances._samples import Vectors, as_vectors
from curate.results import Estimate
from embeddings.errors import TooFewImagesError, UsageError
from embeddings.moments import FOLDS
from embeddings.vectors import blocks

PROJECTIONS = 256
MAX_QUANTILES = 16_384
PROJECTED_BYTES = 128 << 20  # of either side, held at once
SORTED_VALUES = 1 << 18  # of either side, or one direction if that is more
HALF, FIFTH = FOLDS // 2, FOLDS // 5
OWN_PAIRS = {HALF: 4, FIFTH: 6}  # folds in a part: how many pairs of such parts are measured

Part = tuple[int, frozenset[int]]  # side (0 = target, 1 = pool) and folds
Pair = tuple[Part, Part]


def sliced(target: Vectors, pool: Vectors, *, projections: int = PROJECTIONS, seed: int = 0) -> Estimate:
    """Squared sliced 2-Wasserstein distance of a pool and a target, debiased, with its error.

    Args:
        target: Array [n, d] or store; its independent images must fall into at least 2 folds (20 images surely do).
        pool: The same, [m, d], from the same encoder.
        projections: Directions. More of them cost time, not memory.
        seed: Draws the directions; other than 0 also other folds.

    Returns:
        Estimate in squared units of the embedding, per dimension. Lower = closer; 0 = same distribution. Debiased, so
        it may be negative (of a set against itself it is: copies across are not independent images). The 95% interval
        covers 94 to 96% of the time where the distributions differ, 96 to 99% where they do not; heavy tails leave a
        bias of 0.3 standard errors.

    Raises:
        TooFewImagesError: all images of a side in one fold.
        EncoderMismatchError: different encoders.
        UsageError: no projections.
        SourceError: an array that is not finite, not [n, d], or empty.
    """
    ours, theirs = as_vectors(target), as_vectors(pool)
    ours.spec.require_same(theirs.spec, ("target", "pool"))
    x, y = Side.of(ours, seed=seed), Side.of(theirs, seed=seed)
    _check(x, y, projections)
    whole, left_out, own = _plan(x, y)
    pairs = [whole, *left_out[0], *left_out[1], *own[0], *own[1]]
    figures = measure((x, y), pairs, directions(ours.spec.dim, projections, seed))
    plug_in, *refits, ours_apart, theirs_apart = np.split(figures, np.cumsum([1, *map(len, left_out), len(own[0])]))
    sizes = [side.sizes[side.sizes > 0] for side in (x, y)]
    error = fold_error_of(float(plug_in[0]), ((refits[0], sizes[0]), (refits[1], sizes[1])))
    value = float(plug_in[0]) - own_distance(x, own[0], ours_apart) / 2 - own_distance(y, own[1], theirs_apart) / 2
    low, high = error.interval(value)
    return Estimate(
        value=value,
        low=low,
        high=high,
        se=error.se,
        n=(len(y), len(x)),
        unit="squared embedding units per dimension",
        method=f"sliced Wasserstein, squared, {projections} directions, debiased, jackknife over {FOLDS} folds",
        seed=seed,
        null=0.0,
    )


def directions(d: int, count: int, seed: int) -> np.ndarray:
    """Unit directions [d, count] in orthonormal sets of d, the last set cut; float32."""
    rng = np.random.default_rng(seed)
    sets = [min(d, count - start) for start in range(0, count, d)]
    return np.hstack([np.linalg.qr(rng.normal(size=(d, size)))[0] for size in sets]).astype(np.float32)


@dataclass(frozen=True)
class Slices:
    """Some projections of one sample, each sorted."""

    values: np.ndarray  # [b, n] float32, ascending
    folds: np.ndarray  # [b, n] fold of every value

    @classmethod
    def sort(cls, projected: np.ndarray, folds: np.ndarray) -> Slices:
        """Of projections [b, n] of rows in the given folds [n]."""
        order = np.argsort(projected, axis=1)
        return cls(np.take_along_axis(projected, order, axis=1), folds[order])

    def quantiles(self, folds: frozenset[int], count: int) -> np.ndarray:
        """Quantiles [b, count] at (i - 1/2) / count of the rows in some folds, float32."""
        kept = np.isin(np.arange(FOLDS), list(folds))[self.folds]
        return interpolated(self.values[kept].reshape(len(self.values), -1), count)


def interpolated(values: np.ndarray, count: int) -> np.ndarray:
    """Quantiles [b, count] at (i - 1/2) / count of sorted values [b, n], the i-th of which stands at (i - 1/2) / n."""
    n = values.shape[1]
    place = np.clip((np.arange(count) + 0.5) * n / count - 0.5, 0, n - 1)
    left = place.astype(np.int64)
    low, high = values[:, left], values[:, np.minimum(left + 1, n - 1)]
    return np.asarray(low + (place - left).astype(np.float32) * (high - low))


def measure(sides: tuple[Side, Side], pairs: list[Pair], axes: np.ndarray) -> np.ndarray:
    """Squared distance [p] of every pair of parts, averaged over the directions [d, P]."""
    count = min(max(len(side) for side in sides), MAX_QUANTILES)
    parts, total = {part for pair in pairs for part in pair}, np.zeros(len(pairs))
    for slices in _sorted_slices(sides, axes):
        seen = {part: slices[part[0]].quantiles(part[1], count) for part in parts}
        total += [np.square(seen[a] - seen[b]).sum(dtype=np.float64) for a, b in pairs]
    return np.asarray(total / (count * axes.shape[1]))


def own_distance(side: Side, pairs: list[Pair], figures: np.ndarray) -> float:
    """What a sample reads against another sample of its size and distribution.

    Args:
        side: The sample.
        pairs: Pairs of halves and of fifths of it.
        figures: [p] their distances.
    """
    points = {}
    for folds in OWN_PAIRS:
        rows = [i for i, (a, _) in enumerate(pairs) if len(a[1]) == folds]
        size = [2 / sum(1 / _rows(side, part) for part in pairs[i]) for i in rows]
        if rows and figures[rows].mean() > 0:
            points[folds] = np.log([np.mean(size), figures[rows].mean()])
    if not points:
        return 0.0
    at, value = points.get(HALF, points.get(FIFTH, np.zeros(2)))
    slope = -1.0
    if len(points) == 2 and at > points[FIFTH][0]:  # of a handful of rows halves are no larger than fifths
        slope = float(np.clip((value - points[FIFTH][1]) / (at - points[FIFTH][0]), -1.0, 0.0))
    return float(np.exp(value + slope * (np.log(len(side)) - at)))


def _plan(x: Side, y: Side) -> tuple[Pair, tuple[list[Pair], list[Pair]], tuple[list[Pair], list[Pair]]]:
    """Everything against everything; without each fold of the target, of the pool; each side against itself."""
    folds = [frozenset(np.unique(side.folds).tolist()) for side in (x, y)]
    target, pool = (0, folds[0]), (1, folds[1])
    without_target: list[Pair] = [((0, folds[0] - {f}), pool) for f in sorted(folds[0])]
    without_pool: list[Pair] = [(target, (1, folds[1] - {f})) for f in sorted(folds[1])]
    return (target, pool), (without_target, without_pool), (_own_pairs(x, 0), _own_pairs(y, 1))


def _own_pairs(side: Side, number: int) -> list[Pair]:
    """Pairs of disjoint halves and of disjoint fifths of a side that both hold rows."""
    rng = np.random.default_rng(0)
    pairs: list[Pair] = []
    for folds, count in OWN_PAIRS.items():
        orders = [rng.permutation(FOLDS).tolist() for _ in range(count)]
        pairs += [((number, frozenset(o[:folds])), (number, frozenset(o[folds : 2 * folds]))) for o in orders]
    return [pair for pair in pairs if all(_rows(side, part) for part in pair)]


def _rows(side: Side, part: Part) -> int:
    return int(side.sizes[list(part[1])].sum())


def _sorted_slices(sides: tuple[Side, Side], axes: np.ndarray) -> Iterator[tuple[Slices, Slices]]:
    """Both samples along a few directions at a time; every vector is read once per 128 MB of projections."""
    x, y = sides
    center, longest = middle(x, y), max(len(x), len(y))
    step, few = max(1, PROJECTED_BYTES // (4 * longest)), max(1, SORTED_VALUES // longest)
    for start in range(0, axes.shape[1], step):
        seen = [_project(side, axes[:, start : start + step], center) for side in sides]
        for first in range(0, len(seen[0]), few):
            part = slice(first, first + few)
            yield Slices.sort(seen[0][part], x.folds), Slices.sort(seen[1][part], y.folds)


def _project(side: Side, axes: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Centered vectors along some directions, float32 [b, n]."""
    out = np.empty((axes.shape[1], len(side)), np.float32)
    for start, block in blocks(side.vectors, dtype=np.float64):
        out[:, start : start + len(block)] = ((block - center).astype(np.float32) @ axes).T
    return out


def _check(x: Side, y: Side, projections: int) -> None:
    if projections < 1:
        raise UsageError(f"{projections} projections measure nothing; wanted at least 1.", hint="Ask for 256.")
    for name, side in (("target", x), ("pool", y)):
        if (side.sizes > 0).sum() < 2:
            raise TooFewImagesError(
                f"The {name}'s {len(side)} images fall into one fold; a debiased distance needs two.",
                hint="Use more images, or a finer group column (rows of one group and exact copies count as one).",
            )
