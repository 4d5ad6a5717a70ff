"""Label equivalents: how many labels the frozen public encoder needs for an arm's linear accuracy.

The frozen encoder's learning curve is measured on nested subsets of the training labels, several draws of them, in
which every class has about the same share; a monotone fit over the logarithm of the size is inverted at the arm's
accuracy. Labels are whole: the value is rounded down, so that no arm is told to be worth more than was found, and the
interval outward; what they cost is computed from these whole numbers. The penalty is the one chosen on all training
labels (on strong features accuracy hardly depends on it at any size); features are standardized with all training
images, since only labels are counted. The interval draws test units and subsets together, the test units being those
drawn for the arm. Accuracies off the curve are told as "more than" or "fewer than" the labels at its end.

Cross-fitted, every fold has subsets of its own training part, of the same sizes; the labels at the end of the curve are
those of a training part, on average.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import isotonic_regression

from curate.evaluation._intervals import LEVEL, MIN_UNITS, TAILS, Measured, Resamples
from curate.numerals import amount
from curate.results import Estimate

SMALLEST = 10  # labels at the low end of the curve
SIZES = 10  # at most
SUBSETS = 6  # draws of subsets
ROUNDING = 1e-12
SLACK = 1e-6  # labels: what is whole but for its rounding stays what it is

Fit = Callable[[np.ndarray], np.ndarray]  # training rows -> predicted class numbers of the test images [m]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The frozen encoder's accuracy by number of labels."""

    sizes: np.ndarray  # int64 [s], ascending; the last is all training labels
    accuracy: np.ndarray  # [s, SUBSETS]
    draws: np.ndarray  # [DRAWS, s, SUBSETS], the same on every resample of the test images

    @classmethod
    def from_correct(cls, sizes: np.ndarray, correct: np.ndarray, resamples: Resamples) -> Curve:
        """From which test images were right, bool [s, SUBSETS, m]."""
        right = correct.reshape(-1, correct.shape[-1]).astype(np.float64).T
        draws = np.concatenate([w @ right / w.sum(axis=1, keepdims=True) for w in resamples])
        return cls(sizes=sizes, accuracy=correct.mean(axis=2), draws=draws.reshape(-1, *correct.shape[:2]))


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """A training part, and the test images that are told from it."""

    fit: Fit
    labels: np.ndarray  # class numbers int [n] of the training part
    truth: np.ndarray  # class numbers int [m] of these test images
    at: np.ndarray  # int64 [m], their positions among all test images

    def correct(self, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Which of them are right, bool [s, SUBSETS, m]; all labels are fitted once, fewer in nested draws."""
        found = np.empty((len(sizes), SUBSETS, len(self.truth)), bool)
        found[-1] = self.fit(np.arange(len(self.labels))) == self.truth
        for draw in range(SUBSETS):
            order = nested_order(self.labels, rng)
            for i, size in enumerate(sizes[:-1]):
                found[i, draw] = self.fit(np.sort(order[:size])) == self.truth
        return found


def learning_curve(fit: Fit, train_labels: np.ndarray, test_labels: np.ndarray, resamples: Resamples) -> Curve:
    """Measures the curve of one training part and all test images."""
    everywhere = np.arange(len(test_labels))
    lesson = Lesson(fit=fit, labels=train_labels, truth=test_labels, at=everywhere)
    return joint_curve([lesson], curve_sizes(len(train_labels)), resamples)


def joint_curve(lessons: Iterable[Lesson], sizes: np.ndarray, resamples: Resamples) -> Curve:
    """Measures the curve of lessons, one at a time; every test image is told in one of them."""
    rng = np.random.default_rng([resamples.seed, 1])
    correct = np.empty((len(sizes), SUBSETS, len(resamples.units)), bool)
    for lesson in lessons:
        correct[..., lesson.at] = lesson.correct(sizes, rng)
    return Curve.from_correct(sizes, correct, resamples)


def joint_sizes(counts: Sequence[int]) -> np.ndarray:
    """Those of training parts with so many labels: what all of them have, and at the end all labels, on average."""
    return np.append(curve_sizes(min(counts))[:-1], round(float(np.mean(counts))))


def curve_sizes(n_train: int) -> np.ndarray:
    """Numbers of labels from 10 to all, about doubling, at most ten of them."""
    steps = int(np.clip(np.ceil(np.log2(n_train / SMALLEST)) + 1, 2, SIZES))
    return np.unique(np.geomspace(SMALLEST, n_train, steps).round().astype(np.int64))


def nested_order(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows [n] in an order whose every prefix holds about the same share of each class."""
    place = np.empty(len(labels))
    for number in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == number))
        place[rows] = (np.arange(len(rows)) + rng.random()) / len(rows)
    return np.argsort(place, kind="stable")


