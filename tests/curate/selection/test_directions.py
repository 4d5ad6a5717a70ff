import numpy as np
import pytest
from candidates_data import make_candidates
from sklearn.decomposition import PCA

from curate.selection._directions import Whitening, project


def squared_distances(x):
    return ((x[:, None].astype(float) - x) ** 2).sum(axis=-1)


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(1)
    return (rng.normal(size=(400, 20)) * np.geomspace(1, 30, 20) + 100).astype(np.float32)


def test_whitening_is_that_of_scikit_learn(sample):
    frame = Whitening.fit(sample)
    expected = PCA(n_components=12, whiten=True, svd_solver="full").fit(sample.astype(float)).transform(sample[:50])
    assert frame.directions == 12  # 400 // 32
    assert np.allclose(squared_distances(frame.apply(sample[:50])), squared_distances(expected), rtol=1e-4, atol=1e-4)


def test_unscaled_directions_keep_the_shape_and_have_variance_1(sample):
    frame = Whitening.fit(sample).unscaled()
    expected = PCA(n_components=12, svd_solver="full").fit(sample.astype(float)).transform(sample)
    expected /= np.sqrt(expected.var(axis=0, ddof=1).sum())
    found = frame.apply(sample)
    assert np.allclose(squared_distances(found[:50]), squared_distances(expected[:50]), rtol=1e-4, atol=1e-5)
    assert found.var(axis=0, ddof=1).sum() == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize(("n", "directions"), [(1, 0), (2, 1), (5, 4), (40, 4), (320, 10), (5000, 64)])
def test_small_pools_get_few_directions(n, directions):
    sample = np.random.default_rng(n).normal(size=(n, 100)).astype(np.float32)
    assert Whitening.fit(sample).directions == Whitening.fit(sample).unscaled().directions == directions


def test_a_direction_without_variance_is_left_out():
    sample = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    sample[:, 2:] = 5
    for frame in (Whitening.fit(sample), Whitening.fit(sample).unscaled()):
        assert frame.directions == 2
        assert np.isfinite(frame.apply(sample * 2)).all()


def test_candidates_are_projected_in_their_order(monkeypatch):
    monkeypatch.setattr("curate.selection._directions.BLOCK_ROWS", 7)
    rng = np.random.default_rng(0)
    told = []
    candidates = make_candidates(
        rng.normal(size=(5, 8)), {"a": rng.normal(size=(40, 8))}, own=True, progress=lambda *what: told.append(what)
    )
    frame = Whitening.fit(candidates.pool_sample)
    assert np.allclose(project(candidates, frame), frame.apply(candidates.vectors(np.arange(45))), atol=1e-6)
    assert told[-1] == ("project", 45, 45)
