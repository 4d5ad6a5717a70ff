"""Logistic regression against scikit-learn's on the same objective."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad
from sklearn.linear_model import LogisticRegression

from curate.evaluation._logistic import _Problem, _row_space, logistic_path, predictions_along


def sample(n, d, n_classes, seed=0):
    """Overlapping classes, every one present, features of unequal scale and some correlation."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % n_classes)
    features = rng.standard_normal((n_classes, d))[labels] + 2 * rng.standard_normal((n, d))
    features[:, 0] = features[:, -1] + 0.01 * features[:, 0]
    return features - features.mean(axis=0), labels


@pytest.mark.parametrize(("n", "d", "n_classes"), [(60, 200, 4), (200, 12, 3), (90, 90, 5), (150, 300, 30)])
@pytest.mark.parametrize("penalty", [1.0, 1e-2])
def test_equals_scikit_learn(n, d, n_classes, penalty):
    features, labels = sample(n, d, n_classes)
    ours = logistic_path(features, labels, n_classes, [penalty], tolerance=1e-10)[0]
    theirs = LogisticRegression(C=1 / (n * penalty), tol=1e-10, max_iter=10_000, solver="newton-cg")
    theirs.fit(features, labels)
    np.testing.assert_allclose(ours.weights, theirs.coef_.T, atol=1e-6)
    shift = ours.bias - theirs.intercept_  # only differences between classes count
    np.testing.assert_allclose(shift, shift[0], atol=1e-6)


def test_two_classes_are_a_softmax_too():
    """scikit-learn has one vector w = W_1 - W_0 for two classes, so |W|^2 = |w|^2 / 2."""
    features, labels = sample(90, 90, 2)
    ours = logistic_path(features, labels, 2, [0.05], tolerance=1e-10)[0]
    theirs = LogisticRegression(C=2 / (90 * 0.05), tol=1e-10, max_iter=10_000, solver="newton-cg")
    theirs.fit(features, labels)
    np.testing.assert_allclose(ours.weights @ [-1, 1], theirs.coef_[0], atol=1e-6)
    np.testing.assert_allclose(ours.bias @ [-1, 1], theirs.intercept_[0], atol=1e-6)


@pytest.mark.parametrize("penalties", [[10.0, 0.1, 3e-3], [1e-3, 1.0, 1e-2, 1e-2]])
def test_a_warm_path_ends_where_a_cold_start_does(penalties):
    features, labels = sample(80, 150, 5)
    path = logistic_path(features, labels, 5, penalties, tolerance=1e-9)
    for penalty, warm in zip(penalties, path, strict=True):
        cold = logistic_path(features, labels, 5, [penalty], tolerance=1e-9)[0]
        np.testing.assert_allclose(warm.weights, cold.weights, atol=1e-6)


def test_the_default_tolerance_predicts_like_a_tight_one():
    features, labels = sample(300, 400, 10)
    fresh = sample(300, 400, 10, seed=1)[0]
    default, tight = (logistic_path(features, labels, 10, [1e-3], **t)[0] for t in ({}, {"tolerance": 1e-8}))
    assert (default.predict(fresh) != tight.predict(fresh)).mean() < 0.02


def test_a_path_of_13_penalties_takes_a_quarter_of_their_evaluations_alone(monkeypatch):
    """Its starts lie on the line through the last solutions, and it keeps what these told of the curvature."""
    features, labels = sample(200, 300, 10)
    penalties = [10 ** (1 - step / 2) for step in range(13)]
    calls, at = [], _Problem.at
    monkeypatch.setattr(_Problem, "at", lambda *given: calls.append(1) or at(*given))
    logistic_path(features, labels, 10, penalties)
    together = len(calls)
    for penalty in penalties:
        logistic_path(features, labels, 10, [penalty])
    assert together < (len(calls) - together) / 4


def test_predictions_along_a_path_are_those_of_its_models():
    features, labels = sample(60, 90, 4)
    labels, fresh = np.array([0, 2, 3, 6])[labels], sample(200, 90, 4, seed=1)[0]
    penalties = [1.0, 1e-2, 1e-4]
    models = logistic_path(features, labels, 8, penalties)
    said = predictions_along(features, labels, penalties, fresh)
    np.testing.assert_array_equal(said, [model.predict(fresh) for model in models])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_where_rounding_hides_every_descent_it_ends(dtype):
    features, labels = sample(60, 30, 3)
    exact, rounded = (
        logistic_path(features.astype(t), labels, 3, [1e-2], tolerance=0.0)[0] for t in (np.float64, dtype)
    )
    np.testing.assert_allclose(rounded.weights, exact.weights, atol=1e-3)


def test_the_gradient_is_the_slope_of_the_objective():
    features, labels = sample(30, 6, 3)
    problem = _Problem(features, labels, 3)
    point = np.random.default_rng(2).standard_normal((7, 3))
    error = check_grad(
        lambda v: problem.at(v.reshape(7, 3), 0.3).value,
        lambda v: problem.at(v.reshape(7, 3), 0.3).gradient.ravel(),
        point.ravel(),
    )
    assert error < 1e-5


def test_the_objective_by_hand():
    """Zero weights: ln C for equal shares, whatever the features."""
    problem = _Problem(np.ones((4, 2)), np.array([0, 1, 0, 1]), 2)
    point = problem.at(np.zeros((3, 2)), penalty=5.0)
    assert point.value == pytest.approx(np.log(2))
    np.testing.assert_allclose(point.gradient, 0, atol=1e-15)


def test_a_class_without_images_is_never_predicted():
    features, labels = sample(40, 8, 3)
    labels = np.array([0, 2, 5])[labels]
    model = logistic_path(features, labels, 7, [1e-3])[0]
    assert model.weights.shape == (8, 7)
    assert set(model.predict(100 * np.random.default_rng(0).standard_normal((200, 8)))) <= {0, 2, 5}


def test_one_class_only():
    model = logistic_path(np.eye(3), np.array([1, 1, 1]), 2, [0.1])[0]
    assert model.predict(np.eye(3)).tolist() == [1, 1, 1]


def test_features_that_say_nothing_give_the_most_frequent_class():
    model = logistic_path(np.zeros((5, 4)), np.array([0, 1, 1, 1, 2]), 3, [0.1])[0]
    assert model.predict(np.zeros((2, 4))).tolist() == [1, 1]
    np.testing.assert_allclose(np.exp(model.bias) / np.exp(model.bias).sum(), [0.2, 0.6, 0.2], atol=1e-4)


def test_float32_predicts_the_same():
    features, labels = sample(200, 300, 6)
    fresh = sample(200, 300, 6, seed=1)[0]
    single, double = (
        logistic_path(features.astype(t), labels, 6, [1e-2])[0].predict(fresh.astype(t))
        for t in (np.float32, np.float64)
    )
    assert (single != double).mean() < 0.01


@pytest.mark.parametrize(("n", "d"), [(10, 40), (40, 10)])
def test_the_row_space_loses_nothing(n, d):
    features = np.random.default_rng(3).standard_normal((n, d))
    basis, coordinates = _row_space(features)
    assert basis.shape == (d, 10)
    np.testing.assert_allclose(basis.T @ basis, np.eye(10), atol=1e-9)
    np.testing.assert_allclose(features @ basis @ basis.T, features, atol=1e-9)
    np.testing.assert_allclose(coordinates, features @ basis, atol=1e-9)
    energy = np.linalg.norm(coordinates, axis=0)
    assert (np.diff(energy) <= 0).all()
