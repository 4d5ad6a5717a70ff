from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from candidates_data import capped, images, make_candidates
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import linalg
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import polynomial_kernel

from curate.distances import mmd
from curate.results import Estimate, PoolScore, ShiftReport
from curate.selection import _near_first
from curate.selection._balance import NEARNESS, WIDTH, Balance
from curate.selection._directions import Whitening, project
from curate.selection._ledger import IMAGES, Ledger, Limit
from curate.selection._near_first import OUTSIDE, REACH, _Table, chance_index, choose, set_apart
from curate.selection._strata import strata
from curate.selection._turns import Schedule, each_turn
from embeddings.neighbors import Engine, nearest

ZERO = Estimate(value=0.0, low=0.0, high=0.0, n=(0, 0), unit="", method="")


def report_of(index=0.0, **verdicts):
    """A report that judges pools as told, in the order told, all with one index."""
    index = replace(ZERO, value=index)
    pools = [
        PoolScore(name=name, rank=rank, verdict=verdict, n=0, index=index, metrics={})
        for rank, (name, verdict) in enumerate(verdicts.items(), 1)
    ]
    return ShiftReport(target={}, encoder={}, pools=tuple(pools), floor=ZERO)


def mmd_to_target(points, targets, weights):
    """J but for the target's own term, from pairs: biased MMD^2 with the kernel (x.y + 1)^2 in the target's units."""
    share = weights / weights.sum()
    mean = share @ targets
    unit = np.sqrt(share @ ((targets - mean) ** 2).sum(axis=1)) or 1.0
    x, t = (points - mean) / unit, (targets - mean) / unit
    kernel = {"degree": 2, "gamma": 1.0, "coef0": 1.0}
    return polynomial_kernel(x, **kernel).mean() - 2 * (polynomial_kernel(x, t, **kernel) @ share).mean()


def cost(points, targets, weights, gap):
    """What the pick that makes these of the chosen costs, at a squared distance from its taker."""
    share = weights / weights.sum()
    square = share @ ((targets - share @ targets) ** 2).sum(axis=1) or 1.0
    return len(points) * mmd_to_target(points, targets, weights) + NEARNESS * gap / square


def naive_balance(targets, weights, pool, order, budget, reach):
    """The definition: every open candidate is looked at, every set measured from its pairs."""
    chosen = []
    while len(chosen) < budget:
        for target in order[: budget - len(chosen)]:
            gaps = ((targets[target] - pool) ** 2).sum(axis=1).round(6)
            free = sorted((i for i in range(len(pool)) if i not in chosen), key=lambda i: (gaps[i], i))[:reach]
            free = [row for row in free if gaps[row] <= WIDTH * gaps[free[0]]]
            costs = [cost(pool[[*chosen, row]], targets, weights, gaps[row]) for row in free]
            places = np.flatnonzero(np.array(costs) <= min(costs) + 1e-9)  # ties: the nearest
            chosen.append(free[0] if gaps[free[0]] == 0 else free[places[0]])
    return chosen


def points(n):
    return hnp.arrays(np.float64, (n, 3), elements=st.integers(-40, 40).map(lambda i: i / 8))


