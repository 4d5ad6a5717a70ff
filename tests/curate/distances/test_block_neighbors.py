import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.distances._block_neighbors import independent_images, nearest_blocks
from embeddings.errors import TooFewImagesError
from embeddings.neighbors import nearest


def brute_force(queries, base, blocks, k, own):
    distances = np.square(queries[:, None] - base).sum(axis=2).round(6)
    found = []
    for i, row in enumerate(distances):
        best = {b: row[blocks == b].min() for b in np.unique(blocks) if own is None or b != own[i]}
        found.append(sorted(best.values())[:k])
    return np.array(found)


@given(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([1, 3, 30]), st.booleans())
def test_agrees_with_brute_force(seed, k, most, own):
    rng = np.random.default_rng(seed)
    base = rng.integers(-3, 4, size=(60, 2)).astype(float)  # many ties
    blocks = rng.integers(0, max(60 // most, k + 2), 60)
    blocks[: k + 2] = np.arange(k + 2)
    queries = base if own else rng.normal(size=(20, 2))
    distances, rows = nearest_blocks(queries, base, blocks, k, own=blocks if own else None)
    np.testing.assert_allclose(distances, brute_force(queries, base, blocks, k, blocks if own else None), atol=2e-6)
    np.testing.assert_allclose(np.square(queries[:, None] - base[rows]).sum(axis=2).round(6), distances, atol=2e-6)
    assert all(len(set(blocks[row])) == k for row in rows)
    assert not own or (blocks[rows] != blocks[:, None]).all()


def test_rows_that_are_all_independent_give_the_plain_neighbors():
    x = np.random.default_rng(0).normal(size=(90, 8))
    distances, rows = nearest_blocks(x, x, np.arange(90), 5, own=np.arange(90))
    expected = nearest(x, x, 5, exclude_self=True)
    np.testing.assert_array_equal(distances, expected[0])
    np.testing.assert_array_equal(rows, expected[1])


def test_one_huge_block_is_looked_past():
    rng = np.random.default_rng(1)
    x = np.concatenate([0.01 * rng.normal(size=(400, 3)), [[5.0, 0, 0], [0, 6, 0]]])
    blocks = np.array([0] * 400 + [1, 2])
    distances, rows = nearest_blocks(x, x, blocks, 2, own=blocks)
    assert (rows[:400] == [400, 401]).all()
    np.testing.assert_allclose(np.sqrt(distances[:400]), [[5, 6]] * 400, atol=0.06)


def test_too_few_blocks_are_refused():
    x = np.arange(6.0)[:, None]
    blocks = np.array([0, 0, 0, 1, 1, 1])
    assert nearest_blocks(x, x, blocks, 2)[0].shape == (6, 2)
    with pytest.raises(TooFewImagesError, match="among 1 independent"):
        nearest_blocks(x, x, blocks, 2, own=blocks)


def test_worth_of_rows_in_blocks():
    assert independent_images(np.arange(10)) == 10
    assert independent_images(np.repeat(np.arange(10), 7)) == 10
    assert independent_images(np.array([0, 0, 0, 1])) == pytest.approx(16 / 10)
