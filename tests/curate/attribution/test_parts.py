import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.attribution import far_part
from curate.distances._frechet import TargetFrame
from embeddings.errors import EncoderMismatchError, TooFewImagesError
from embeddings.moments import Folded, fold_of
from embeddings.store import EmbeddingStore

D, LIMIT = 16, 35.0


def kinds(n, seed=0, center=0.0, scale=1.0):
    """Images of eight kinds, as sets of images have them."""
    rng = np.random.default_rng(seed)
    centers = 3 * np.random.default_rng(99).normal(size=(8, D))
    return centers[rng.integers(0, 8, n)] + scale * rng.normal(size=(n, D)) + center


def store(vectors, name="p"):
    keys = [f"{name}{i:05d}" for i in range(len(vectors))]
    return EmbeddingStore.from_vectors(np.asarray(vectors, np.float32), keys=keys)


TARGET = store(kinds(400), "t")
FRAME = TargetFrame.of(Folded(TARGET).moments)


def parts(vectors):
    pool = store(vectors)
    return far_part(TARGET, pool, FRAME, fold_of(pool.rows()), limit=LIMIT)


def mixture(share, n=400, away=12.0):
    far = round(share * n)
    return np.concatenate([kinds(n - far, seed=1), away + np.random.default_rng(2).normal(size=(far, D))])


@pytest.mark.parametrize("share", [0.1, 0.25, 0.43, 0.75])
def test_the_far_part_of_a_mixture_is_found_and_the_rest_is_near(share):
    found = parts(mixture(share))
    assert found.share.low <= share <= found.share.high
    assert found.share.value == pytest.approx(share, abs=0.03)
    assert found.far.low >= LIMIT
    assert found.rest.low <= 1


@pytest.mark.parametrize("pool", [kinds(400, seed=1), kinds(400, seed=1, center=0.4), kinds(400, seed=1, scale=1.3)])
def test_pools_like_the_target_or_in_another_style_have_none(pool):
    found = parts(pool)
    assert (found.share.value, found.far.value) == (0.0, None)
    assert found.far.reason == "no part of it is surely far"
    assert found.rest.value < 20


def test_a_far_pool_is_far_in_all_its_parts():
    found = parts(kinds(400, seed=1, center=12.0))
    assert found.share.value == 1.0
    assert (found.rest.value, found.rest.reason) == (None, "0 images are too few to measure")


def test_the_order_of_rows_changes_nothing():
    pool = mixture(0.43)
    order = np.random.default_rng(3).permutation(len(pool))
    keys = [f"p{i:05d}" for i in order]
    again = EmbeddingStore.from_vectors(np.asarray(pool[order], np.float32), keys=keys)
    other = far_part(TARGET, again, FRAME, fold_of(again.rows()), limit=LIMIT)
    first = parts(pool)
    assert other.share == first.share
    assert other.far.value == pytest.approx(first.far.value, rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(20, 60), copies=st.integers(1, 60), seed=st.integers(0, 99))
def test_any_pool_has_a_share_between_its_ends(n, copies, seed):
    x = np.random.default_rng(seed).normal(size=(n, D))
    x[: min(copies, n)] = x[0]
    share = parts(x).share
    assert 0 <= share.low <= share.value <= share.high <= 1


def test_sets_that_cannot_be_told_apart_are_refused():
    with pytest.raises(TooFewImagesError, match="19 images on a side"):
        parts(kinds(19))
    other = EmbeddingStore.from_vectors(np.zeros((30, D + 1), np.float32))
    with pytest.raises(EncoderMismatchError):
        far_part(TARGET, other, FRAME, np.zeros(30, int), limit=LIMIT)
