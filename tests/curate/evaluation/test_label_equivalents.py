"""Label equivalents on curves whose answer is known."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.evaluation import _label_equivalents
from curate.evaluation._intervals import Measured, Resamples, accuracy
from curate.evaluation._label_equivalents import (
    SUBSETS,
    Curve,
    curve_sizes,
    label_cost,
    label_equivalents,
    labels_needed,
    learning_curve,
    nested_order,
)

SIZES = np.array([10, 20, 40, 80, 160])


def constructed(m=1000, rates=(0.1, 0.2, 0.3, 0.4, 0.5), units=None):
    """A curve whose accuracy at each size is exactly the rate, and the resamples of its test images."""
    drawn = Resamples(units=np.arange(m) if units is None else units, n_train=160)
    correct = np.stack([np.arange(m) < round(rate * m) for rate in rates])
    return Curve.from_correct(SIZES, np.repeat(correct[:, None], SUBSETS, axis=1), drawn), drawn


def arm(drawn, rate, m=1000) -> Measured:
    return drawn.measure({"linear": accuracy(np.arange(m) < round(rate * m))})["linear"]


@pytest.mark.parametrize(
    ("rate", "labels"),
    [(0.1, 10), (0.2, 20), (0.25, 28), (0.37, 64), (0.5, 160)],  # 28.3 = 20 x 2^.5 and 64.98 = 40 x 2^.7, rounded down
)
def test_the_answer_of_a_constructed_curve(rate, labels):
    curve, drawn = constructed()
    estimate = label_equivalents(curve, arm(drawn, rate), drawn)
    assert estimate.value == labels
    assert estimate.low <= estimate.value <= estimate.high
    assert estimate.n == (160, 1000)


def test_an_arm_right_on_the_same_images_has_a_sharp_answer():
    """Test images are drawn for the arm and the curve together; at a size of the curve nothing is left to chance."""
    curve, drawn = constructed()
    estimate = label_equivalents(curve, arm(drawn, 0.3), drawn)
    assert (estimate.low, estimate.high) == pytest.approx((40, 40))


def test_an_arm_right_on_other_images_has_an_interval():
    curve, drawn = constructed()
    other = drawn.measure({"linear": accuracy(np.arange(1000) >= 700)})["linear"]
    estimate = label_equivalents(curve, other, drawn)
    assert estimate.value == pytest.approx(40)
    assert estimate.low < 36
    assert estimate.high > 44


def test_above_the_curve():
    curve, drawn = constructed()
    estimate = label_equivalents(curve, arm(drawn, 0.8), drawn)
    assert (estimate.value, estimate.low, estimate.high) == (None, 160, None)
    assert str(estimate) == "n/a (more than 160)"
    json.dumps(estimate.to_json(), allow_nan=False)


def test_just_above_the_curve_the_interval_still_reaches_into_it():
    curve, drawn = constructed()
    other = drawn.measure({"linear": accuracy(np.arange(1000) >= 495)})["linear"]
    estimate = label_equivalents(curve, other, drawn)
    assert estimate.value is None
    assert estimate.low < 160


def test_below_the_curve():
    curve, drawn = constructed()
    estimate = label_equivalents(curve, arm(drawn, 0.02), drawn)
    assert (estimate.value, estimate.low, estimate.high) == (None, None, 10)
    assert estimate.reason == "fewer than 10"


def test_an_interval_that_leaves_the_curve_is_cut_and_says_so():
    curve, drawn = constructed()
    other = drawn.measure({"linear": accuracy(np.arange(1000) >= 505)})["linear"]
    estimate = label_equivalents(curve, other, drawn)
    assert estimate.high == 160
    assert estimate.reason == "the interval goes on above 160, the curve's end"
    json.dumps(estimate.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("rate", "reason"),
    [(0.3, ""), (0.8, "more than 80"), (0.02, "fewer than 5")],
)
def test_the_cost_of_the_labels(rate, reason):
    curve, drawn = constructed()
    labels = label_equivalents(curve, arm(drawn, rate), drawn)
    cost = label_cost(labels, curve, 0.5)
    assert cost.reason == reason
    assert cost.unit == "money, 0.5 a label"
    for end in ("value", "low", "high"):
        if getattr(labels, end) is None:
            assert getattr(cost, end) is None
        else:
            assert getattr(cost, end) == pytest.approx(getattr(labels, end) / 2)


def test_the_price_is_that_of_the_whole_labels_that_are_told():
    curve, drawn = constructed()
    other = drawn.measure({"linear": accuracy(np.arange(1000) >= 750)})["linear"]
    labels = label_equivalents(curve, other, drawn)
    cost = label_cost(labels, curve, 0.75)
    assert (labels.value, cost.value) == (28, 21.0)  # of 28.28 labels: 21.21
    for end in ("low", "high"):
        assert getattr(labels, end) == int(getattr(labels, end))
        assert getattr(cost, end) == 0.75 * getattr(labels, end)


def test_the_interval_is_rounded_outward(monkeypatch):
    curve, drawn = constructed()
    linear = arm(drawn, 0.25)
    for ends, told in (((21.7, 33.2), (21, 34)), ((22 - 1e-9, 33 + 1e-9), (22, 33)), ((0.0, 33.2), (10, 34))):
        monkeypatch.setattr(_label_equivalents, "_interval", lambda *_, ends=ends: ends)
        estimate = label_equivalents(curve, linear, drawn)
        assert (estimate.low, estimate.high) == told
    monkeypatch.setattr(_label_equivalents, "_interval", lambda *_: (117.9, np.inf))
    assert label_equivalents(curve, arm(drawn, 0.8), drawn).low == 117
    monkeypatch.setattr(_label_equivalents, "_interval", lambda *_: (0.0, 11.2))
    assert label_equivalents(curve, arm(drawn, 0.02), drawn).high == 12


def test_the_cost_of_an_interval_that_leaves_the_curve():
    curve, drawn = constructed()
    other = drawn.measure({"linear": accuracy(np.arange(1000) >= 505)})["linear"]
    cost = label_cost(label_equivalents(curve, other, drawn), curve, 20)
    assert cost.reason == "the interval goes on above 3,200, the curve's end"
    assert cost.high == 3200


def test_too_few_groups_have_no_interval():
    curve, drawn = constructed(units=np.arange(1000) % 3)
    inside, above = (label_equivalents(curve, arm(drawn, rate), drawn) for rate in (0.25, 0.8))
    assert inside.value == 28
    assert (inside.low, inside.high) == (None, None)
    assert (above.low, above.reason) == (160, "more than 160")


def test_a_dip_in_the_curve_is_smoothed_away():
    rates = np.array([0.1, 0.3, 0.2, 0.4, 0.5])
    assert labels_needed(SIZES, rates, 0.25) == pytest.approx(20)  # both middle sizes read .25 in a monotone fit
    assert labels_needed(SIZES, rates, 0.325) == pytest.approx(40 * 2**0.5)


def test_a_plateau_is_reached_where_it_begins():
    assert labels_needed(SIZES, np.array([0.1, 0.3, 0.3, 0.3, 0.5]), 0.3) == 20


@given(st.lists(st.floats(0, 1), min_size=5, max_size=5), st.floats(0, 1), st.floats(0, 1))
def test_more_accuracy_never_needs_fewer_labels(rates, first, second):
    low, high = sorted((first, second))
    assert labels_needed(SIZES, np.array(rates), low) <= labels_needed(SIZES, np.array(rates), high)


@pytest.mark.parametrize(
    ("n", "sizes"), [(10, [10]), (12, [10, 12]), (40, [10, 20, 40]), (640, [10 * 2**i for i in range(7)])]
)
def test_sizes_double_from_ten(n, sizes):
    assert curve_sizes(n).tolist() == sizes


def test_ten_sizes_at_most():
    sizes = curve_sizes(1_000_000)
    assert len(sizes) == 10
    assert (sizes[0], sizes[-1]) == (10, 1_000_000)


@given(st.integers(0, 10_000), st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_every_prefix_holds_the_same_share_of_each_class(seed, counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    order = nested_order(labels, np.random.default_rng(seed))
    assert sorted(order) == list(range(len(labels)))
    for size in range(1, len(labels) + 1):
        held = Counter(labels[order[:size]].tolist())
        for number, count in enumerate(counts):
            assert abs(held[number] - size * count / len(labels)) <= len(counts)


def test_subsets_are_nested_reproducible_and_end_with_all_labels():
    labels, test_labels = np.arange(45) % 3, np.arange(12) % 3
    drawn = Resamples(units=np.arange(12), n_train=45, seed=5)

    def run():
        seen = []

        def fit(rows):
            seen.append(rows)
            return test_labels if len(rows) > 20 else np.zeros(12, int)

        return learning_curve(fit, labels, test_labels, drawn), seen

    (curve, seen), (_, again) = run(), run()
    assert all((a == b).all() for a, b in zip(seen, again, strict=True))
    assert curve.sizes.tolist() == [10, 17, 27, 45]
    assert curve.accuracy.mean(axis=1) == pytest.approx([1 / 3, 1 / 3, 1, 1])
    assert len(seen) == 1 + 3 * SUBSETS
    assert seen[0].tolist() == list(range(45))
    for draw in range(SUBSETS):
        small, middle, large = (set(rows.tolist()) for rows in seen[1 + 3 * draw : 4 + 3 * draw])
        assert small < middle < large


def test_the_interval_covers_the_labels_that_are_needed():
    """Frozen: right with a known rate by size; arm: right with the rate of 28.3 labels, on images of its own."""
    rng = np.random.default_rng(0)
    rates, covered = np.array([0.3, 0.4, 0.5, 0.6, 0.7]), 0
    for seed in range(40):
        drawn = Resamples(units=np.arange(200), n_train=160, seed=seed)
        ease = rng.random(200)[None, None, :]
        noise = 0.2 * rng.standard_normal((5, SUBSETS, 200))
        correct = (ease + noise) < _threshold(rates)[:, None, None]
        curve = Curve.from_correct(SIZES, correct, drawn)
        linear = drawn.measure({"linear": accuracy(rng.random(200) < 0.45)})["linear"]
        estimate = label_equivalents(curve, linear, drawn)
        low, high = estimate.low or 0, estimate.high or np.inf
        covered += low <= 20 * 2**0.5 <= high
    assert covered >= 35


def _threshold(rates):
    """Where a uniform plus normal noise of 0.2 lies below with these rates."""
    rng = np.random.default_rng(1)
    return np.quantile(rng.random(200_000) + 0.2 * rng.standard_normal(200_000), rates)


def test_as_accurate_as_the_frozen_encoder_is_worth_all_labels_however_it_is_rounded():
    sizes, accuracy = np.array([10, 100, 678]), np.array([0.2, 0.5, 0.7137931034482757])
    assert labels_needed(sizes, accuracy, 0.7137931034482758) == 678
