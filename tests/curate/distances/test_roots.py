import numpy as np
import pytest

from curate.distances._roots import covariance_root, principal_directions, root_trace, spectrum


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


def test_the_trace_term_agrees_with_a_matrix_square_root():
    rng = np.random.default_rng(0)
    a, b = (np.cov(rng.normal(size=(d, 30))) for d in (6, 6))
    values = np.linalg.eigvals(a @ b).real
    assert root_trace(covariance_root(a, 30), b) == pytest.approx(np.sqrt(values).sum(), rel=1e-10)


def test_constant_features_have_an_empty_root():
    zeros = np.zeros((4, 4))
    root = covariance_root(zeros, 10)
    assert root.shape == (4, 0)
    assert root_trace(root, np.eye(4)) == 0.0
    assert len(spectrum(root)) == 0
    assert principal_directions(root, 3).shape == (4, 0)
    one = np.diag([0.0, 2.0, 0.0, 0.0])
    assert spectrum(covariance_root(one, 10)) == pytest.approx([2.0])
