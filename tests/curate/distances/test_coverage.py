import numpy as np
import pytest

from curate.distances import copies, coverage
from curate.distances._coverage import MAX_TARGET_ROWS, TargetBalls, expected_coverage
from embeddings.errors import EncoderMismatchError, TooFewImagesError
from embeddings.store import EmbeddingStore


def store(x):
    return EmbeddingStore.from_vectors(np.asarray(x, np.float32))


def test_hand_case():
    target = store([[0.0], [1], [2], [3], [4]])
    pool = store([[0.4], [1.6], [9.0]])
    estimate = coverage(target, pool, k=1)
    assert estimate.value == pytest.approx(3 / 5)  # 3 lies 1.4 from 1.6, its ball reaches 1
    assert not estimate.lower_is_closer


def test_expected_value_under_the_null_is_right():
    assert expected_coverage(2000, 500, 5) == pytest.approx(0.673, abs=1e-3)
    assert expected_coverage(500, 2000, 5) == pytest.approx(0.9997, abs=1e-4)
    assert expected_coverage(1000, 1000, 5) == pytest.approx(0.9690, abs=1e-4)
    rng = np.random.default_rng(0)
    values = [coverage(store(rng.normal(size=(200, 4))), store(rng.normal(size=(100, 4)))) for _ in range(20)]
    null = values[0].null
    assert np.mean([v.value for v in values]) == pytest.approx(null, abs=0.03)


def test_duplicates_do_not_count_as_misses():
    x = np.repeat(np.random.default_rng(1).normal(size=(30, 3)), 7, axis=0)
    assert coverage(store(x), store(x), k=5).value == 1.0


def test_a_far_pool_covers_nothing_and_the_interval_knows_it():
    rng = np.random.default_rng(2)
    estimate = coverage(store(rng.normal(size=(50, 3))), store(rng.normal(size=(50, 3)) + 100))
    assert (estimate.value, estimate.low) == (0.0, pytest.approx(0.0, abs=1e-12))
    assert 0.05 < estimate.high < 0.1


def test_a_large_target_is_sampled_by_key_hash_whatever_its_order():
    rng = np.random.default_rng(3)
    x, keys = (
        rng.normal(size=(MAX_TARGET_ROWS + 300, 2)).astype(np.float32),
        [f"k{i}" for i in range(MAX_TARGET_ROWS + 300)],
    )
    order = rng.permutation(len(keys))
    a = TargetBalls.of(EmbeddingStore.from_vectors(x, keys=keys))
    b = TargetBalls.of(EmbeddingStore.from_vectors(x[order], keys=[keys[i] for i in order]))
    assert len(a.centers) == MAX_TARGET_ROWS
    np.testing.assert_array_equal(a.radii, b.radii)


def test_too_few_target_images_and_other_encoders_are_refused():
    x = np.random.default_rng(4).normal(size=(5, 3))
    with pytest.raises(TooFewImagesError, match="needs at least 6"):
        coverage(store(x), store(x))
    with pytest.raises(EncoderMismatchError):
        coverage(store(x), store(x[:, :2]), k=1)


def test_copies_are_counted_by_content():
    x = np.random.default_rng(5).normal(size=(10, 3)).astype(np.float32)
    pool = np.concatenate([x[:4], x[:4] + 1])
    assert copies(store(x), store(pool)).value == 0.5
    assert copies(store(x), store(pool[4:])).value == 0.0
