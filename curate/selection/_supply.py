"""How far the near images of the pools last: the supply curve of a selection, and its knee.

A selection is read in the order it was taken, in windows that grow with what was taken before them. For each window of
images two figures say how near it is, and the smaller one counts:

    excess = min(share within reach - 0.4,  (20 - index) / 50)      the first alone for a varied window of share 0.8

An image is within reach if it is as near to the target as nearly all of the target's own images are (``_nearness``).
The index is that of ``curate score`` (100 F / (F + tr S), F the headline distance), of the window alone: a set at 20 or
more is not called near, one at 45 counts as much as one without any image within reach.

Neither figure would do alone. Where a pool hides a few near images among others, the others need not be far as a set
(in a Gaussian pool of 2,000 modes, 60 of them the target's, their index is 3 to 14), but none is within reach. Where a
pool is narrow and lies amid the target, its images are within reach of one target image or another (half of the digits
are, for emoji), but the index is 45. Only where the share is 0.8 or more, and the window at least half as varied as the
target, the index tells of the balance alone: the last images of a pool of the target's own kind are those of its
commonest sorts. (On real data no window at 20 or more had a share above 0.6.) And the distance of all images so far
cannot tell: it rises significantly as soon as the very nearest are taken (for emoji at 2,000 images of 2,900 in nearly
the same style).

The knee is the change point: the N that maximizes the sum of w excess over windows of w images, carried between the
middles of two windows by linear interpolation. Where what may be taken of pools that cannot be told from the target
ends and others follow, an edge is set, nothing is interpolated across it, and the knee is there unless the others are
surely near: its interval lies beyond. A single bad window does not end the supply. The interval is that of the same
point for the lower and the upper limits of both figures. Unless even the upper one lies within what was taken, it is
not settled that near images ran out, and there is no knee. All figures hold for these target images; another sample of
the target would read otherwise, which the intervals include. 0.4, not 1/2, since near images do not run out for all
target images at once: at 1/2 the knee came 4 to 17% early on 6 synthetic pools of known supply.

Source: change point: Page, Biometrika 41 (1954).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import stats

from curate.distances._fold_errors import LEVEL
from curate.distances._frechet import require_images
from curate.results import Estimate
from curate.scoring.verdicts import NEAR
from curate.selection._nearness import Nearness, Sample
from embeddings.moments import FOLDS
from embeddings.progress import Progress, silent

ENOUGH, PLENTY = 0.4, 0.8  # of a window's images within reach: for it to be near, and to need no other proof
VARIED = 0.5  # of the target's variance
INDEX_SCALE = 50.0  # points of the index that weigh as much as a share of 1
FIRST_WINDOW, GROWTH = 64, 1.2
WINDOW_IMAGES, PREFIX_IMAGES = 200, 1000  # measured at most

Vectors = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class Taken:
    """A selection in the order it was taken."""

    vectors: Vectors  # positions [p] in that order -> [p, d]
    folds: np.ndarray  # [N] integers below FOLDS
    own: np.ndarray  # [N] bool: images of the target itself, which are near without a test
    turn: int = 0  # images from the pools after which they come from other pools; 0: they are of all kinds throughout


@dataclass(frozen=True, kw_only=True)
class Point:
    """One window of a selection: its images are number ``start`` to ``stop`` of those taken from the pools."""

    start: int
    stop: int
    n: int  # images taken at its end, the target's own included
    distance: Estimate  # of all pool images up to its end, to the target: headline distance
    index: Estimate  # of the window alone
    share: Estimate  # of the window's images within reach of the target
    variance: float  # of the window, total, over that of the target

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        figures = {name: getattr(self, name).to_json() for name in ("distance", "index", "share")}
        return {"start": self.start, "stop": self.stop, "n": self.n, "variance": self.variance, **figures}


@dataclass(frozen=True, kw_only=True)
class SupplyCurve:
    """What every window of a selection added."""

    points: tuple[Point, ...]
    first: int  # images taken before the first from the pools
    own: int  # images of the target itself among those taken
    target_images: int  # measured against
    turn: int = 0  # edge at which the images begin to come from other pools; 0: none

    @property
    def edges(self) -> list[int]:
        """Pool images taken at the start of the first window and at the end of each."""
        return [0, *(point.stop for point in self.points)]

    def images(self, from_pools: float) -> int:
        """Images taken when so many were taken from the pools."""
        return round(float(np.interp(from_pools, self.edges, [self.first, *(point.n for point in self.points)])))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        facts = {"first": self.first, "own": self.own, "target_images": self.target_images, "turn": self.turn}
        return {**facts, "points": [point.to_json() for point in self.points]}


@dataclass(frozen=True, kw_only=True)
class Knee:
    """Where near images run out, in images taken, the target's own included: the size of the near part."""

    n: int
    low: int  # 95% interval
    high: int
    from_pools: int  # of n; 0: no image of the pools is near

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.n:,} ({self.low:,} to {self.high:,})"


