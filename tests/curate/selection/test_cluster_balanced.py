import numpy as np
import pytest
from candidates_data import capped, images, make_candidates
from hypothesis import given
from hypothesis import strategies as st

from curate.selection._cluster_balanced import choose, draw_balanced, fit_levels, parents_of
from curate.selection._ledger import IMAGES, Ledger, Limit, Quota


def fill(budget, capacities):
    """Water-filling by its definition: q_c = min(|c|, h), and those at the level share what does not divide."""
    level = max(h for h in range(budget + 1) if sum(min(c, h) for c in capacities) <= budget)
    return [min(c, level) for c in capacities], budget - sum(min(c, level) for c in capacities)


@given(
    sizes=st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=4), min_size=1, max_size=4),
    share=st.floats(0, 1),
    seed=st.integers(0, 5),
)
def test_quotas_are_those_of_water_filling(sizes, share, seed):
    leaves = [size for group in sizes for size in group]
    parent = np.repeat(np.arange(len(sizes)), [len(group) for group in sizes])
    leaf = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(leaves)), leaves))
    budget = int(share * len(leaf))
    numbers = np.random.default_rng(seed).integers(0, 2**63, len(leaf)).astype(np.uint64)
    if not budget:
        return
    rows = draw_balanced(leaf, [parent], numbers, Ledger.of_images(len(leaf), budget), seed=seed)
    assert len(rows) == len(set(rows.tolist())) == budget
    taken = np.bincount(leaf[rows], minlength=len(leaves))
    for group, given_ in [
        (range(len(sizes)), budget),
        *((np.flatnonzero(parent == p), None) for p in range(len(sizes))),
    ]:
        at_leaves = given_ is None
        got = taken[group] if at_leaves else [taken[parent == p].sum() for p in group]
        capacities = [leaves[i] for i in group] if at_leaves else [sum(s) for s in sizes]
        quotas, over = fill(int(sum(got)), capacities)
        assert (np.array(got) - quotas >= 0).all()
        assert (np.array(got) - quotas).sum() == over
        assert (np.array(got) - quotas).max() <= 1
    for i in range(len(leaves)):  # the lowest numbers of every leaf
        mine = np.flatnonzero(leaf == i)
        assert set(rows[leaf[rows] == i]) == set(mine[np.argsort(numbers[mine])][: taken[i]])


def test_what_a_cap_closes_is_made_up_for_next_door():
    leaf, parent = np.repeat([0, 1, 2, 3], 10), np.array([0, 0, 1, 1])
    quota = Quota(
        name="source", names=["a", "b"], member=(leaf > 0) * 1, caps=np.array([2, 99]), floors=np.zeros(2, np.int64)
    )
    ledger = Ledger(40, [Limit(name=IMAGES, most=16, amounts=np.ones(40))], [quota])
    rows = draw_balanced(leaf, [parent], np.arange(40, dtype=np.uint64), ledger, seed=0)
    assert np.bincount(leaf[rows]).tolist() == [2, 6, 4, 4]


def test_what_opens_again_is_drawn():
    """Two floors that one image serves: the others are closed until it is taken."""
    member = np.array([0] * 6 + [-1] * 4)
    floors = [
        Quota(name=name, names=["x"], member=member, caps=np.array([99]), floors=np.array([2])) for name in ("a", "b")
    ]
    ledger = Ledger(10, [Limit(name=IMAGES, most=4, amounts=np.ones(10))], floors)
    leaf, numbers = np.array([0] * 5 + [1] * 5), np.arange(10, dtype=np.uint64)[::-1].copy()
    assert ledger.open.tolist() == [True] * 6 + [False] * 4
    rows = draw_balanced(leaf, [], numbers, ledger, seed=0)
    assert sorted(np.bincount(leaf[rows]).tolist()) == [2, 2]
    assert 9 in rows  # the lowest number of its cluster, closed at first


def test_centers_of_resampled_clusters_are_spread_more_evenly_than_the_images():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(7500, 2)) * 0.05, rng.uniform(-1, 1, size=(500, 2))]).astype(np.float32)
    levels = fit_levels(x)
    assert [len(level) for level in levels] == [250, 31]
    dense = [float((np.abs(level) < 0.2).all(axis=1).mean()) for level in (x, *levels)]
    assert dense[0] > 0.9
    assert dense[1] < 0.6
    assert dense[2] < dense[1]
    parents = parents_of(levels)
    assert [len(p) for p in parents] == [250]
    assert np.array_equal(parents[0], ((levels[0][:, None] - levels[1]) ** 2).sum(axis=-1).argmin(axis=1))


def test_rare_kinds_get_far_more_than_their_share():
    rng = np.random.default_rng(3)
    kinds = np.repeat(np.arange(10), [3000] + [60] * 9)
    pool = (np.eye(10)[kinds] * 12 + rng.normal(size=(len(kinds), 10))).astype(np.float32)
    candidates = make_candidates(pool[:3], {"pool": pool})
    chosen = choose(candidates, images(candidates, 200), seed=0)
    assert (kinds == 0).mean() > 0.8
    assert (kinds[chosen.rows] == 0).mean() < 0.5
    assert np.bincount(kinds[chosen.rows], minlength=10).min() >= 5
    assert chosen.parameters["clusters"] == [len(kinds) // 32, len(kinds) // 32 // 8]


def test_the_target_does_not_matter():
    rng = np.random.default_rng(0)
    pool = rng.normal(size=(400, 6))
    one, other = (make_candidates(rng.normal(size=(m, 6)), {"pool": pool}) for m in (1, 30))
    chosen = [choose(candidates, images(candidates, 50), seed=2) for candidates in (one, other)]
    assert chosen[0].rows.tolist() == chosen[1].rows.tolist()
    assert chosen[0].rows.tolist() != choose(one, images(one, 50), seed=3).rows.tolist()
    assert chosen[0].reasons[0].startswith("cluster-balanced: drawn from cluster ")


@pytest.mark.parametrize("n", [1, 2, 40])
def test_few_candidates_and_copies(n):
    candidates = make_candidates(np.zeros((1, 5)), {"pool": np.ones((n, 5))}, own=True)
    chosen = choose(candidates, images(candidates, 99), seed=0)
    assert sorted(chosen.rows) == list(range(n + 1))
    assert ((chosen.scores >= 0) & (chosen.scores < 1)).all()


def test_caps_are_kept():
    rng = np.random.default_rng(0)
    candidates = make_candidates(rng.normal(size=(4, 6)), {n: rng.normal(size=(100, 6)) for n in "ab"}, own=True)
    chosen = choose(candidates, capped(candidates, 90, [2, 30, 100]), seed=0)
    assert np.bincount(candidates.source[chosen.rows]).tolist() == [2, 30, 58]
