"""The shrunken Gaussian against scikit-learn's, and where it has little to go by."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from curate.evaluation.examinations._gaussian import Gaussian


@pytest.mark.parametrize("n", [4, 15, 60, 400])
def test_distances_are_those_of_ledoit_and_wolf(n):
    rng = np.random.default_rng(n)
    mixing = rng.standard_normal((20, 20)) * np.linspace(0.1, 2, 20)
    sample, others = rng.standard_normal((n, 20)) @ mixing + 3, rng.standard_normal((9, 20)) * 2
    wanted = np.sqrt(LedoitWolf().fit(sample).mahalanobis(others))
    np.testing.assert_allclose(Gaussian.of(sample).distances(others), wanted, rtol=1e-8)


@pytest.mark.parametrize("n", [1, 2, 30])
def test_copies_of_one_image_measure_plain_distance(n):
    sample = np.repeat(np.random.default_rng(0).standard_normal((1, 8)).astype(np.float16), n, axis=0)
    others = sample[:1] + np.array([[0.0], [1], [2]]) * np.eye(8)[0]
    np.testing.assert_allclose(Gaussian.of(sample).distances(others), [0, 1, 2], atol=1e-6)


def test_two_images_and_constant_features():
    sample = np.array([[1.0, 5, 0], [3, 5, 0]])
    near, beside, far = Gaussian.of(sample).distances(np.array([[2.0, 5, 0], [2, 6, 0], [2, 9, 0]]))
    assert near < beside < far < np.inf
