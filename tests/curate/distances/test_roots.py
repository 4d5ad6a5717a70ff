import numpy as np
import pytest
from threadpoolctl import threadpool_info

from curate.distances._roots import covariance_root, nuclear_norm, principal_directions, root_trace, spectrum


@pytest.mark.parametrize(("n", "d"), [(5, 12), (40, 12), (12, 12), (2, 3)])
def test_root_spectrum_and_directions_agree_with_the_eigendecomposition(n, d):
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, d)) * np.arange(1, d + 1)
    covariance = np.cov(x.T)
    root = covariance_root(covariance, n)
    values, vectors = np.linalg.eigh(covariance)
    rank = min(n - 1, d)
    assert root.shape == (d, rank)
    np.testing.assert_allclose(root @ root.T, covariance, atol=1e-9)
    np.testing.assert_allclose(spectrum(root), values[-rank:], rtol=1e-7)
    basis = principal_directions(root, 2)
    kept = min(2, rank)
    np.testing.assert_allclose(basis.T @ basis, np.eye(kept), atol=1e-8)
    np.testing.assert_allclose(abs(np.sum(basis * vectors[:, -kept:], axis=0)), 1, atol=1e-8)


@pytest.mark.parametrize("d", [6, 80])
def test_the_trace_term_agrees_with_a_matrix_square_root(d):
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(d, 5 * d)) for _ in "xy")
    a, b = np.cov(x), np.cov(y)
    values = np.linalg.eigvals(a @ b).real
    before = threadpool_info()
    assert root_trace(covariance_root(a, 5 * d), b) == pytest.approx(np.sqrt(values).sum(), rel=1e-10)
    assert threadpool_info() == before  # one thread meanwhile, no longer


def test_a_nuclear_norm_is_that_of_either_side():
    matrix = np.random.default_rng(1).normal(size=(70, 90))
    root = np.sqrt(np.maximum(np.linalg.eigvalsh(matrix @ matrix.T), 0)).sum()
    assert nuclear_norm(matrix) == pytest.approx(root, rel=1e-12)
    assert nuclear_norm(matrix.T) == pytest.approx(root, rel=1e-12)


def test_constant_features_have_an_empty_root():
    zeros = np.zeros((4, 4))
    root = covariance_root(zeros, 10)
    assert root.shape == (4, 0)
    assert root_trace(root, np.eye(4)) == 0.0
    assert len(spectrum(root)) == 0
    assert principal_directions(root, 3).shape == (4, 0)
    one = np.diag([0.0, 2.0, 0.0, 0.0])
    assert spectrum(covariance_root(one, 10)) == pytest.approx([2.0])
