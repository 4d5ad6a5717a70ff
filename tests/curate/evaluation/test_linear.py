"""The linear probe: standardization and the choice of its penalty."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from curate.evaluation import _linear
from curate.evaluation._linear import PENALTIES, linear_probe, standardized
from curate.evaluation._split import hold_out


def sample(n, d, n_classes, spread, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_classes, size=n)
    centers = np.random.default_rng(99).standard_normal((n_classes, d))
    return (5 + centers[labels] + spread * rng.standard_normal((n, d))).astype(np.float32), labels


def test_standardized_equals_scikit_learn():
    train, _ = sample(50, 7, 3, 1.0)
    test, _ = sample(20, 7, 3, 1.0, seed=1)
    scaler = StandardScaler().fit(train.astype(np.float64))
    for ours, part in zip(standardized(train, test), (train, test), strict=True):
        np.testing.assert_allclose(ours, scaler.transform(part.astype(np.float64)), atol=1e-9)


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e4])
def test_a_feature_that_is_constant_in_training_is_ignored(constant):
    train, test = np.ones((30, 2)), np.ones((4, 2))
    train[:, 0], test[:, 0] = np.arange(30), 7.0
    train[:, 1], test[:, 1] = constant, [constant, constant + 1, 1e6, -1e6]
    scaled = standardized(train, test)
    assert not scaled[0][:, 1].any()
    assert not scaled[1][:, 1].any()
    assert len(set(scaled[1][:, 0])) == 1


def test_large_features_are_kept_in_float32(monkeypatch):
    monkeypatch.setattr(_linear, "FLOAT64_VALUES", 100)
    train, test = standardized(*(np.random.default_rng(s).standard_normal((60, 5)).astype(np.float16) for s in (0, 1)))
    assert (train.dtype, test.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(train.std(axis=0), 1, rtol=1e-5)


def test_the_chosen_penalty_is_the_best_on_held_out_rows(monkeypatch):
    """Every figure of the grid recomputed with scikit-learn, both to the last digit."""
    monkeypatch.setattr(_linear, "ROUGHLY", 1e-7)
    (train, labels), (test, _) = sample(120, 60, 4, 2.5), sample(40, 60, 4, 2.5, seed=1)
    held_out = hold_out(np.arange(120))
    probe = linear_probe(train, labels, test, held_out)
    scaled = StandardScaler().fit_transform(train.astype(np.float64))
    right = np.zeros(len(PENALTIES))
    for fit, held in held_out:
        for i, penalty in enumerate(PENALTIES):
            model = LogisticRegression(C=1 / (penalty * len(fit)), tol=1e-6, max_iter=5_000)
            right[i] += (model.fit(scaled[fit], labels[fit]).predict(scaled[held]) == labels[held]).sum()
    assert probe.settings["penalty"] == PENALTIES[right.argmax()]
    assert probe.validation == right.max() / 120
    whole = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (probe.settings["penalty"] * 120), max_iter=5_000))
    np.testing.assert_array_equal(probe.predicted, whole.fit(train.astype(np.float64), labels).predict(test))


def test_of_equally_good_penalties_the_strongest_is_taken():
    clear, labels = sample(100, 5, 2, 0.01)
    probe = linear_probe(clear, labels, clear, hold_out(np.arange(100)))
    assert probe.validation == 1
    assert probe.settings["penalty"] == 1.0  # 10 leaves the most frequent class only, all weaker ones do as well


def test_test_images_change_neither_the_choice_nor_each_other():
    (train, labels), (test, _) = sample(80, 30, 3, 2.0), sample(25, 30, 3, 2.0, seed=1)
    held_out = hold_out(np.arange(80))
    whole, first = linear_probe(train, labels, test, held_out), linear_probe(train, labels, test[:5], held_out)
    assert whole.settings == first.settings
    np.testing.assert_array_equal(whole.predicted[:5], first.predicted)
