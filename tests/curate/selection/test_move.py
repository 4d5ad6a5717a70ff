import numpy as np
import pytest
from candidates_data import capped, images, make_candidates
from selection_data import make_store

from curate.distances import _transport
from curate.distances._kernels import squared_distances
from curate.distances._transport import Points, divergence
from curate.selection._move import Gradient, choose

D = 5


def normal(n, shift=0.0, seed=0):
    return np.random.default_rng(seed).normal(size=(n, D)) + shift * np.eye(D)[0]


def points(rows, weights=None):
    weights = np.ones(len(rows)) if weights is None else np.asarray(weights, float)
    return Points(np.asarray(rows, float), weights / weights.sum(), np.zeros(len(rows), np.int64))


def cost(a, b):
    return squared_distances(a.rows, b.rows)


def test_it_is_the_derivative_of_the_divergence():
    start, target = points(normal(60), np.arange(1, 61)), points(normal(40, 2.0, seed=1) * 1.5)
    gradient = Gradient.fit(start, target)
    before, step = divergence(cost, start, target, gradient.epsilon).value, 1e-3
    for x in normal(4, 1.0, seed=2):
        mixed = points(np.vstack([start.rows, x]), np.append((1 - step) * start.weights, step))
        after = divergence(cost, mixed, target, gradient.epsilon).value
        assert gradient(x[None])[0] == pytest.approx((after - before) / step, rel=0.02, abs=0.02)


def test_a_shifted_target_has_a_linear_score():
    start, shift = normal(200), np.array([3.0, -1.0, 0, 0, 0])
    gradient = Gradient.fit(points(start), points(start + shift))
    others = normal(20, 4.0, seed=1) * 2
    assert gradient(others) == pytest.approx(-2 * (others - start.mean(axis=0)) @ shift, abs=5e-3)
    assert gradient.converged


def test_a_start_that_is_the_target_has_nowhere_to_go():
    both = points(normal(80))
    assert Gradient.fit(both, both)(normal(10, 3.0, seed=1)) == pytest.approx(np.zeros(10), abs=1e-3)


def test_the_mean_over_the_start_is_zero():
    start = points(normal(50), np.arange(1, 51))
    gradient = Gradient.fit(start, points(normal(30, 2.0, seed=1)))
    assert start.weights @ gradient(start.rows) == pytest.approx(0, abs=1e-9)


def test_the_chosen_move_the_start_more_than_any_others_of_that_number():
    start = make_store("start", normal(300).astype(np.float32))
    target = normal(200, 3.0, seed=1)
    candidates = make_candidates(target, {"a": normal(300, 1.0, seed=2), "b": normal(300, 4.0, seed=3)}, start=start)
    chosen = choose(candidates, images(candidates, 60), seed=0)
    random = np.random.default_rng(0).permutation(600)[:60]
    old, new = points(normal(300)), [points(candidates.vectors(rows)) for rows in (chosen.rows, random)]
    moved = [points(np.vstack([old.rows, part.rows]), np.repeat([0.95 / 300, 0.05 / 60], [300, 60])) for part in new]
    reached = [divergence(cost, mixture, points(target), 1.0).value for mixture in [old, *moved]]
    assert reached[1] < reached[2] < reached[0]
    assert (np.diff(chosen.scores) >= 0).all()
    assert (chosen.parameters["start"], chosen.parameters["moving_away"]) == ("given", 0)


def test_what_the_start_has_is_preferred_less():
    """Two images equally far from the target's mean: the one on the side where the start has its mass moves it less."""
    target, pool = normal(300, 0.0, seed=1), np.array([[2.0, 0, 0, 0, 0], [-2.0, 0, 0, 0, 0]])
    first = []
    for side in (3.0, -3.0):
        start = make_store("start", normal(300, side, seed=2).astype(np.float32))
        candidates = make_candidates(target, {"pool": np.vstack([pool, normal(400, 0, seed=3)])}, start=start)
        chosen = choose(candidates, images(candidates, 402), seed=0)
        first.append(chosen.rows.tolist().index(0) < chosen.rows.tolist().index(1))
    assert first == [False, True]


def test_without_a_start_the_pools_stand_in():
    target, pools = normal(100, 3.0, seed=1), {"a": normal(700), "b": normal(100, 3.0, seed=2)}
    alone = make_candidates(target, pools)
    given = make_candidates(target, pools, start=make_store("start", alone.vectors(np.arange(800))))
    found, same = (choose(c, images(c, 100), seed=0) for c in (alone, given))
    assert (found.parameters["start"], same.parameters["start"]) == ("pools", "given")
    assert np.array_equal(found.rows, same.rows)
    assert found.parameters["start_images"] == 800
    assert (alone.source[found.rows] == 2).mean() > 0.6


def test_images_that_move_the_start_away_are_counted():
    candidates = make_candidates(normal(100, 3.0, seed=1), {"pool": normal(300)})
    everything = choose(candidates, images(candidates, 300), seed=0)
    away = everything.parameters["moving_away"]
    assert 0 < away == (everything.scores > 0).sum() < 300
    assert everything.reasons[0].startswith("move: moves the start toward the target")
    assert everything.reasons[-1].startswith("move: moves the start not toward the target")


def test_target_images_count_by_their_weight():
    target = np.vstack([normal(100, 5.0, seed=1), normal(100, -5.0, seed=2)])
    candidates = make_candidates(target, {"pool": normal(2000, seed=3) * 3}, target_weights=np.repeat([1.0, 0.0], 100))
    chosen = choose(candidates, images(candidates, 100), seed=0)
    assert (candidates.vectors(chosen.rows)[:, 0] > 0).mean() > 0.95
    assert chosen.parameters["target_images"] == 100


@pytest.mark.parametrize("pool", [normal(1), np.ones((40, D)), normal(60)])
@pytest.mark.parametrize("target", [normal(1, seed=5), np.ones((3, D))])
def test_small_and_constant_sets(target, pool):
    candidates = make_candidates(target, {"pool": pool}, own=True)
    chosen = choose(candidates, images(candidates, 10_000), seed=0)
    assert sorted(chosen.rows) == list(range(len(candidates)))
    assert np.isfinite(chosen.scores).all()
    assert chosen.parameters["converged"]


def test_nested_and_capped():
    candidates = make_candidates(normal(80, 3.0), {"a": normal(400, 3.0, seed=1), "b": normal(400, seed=2)}, own=True)
    large, small = (choose(candidates, images(candidates, n), seed=3) for n in (90, 25))
    assert np.array_equal(large.rows[:25], small.rows)
    under_caps = choose(candidates, capped(candidates, 90, [5, 7, 1000]), seed=3)
    assert np.bincount(candidates.source[under_caps.rows]).tolist() == [5, 7, 78]


def test_plans_that_do_not_converge_are_told(monkeypatch):
    monkeypatch.setattr(_transport, "MAX_ITERATIONS", 3)
    monkeypatch.setattr(_transport, "STAGE_ITERATIONS", 1)
    candidates = make_candidates(normal(80, 3.0), {"pool": normal(200, seed=1)})
    assert not choose(candidates, images(candidates, 10), seed=0).parameters["converged"]
