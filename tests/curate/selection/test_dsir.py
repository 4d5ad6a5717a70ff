from itertools import permutations

import numpy as np
import pytest
from candidates_data import capped, images, make_candidates
from hypothesis import given
from hypothesis import strategies as st

from curate.selection._dsir import cell_weights, choose, gumbel_keys


def blobs(*counts, seed=0):
    """So many vectors around each of some far points."""
    rng = np.random.default_rng(seed)
    centers = np.eye(8)[: len(counts)] * 20
    return np.concatenate([c + rng.normal(size=(n, 8)) for c, n in zip(centers, counts, strict=True)])


def test_weights_by_hand():
    found = cell_weights(np.array([3.0, 1.0, 0.0, 0.0]), np.array([10, 40, 50, 0]))
    assert found == pytest.approx([(3 / 0.1 + 1) / 5, (1 / 0.4 + 1) / 5, 1 / 5, 1 / 5])


@given(st.lists(st.tuples(st.floats(0, 50), st.integers(1, 50)), min_size=1, max_size=8))
def test_a_draw_by_weight_has_the_histogram_of_the_target_and_one_image_more(cells):
    wanted, held = np.array(cells).T
    drawn = cell_weights(wanted, held) * held / held.sum()
    assert drawn.sum() == pytest.approx(1)
    assert drawn == pytest.approx((wanted + held / held.sum()) / (wanted.sum() + 1))


def test_the_largest_keys_are_a_draw_without_replacement_by_weight():
    weights, draws = np.array([1.0, 2.0, 5.0]), 20_000
    numbers = np.random.default_rng(0).integers(0, 2**64, size=3 * draws, dtype=np.uint64)
    order = np.argsort(-gumbel_keys(np.tile(np.log(weights), draws), numbers).reshape(draws, 3), axis=1)
    for a, b, c in permutations(range(3)):
        expected = weights[a] / weights.sum() * weights[b] / (weights[b] + weights[c])
        found = (order[:, :2] == (a, b)).all(axis=1).mean()
        assert found == pytest.approx(expected, abs=4 * np.sqrt(expected / draws))


def test_no_number_makes_a_key_infinite():
    numbers = np.array([0, 1, 2**63, 2**64 - 1], np.uint64)
    keys = gumbel_keys(np.zeros(4), numbers)
    assert np.isfinite(keys).all()
    assert (np.diff(keys) >= 0).all()


def test_the_selection_has_the_histogram_of_the_target():
    candidates = make_candidates(blobs(100, 100), {"pool": blobs(1800, 200, 2000, seed=1)})
    blob = candidates.vectors(np.arange(len(candidates)))[:, :3].argmax(axis=1)
    chosen = choose(candidates, images(candidates, 150), seed=0)
    counts = np.bincount(blob[chosen.rows], minlength=3)
    assert counts[:2] == pytest.approx([75, 75], abs=20)  # of the pool 1,800 to 200
    assert counts[2] <= 4
    assert (np.diff(chosen.scores) >= 0).all()
    assert chosen.parameters["cells_with_target"] < chosen.parameters["cells"]


def test_target_images_count_by_their_weight():
    target, pools = blobs(50, 50), {"pool": blobs(1000, 1000, seed=1)}
    weights = np.repeat([1.0, 9.0], 50)
    candidates = make_candidates(target, pools, target_weights=weights)
    chosen = choose(candidates, images(candidates, 100), seed=0)
    second = (candidates.vectors(chosen.rows)[:, 1] > 10).sum()
    assert second == pytest.approx(90, abs=10)


def test_a_smaller_budget_takes_the_first_of_a_larger_one():
    candidates = make_candidates(blobs(20, 10), {"pool": blobs(200, 100, 300, seed=1)}, own=True)
    large, small = (choose(candidates, images(candidates, n), seed=3) for n in (90, 25))
    assert np.array_equal(large.rows[:25], small.rows)
    assert large.reasons[:25] == small.reasons
    assert not np.array_equal(choose(candidates, images(candidates, 90), seed=4).rows, large.rows)


@pytest.mark.parametrize("target", [blobs(1), np.zeros((1, 8)), np.zeros((3, 8))])
@pytest.mark.parametrize("pool", [blobs(1), np.ones((40, 8)), blobs(300, 20)])
def test_small_and_constant_sets(target, pool):
    candidates = make_candidates(target, {"pool": pool})
    chosen = choose(candidates, images(candidates, 10_000), seed=0)
    assert sorted(chosen.rows) == list(range(len(pool)))
    assert np.isfinite(chosen.scores).all()
    assert not chosen.stopped


def test_caps_hold_and_the_rest_comes_from_elsewhere():
    candidates = make_candidates(blobs(60), {"a": blobs(400, 100, seed=1), "b": blobs(400, 100, seed=2)})
    chosen = choose(candidates, capped(candidates, 100, [0, 7, 1000]), seed=0)
    assert np.bincount(candidates.source[chosen.rows]).tolist() == [0, 7, 93]
