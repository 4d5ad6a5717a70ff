"""The supply curve and its knee: known supplies, closed forms, and the headline distance computed the other way."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.distances._frechet import TargetFrame, frechet_to
from curate.results import Estimate
from curate.selection._ledger import Ledger
from curate.selection._nearness import Nearness, Sample
from curate.selection._supply import (
    Delivery,
    Knee,
    Point,
    SupplyCurve,
    Taken,
    change_point,
    delivered_supply,
    describe,
    find_knee,
    supply_curve,
    window_edges,
)
from curate.selection._turns import Schedule, take_turns
from embeddings.errors import TooFewImagesError
from embeddings.moments import FOLDS, Moments

MODES, RARE, D = 120, 15, 24
CENTERS = np.random.default_rng(0).normal(size=(MODES, D)) * 2


def sample(vectors):
    return Sample(vectors=np.asarray(vectors), folds=np.arange(len(vectors)) % FOLDS)


def taken(vectors, own=0):
    vectors = np.asarray(vectors)
    folds, mine = np.arange(len(vectors)) % FOLDS, np.arange(len(vectors)) < own
    return Taken(vectors=vectors.__getitem__, folds=folds, own=mine)


def in_modes(modes, rng):
    return CENTERS[modes] + rng.normal(size=(len(modes), D)) * 0.6


def in_turns(target, pool, order, n):
    schedule = Schedule(order=order, weights=np.ones(len(target)))
    target, pool = target.astype(np.float32), pool.astype(np.float32)
    return take_turns(target, pool, schedule, Ledger.of_images(len(pool), n)).rows


@cache
def pool_order(seed=0, supply=300, budget=1500):
    """A target in 15 modes, its pool in 120, and the pool's images in the order in which the target takes them."""
    rng = np.random.default_rng(seed)
    target = in_modes(rng.integers(0, RARE, 100), rng)
    modes = np.r_[rng.integers(0, RARE, supply), rng.integers(RARE, MODES, 3000 - supply)]
    pool = in_modes(modes, rng)
    rows = in_turns(target, pool, rng.permutation(100), budget)
    return target, pool[rows], pool.mean(axis=0), modes[rows] < RARE


@cache
def pool_curve(seed=0):
    target, images, center, _ = pool_order(seed)
    return supply_curve(sample(target), taken(images), center=center)


def knee_of(target, images, center, own=0):
    return find_knee(supply_curve(sample(target), taken(images, own), center=center))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_knee_is_where_a_known_supply_ends(seed):
    knee = find_knee(pool_curve(seed))
    assert pool_order(seed)[-1].sum() == 300
    assert knee.n == pytest.approx(300, rel=0.2)
    assert knee.low <= knee.n <= knee.high < 1.5 * 300
    assert knee.from_pools == knee.n


def test_no_knee_within_the_supply_nor_where_all_is_near():
    target, images, center, _ = pool_order()
    assert knee_of(target, images[:200], center) is None
    rng = np.random.default_rng(5)
    alike = in_modes(rng.integers(0, RARE, 400), rng)
    rows = in_turns(target, alike, np.arange(100), 400)
    assert knee_of(target, alike[rows], center) is None


def test_far_pools_have_no_supply():
    target, images, center, near = pool_order()
    curve = supply_curve(sample(target), taken(images[~near][:300]), center=center)
    knee = find_knee(curve)
    assert (knee.n, knee.low, knee.high, knee.from_pools) == (0, 0, 0, 0)
    assert describe(curve, knee).startswith("No pool has images near the target, there are no near images: 0% of pool")


def test_own_images_are_near_and_come_on_top():
    target, images, center, near = pool_order()
    far = np.concatenate([target, images[~near][:300]])
    curve = supply_curve(sample(target), taken(far, own=100), center=center)
    knee = find_knee(curve)
    assert (knee.n, knee.from_pools, curve.own) == (100, 0, 100)
    assert "the near images are the target's own 100:" in describe(curve, knee)
    alone, together = find_knee(pool_curve()), knee_of(target, np.concatenate([target, images]), center, 100)
    assert (together.n, together.low, together.high) == (alone.n + 100, alone.low + 100, alone.high + 100)
    assert together.from_pools == alone.from_pools