@dataclass(frozen=True, kw_only=True, eq=False)
class Delivery:
    """A pool of which only a sample is at hand."""

    size: int  # images of the whole
    images: np.ndarray  # [FOLDS] candidates of the sample
    near: np.ndarray  # [FOLDS] of them, those taken before the knee


def supply_curve(target: Sample, taken: Taken, *, center: np.ndarray, progress: Progress = silent) -> SupplyCurve:
    """How near to the target a selection is, window by window.

    Args:
        target: At least 20 images. The knee is the same, within its error, for images that the selector saw and for
            others; the distance reads lower for those it saw.
        taken: At least 20 images that are not the target's own.
        center: [d] mean of the pools.
        progress: Told after every window.

    Returns:
        One point per window: 64 images, later a fifth of what was taken before. At most 200 images of a window and
        1,000 of all so far are measured, drawn at random: cost and memory grow with log N.

    Raises:
        TooFewImagesError: too few images on a side, or too few independent groups or different images in the target.
    """
    places = np.flatnonzero(~taken.own)
    require_images(len(target.vectors), "target")
    require_images(len(places), "part of the selection that comes from the pools")
    draws, edges = np.random.default_rng(0).random(len(places)), window_edges(len(places), taken.turn)
    meter = Nearness(target, center)
    points = []
    for start, stop in pairwise(edges):
        window = _drawn(taken, places[start:stop], draws[start:stop], WINDOW_IMAGES)
        so_far = _drawn(taken, places[:stop], draws[:stop], PREFIX_IMAGES)
        n = int(places[stop]) if stop < len(places) else len(taken.own)
        index, share, variance = meter.index(window), meter.share(window), meter.variance(window)
        distance = meter.distance(so_far)
        points.append(
            Point(start=start, stop=stop, n=n, distance=distance, index=index, share=share, variance=variance)
        )
        progress("supply", stop, len(places))
    return SupplyCurve(
        points=tuple(points),
        first=int(places[0]),
        own=int(taken.own.sum()),
        target_images=len(target.vectors),
        turn=taken.turn if taken.turn in edges else 0,
    )


def find_knee(curve: SupplyCurve) -> Knee | None:
    """Where near images ran out; None if it is not settled that they did."""
    excess = np.array([_excess(point) for point in curve.points])
    value, low, high = (change_point(column, curve.edges, curve.turn) for column in excess.T)
    low, high = min(low, value), max(high, value)
    if high >= curve.edges[-1]:
        return None
    if curve.turn and low <= curve.turn <= value:
        value = curve.turn
    return Knee(n=curve.images(value), low=curve.images(low), high=curve.images(high), from_pools=round(value))


def change_point(excess: np.ndarray, edges: Sequence[int], turn: int = 0) -> float:
    """The position up to which the sum of the excess [k], times the windows' sizes, is largest.

    Args:
        excess: Of every window, constant within it but for the last positive and the first negative one, between whose
            middles it falls linearly.
        edges: [k + 1] ascending.
        turn: An edge at which it may fall at once.

    Returns:
        The last edge if the excess never turns negative for good; the first if it is negative from the start.
    """
    sums = np.concatenate([[0.0], np.cumsum(excess * np.diff(edges))])
    last = len(sums) - 1 - int(np.argmax(sums[::-1]))
    if last in (0, len(excess)) or edges[last] == turn:
        return float(edges[last])
    middles = (np.asarray(edges[1:]) + edges[:-1]) / 2
    share = excess[last - 1] / (excess[last - 1] - excess[last])
    return float(middles[last - 1] + share * (middles[last] - middles[last - 1]))


def window_edges(n: int, turn: int = 0) -> list[int]:
    """Edges [k + 1] from 0 to n of windows of 64 images, later of a fifth of what lies before them.

    One edge is at the turn, if there are images enough on both sides of it.
    """
    few = FIRST_WINDOW // 2
    stops = [turn, n] if few <= turn <= n - few else [n]
    edges = [0]
    for stop in stops:
        start = edges[-1]
        while edges[-1] < stop:
            edges.append(min(stop, max(edges[-1] + FIRST_WINDOW, round(edges[-1] * GROWTH))))
        if len(edges) > 2 and edges[-2] > start and edges[-1] - edges[-2] < few:
            del edges[-2]  # a short rest joins the window before it
    return edges


