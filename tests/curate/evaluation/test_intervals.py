"""Accuracies against scikit-learn, and intervals that cover."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from curate.evaluation._intervals import DRAWS, Resamples, accuracy
from curate.evaluation._scores import balanced_accuracy


def resamples(m, seed=0, units=None):
    return Resamples(units=np.arange(m) if units is None else units, n_train=100, seed=seed)


def estimated(correct, seed=0, units=None):
    drawn = resamples(len(correct), seed, units)
    return drawn.estimate(drawn.measure({"a": accuracy(correct)})["a"], "accuracy")


@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(1, 6))
def test_values_equal_scikit_learn(seed, m, n_classes):
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_classes, size=m)
    predicted = rng.choice(labels, size=m)  # scikit-learn warns of classes that are only predicted
    correct = predicted == labels
    measured = resamples(m).measure({"plain": accuracy(correct), "balanced": balanced_accuracy(correct, labels)})
    assert measured["plain"].value == pytest.approx(correct.mean())
    if len(set(labels)) > 1:
        assert measured["balanced"].value == pytest.approx(balanced_accuracy_score(labels, predicted))


def test_a_resample_is_what_its_weights_say():
    """Weighted figures equal those of the images repeated as often."""
    rng = np.random.default_rng(0)
    labels, correct = rng.integers(3, size=20), rng.random(20) < 0.6
    plain, balanced = accuracy(correct), balanced_accuracy(correct, labels)
    for weights in next(iter(resamples(20)))[:50]:
        repeated = np.repeat(np.arange(20), weights.astype(int))
        assert len(repeated) == 20
        assert plain(weights[None])[0] == pytest.approx(correct[repeated].mean())
        recalls = [correct[repeated][labels[repeated] == c].mean() for c in np.unique(labels[repeated])]
        assert balanced(weights[None])[0] == pytest.approx(np.mean(recalls))


def test_groups_are_drawn_whole():
    units = np.repeat([4, 9, 11, 30, 31, 40], 3)
    weights = np.concatenate(list(resamples(18, units=units)))
    assert weights.shape == (DRAWS, 18)
    per_group = weights.reshape(DRAWS, 6, 3)
    assert (per_group == per_group[:, :, :1]).all()
    assert (per_group[:, :, 0].sum(axis=1) == 6).all()


def test_dependent_images_widen_the_interval():
    """Ten images of a group that are all right or all wrong are worth one."""
    right = np.random.default_rng(0).random(40) < 0.5
    correct, units = np.repeat(right, 10), np.repeat(np.arange(40), 10)
    grouped, single = estimated(correct, units=units), estimated(correct)
    assert grouped.se / single.se == pytest.approx(np.sqrt(10), rel=0.1)
    assert grouped.value == single.value


def test_the_standard_error_of_a_share():
    correct = np.arange(400) % 4 > 0
    estimate = estimated(correct)
    assert estimate.value == 0.75
    assert estimate.se == pytest.approx(np.sqrt(0.75 * 0.25 / 400), rel=0.05)
    assert estimate.n == (100, 400)
    assert not estimate.lower_is_closer


def test_intervals_cover():
    rng = np.random.default_rng(1)
    covered = sum(e.low <= 0.7 <= e.high for e in (estimated(rng.random(80) < 0.7, seed) for seed in range(200)))
    assert 0.90 <= covered / 200 <= 0.98


def test_paired_differences_cover_and_are_narrower_than_unpaired():
    rng = np.random.default_rng(2)
    covered, narrower = 0, 0
    for seed in range(200):
        difficulty = rng.random(100)
        first, second = difficulty < 0.8, difficulty < 0.7 + 0.1 * rng.standard_normal(100)
        drawn = resamples(100, seed)
        measured = drawn.measure({"a": accuracy(first), "b": accuracy(second)})
        gain = drawn.difference(measured["a"], measured["b"], "accuracy")
        covered += gain.low <= 0.1 <= gain.high
        narrower += gain.se < 0.75 * np.hypot(measured["a"].draws.std(), measured["b"].draws.std())
    assert 0.90 <= covered / 200 <= 0.98
    assert narrower == 200


def test_arms_that_agree_on_all_images_may_differ_on_the_next():
    """Agresti and Min's interval of no discordant unit; of what is no share it stays a point."""
    drawn = resamples(20)
    same = drawn.measure({"a": accuracy(np.arange(20) < 12)})["a"]
    reach = 1.959964 / 22
    gain, cost = (drawn.difference(same, same, "accuracy", is_share=is_share) for is_share in (True, False))
    assert (gain.low, gain.value, gain.high) == pytest.approx((-reach, 0, reach), abs=1e-6)
    assert gain.se == pytest.approx(1 / 22)
    assert (cost.low, cost.high, cost.se) == (0, 0, 0)


@pytest.mark.parametrize(("m", "first", "second"), [(20, 1, 0), (20, 3, 1), (100, 5, 0), (100, 12, 7)])
def test_differences_reach_as_far_as_agresti_and_mins(m, first, second):
    """Against their table of matched pairs: half a unit more on either side, of m + 2 or so."""
    ours, theirs = np.arange(m) < first, (np.arange(m) >= first) & (np.arange(m) < first + second)
    drawn = resamples(m)
    measured = drawn.measure({"a": accuracy(ours), "b": accuracy(theirs)})
    gain = drawn.difference(measured["a"], measured["b"], "accuracy")
    a, b, n = first + 0.5, second + 0.5, m + 2
    reach = 1.959964 * np.sqrt(a + b - (a - b) ** 2 / n) / n
    assert gain.low <= (a - b) / n - 0.9 * reach
    assert gain.high >= (a - b) / n + 0.9 * reach


def test_no_difference_of_shares_reaches_beyond_one():
    drawn = resamples(6)
    measured = drawn.measure({"a": accuracy(np.arange(6) < 5), "b": accuracy(np.arange(6) >= 5)})
    more, less = (drawn.difference(measured[a], measured[b], "accuracy") for a, b in ("ab", "ba"))
    assert (more.high, less.low) == (1.0, -1.0)
    assert -0.05 < more.low < more.value == pytest.approx(2 / 3)
    costs = drawn.measure({"a": lambda w: w.sum(axis=1), "b": lambda w: 0 * w.sum(axis=1)})
    assert drawn.difference(costs["a"], costs["b"], "cost", is_share=False).high == 6


@pytest.mark.parametrize("right", [True, False])
def test_all_right_is_not_certain(right):
    estimate = estimated(np.full(30, right))
    reach = 1 - 0.025 ** (1 / 30)  # Clopper and Pearson's end for 30 of 30
    assert (estimate.low, estimate.high) == pytest.approx((1 - reach, 1.0) if right else (0.0, reach))


def test_too_few_groups_have_no_interval():
    estimate = estimated(np.arange(40) % 2 == 0, units=np.arange(40) % 4)
    assert estimate.value == 0.5
    assert (estimate.low, estimate.high, estimate.se) == (None, None, None)
    assert "4 units" in estimate.method


def test_the_same_seed_draws_the_same_and_another_does_not():
    correct = np.arange(50) % 3 > 0
    assert estimated(correct) == estimated(correct)
    assert estimated(correct) != estimated(correct, seed=1)


def test_every_pass_draws_the_same(monkeypatch):
    """Arms are paired because each of them is measured on the very same resamples, also in many blocks."""
    monkeypatch.setattr("curate.evaluation._intervals.BLOCK", 1_000)
    drawn = resamples(300)
    first, second = (np.concatenate(list(drawn)) for _ in range(2))
    assert first.shape == (DRAWS, 300)
    np.testing.assert_array_equal(first, second)
