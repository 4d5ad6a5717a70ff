import numpy as np
import pytest

from curate.distances import coverage, knn
from curate.distances._coverage import sampled_rows
from embeddings.errors import EncoderMismatchError, SourceError, TooFewImagesError
from embeddings.store import EmbeddingStore


def kth(queries, base, k, own=0):
    distances = np.sqrt(((queries[:, None] - base[None]) ** 2).sum(axis=2))
    return np.sort(distances, axis=1)[:, k - 1 + own]


def test_equals_the_definition():
    rng = np.random.default_rng(0)
    x, y = (EmbeddingStore.from_vectors(rng.normal(size=(n, 3))) for n in (60, 40))
    found, a, b = knn(x, y, k=2), x.vectors(), y.vectors()
    np.testing.assert_allclose(found.of_target, kth(a, b, 2), atol=1e-5)
    np.testing.assert_allclose(found.of_pool, kth(b, a, 2), atol=1e-5)
    spacing = np.median(kth(a, a, 2, own=1))
    assert found.spacing == pytest.approx(spacing, abs=1e-5)
    assert found.to_pool.value == pytest.approx(np.median(kth(a, b, 2)) / spacing, abs=1e-5)
    assert found.to_target.value == pytest.approx(np.median(kth(b, a, 2)) / spacing, abs=1e-5)
    assert found.target_rows.tolist() == list(range(60))
    assert found.pool_rows.tolist() == list(range(40))


@pytest.mark.parametrize(("n", "m", "d"), [(200, 200, 4), (200, 60, 4), (200, 800, 8), (150, 150, 2)])
def test_a_pool_of_the_target_s_distribution_reads_the_null(n, m, d):
    rng = np.random.default_rng(1)
    found = [knn(rng.normal(size=(n, d)), rng.normal(size=(m, d))) for _ in range(12)]
    for name in ("to_pool", "to_target"):
        estimates = [getattr(f, name) for f in found]
        null = np.mean([e.null for e in estimates])
        assert np.mean([e.value for e in estimates]) == pytest.approx(null, rel=0.05)
        assert np.mean([e.low <= null <= e.high for e in estimates]) >= 0.8


def test_directions_differ_where_one_set_lies_inside_the_other():
    rng = np.random.default_rng(2)
    wide, narrow = rng.normal(size=(300, 4)), 0.2 * rng.normal(size=(300, 4))
    found = knn(wide, narrow)
    assert found.to_pool.low > found.to_pool.null  # the pool misses most of the target
    assert found.to_target.high < found.to_target.null  # all of it is near to the target


def test_scale_rotation_and_offset_change_nothing():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(90, 4)), rng.normal(size=(80, 4)) + 1
    turn, plain = np.linalg.qr(rng.normal(size=(4, 4)))[0], knn(x, y)
    moved = knn(7 * x @ turn + 3, 7 * y @ turn + 3)
    in_float32 = knn((x + 100).astype(np.float32), (y + 100).astype(np.float32))
    for name in ("to_pool", "to_target"):
        assert getattr(moved, name).value == pytest.approx(getattr(plain, name).value, rel=1e-5)
        assert getattr(in_float32, name).value == pytest.approx(getattr(plain, name).value, rel=1e-4)


def test_an_identical_pool_is_as_near_as_neighbors_and_its_first_neighbor_is_itself():
    x = np.random.default_rng(4).normal(size=(100, 3))
    assert knn(x, x, k=1).to_pool.value == 0.0
    assert 0.8 < knn(x, x, k=5).to_pool.value < 1.0


def test_a_target_of_copies_has_no_spacing():
    x = np.repeat(np.random.default_rng(5).normal(size=(20, 3)), 7, axis=0)
    found = knn(x, x + 1, k=5)
    assert (found.spacing, found.to_pool.value) == (0.0, None)
    assert "copies" in found.to_pool.reason
    assert (found.of_target > 0).all()
    constant = knn(np.ones((8, 3)), np.ones((8, 3)))
    assert constant.to_target.value is None
    assert constant.to_target.null is None


def test_large_sets_are_sampled_by_key_hash_and_searched_in_whole():
    rng = np.random.default_rng(6)
    x, y = (EmbeddingStore.from_vectors(rng.normal(size=(n, 2))) for n in (120, 150))
    found, rows = knn(x, y, k=1, limit=50), sampled_rows(x, 50)
    np.testing.assert_array_equal(found.target_rows, rows)
    assert len(found.of_pool) == 50
    np.testing.assert_allclose(found.of_target, kth(x.vectors()[rows], y.vectors(), 1), atol=1e-5)
    assert len(knn(x, y, limit=None).of_target) == 120
    assert found.to_pool.n == (150, 50)
    assert found.to_target.n == (50, 50)


def test_one_group_has_no_interval():
    x, y = np.random.default_rng(7).normal(size=(2, 30, 3))
    grouped = EmbeddingStore.from_vectors(y)
    rows = grouped.rows().set_column(3, "group", [["a"] * 30])
    found = knn(x, EmbeddingStore(spec=grouped.spec, rows=rows, vectors=grouped.vectors()))
    assert found.to_pool.value is not None
    assert found.to_pool.low is None


def test_few_rows_in_many_dimensions():
    found = knn(*np.random.default_rng(8).normal(size=(2, 7, 50)), k=5)
    assert found.to_pool.value == pytest.approx(1, abs=0.2)
    assert found.to_pool.null is None  # no 2k-th neighbor to tell the dimension from


def test_what_cannot_be_measured_is_refused():
    x = np.random.default_rng(9).normal(size=(6, 3))
    with pytest.raises(TooFewImagesError, match="target has 5 images"):
        knn(x[:5], x)
    with pytest.raises(TooFewImagesError, match="pool has 4 images"):
        knn(x, x[:4])
    with pytest.raises(EncoderMismatchError):
        knn(x, x[:, :2], k=1)
    with pytest.raises(SourceError, match="not finite"):
        knn(x, np.full((6, 3), np.nan), k=1)


def coverage_of_intervals(repetitions):
    rng = np.random.default_rng(10)
    found = [knn(rng.normal(size=(150, 4)), rng.normal(size=(120, 4)) * 0.9 + 0.3) for _ in range(repetitions)]
    shares = []
    for name in ("to_pool", "to_target"):
        estimates = [getattr(f, name) for f in found]
        mean = np.mean([e.value for e in estimates])
        shares.append(np.mean([e.low <= mean <= e.high for e in estimates]))
    return shares


def test_intervals_cover_the_mean():
    assert min(coverage_of_intervals(60)) >= 0.9


@pytest.mark.slow
def test_intervals_cover_the_mean_in_many_repetitions():
    assert min(coverage_of_intervals(2_000)) >= 0.93


@pytest.mark.parametrize("m", [7, 60, 3000])
def test_its_coverage_is_that_of_coverage_alone(m):
    rng = np.random.default_rng(11)
    x, y = rng.normal(size=(120, 6)), rng.normal(size=(m, 6)) + 0.5
    assert knn(x, y).coverage == coverage(x, y)