def delivered_supply(knee: Knee, deliveries: Sequence[Delivery]) -> Estimate:
    """Near images of whole deliveries, from the samples that a selection was made of.

        K = sum over pools of size * near / images

    The error joins, in squares, that of the shares (delete-a-fold: images of one group come and go together; at least
    the binomial one, without what the sample holds itself) and that of the knee. It is for this target.

    Args:
        knee: Of the selection from the samples.
        deliveries: One per pool; a pool that is all at hand has its own size.

    Returns:
        Near images from the pools, 95% interval; the target's own come on top.
    """
    value = sum(d.size * float(d.near.sum() / max(d.images.sum(), 1)) for d in deliveries)
    variance = sum(_share_variance(d) * d.size**2 * max(1 - d.images.sum() / d.size, 0.0) for d in deliveries)
    drawn = np.sqrt(variance) * float(stats.t.ppf((1 + LEVEL) / 2, FOLDS - 1))
    per_image = value / max(knee.from_pools, 1)
    below, above = (np.hypot(drawn, per_image * abs(limit - knee.n)) for limit in (knee.low, knee.high))
    return Estimate(
        value=value,
        low=max(value - float(below), 0.0),
        high=value + float(above),
        se=float(np.sqrt(variance)),
        n=(sum(int(d.images.sum()) for d in deliveries), 0),
        unit="images",
        lower_is_closer=False,
        method="share taken before the knee, times the size; delete-a-fold",
    )


def describe(curve: SupplyCurve, knee: Knee | None) -> str:
    """The finding in one or two sentences."""
    last = curve.points[-1]
    if knee is None:
        return f"Near images did not run out within {last.n:,}: {_window_words(last)}."
    if knee.from_pools:
        own = knee.n - knee.from_pools
        made = (f"the target's own {own:,} and " if own else "") + f"{knee.from_pools:,} from the pools"
        return f"Near images run out at about N = {knee}: {made}. {_what_follows(curve, knee)}"
    after = _first_after(curve, 0)
    near = f"the near images are the target's own {curve.own:,}" if curve.own else "there are no near images"
    return f"No pool has images near the target, {near}: {_window_words(after)}."


def _what_follows(curve: SupplyCurve, knee: Knee) -> str:
    if knee.from_pools != curve.turn:
        return f"The first stretch that is not near: {_window_words(_first_after(curve, knee.from_pools))}."
    after = next(point for point in curve.points if point.start == curve.turn)
    return (
        "There what may be taken of pools that cannot be told from the target ends, and what follows is not surely "
        f"near: {_window_words(after)}."
    )


def _first_after(curve: SupplyCurve, from_pools: int) -> Point:
    """The window after a knee, which lies between the middles of the last near window and of this one."""
    after = (point for point in curve.points if point.start + point.stop > 2 * from_pools)
    return next(after, curve.points[-1])


def _window_words(point: Point) -> str:
    share, index, images = point.share.value or 0.0, point.index.value or 0.0, f"{point.start + 1:,} to {point.stop:,}"
    return f"{share:.0%} of pool images {images} in the order taken lie within reach of the target, index {index:.0f}"


def _excess(point: Point) -> tuple[float, float, float]:
    """Value and limits of how much nearer a window is than it must be."""
    share, index = point.share, point.index
    pairs = (share.value, index.value), (share.low, index.high), (share.high, index.low)
    value, low, high = (_excess_of(s or 0.0, i or 0.0, point.variance >= VARIED) for s, i in pairs)
    return value, low, high


def _excess_of(share: float, index: float, varied: bool) -> float:
    by_share, by_index = share - ENOUGH, (NEAR - index) / INDEX_SCALE
    return by_share if varied and share >= PLENTY else min(by_share, by_index)


def _drawn(taken: Taken, places: np.ndarray, draws: np.ndarray, most: int) -> Sample:
    """The images with the lowest draws among some positions, in order."""
    chosen = np.sort(places[np.argsort(draws, kind="stable")[:most]])
    folds = taken.folds[chosen].astype(np.int64)
    if len(np.unique(folds)) < 2:  # one group only: an error for its images one by one is better than none
        folds = np.arange(len(chosen)) % FOLDS
    return Sample(vectors=np.asarray(taken.vectors(chosen), np.float64), folds=folds)


def _share_variance(delivery: Delivery) -> float:
    """Variance of the share of near images of a sample."""
    images, near = delivery.images.astype(float), delivery.near.astype(float)
    n, folds = max(float(images.sum()), 1.0), int(np.count_nonzero(images))
    share = (float(near.sum()) + 1) / (n + 2)  # never 0 or 1: none seen is not none there
    residuals = near - float(near.sum()) / n * images
    by_fold = float((residuals**2).sum()) / n**2 * folds / max(folds - 1, 1)
    return max(share * (1 - share) / n, by_fold)