def test_scattered_own_images_are_counted_where_they_stand():
    target, images, center, _ = pool_order()
    mixed = Taken(
        vectors=np.repeat(images, 2, axis=0).__getitem__,
        folds=np.repeat(np.arange(len(images)) % FOLDS, 2),
        own=np.arange(2 * len(images)) % 2 == 0,
    )
    alone = pool_curve()
    both = supply_curve(sample(target), mixed, center=center)
    assert find_knee(both).n == pytest.approx(2 * find_knee(alone).n, abs=2)
    assert [p.share for p in both.points] == [p.share for p in alone.points]


def test_a_narrow_set_amid_the_target_is_within_reach_but_not_near():
    rng = np.random.default_rng(1)
    target = rng.normal(size=(150, D)) * 3
    narrow = target[0] + rng.normal(size=(300, D)) * 0.3
    curve = supply_curve(sample(target), taken(narrow), center=target.mean(axis=0) + 5)
    assert min(p.share.value for p in curve.points) > 0.9
    assert min(p.index.value for p in curve.points) > 20
    assert find_knee(curve).from_pools == 0


def test_images_of_the_target_kind_are_within_reach_as_often_as_stated():
    rng = np.random.default_rng(2)
    shares = []
    for _ in range(15):
        target, images = rng.normal(size=(200, 8)), rng.normal(size=(200, 8))
        shares.append(Nearness(sample(target), np.full(8, 3.0)).share(sample(images)))
    assert np.mean([s.value for s in shares]) == pytest.approx(0.95, abs=0.02)
    assert sum(s.low <= 0.95 <= s.high for s in shares) >= 12
    assert {s.null for s in shares} == {0.95}


