from functools import partial

import numpy as np
import pytest
from candidates_data import capped, images, make_candidates
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linear_sum_assignment

from curate.selection._assignment import assign, choose
from curate.selection._ledger import Ledger
from curate.selection._turns import Schedule, take_turns
from embeddings.neighbors import Engine, nearest


def cheapest(targets, pool, quotas):
    """Summed cost of the best assignment, from the whole table."""
    table = ((targets[:, None].astype(float) - pool) ** 2).sum(axis=-1).round(6)
    return table.repeat(quotas, axis=0)[linear_sum_assignment(table.repeat(quotas, axis=0))].sum()


points = st.integers(1, 25).flatmap(lambda n: hnp.arrays(np.float32, (n, 2), elements=st.integers(-3, 3).map(float)))


@settings(max_examples=50)
@given(targets=points, pool=points, data=st.data())
def test_it_is_the_cheapest_and_gives_everybody_the_number_of_its_turns(targets, pool, data):
    m, n = len(targets), len(pool)
    weights = np.array(data.draw(st.lists(st.sampled_from([1.0, 1.0, 3.0]), min_size=m, max_size=m)))
    schedule = Schedule(order=np.array(data.draw(st.permutations(range(m)))), weights=weights)
    budget = data.draw(st.integers(1, n))
    search = partial(nearest, engine=Engine(faiss=False))
    found = assign(targets, pool, schedule, Ledger.of_images(n, budget), search=search)
    turns = take_turns(targets, pool, schedule, Ledger.of_images(n, budget))
    assert len(set(found.turns.rows.tolist())) == budget
    assert found.turns.takers.tolist() == turns.takers.tolist()
    assert (found.optimal, found.rounds) == (True, 1)
    expected = cheapest(targets, pool, np.bincount(turns.takers, minlength=m))
    assert found.turns.distances.sum() == pytest.approx(expected, abs=1e-5)


def crowd(seed=0):
    """40 targets, of which 30 want the same few images."""
    rng = np.random.default_rng(seed)
    targets, pool = rng.normal(size=(40, 4)).astype(np.float32), rng.normal(size=(600, 4)).astype(np.float32)
    targets[:30] *= 0.01
    return targets, pool, Schedule(order=rng.permutation(40), weights=np.ones(40))


def test_lists_are_lengthened_until_nothing_missing_could_pay():
    targets, pool, schedule = crowd()
    found = assign(targets, pool, schedule, Ledger.of_images(600, 200))
    assert found.optimal
    assert found.turns.distances.sum() == pytest.approx(cheapest(targets, pool, np.full(40, 5)), rel=1e-9)


def test_where_lists_may_not_grow_it_is_at_least_as_cheap_as_turns_and_says_that_it_may_not_be_the_best():
    targets, pool, schedule = crowd()
    found = assign(targets, pool, schedule, Ledger.of_images(600, 200), edges=2 * 200 * 64)
    turns = take_turns(targets, pool, schedule, Ledger.of_images(600, 200))
    assert (found.optimal, found.rounds) == (False, 1)
    assert found.turns.distances.sum() <= turns.distances.sum()
    assert found.turns.distances.sum() > cheapest(targets, pool, np.full(40, 5)) + 1e-3


@pytest.mark.parametrize("edges", [1, 2000])
def test_small_graphs_are_matched_in_rounds(edges):
    targets, pool, schedule = crowd(1)
    found = assign(targets, pool, schedule, Ledger.of_images(600, 200), edges=edges)
    assert found.rounds > 1
    assert len(set(found.turns.rows.tolist())) == 200
    assert np.bincount(found.turns.takers).tolist() == [5] * 40


def test_a_round_of_one_image_is_the_turns():
    targets, pool, schedule = crowd(2)
    found = assign(targets, pool, schedule, Ledger.of_images(600, 60), edges=1)
    turns = take_turns(targets, pool, schedule, Ledger.of_images(600, 60))
    assert found.rounds == 60
    assert found.turns.rows.tolist() == turns.rows.tolist()


def make(m, n, d=8, **more):
    rng = np.random.default_rng(m * n)
    pools = {"a": rng.normal(size=(n, d)), "b": rng.normal(size=(2 * n, d)) + 0.5}
    return make_candidates(rng.normal(size=(m, d)), pools, **more)


def test_what_a_cap_closes_is_matched_again():
    candidates = make(20, 60)
    ledger = capped(candidates, 100, [0, 15, 120])
    chosen = choose(candidates, ledger, seed=0)
    assert np.bincount(candidates.source[chosen.rows]).tolist() == [0, 15, 85]
    takers = [int(reason.rpartition(" ")[2]) for reason in chosen.reasons]
    assert np.bincount(takers).tolist() == [5] * 20
    assert chosen.parameters["rounds"] > 1
    assert ledger.taken.tolist() == chosen.rows.tolist()


def test_own_images_are_their_own():
    candidates = make(12, 40, own=True)
    chosen = choose(candidates, images(candidates, 24), seed=0)
    assert sorted(chosen.rows[:12]) == list(range(12))
    assert list(chosen.codes) == ["own-image"] * 12 + ["assignment"] * 12
    assert (chosen.scores[:12] == 0).all()
    assert chosen.parameters["optimal"]


def test_a_heavier_image_gets_more():
    candidates = make(10, 60, target_weights=np.where(np.arange(10) == 3, 11.0, 1.0))
    chosen = choose(candidates, images(candidates, 60), seed=0)
    takers = [int(reason.rpartition(" ")[2]) for reason in chosen.reasons]
    assert np.bincount(takers).tolist() == [3, 3, 3, 33, 3, 3, 3, 3, 3, 3]


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 7), (9, 1)])
def test_few_candidates(m, n):
    candidates = make(m, n)
    chosen = choose(candidates, images(candidates, 50), seed=0)
    assert sorted(chosen.rows) == list(range(3 * n))