def labels_needed(sizes: np.ndarray, accuracy: np.ndarray, wanted: float) -> float:
    """The fewest labels at which a monotone fit of the curve reaches an accuracy.

    Args:
        sizes: [s], ascending.
        accuracy: [s].
        wanted: The accuracy to reach.

    Returns:
        A number of labels; 0 below the curve's start, infinity above its end.
    """
    fitted = isotonic_regression(accuracy).x
    if wanted < fitted[0] - ROUNDING:
        return 0.0
    at = int(np.searchsorted(fitted, wanted - ROUNDING))  # the first size that reaches it
    if at == len(sizes):
        return float("inf")
    if at == 0:
        return float(sizes[0])
    share = min(1.0, (wanted - fitted[at - 1]) / (fitted[at] - fitted[at - 1]))  # rounding may make it more
    return float(sizes[at - 1] * (sizes[at] / sizes[at - 1]) ** share)


def label_equivalents(curve: Curve, linear: Measured, resamples: Resamples) -> Estimate:
    """Labels with which the frozen encoder reaches an arm's linear accuracy.

    Args:
        curve: The frozen encoder's curve on the same resamples.
        linear: The arm's accuracy.
        resamples: The test images.

    Returns:
        Estimate in whole labels, the value rounded down and the interval outward. Off the curve there is no value,
        ``reason`` says on which side ("more than 650"), and the interval is open on that side; where it only reaches
        beyond the curve, it is cut there and ``reason`` says so.
    """
    value = labels_needed(curve.sizes, curve.accuracy.mean(axis=1), linear.value)
    first, last = (float(curve.sizes[i]) for i in (0, -1))
    low, high = _interval(curve, linear, resamples) if resamples.n_units >= MIN_UNITS else (last, first)
    facts = {
        **resamples.facts(),
        "unit": "labels of the frozen encoder",
        "method": f"monotone fit of the frozen encoder's curve at {', '.join(map(str, curve.sizes))} labels; "
        "percentile bootstrap over test units and subsets",
    }
    reason = _cut_ends(low < first, high > last, f"{first:,.0f}", f"{last:,.0f}")
    low, high = (float(np.clip(end, first, last)) for end in (low, high))
    low, high = math.floor(low + SLACK), math.ceil(high - SLACK)
    if value > last:
        return Estimate(value=None, low=low, reason=f"more than {last:,.0f}", **facts)
    if value < first:
        return Estimate(value=None, high=high, reason=f"fewer than {first:,.0f}", **facts)
    value = math.floor(value + SLACK)
    if resamples.n_units < MIN_UNITS:
        return Estimate(value=value, **facts)
    return Estimate(value=value, low=low, high=high, level=LEVEL, reason=reason, **facts)


def label_cost(equivalents: Estimate, curve: Curve, price: float) -> Estimate:
    """What these whole labels cost, at a price for each: the same estimate in money."""
    first, last = (amount(curve.sizes[i] * price) for i in (0, -1))
    reason = equivalents.reason
    if equivalents.value is None:
        reason = f"more than {last}" if reason.startswith("more") else f"fewer than {first}"
    elif reason:
        reason = _cut_ends("below" in reason, "above" in reason, first, last)
    value, low, high = (
        None if labels is None else labels * price for labels in (equivalents.value, equivalents.low, equivalents.high)
    )
    unit = f"money, {amount(price)} a label"
    return replace(equivalents, value=value, low=low, high=high, reason=reason, unit=unit)


def _cut_ends(below: bool, above: bool, first: str, last: str) -> str:
    """Where an interval goes on beyond the curve, in words."""
    ends = [f"below {first}"] * below + [f"above {last}"] * above
    return f"the interval goes on {' and '.join(ends)}, the curve's end" if ends else ""


def _interval(curve: Curve, linear: Measured, resamples: Resamples) -> tuple[float, float]:
    """Percentiles of the labels needed; 0 and infinity stand for off the curve."""
    rng = np.random.default_rng([resamples.seed, 2])
    share = rng.multinomial(SUBSETS, np.full(SUBSETS, 1 / SUBSETS), size=len(curve.draws)) / SUBSETS
    accuracy = np.einsum("bsd,bd->bs", curve.draws, share)
    needed = [labels_needed(curve.sizes, a, w) for a, w in zip(accuracy, linear.draws, strict=True)]
    low, high = np.quantile(needed, TAILS, method="inverted_cdf")
    return float(low), float(high)
