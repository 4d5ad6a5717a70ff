"""Vectors in shards are indexed and walked as one array."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.vectors import ShardedVectors, blocks

SIZES = (4, 0, 1, 5)


def shards(sizes=SIZES, dim=3):
    whole = np.arange(sum(sizes) * dim, dtype=np.float16).reshape(-1, dim)
    return whole, ShardedVectors(np.split(whole, np.cumsum(sizes)[:-1]))


@given(st.integers(-13, 13) | st.none(), st.integers(-13, 13) | st.none(), st.integers(-4, 4).filter(bool) | st.none())
def test_slices_are_those_of_the_whole_array(start, stop, step):
    whole, sharded = shards()
    found = sharded[start:stop:step]
    np.testing.assert_array_equal(found, whole[start:stop:step])
    assert found.dtype == whole.dtype


@given(st.lists(st.integers(-10, 9)))
def test_row_numbers_are_those_of_the_whole_array(numbers):
    whole, sharded = shards()
    np.testing.assert_array_equal(sharded[np.array(numbers, dtype=int)], whole[np.array(numbers, dtype=int)])
    np.testing.assert_array_equal(sharded[numbers], whole[np.array(numbers, dtype=int)])


def test_single_rows_masks_and_the_whole():
    whole, sharded = shards()
    assert (sharded.shape, len(sharded), sharded.dtype) == ((10, 3), 10, np.float16)
    np.testing.assert_array_equal(sharded[4], whole[4])
    np.testing.assert_array_equal(sharded[np.int64(-1)], whole[-1])
    np.testing.assert_array_equal(sharded[whole[:, 0] > 9], whole[whole[:, 0] > 9])
    np.testing.assert_array_equal(np.asarray(sharded), whole)
    assert np.asarray(sharded, dtype=np.float64).dtype == np.float64


@pytest.mark.parametrize("index", [10, -11, [0, 10], np.ones(9, bool)])
def test_what_lies_outside_is_an_error(index):
    with pytest.raises(IndexError):
        shards()[1][index]


def test_a_slice_inside_one_shard_is_not_copied():
    whole, sharded = shards()
    assert np.shares_memory(sharded[1:3], whole)


def test_blocks_cover_all_rows_once_in_order():
    whole, sharded = shards()
    found = list(blocks(sharded, 4))
    assert [start for start, _ in found] == [0, 4, 8]
    np.testing.assert_array_equal(np.concatenate([block for _, block in found]), whole)
    assert {block.dtype for _, block in found} == {np.dtype(np.float32)}