def test_distance_is_the_headline_distance():
    rng = np.random.default_rng(3)
    target, images = sample(rng.normal(size=(120, 40))), sample(rng.normal(size=(90, 40)) * 1.3 + 0.2)
    found = Nearness(target, np.zeros(40)).distance(images)
    moments = [Moments.from_vectors(s.vectors, s.folds) for s in (target, images)]
    known = frechet_to(TargetFrame.of(moments[0]), moments[1])
    assert found.value == pytest.approx(known.value, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((known.low, known.high), rel=1e-9)


def test_curve_ends_with_the_selection_and_names_its_sizes():
    target, images, center, _ = pool_order()
    curve = supply_curve(sample(target), taken(images[:250]), center=center)
    assert curve.points[-1].stop == curve.points[-1].n == 250
    assert [p.start for p in curve.points[1:]] == [p.stop for p in curve.points[:-1]]
    assert curve.points[-1].index.n == (len(range(curve.points[-1].start, 250)), 100)
    assert curve.target_images == 100
    assert describe(curve, None).startswith("Near images did not run out within 250: ")


def test_words_of_a_knee():
    knee = Knee(n=1100, low=990, high=1340, from_pools=1100)
    words = describe(pool_curve(), knee)
    assert words.startswith(
        "Near images run out at about N = 1,100 (990 to 1,340): 1,100 from the pools. The first stretch"
    )
    assert "not near: 0% of pool images " in words
    with_own = describe(pool_curve(), Knee(n=1150, low=990, high=1340, from_pools=1100))
    assert "N = 1,150 (990 to 1,340): the target's own 50 and 1,100 from the pools." in with_own


def test_words_of_a_knee_tell_of_the_window_after_it_not_of_the_last_near_one():
    curve = pool_curve()
    near, after = curve.points[3:5]
    knee = Knee(n=near.stop - 1, low=near.stop - 2, high=near.stop, from_pools=near.stop - 1)
    assert f"of pool images {after.start + 1:,} to {after.stop:,} in the order taken" in describe(curve, knee)


def test_reads_few_images_whatever_the_size():
    target, images, center, _ = pool_order()
    asked = []

    def vectors(positions):
        asked.append(len(positions))
        return images[positions % len(images)]

    n = 6000
    many = Taken(vectors=vectors, folds=np.arange(n) % FOLDS, own=np.zeros(n, bool))
    curve = supply_curve(sample(target), many, center=center)
    assert max(asked) <= 1000
    assert len(curve.points) < 25


def test_knee_survives_rotation_and_scale():
    target, images, center, _ = pool_order()
    turn = np.linalg.qr(np.random.default_rng(4).normal(size=(D, D)))[0] * 10
    plain, turned = find_knee(pool_curve()), knee_of(target @ turn, images @ turn, center @ turn)
    assert (turned.n, turned.low, turned.high) == pytest.approx((plain.n, plain.low, plain.high), abs=2)


def test_degenerate_selections():
    rng = np.random.default_rng(6)
    target = rng.normal(size=(40, 6))
    same = supply_curve(sample(target), taken(np.zeros((64, 6))), center=np.zeros(6))
    assert find_knee(same).from_pools == 0
    with pytest.raises(TooFewImagesError, match="all the same picture"):
        supply_curve(sample(np.ones((40, 6))), taken(target), center=np.zeros(6))
    one_group = replace(taken(rng.normal(size=(64, 6))), folds=np.zeros(64, int))
    assert supply_curve(sample(target), one_group, center=np.zeros(6)).points[0].share.se > 0


def test_too_few_images_are_refused():
    target = np.random.default_rng(7).normal(size=(40, 6))
    for t, x in ((target[:19], target), (target, target[:19])):
        with pytest.raises(TooFewImagesError, match="has 19 images"):
            supply_curve(sample(t), taken(x), center=np.zeros(6))


@given(st.integers(1, 10_000_000), st.floats(0, 1))
def test_windows_cover_the_selection_once(n, share):
    turn = round(share * n)
    edges = window_edges(n, turn)
    sizes = np.diff(edges)
    assert (turn in edges) or not 32 <= turn <= n - 32
    assert (edges[0], edges[-1]) == (0, n)
    assert sizes.min() >= min(n, 32)
    assert len(edges) < 75
    assert all(size <= max(96, 0.2 * edge + 33) for edge, size in zip(edges[:-1], sizes, strict=True))


def test_change_point_by_hand():
    assert change_point(np.array([0.5, 0.5, -0.5]), [0, 10, 20, 30]) == 20
    assert change_point(np.array([0.5, 0.3, -0.1]), [0, 10, 20, 30]) == 15 + 0.75 * 10
    assert change_point(np.array([0.5, -0.1, 0.5, -0.4]), [0, 10, 20, 30, 40]) == pytest.approx(25 + 10 * 5 / 9)
    assert change_point(np.array([-0.1, 0.05, -0.1]), [0, 10, 20, 30]) == 0
    assert change_point(np.array([0.1, -0.2, 0.3]), [0, 10, 20, 30]) == 30
    assert change_point(np.array([0.5, 0.3, -0.1]), [0, 10, 20, 30], turn=20) == 20
    assert change_point(np.array([0.5, 0.3, -0.1]), [0, 10, 20, 30], turn=10) == 15 + 0.75 * 10


@pytest.mark.parametrize(("error", "knee"), [(0.05, 175), (0.4, 100)])
def test_beyond_pools_like_the_target_near_is_what_is_surely_near(error, knee):
    def point(start, stop, share, gap=0.0):
        near, index = Estimate(value=share, low=share - gap, high=share + gap), Estimate(value=0.0, low=0.0, high=0.0)
        return Point(start=start, stop=stop, n=stop, distance=index, index=index, share=near, variance=0.1)

    points = (point(0, 100, 0.9), point(100, 164, 0.6, error), point(164, 228, 0.3), point(228, 300, 0.1))
    assert find_knee(SupplyCurve(points=points, first=0, own=0, target_images=50, turn=100)).n == knee
    assert find_knee(SupplyCurve(points=points, first=0, own=0, target_images=50)).n == 175


def test_a_knee_whose_interval_begins_at_nothing_stays_where_it_is():
    def point(start, stop, share, gap):
        near, index = Estimate(value=share, low=share - gap, high=share + gap), Estimate(value=0.0, low=0.0, high=0.0)
        return Point(start=start, stop=stop, n=stop, distance=index, index=index, share=near, variance=0.1)

    points = (point(0, 64, 0.6, 0.4), point(64, 128, 0.2, 0.1), point(128, 200, 0.1, 0.0))
    knee = find_knee(SupplyCurve(points=points, first=0, own=0, target_images=50))
    assert (knee.low, knee.n) == (0, 64)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=12))
