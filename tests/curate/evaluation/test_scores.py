"""Macro F1 and calibration error against scikit-learn and sums written out."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score

from curate.evaluation._intervals import Measured, Resamples
from curate.evaluation._scores import BINS, balanced_accuracy, calibrated_error, calibration_error, centered, macro_f1


def whole(metric, m):
    return float(metric(np.ones((1, m)))[0])


def calibrated(m, seed, n_classes=4):
    """Probabilities and labels drawn from them."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(n_classes, 0.5), size=m)
    drawn = (rng.random((m, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    return probabilities, drawn.clip(0, n_classes - 1)


@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(1, 6))
def test_macro_f1_is_that_of_scikit_learn(seed, m, n_classes):
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(n_classes, size=(2, m))
    wanted = f1_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0)
    assert whole(macro_f1(predicted, labels), m) == pytest.approx(wanted)


def test_macro_f1_of_a_resample_is_that_of_the_repeated_images():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(4, size=(2, 15))
    metric = macro_f1(predicted, labels)
    for weights in next(iter(Resamples(units=np.arange(15), n_train=1)))[:50]:
        rows = np.repeat(np.arange(15), weights.astype(int))
        there = np.unique(labels[rows])
        wanted = f1_score(labels[rows], predicted[rows], labels=there, average="macro", zero_division=0)
        assert metric(weights[None])[0] == pytest.approx(wanted)


@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(2, 6))
def test_balanced_accuracy_is_that_of_scikit_learn(seed, m, n_classes):
    rng = np.random.default_rng(seed)
    labels = np.append(rng.integers(n_classes, size=m), [0, 1])
    predicted = rng.choice(labels, size=m + 2)  # scikit-learn warns of classes that are only predicted
    wanted = balanced_accuracy_score(labels, predicted)
    assert whole(balanced_accuracy(predicted == labels, labels), m + 2) == pytest.approx(wanted)


def test_balanced_accuracy_of_a_resample_is_that_of_the_repeated_images():
    rng = np.random.default_rng(0)
    labels, correct = rng.integers(3, size=20), rng.random(20) < 0.6
    metric = balanced_accuracy(correct, labels)
    for weights in next(iter(Resamples(units=np.arange(20), n_train=1)))[:50]:
        rows = np.repeat(np.arange(20), weights.astype(int))
        recalls = [correct[rows][labels[rows] == c].mean() for c in np.unique(labels[rows])]
        assert metric(weights[None])[0] == pytest.approx(np.mean(recalls))


LABELS = np.arange(20_000) % 1_000


@pytest.mark.parametrize(("of", "said"), [(balanced_accuracy, LABELS >= 0), (macro_f1, LABELS)])
def test_a_thousand_classes_are_no_matrix_of_them(of, said):
    """A dense one of 20,000 images would take 160 MB."""
    tracemalloc.start()
    found = whole(of(said, LABELS), len(LABELS))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == 1
    assert peak < 10e6


def test_macro_f1_of_one_class():
    assert whole(macro_f1(np.array([2, 2, 2]), np.array([2, 2, 2])), 3) == 1
    assert whole(macro_f1(np.array([0, 1, 0]), np.array([2, 2, 2])), 3) == 0


def written_out(probabilities, labels):
    """Expected calibration error as Guo et al. write it, bin by bin."""
    said, total = probabilities.argmax(axis=1), 0.0
    for b in range(BINS):
        inside = [i for i, p in enumerate(probabilities.max(axis=1)) if b / BINS < p <= (b + 1) / BINS]
        if inside:
            right = sum(said[i] == labels[i] for i in inside) / len(inside)
            sure = sum(probabilities[i].max() for i in inside) / len(inside)
            total += len(inside) / len(labels) * abs(right - sure)
    return total


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 6))
def test_calibration_error_bin_by_bin(seed, m, n_classes):
    probabilities, labels = calibrated(m, seed, n_classes)
    metric = calibration_error(probabilities, labels)
    assert whole(metric, m) == pytest.approx(written_out(probabilities, labels))


def test_calibration_error_of_a_resample_is_that_of_the_repeated_images():
    probabilities, labels = calibrated(20, seed=1)
    metric = calibration_error(probabilities, labels)
    for weights in next(iter(Resamples(units=np.arange(20), n_train=1)))[:50]:
        rows = np.repeat(np.arange(20), weights.astype(int))
        assert metric(weights[None])[0] == pytest.approx(written_out(probabilities[rows], labels[rows]))


def test_sure_and_wrong_is_the_worst_and_sure_and_right_the_best():
    sure = np.eye(3)[[0, 1, 2, 0]]
    assert whole(calibration_error(sure, np.array([1, 2, 0, 1])), 4) == 1
    assert whole(calibration_error(sure, np.array([0, 1, 2, 0])), 4) == 0
    assert calibrated_error(sure) == 0


def test_what_a_calibrated_classifier_reads():
    """The null is the mean reading when labels are drawn from the probabilities."""
    probabilities, _ = calibrated(400, seed=2)
    confidence = probabilities.max(axis=1)
    rng = np.random.default_rng(0)
    wrong = rng.random((2_000, 400)) > confidence
    said = probabilities.argmax(axis=1)
    read = [whole(calibration_error(probabilities, (said + w) % 4), 400) for w in wrong]
    assert calibrated_error(probabilities) == pytest.approx(np.mean(read), rel=0.05)


def test_the_interval_covers_the_mean_reading():
    read, covered = [], 0
    drawn = [calibrated(150, seed) for seed in range(300)]
    overconfident = [(np.asarray(p**2 / (p**2).sum(axis=1, keepdims=True)), labels) for p, labels in drawn]
    read = [whole(calibration_error(*case), 150) for case in overconfident]
    for seed, case in enumerate(overconfident[:100]):
        resamples = Resamples(units=np.arange(150), n_train=1, seed=seed)
        measured = centered(resamples.measure({"ece": calibration_error(*case)})["ece"])
        estimate = resamples.estimate(measured, "calibration error", is_share=False, lower_is_better=True)
        assert estimate.low <= estimate.value <= estimate.high
        covered += estimate.low <= np.mean(read) <= estimate.high
    assert 88 <= covered <= 99


def test_centered_draws_are_never_negative():
    moved = centered(Measured(value=0.1, draws=np.array([0.1, 0.3, 0.8])))
    assert moved.value == 0.1
    assert moved.draws == pytest.approx([0, 0, 0.5])
