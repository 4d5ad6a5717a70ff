"""K-means centers and their neighbors: closed forms, an independent implementation, and what must not matter."""

import numpy as np
import pytest
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from embeddings.clusters import fit_centers, nearest_centers
from embeddings.errors import TooFewImagesError, UsageError
from embeddings.vectors import ShardedVectors


def blobs(n=900, k=6, d=8, seed=0):
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=(k, d)) * 8
    return (middle[np.arange(n) % k] + rng.normal(size=(n, d))).astype(np.float32), middle


def inertia(x, centers):
    return np.square(x - centers[nearest_centers(x, centers, 1)[:, 0]]).sum()


def test_one_center_is_the_mean():
    x, _ = blobs()
    np.testing.assert_allclose(fit_centers(x, 1)[0], x.mean(axis=0, dtype=np.float64), atol=1e-6)


def test_every_distinct_row_is_a_center_if_there_are_no_more():
    x = np.array([[0, 0], [1, 0], [0, 0], [0, 2], [1, 0]], np.float16)
    for k in (3, 4, 50):
        assert sorted(map(tuple, fit_centers(x, k).tolist())) == [(0, 0), (0, 2), (1, 0)]


def test_the_centers_are_a_fixed_point_of_scikit_learn():
    x, _ = blobs(k=9)
    ours = fit_centers(x, 9, seed=3)
    theirs = KMeans(9, init=ours, n_init=1, tol=0, algorithm="lloyd").fit(x)
    np.testing.assert_allclose(ours, theirs.cluster_centers_, atol=1e-4)


def test_inertia_is_that_of_an_independent_implementation():
    x, _ = blobs(n=3_000, k=40, seed=5)
    theirs = [KMeans(60, n_init=1, max_iter=10, random_state=seed).fit(x).inertia_ for seed in range(5)]
    assert inertia(x, fit_centers(x, 60)) < 1.05 * max(theirs)


def test_repeated_rows_weigh_as_often_as_they_come():
    x = np.repeat([[0.0, 0], [1, 0], [9, 9]], [3, 1, 1], axis=0)
    np.testing.assert_allclose(np.sort(fit_centers(x, 2), axis=0), [[0.25, 0], [9, 9]])


def test_the_order_of_the_sample_does_not_matter():
    x, _ = blobs(n=400, k=20)
    np.testing.assert_array_equal(fit_centers(x, 25), fit_centers(np.random.default_rng(0).permutation(x), 25))


def test_nearest_centers_are_those_of_brute_force():
    x, _ = blobs(n=300, d=5)
    centers = fit_centers(x, 11)
    distance = np.square(x[:, None].astype(np.float64) - centers).sum(axis=2).round(6)
    np.testing.assert_array_equal(nearest_centers(x, centers, 4), np.argsort(distance, axis=1, kind="stable")[:, :4])


def test_equally_near_centers_come_by_number():
    centers = np.array([[1.0], [-1.0], [1.0]])
    np.testing.assert_array_equal(nearest_centers(np.zeros((2, 1)), centers, 3), [[0, 1, 2]] * 2)


def test_shards_threads_and_blocks_do_not_matter(monkeypatch):
    x, _ = blobs(n=1_000)
    centers, near = fit_centers(x, 30), nearest_centers(x, fit_centers(x, 30), 3)
    monkeypatch.setattr("embeddings.clusters.BLOCK_ROWS", 77)
    with threadpool_limits(2):
        np.testing.assert_array_equal(fit_centers(x, 30), centers)
        np.testing.assert_array_equal(nearest_centers(ShardedVectors(np.array_split(x, 7)), centers, 3), near)


def test_the_seed_moves_the_start():
    x, _ = blobs(k=40)
    assert not np.array_equal(fit_centers(x, 20, seed=0), fit_centers(x, 20, seed=1))


def test_a_center_that_owns_nothing_stays():
    far = np.array([[0.0], [1e-9], [5.0]])  # the first two are one for distances told apart down to 1e-6
    assert np.isfinite(fit_centers(far, 3)).all()


def test_impossible_wishes_are_refused():
    x, _ = blobs(n=20)
    with pytest.raises(UsageError, match="0 centers of 20 vectors"):
        fit_centers(x, 0)
    with pytest.raises(UsageError, match="2 centers of 0 vectors"):
        fit_centers(x[:0], 2)
    with pytest.raises(UsageError, match="not finite"):
        fit_centers(np.array([[1.0, np.nan], [0, 0]]), 2)
    with pytest.raises(TooFewImagesError):
        nearest_centers(x, x[:3], 4)