@settings(max_examples=15)
@given(
    targets=points(5), pool=points(16), reach=st.sampled_from([1, 2, 7, 40]), entries=st.sampled_from([1, 1 << 20]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_picks_are_those_of_the_plain_greedy(targets, pool, reach, entries, seed):
    rng = np.random.default_rng(seed)
    order, weights = rng.permutation(5), np.ones(5)
    balance = Balance(targets, weights, pool, reach=reach)
    schedule, ledger = Schedule(order=order, weights=weights), Ledger.of_images(16, 9)
    options = {"preference": balance, "entries": entries, "search": partial(nearest, engine=Engine(faiss=False))}
    found = [row for row, _, _ in each_turn(targets, pool, schedule, ledger, **options)]
    expected = naive_balance(targets, weights, pool, order, 9, reach)
    at = next((i for i in range(9) if found[i] != expected[i]), None)
    if at is not None:  # sets as near as rounding tells
        target = order[at % 5]
        gaps = ((targets[target] - pool) ** 2).sum(axis=1)
        values = [cost(pool[rows[: at + 1]], targets, weights, gaps[rows[at]]) for rows in (found, expected)]
        assert values[0] == pytest.approx(values[1], abs=1e-7)


def test_balance_counts_weights():
    rng = np.random.default_rng(0)
    targets, pool, weights = rng.normal(size=(5, 3)), rng.normal(size=(40, 3)), np.array([3.0, 1, 1, 2, 1])
    balance, chosen = Balance(targets, weights, pool, reach=40), []
    for _ in range(10):
        free = np.array([i for i in range(40) if i not in chosen])
        costs = [mmd_to_target(pool[[*chosen, row]], targets, weights) for row in free]
        place = balance.pick(free, np.ones(len(free)))  # all as far as one another
        assert place == int(np.argmin(costs))
        chosen.append(int(free[place]))


@pytest.mark.parametrize("m", [1, 2])
def test_one_target_image_or_two_alike_are_enough(m):
    pool = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    candidates = make_candidates(np.ones((m, 6), np.float32), {"pool": pool})
    chosen = choose(candidates, images(candidates, 50), seed=0)
    assert sorted(chosen.rows) == list(range(50))
    assert np.isfinite(chosen.scores).all()


def test_a_pool_of_copies_is_taken_in_order_of_rows():
    candidates = make_candidates(np.eye(4, dtype=np.float32), {"pool": np.ones((9, 4), np.float32)})
    assert choose(candidates, images(candidates, 5), seed=0).rows.tolist() == [0, 1, 2, 3, 4]


@pytest.fixture(scope="module")
def modes():
    """A target of 12 modes that are rare in a pool of 3,000: 30 of each, beside 2,640 images of 30 others."""
    rng = np.random.default_rng(11)
    centers = rng.normal(size=(42, 32)) * 3

    def sample(kinds):
        return (centers[kinds] + rng.normal(size=(len(kinds), 32))).astype(np.float32)

    kinds = np.concatenate([np.repeat(np.arange(12), 30), rng.integers(12, 42, 2640)])
    target, unseen = sample(np.repeat(np.arange(12), 10)), sample(np.repeat(np.arange(12), 50))
    return target, unseen, kinds, sample(kinds)


def test_every_mode_gets_its_share_and_the_whole_is_nearer_than_the_nearest(modes):
    target, unseen, kinds, pool = modes
    candidates = make_candidates(target, {"pool": pool})
    rows = choose(candidates, images(candidates, 180), seed=0).rows
    share = np.bincount(kinds[rows], minlength=42)[:12]
    assert share.min() >= 12  # a fair share is 15
    assert (kinds[rows] < 12).mean() > 0.95
    random = np.random.default_rng(0).permutation(3000)[:180]
    assert mmd(unseen, pool[rows]).value < mmd(unseen, pool[random]).value / 20


def test_balance_takes_out_what_a_pool_has_in_common(monkeypatch):
    rng = np.random.default_rng(3)
    target, unseen = rng.normal(size=(100, 8)), rng.normal(size=(400, 8))
    pool = (rng.normal(size=(2000, 8)) + np.eye(8)[0]).astype(np.float32)  # all of it leans to one side
    candidates = make_candidates(target, {"pool": pool})
    gap = {}
    for reach in (1, REACH):
        monkeypatch.setattr(_near_first, "REACH", reach)
        rows = choose(candidates, images(candidates, 100), seed=0).rows
        gap[reach] = np.linalg.norm(pool[rows].mean(axis=0) - unseen.mean(axis=0))
    assert gap[REACH] < 0.8 * gap[1]


def test_scores_are_distances_to_the_taker_in_plain_directions(modes):
    target, _, _, pool = modes
    candidates = make_candidates(target, {"pool": pool})
    chosen = choose(candidates, images(candidates, 50), seed=0)
    plain = PCA(n_components=32, svd_solver="full").fit(pool.astype(float))
    takers = [int(reason.rpartition(" ")[2]) for reason in chosen.reasons]
    gap = plain.transform(candidates.vectors(chosen.rows)) - plain.transform(target[takers].astype(float))
    assert np.allclose(chosen.scores, (gap**2).sum(axis=1) / plain.explained_variance_.sum(), rtol=1e-4, atol=2e-6)


def test_own_images_go_first_and_say_so(modes):
    target, _, _, pool = modes
    candidates = make_candidates(target[:20], {"pool": pool[:300]}, own=True)
    chosen = choose(candidates, images(candidates, 50), seed=3)
    assert sorted(chosen.rows[:20]) == list(range(20))
    assert chosen.codes == ["own-image"] * 20 + ["near"] * 30
    assert set(chosen.scores[:20]) == {0.0}
    assert all(reason.startswith("near-first: choice 2 of target 000") for reason in chosen.reasons[20:40])


def test_a_budget_below_the_target_is_a_draw_from_it_not_its_first_keys(modes):
    target, _, _, pool = modes
    candidates = make_candidates(target, {"pool": pool}, own=True)
    rows = choose(candidates, images(candidates, 60), seed=0).rows
    assert rows.max() < 120
    assert 15 < (rows < 60).sum() < 45


@pytest.fixture(scope="module")
def pools(modes):
    """The same pool in three: a part of it near, the rest not."""
    _, _, _, pool = modes
    return {"a": pool[300:600], "b": pool[1:200:2], "c": pool[:200:2]}


@pytest.mark.parametrize(("gate", "first"), [(0.5, 0.6), (4.0, 0.95), (1e6, 1.0)])
def test_near_pools_go_first_and_the_others_where_those_run_out(modes, pools, gate, first, monkeypatch):
    monkeypatch.setattr(_near_first, "OUTSIDE", gate)
    candidates = make_candidates(modes[0][:60], pools, report=report_of(b="near", c="middle", a="far"))
    chosen = choose(candidates, images(candidates, 180), seed=0)
    source = np.array(candidates.names)[candidates.source[chosen.rows]]
    assert (source[:60] == "b").mean() >= first
    assert np.array_equal(np.array(chosen.codes), np.where(source == "b", "near", "next"))
    assert (source == "b").sum() >= 85
    assert (source == "c").sum() > 60
    assert chosen.parameters["near_pools"] == ["b"]


@pytest.mark.parametrize("report", [None, report_of(c="middle", b="unclear", a="far")])
def test_without_a_near_pool_all_are_alike(modes, pools, report):
    candidates = make_candidates(modes[0], pools, report=report)
    chosen = choose(candidates, images(candidates, 100), seed=0)
    assert (np.bincount(candidates.source[chosen.rows], minlength=4)[2:] > 20).all()
    assert set(chosen.codes) == {"near"}


def test_what_the_near_pools_lack_is_taken_elsewhere():
    rng = np.random.default_rng(0)
    target, near, web = (rng.normal(size=(n, 4)).astype(np.float32) for n in (40, 200, 200))
    target[:5] += 20
    web[:20] += 20
    candidates = make_candidates(target, {"near": near, "web": web}, report=report_of(near="near", web="far"))
    chosen = choose(candidates, images(candidates, 40), seed=0)
    outside = chosen.rows[candidates.source[chosen.rows] == 2]
    assert (candidates.place[outside] < 20).sum() == 5
    free = choose(replace(candidates, report=None), images(candidates, 40), seed=0)
    assert len(outside) == chosen.codes.count("next") < (candidates.source[free.rows] == 2).sum()


def test_a_cap_is_made_up_for_outside_the_gate(modes, pools):
    candidates = make_candidates(modes[0], pools, report=report_of(b="same", c="far", a="far"))
    chosen = choose(candidates, capped(candidates, 90, [0, 5, 40, 1000]), seed=0)
    counts = np.bincount(candidates.source[chosen.rows], minlength=4)
    assert counts[2] == 40
    assert counts[1] <= 5
    assert counts.sum() == 90


def test_smaller_budgets_are_the_beginning_of_larger_ones(modes, pools):
    candidates = make_candidates(modes[0], pools, report=report_of(b="near", c="far", a="far"))
    long = choose(candidates, images(candidates, 300), seed=1)
    short = choose(candidates, images(candidates, 120), seed=1)
    assert np.array_equal(short.rows, long.rows[:120])
    assert short.reasons == long.reasons[:120]


def test_the_far_share_comes_last_and_evenly_from_the_clusters_of_what_is_far():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(4, 16)) * 20
    kinds = np.repeat(np.arange(4), [700, 60, 40, 40])  # one crowd
    far = (centers[kinds] + rng.normal(size=(840, 16))).astype(np.float32)
    near = rng.normal(size=(200, 16)).astype(np.float32)
    candidates = make_candidates(near[:50], {"far": far, "near": near[50:]}, report=report_of(near="near", far="far"))
    chosen = choose(replace(candidates, far=0.4), images(candidates, 100), seed=0)
    assert chosen.codes == ["near"] * 60 + ["far"] * 40
    drawn = far[candidates.place[chosen.rows[60:]]]
    cluster = KMeans(4, n_init=3, random_state=0).fit(far).predict(drawn)
    assert len(np.unique(cluster)) == 4
    assert np.bincount(cluster).max() < 36  # in proportion it would be 33 of 40 at random, with 3 of 4 clusters thin
    assert np.array_equal(np.unique(chosen.rows), np.sort(chosen.rows))


def test_a_far_share_that_does_not_exist_is_met_with_near_images(modes, pools):
    candidates = make_candidates(modes[0], pools, report=report_of(a="near", b="near", c="near"), far=0.5)
    assert set(choose(candidates, images(candidates, 80), seed=0).codes) == {"near"}


def test_chance_is_how_far_a_sample_is_from_the_whole_on_average():
    variances, rng, m = 0.8 ** np.arange(40), np.random.default_rng(0), 60
    covariance, total, k = np.diag(variances), variances.sum(), m // 6
    drawn, told = [], []
    for _ in range(60):
        sample = rng.normal(size=(m, 40)) * variances**0.5
        mean, found = sample.mean(axis=0), np.cov(sample.T)
        inside = found[:k, :k]
        root = linalg.sqrtm(covariance[:k, :k] @ inside).real
        bures = variances[:k].sum() + np.trace(inside) - 2 * np.trace(root)
        outside = np.sqrt(variances[k:].sum()) - np.sqrt(np.trace(found) - np.trace(inside))
        drawn.append((mean**2).sum() + bures + outside**2)
        told.append(chance_index(sample))
    chance = np.mean(drawn) / total
    assert np.mean(told) == pytest.approx(100 * chance / (1 + chance), rel=0.1)


def test_chance_of_few_images_or_of_copies():
    assert chance_index(np.ones((30, 4))) == 0.0
    assert chance_index(np.ones((1, 4))) == 0.0
    assert chance_index(np.random.default_rng(0).normal(size=(2, 4))) > 30


@pytest.fixture(scope="module")
def kinds_of_pools(modes):
    """A target of 40 images, a pool of its kind, one in another style, one of other things."""
    _, unseen, _, pool = modes
    mixed = unseen[np.random.default_rng(0).permutation(600)]
    return mixed[:40], {"kin": mixed[40:240], "style": mixed[240:320] + 0.5, "web": pool[400:500]}


def choose_among(kinds_of_pools, n, report, **more):
    target, pools = kinds_of_pools
    candidates = make_candidates(target, pools, report=report, **more)
    return candidates, choose(candidates, images(candidates, n), seed=4)


def test_a_pool_like_the_target_goes_first_one_of_every_stratum_a_round_then_turns_begin(kinds_of_pools):
    candidates, chosen = choose_among(kinds_of_pools, 280, report_of(kin="same", style="near", web="far"))
    kin = candidates.rows_of("kin")
    parts = strata(project(candidates, Whitening.fit(candidates.pool_sample).unscaled()), kin, REACH)
    rounds = [{number for number, part in enumerate(parts) if row in part} for row in chosen.rows[: len(parts)]]
    assert len(set.union(*rounds)) == len(parts) == 16
    assert sorted(chosen.rows[:200]) == kin.tolist()
    assert list(chosen.codes[:200]) == ["same"] * 200
    assert set(chosen.reasons[:200]) == {"near-first: drawn from kin, which cannot be told from the target"}
    assert set(chosen.scores[:200]) == {0.0}
    assert "same" not in chosen.codes[200:]
    assert chosen.reasons[200].startswith("near-first: choice 1 of target ")
    assert chosen.parameters["drawn_pools"] == ["kin"]


def test_a_draw_from_a_pool_like_the_target_is_nearer_to_unseen_images_than_one_by_lot():
    rng = np.random.default_rng(5)
    centers = rng.normal(size=(12, 16)) * 3
    target, unseen, pool = (
        (centers[rng.integers(0, 12, n)] + rng.normal(size=(n, 16))).astype(np.float32) for n in (40, 4_000, 1_200)
    )
    candidates = make_candidates(target, {"kin": pool}, report=report_of(kin="same"))
    drawn = choose(candidates, images(candidates, 150), seed=0).rows
    by_lot = [mmd(unseen, pool[rng.permutation(1_200)[:150]]).value for _ in range(20)]
    assert mmd(unseen, pool[drawn]).value < np.quantile(by_lot, 0.1)


def test_a_smaller_budget_is_the_beginning_with_draws_too(kinds_of_pools):
    found = [
        choose_among(kinds_of_pools, n, report_of(kin="same", style="same", web="far"))[1].rows for n in (30, 90, 300)
    ]
    assert np.array_equal(found[0], found[2][:30])
    assert np.array_equal(found[1], found[2][:90])


def test_own_images_go_before_pools_like_them(kinds_of_pools):
    _, chosen = choose_among(kinds_of_pools, 100, report_of(kin="same", style="near"), own=True)
    assert sorted(chosen.rows[:40]) == list(range(40))
    assert list(chosen.codes) == ["own-image"] * 40 + ["same"] * 60


@pytest.mark.parametrize(
    ("index", "verdict", "more"),
    [
        (0.0, "near", {}),
        (9.0, "same", {}),
        (None, "same", {}),
        (0.0, "same", {"target_weights": np.arange(40.0)}),
        (0.0, "same", {"prices": np.repeat([1.0, 2.0, 2.0], [200, 80, 100])}),
    ],
)  # fmt: skip
def test_images_are_ranked_where_a_pool_differs_or_images_count_differently(kinds_of_pools, index, verdict, more):
    _, chosen = choose_among(kinds_of_pools, 100, report_of(index, kin=verdict, style="near", web="far"), **more)
    assert "same" not in chosen.codes
    assert chosen.parameters["drawn_pools"] == []


def test_one_price_and_one_weight_for_all_change_nothing(kinds_of_pools):
    even = {"target_weights": np.full(40, 3.0), "prices": np.full(380, 0.02)}
    _, chosen = choose_among(kinds_of_pools, 100, report_of(kin="same", style="near"), **even)
    assert list(chosen.codes) == ["same"] * 100


def test_draws_heed_caps_and_leave_the_far_share(kinds_of_pools):
    target, pools = kinds_of_pools
    candidates = make_candidates(target, pools, report=report_of(kin="same", style="near", web="far"), far=0.25)
    chosen = choose(candidates, capped(candidates, 100, [0, 60, 500, 500]), seed=0)
    assert list(chosen.codes[:60]) == ["same"] * 60
    assert set(chosen.codes[60:75]) <= {"near", "next"}
    assert list(chosen.codes[75:]) == ["far"] * 25
    free = choose(candidates, images(candidates, 100), seed=0)
    assert list(free.codes) == ["same"] * 75 + ["far"] * 25


def test_turns_after_a_draw_make_up_for_what_it_lacks(kinds_of_pools):
    target, pools = kinds_of_pools
    order = np.argsort(pools["kin"][:, 0])
    halves = {"left": pools["kin"][order[:60]], "rest": pools["kin"][order[60:]]}
    side = {}
    for taken, names in ((60, ("left", "rest")), (0, ("rest",))):
        candidates = make_candidates(target, {name: halves[name] for name in names})
        vectors = candidates.vectors(np.arange(len(candidates)))
        alike, apart = candidates.rows_of(*names[: len(names) - 1]), np.zeros(len(candidates), bool)
        table = _Table(candidates, target, vectors, apart=apart, alike=alike)
        rows = table.turns(images(candidates, taken + 40), 0).rows[taken:]
        side[taken] = vectors[rows, 0].mean()
    assert side[60] > side[0] + 0.1


def test_weights_are_shares(modes):
    target, _, kinds, pool = modes
    weights = np.where(np.arange(120) < 10, 11.0, 1.0)  # of the first mode, as much as the rest together
    candidates = make_candidates(target, {"pool": pool}, target_weights=weights)
    share = np.bincount(kinds[choose(candidates, images(candidates, 40), seed=0).rows], minlength=42)
    assert share[0] == pytest.approx(20, abs=4)  # an even share would be 3


def test_price_and_gate_are_distance():
    farther = set_apart(np.array([True, False, False]), np.array([3.0, 1.0, 0.0]))
    assert np.allclose(farther, [OUTSIDE + np.log1p(3 / 2), np.log1p(1 / 2), 0])
    assert not set_apart(np.zeros(2, bool), np.zeros(2)).any()


@pytest.mark.parametrize("own", [False, True])
def test_of_equally_near_images_the_cheaper_is_bought(own):
    rng = np.random.default_rng(0)
    target, sold = rng.normal(size=(60, 6)), rng.normal(size=(400, 6)).astype(np.float32)
    candidates = make_candidates(target, {"cheap": sold, "dear": sold + 1e-3}, own=own)
    prices = np.array([0.0, 1.0, 9.0])[candidates.source]
    bought = {}
    for known in (True, False):
        every = Limit(name=IMAGES, most=len(prices), amounts=np.ones(len(prices)))
        ledger = Ledger(len(prices), [every, Limit(name="money", most=300.0, amounts=prices)])
        rows = choose(replace(candidates, prices=prices if known else None), ledger, seed=0).rows
        bought[known] = candidates.source[rows]
    first = [source[source > 0][:60] for source in (bought[True], bought[False])]
    assert (first[0] == 1).mean() > 0.9 > (first[1] == 1).mean()
    assert len(bought[True]) > 1.5 * len(bought[False])


def test_faiss_does_not_matter(modes, pools, monkeypatch):
    pytest.importorskip("faiss")
    candidates = make_candidates(modes[0], pools, report=report_of(b="near", c="far", a="far"), far=0.1)
    found = []
    for faiss in (False, True):
        monkeypatch.setattr(Engine, "uses_faiss", lambda _, d, faiss=faiss: faiss)
        found.append(choose(candidates, images(candidates, 200), seed=0))
    assert np.array_equal(found[0].rows, found[1].rows)
    assert np.array_equal(found[0].scores, found[1].scores)
