"""The k-NN probe against scikit-learn's weighted vote."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from curate.evaluation._knn import NEIGHBORS, TEMPERATURES, knn_probe, vote
from curate.evaluation._split import hold_out


def sample(n, d=16, n_classes=4, spread=1.5, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_classes, size=n)
    centers = np.random.default_rng(99).standard_normal((n_classes, d))
    return (centers[labels] + spread * rng.standard_normal((n, d))).astype(np.float32), labels


def scikit_learn(train, labels, k, temperature):
    """Weighted vote by cosine; the weights are shifted, which changes no vote."""
    model = KNeighborsClassifier(
        n_neighbors=k, metric="cosine", algorithm="brute", weights=lambda d: np.exp(-d / temperature)
    )
    return model.fit(train.astype(np.float64), labels)


def test_choice_and_predictions_equal_scikit_learn():
    (train, labels), (test, _) = sample(130), sample(60, seed=1)
    held_out = hold_out(np.arange(130))
    probe = knn_probe(train, labels, test, held_out)
    right = {}
    for k in (k for k in NEIGHBORS if k <= min(len(fit) for fit, _ in held_out)):
        for t in TEMPERATURES:
            right[k, t] = sum(
                (scikit_learn(train[fit], labels[fit], k, t).predict(train[held]) == labels[held]).sum()
                for fit, held in held_out
            )
    best = max(right, key=lambda setting: right[setting])  # the first of equals, in the order of the grid
    assert (probe.settings["k"], probe.settings["temperature"]) == best
    assert probe.validation == right[best] / 130
    np.testing.assert_array_equal(probe.predicted, scikit_learn(train, labels, *best).predict(test))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_scores_by_hand(temperature):
    cosines = np.array([[0.9, 0.5, 0.4], [0.1, 0.1, -0.2]])
    labels = np.array([[2, 0, 0], [1, 0, 1]])
    scores = vote(cosines, labels, temperature, 3)
    plain = np.exp(cosines / temperature)
    wanted = np.array([[plain[0, 1] + plain[0, 2], 0, plain[0, 0]], [plain[1, 1], plain[1, 0] + plain[1, 2], 0]])
    np.testing.assert_allclose(scores / scores.sum(axis=1, keepdims=True), wanted / wanted.sum(axis=1, keepdims=True))


def test_equal_votes_go_to_the_class_that_sorts_first():
    scores = vote(np.array([[0.7, 0.7, 0.3, 0.3]]), np.array([[3, 1, 1, 3]]), 0.1, 4)
    assert scores.argmax(axis=1).tolist() == [1]


def test_a_low_temperature_does_not_overflow():
    scores = vote(np.array([[-1.0, 1.0]]), np.array([[0, 1]]), 1e-4, 2)
    assert np.isfinite(scores).all()
    assert scores[0, 1] == 1


def test_no_k_beyond_the_images():
    train, labels = sample(10)
    probe = knn_probe(train, labels, train, hold_out(np.arange(10)))
    assert probe.settings["k"] <= 8


def test_scale_of_an_image_does_not_matter():
    (train, labels), (test, _) = sample(60), sample(20, seed=1)
    held_out = hold_out(np.arange(60))
    factors = np.random.default_rng(0).uniform(0.5, 2, (60, 1)).astype(np.float32)
    np.testing.assert_array_equal(
        knn_probe(train, labels, test, held_out).predicted,
        knn_probe(factors * train, labels, 3 * test, held_out).predicted,
    )


def test_blank_features_are_survived():
    train, labels = sample(40)
    train[:3] = 0
    predicted = knn_probe(train, labels, np.zeros((2, 16), np.float32), hold_out(np.arange(40))).predicted
    assert predicted[0] == predicted[1]
