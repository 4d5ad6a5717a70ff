from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np
import pytest
from candidates_data import images, make_candidates
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from curate.selection._ledger import IMAGES, Ledger, Limit, Quota
from curate.selection._methods import METHODS
from curate.selection._turns import Schedule, Turns, each_turn, reasons, subset, take_turns
from embeddings.neighbors import Engine, nearest


def naive_turns(targets, pool, schedule, ledger, within=None):
    """The definition: look at every open candidate, every time."""
    out = []
    for target in schedule:
        free = [i for i in np.flatnonzero(ledger.open) if within is None or within[i]]
        if ledger.done or not free:
            return out
        distances = ((targets[target].astype(float) - pool) ** 2).sum(axis=1).round(6)
        row = min(free, key=lambda i: (distances[i], i))
        assert ledger.take(row)
        out.append((int(row), target, distances[row]))
    return out


def as_list(turns):
    return list(zip(turns.rows.tolist(), turns.takers.tolist(), turns.distances.tolist(), strict=True))


def equal(order):
    return Schedule(order=np.asarray(order), weights=np.ones(len(order)))


points = st.integers(1, 30).flatmap(
    lambda n: hnp.arrays(np.float32, (n, 2), elements=st.integers(-3, 3).map(float))  # a grid: ties abound
)


@given(targets=points, pool=points, entries=st.sampled_from([1, 8, 1 << 20]), data=st.data())
def test_turns_are_those_of_the_plain_greedy(targets, pool, entries, data):
    m, n = len(targets), len(pool)
    order = np.array(data.draw(st.permutations(range(m))))
    weights = np.array(data.draw(st.lists(st.sampled_from([0.0, 1.0, 1.0, 2.5]), min_size=m, max_size=m)))
    schedule = Schedule(order=order, weights=weights if weights.any() else np.ones(m))
    budget = data.draw(st.integers(1, n + 3))
    within = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    options = {"entries": entries, "search": partial(nearest, engine=Engine(faiss=False)), "within": within}
    turns = take_turns(targets, pool, schedule, Ledger.of_images(n, budget), **options)
    assert as_list(turns) == naive_turns(targets, pool, schedule, Ledger.of_images(n, budget), within)


@pytest.mark.parametrize("entries", [1, 500, 1 << 23])
def test_the_length_of_the_lists_does_not_matter(entries):
    rng = np.random.default_rng(0)
    targets, pool = rng.normal(size=(40, 5)).astype(np.float32), rng.normal(size=(150, 5)).astype(np.float32)
    targets[20:] = targets[:20] * 0.01  # a crowd, whose lists run out early
    schedule = equal(rng.permutation(40))
    turns = take_turns(targets, pool, schedule, Ledger.of_images(150, 140), entries=entries)
    assert as_list(turns) == naive_turns(targets, pool, schedule, Ledger.of_images(150, 140))


def limited(n, most, quotas):
    """A ledger with (member, caps, floors) quotas."""
    given = [
        Quota(name=f"q{i}", names=[str(j) for j in range(len(caps))], member=member, caps=caps, floors=floors)
        for i, (member, caps, floors) in enumerate(quotas)
    ]
    return Ledger(n, [Limit(name=IMAGES, most=most, amounts=np.ones(n))], given)


@pytest.mark.parametrize("entries", [1, 1 << 20])
@pytest.mark.parametrize("seed", range(8))
def test_what_opens_again_is_found_again(seed, entries):
    """Two floors that one image can serve: candidates close while both are open, and open when it is taken."""
    rng = np.random.default_rng(seed)
    targets, pool = rng.normal(size=(5, 2)).astype(np.float32), rng.normal(size=(60, 2)).astype(np.float32)
    quotas = [
        (rng.integers(0, 3, 60), np.array([30, 8, 9]), np.array([0, 4, 3])),
        (rng.integers(0, 2, 60), np.array([40, 40]), np.array([0, 6])),
    ]
    schedule, ledger, reopened = equal(rng.permutation(5)), limited(60, 13, quotas), False
    closed = ~ledger.open
    for _ in each_turn(targets, pool, schedule, ledger, entries=entries):
        reopened |= bool((closed & ledger.open).any())
        closed = ~ledger.open
    assert reopened
    turns = take_turns(targets, pool, schedule, limited(60, 13, quotas), entries=entries)
    assert as_list(turns) == naive_turns(targets, pool, schedule, limited(60, 13, quotas))


def test_equal_weights_are_rounds_in_the_same_order():
    order = [2, 0, 1]
    assert list(islice(Schedule(order=np.array(order), weights=np.full(3, 0.7)), 9)) == order * 3


def test_a_weight_is_a_number_of_turns():
    weights = np.array([1.0, 10.0, 0.0, 2.0, 1.0])
    schedule = Schedule(order=np.array([3, 0, 2, 4, 1]), weights=weights / weights.mean())
    turns = list(islice(schedule, 140))
    assert np.bincount(turns, minlength=5).tolist() == [10, 100, 0, 20, 10]
    for n in (1, 5, 33):
        assert (np.bincount(turns[:n], minlength=5) <= schedule.turns(n) + 1).all()


def test_the_order_of_turns_depends_on_keys_and_seed_alone():
    vectors = np.random.default_rng(0).normal(size=(12, 3))
    a = Schedule.of_targets(make_candidates(vectors, {"p": vectors}), 0)
    b = Schedule.of_targets(make_candidates(vectors[:9], {"q": vectors[:5]}), 0)
    assert [t for t in a.order if t < 9] == b.order.tolist()
    assert a.order.tolist() != Schedule.of_targets(make_candidates(vectors, {"p": vectors}), 1).order.tolist()


def test_choices_are_counted_by_taker():
    turns = Turns.of([(5, 1, 0.0), (3, 0, 0.0), (8, 1, 0.5), (9, 1, 2.0)])
    assert turns.choices.tolist() == [1, 1, 2, 3]
    parts = Turns.joined(
        [turns.where(np.array([True, False, True, False])), turns.where(np.array([False] * 3 + [True]))]
    )
    assert as_list(parts) == [(5, 1, 0.0), (8, 1, 0.5), (9, 1, 2.0)]
    assert as_list(Turns.joined([])) == []


def test_reasons_tell_own_images_from_others():
    candidates = make_candidates(np.eye(3), {"pool": np.eye(3)}, own=True)
    turns = Turns.of([(0, 0, 0.0), (2, 1, 2.0), (4, 0, 2.0)])
    assert reasons(candidates, turns, "name") == [
        "name: an image of the target itself",
        "name: choice 1 of target 00001",
        "name: choice 2 of target 00000",
    ]


def test_a_subset_is_searched_like_its_rows():
    rng = np.random.default_rng(0)
    x, rows = rng.normal(size=(50, 4)), np.array([3, 7, 8, 20, 41])
    for found, expected in zip(nearest(x[:6], subset(x, rows), 3), nearest(x[:6], x[rows], 3), strict=True):
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("method", ["near-first", "knn-quota", "assignment", "simcore"])
def test_methods_search_by_what_was_asked_for(method):
    rng, asked = np.random.default_rng(0), []

    def search(queries, base, k):
        asked.append(len(base))
        return nearest(queries, base, k)

    exact = make_candidates(rng.normal(size=(20, 6)), {"pool": rng.normal(size=(300, 6))})
    choose = METHODS[method].load()
    chosen, by_index = (choose(c, images(c, 40), seed=0) for c in (exact, replace(exact, search=search)))
    assert asked
    assert by_index.rows.tolist() == chosen.rows.tolist()
    assert by_index.parameters.get("optimal") in (None, False)  # what an index may miss, no proof covers