def test_change_point_lies_by_the_largest_sum(excess):
    edges = [64 * i for i in range(len(excess) + 1)]
    best = max(range(len(edges)), key=lambda i: (sum(excess[:i]), i))
    found = change_point(np.array(excess), edges)
    assert abs(found - edges[best]) <= 32 + 1e-6 or sum(excess[:best]) == pytest.approx(
        sum(excess[: round(found / 64)])
    )


def test_limits_come_from_the_limits_of_both_figures():
    def point(start, share, index):
        share = Estimate(value=share, low=share - 0.2, high=share + 0.2)
        index = Estimate(value=index, low=index - 5, high=index + 5)
        return Point(
            start=start, stop=start + 100, n=start + 100, distance=share, index=index, share=share, variance=1.0
        )

    pairs = [(0.7, 0), (0.5, 0), (0.3, 0), (0.15, 0), (0.5, 40)]
    points = tuple(point(100 * i, *pair) for i, pair in enumerate(pairs))
    curve = SupplyCurve(points=points, first=0, own=0, target_images=50)
    assert find_knee(curve).to_json() == {"n": 200, "low": 100, "high": 317, "from_pools": 200}
    assert find_knee(replace(curve, points=points[:3])) is None  # the upper limit is still near: not settled


def test_delivery_of_a_sample():
    images, near = np.full(10, 100), np.array([9, 11, 10, 8, 12, 10, 10, 9, 11, 10])
    knee = Knee(n=100, low=90, high=120, from_pools=100)
    told = delivered_supply(knee, [Delivery(size=50_000, images=images, near=near)])
    assert told.value == 5000
    binomial = 50_000 * np.sqrt(101 / 1002 * (1 - 101 / 1002) / 1000 * (1 - 1000 / 50_000))
    assert told.se == pytest.approx(binomial)
    reach = 2.2621572 * binomial
    assert (told.low, told.high) == pytest.approx((5000 - np.hypot(reach, 500), 5000 + np.hypot(reach, 1000)))


def test_groups_that_come_and_go_together_widen_the_delivery():
    images = np.full(10, 100)
    knee = Knee(n=100, low=100, high=100, from_pools=100)
    even, lumped = (
        delivered_supply(knee, [Delivery(size=9000, images=images, near=near)])
        for near in (np.full(10, 10), np.array([100] + [0] * 9))
    )
    assert lumped.value == even.value == 900
    assert lumped.se > 5 * even.se


def test_a_pool_all_at_hand_has_no_error_of_its_own():
    knee = Knee(n=100, low=100, high=100, from_pools=100)
    told = delivered_supply(knee, [Delivery(size=1000, images=np.full(10, 100), near=np.full(10, 10))])
    assert (told.low, told.value, told.high) == (100, 100, 100)


def test_no_near_image_in_a_sample_is_not_none_in_the_delivery():
    knee = Knee(n=0, low=0, high=0, from_pools=0)
    told = delivered_supply(knee, [Delivery(size=100_000, images=np.full(10, 20), near=np.zeros(10))])
    assert told.value == told.low == 0
    assert 500 < told.high < 5000


def test_delivery_interval_covers():
    rng, covered = np.random.default_rng(8), 0
    for _ in range(200):
        near = rng.random(8000) < 0.06
        hand, folds = rng.random(8000) < 0.15, rng.integers(0, FOLDS, 8000)
        images, found = (np.bincount(folds[rows], minlength=FOLDS) for rows in (hand, hand & near))
        n = int(found.sum())
        told = delivered_supply(
            Knee(n=n, low=n, high=n, from_pools=n), [Delivery(size=8000, images=images, near=found)]
        )
        covered += told.low <= near.sum() <= told.high
    assert covered >= 186
