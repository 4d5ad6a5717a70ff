"""Means over a few random draws and over test images: weights, intervals and their coverage."""

from __future__ import annotations

import numpy as np
import pytest

from curate.evaluation._intervals import DRAWS, Resamples
from curate.evaluation.examinations._over_draws import draw_weights, over_draws


def test_weights_of_draws():
    weights = draw_weights(3, seed=0)
    assert weights.shape == (DRAWS, 3)
    assert weights.sum(axis=1) == pytest.approx(1)
    assert weights.mean(axis=0) == pytest.approx(1 / 3, abs=0.02)
    spread = (weights @ np.array([1.0, 2.0, 6.0])).var()
    assert spread == pytest.approx(np.var([1, 2, 6], ddof=1) / 3, rel=0.1)
    assert (draw_weights(1, seed=0) == 1).all()


def test_one_draw_is_drawn_over_images_alone():
    correct = np.arange(100)[None] % 4 > 0
    measured = over_draws(correct, Resamples(units=np.arange(100), n_train=10))
    assert measured.value == 0.75
    assert measured.draws.std() == pytest.approx(np.sqrt(0.75 * 0.25 / 100), rel=0.05)


def test_draws_of_an_accuracy_are_accuracies():
    """Of two draws, one right and one wrong everywhere, the weights go from -.2 to 1.2."""
    correct = np.repeat([[True], [False]], 50, axis=1)
    assert draw_weights(2, seed=0).min() < 0
    draws = over_draws(correct, Resamples(units=np.arange(50), n_train=10)).draws
    assert (draws.min(), draws.max()) == (0, 1)


def test_the_interval_covers_images_and_draws():
    """Each draw has an accuracy of its own about .7; each image is right with it."""
    rng, covered = np.random.default_rng(0), 0
    for seed in range(100):
        rates = 0.7 + 0.05 * rng.standard_normal(5)
        correct = rng.random((5, 150)) < rates[:, None]
        drawn = Resamples(units=np.arange(150), n_train=10, seed=seed)
        estimate = drawn.estimate(over_draws(correct, drawn), "accuracy")
        covered += estimate.low <= 0.7 <= estimate.high
    assert 87 <= covered <= 99
