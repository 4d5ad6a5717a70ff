"""The ledger against plain definitions: what is open is what can be taken with every floor still within reach."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.selection._ledger import IMAGES, Ledger, Limit, Quota

NONE = np.iinfo(np.int64).max


def quota(name, member, caps=None, floors=None):
    k = max(max(member) + 1, len(caps or ()), len(floors or ()), 1)
    caps = [NONE if c is None else c for c in [*(caps or ()), *[None] * k]][:k]
    floors = [*(floors or ()), *[0] * k][:k]
    names = [f"{name}{i}" for i in range(k)]
    return Quota(
        name=name, names=names, member=np.array(member, np.int64), caps=np.array(caps), floors=np.array(floors)
    )


def limit(name, most, amounts):
    return Limit(name=name, most=most, amounts=np.array(amounts, float))


def images(n, most):
    return limit(IMAGES, most, np.ones(n))


def fits(rows, limits, quotas):
    """True if no limit and no cap is passed by some rows."""
    return all(x.amounts[rows].sum() <= x.most * (1 + 1e-9) for x in limits) and all(
        np.count_nonzero(q.member[rows] == i) <= cap for q in quotas for i, cap in enumerate(q.caps)
    )


def lacks(rows, quotas):
    """Floors that some rows do not meet."""
    return [(q.name, i) for q in quotas for i, f in enumerate(q.floors) if np.count_nonzero(q.member[rows] == i) < f]


def can_be_met(rows, n, limits, quotas):
    """True if some more candidates meet every floor within the limits and caps: by trying them all."""
    others = [row for row in range(n) if row not in rows]
    return any(
        not lacks(whole, quotas) and fits(whole, limits, quotas)
        for size in range(len(others) + 1)
        for more in combinations(others, size)
        for whole in [[*rows, *more]]
    )


def loop(ledger, order):
    return [row for row in order if not ledger.done and ledger.take(row)]


prices = st.sampled_from([0.0, 0.1, 0.25, 1.0, 2.0, 3.3])


@st.composite
def wishes(draw, *, most_rows=16, floors=True, one_price=False):
    """Limits, quotas and an order, of any kind."""
    n = draw(st.integers(1, most_rows))

    def members(k, least=-1):
        return draw(st.lists(st.integers(least, k - 1), min_size=n, max_size=n))

    def numbers(k, values):
        return draw(st.lists(values, min_size=k, max_size=k))

    caps = st.one_of(st.none(), st.integers(0, 6))
    source = members(3, 0)
    per_source = numbers(3, prices)
    amounts = [per_source[s] for s in source] if one_price else numbers(n, prices)
    limits = [
        images(n, draw(st.integers(1, n + 2))),
        limit("money", draw(st.floats(0.05, 20)), amounts),
        limit("bytes", draw(st.integers(1, 60)), numbers(n, st.integers(1, 9))),
    ]
    chosen = draw(st.lists(st.sampled_from([0, 1, 2]), unique=True, min_size=1))
    least = numbers(3, st.integers(0, 3)) if floors else [0] * 3
    quotas = [
        quota("source", source, numbers(3, caps), least),
        quota("label", members(4), numbers(4, caps), numbers(4, st.integers(0, 2)) if floors else []),
        quota("group", members(6), numbers(6, st.integers(1, 3))),
    ]
    kept = draw(st.lists(st.sampled_from([0, 1, 2]), unique=True))
    order = draw(st.permutations(range(n)))
    return n, [limits[i] for i in sorted(chosen)], [quotas[i] for i in sorted(kept)], order


def in_step(ledger, n, limits, quotas, rows):
    """What holds at any moment."""
    assert ledger.taken.tolist() == rows
    assert fits(rows, limits, quotas)
    assert not ledger.open[rows].any()
    assert ledger.done == (not ledger.open.any())
    assert (ledger.left > 0) == (not ledger.done)
    used = {name: amount["used"] for name, amount in ledger.spent().items()}
    assert used == pytest.approx({x.name: x.amounts[rows].sum() for x in limits})


@settings(max_examples=40)
@given(wishes())
def test_caps_and_budgets_hold_at_every_step_of_any_wish(wish):
    n, limits, quotas, order = wish
    ledger, rows = Ledger(n, limits, quotas), []
    for row in order:
        most, was_open = len(rows) + ledger.left, bool(ledger.open[row])
        assert ledger.take(row) == was_open
        rows += [row] * was_open
        in_step(ledger, n, limits, quotas, rows)
        assert len(rows) <= most
        assert not ledger.take(row)


@settings(max_examples=40)
@given(wishes())
def test_a_walk_is_the_loop_of_takes(wish):
    n, limits, quotas, order = wish
    walking, looping = Ledger(n, limits, quotas), Ledger(n, limits, quotas)
    part = np.array(order[: 1 + n // 2])
    for rows in (part, np.array(order)):
        left = walking.left
        taken = walking.walk(rows).tolist()
        assert taken == loop(looping, rows.tolist())
        assert len(taken) <= left
        assert walking.taken.tolist() == looping.taken.tolist()
        assert np.array_equal(walking.open, looping.open)
        assert (walking.left, walking.done) == (looping.left, looping.done)
        assert [x["used"] for x in walking.spent().values()] == pytest.approx(
            [x["used"] for x in looping.spent().values()]
        )


@settings(max_examples=40)
@given(wishes(floors=False))
def test_without_floors_open_is_what_fits_and_left_is_never_too_small(wish):
    n, limits, quotas, order = wish
    ledger = Ledger(n, limits, quotas)
    for row in order:
        rows, left = ledger.taken.tolist(), ledger.left
        expected = [r not in rows and fits([*rows, r], limits, quotas) for r in range(n)]
        assert ledger.open.tolist() == expected
        after = Ledger(n, limits, quotas)
        after.walk(np.array([*rows, *[r for r in order if r not in rows]]))
        assert len(after.taken) - len(rows) <= left
        ledger.take(row)


@settings(max_examples=25)
@given(wishes(most_rows=6), st.booleans())
def test_one_kind_of_floors_under_one_priced_limit_is_kept_exactly(wish, by_source):
    """Any candidate that leaves the floors within reach is open, no other is; by trying every set there is."""
    n, limits, quotas, order = wish
    limits = [x for x in limits if x.name != "bytes"] or [images(n, 3)]
    quotas = [q for q in quotas if q.name == ("source" if by_source else "label")]
    if not can_be_met([], n, limits, quotas):
        return
    ledger = Ledger(n, limits, quotas)
    for row in order:
        rows = ledger.taken.tolist()
        expected = [r not in rows and can_be_met([*rows, r], n, limits, quotas) for r in range(n)]
        assert ledger.open.tolist() == expected
        ledger.take(row)
    assert not lacks(ledger.taken, quotas)


@settings(max_examples=40)
@given(wishes(one_price=True), st.booleans())
def test_floors_that_can_be_met_are_met_in_any_order(wish, by_source):
    n, limits, quotas, order = wish
    limits = [x for x in limits if x.name != "bytes"]
    quotas = [q for q in quotas if q.name == ("source" if by_source else "label")]
    for q in quotas:
        held = np.bincount(q.member[q.member >= 0], minlength=len(q.names))
        if (np.minimum(held, q.caps) < q.floors).any():
            return
        for x in limits:
            if sum(np.sort(x.amounts[q.member == i])[:f].sum() for i, f in enumerate(q.floors)) > x.most:
                return
    ledger = Ledger(n, limits, quotas)
    before = ledger.open
    ledger.walk(np.array(order))
    assert ledger.unmet() == []
    assert ledger.done
    assert ledger.open is before  # nothing opened again


def test_a_floor_is_met_by_what_is_cheap_when_something_dear_was_taken_before():
    money = limit("money", 11, [10, 1, 5, 1])
    ledger = Ledger(4, [money], [quota("source", [0, 0, 1, 2], floors=[1, 1])])
    assert ledger.open.tolist() == [False, True, True, True]  # 10 for source 0 would leave 1 of the 5 for source 1
    assert ledger.walk(np.array([3, 0, 1, 2])).tolist() == [3, 1, 2]
    assert ledger.unmet() == []


def test_the_dearest_that_a_floor_affords_takes_the_place_of_a_cheap_one():
    money = limit("money", 10, [6, 1, 4, 4.5])
    ledger = Ledger(4, [money], [quota("source", [0, 0, 1, 1], floors=[1, 1])])
    assert ledger.take(0)
    assert ledger.open.tolist() == [False, False, True, False]
    assert ledger.take(2)
    assert ledger.done


def test_an_image_may_meet_two_floors_at_once():
    source, label = [0, 0, 1, 1, 2], [0, 1, 0, 1, 2]
    quotas = [quota("source", source, floors=[1, 1]), quota("label", label, floors=[1, 1])]
    ledger = Ledger(5, [images(5, 2)], quotas)  # four floors, two images
    assert ledger.open.tolist() == [True, True, True, True, False]
    assert ledger.walk(np.array([4, 0, 1, 2, 3])).tolist() == [0, 3]
    assert ledger.unmet() == []
    roomy = Ledger(5, [images(5, 3)], quotas)
    before = roomy.open
    assert (roomy.left, roomy.take(1)) == (3, True)
    assert not roomy.open[4]
    assert roomy.take(2)
    assert roomy.open[4]
    assert roomy.open is not before
    assert roomy.walk(np.array([4, 0, 3])).tolist() == [4]


def test_two_kinds_of_floors_may_end_unmet_where_only_few_images_serve_both():
    """Source 0, label 0 is taken; then source 1 and label 1 need an image each, and there is budget for one."""
    quotas = [quota("source", [0, 0, 1], floors=[1, 1]), quota("label", [0, 1, 0], floors=[1, 1])]
    ledger = Ledger(3, [images(3, 2)], quotas)
    ledger.walk(np.array([0, 1, 2]))
    assert ledger.unmet() == ["source source1: 0 of at least 1", "label label1: 0 of at least 1"]


def test_a_cap_of_another_kind_may_use_up_what_a_floor_needs():
    quotas = [quota("source", [0, 1], floors=[0, 1]), quota("label", [0, 0], caps=[1])]
    ledger = Ledger(2, [images(2, 2)], quotas)
    assert ledger.walk(np.array([0, 1])).tolist() == [0]
    assert ledger.unmet() == ["source source1: 0 of at least 1"]
    assert ledger.full() == ["label label0: cap 1"]


def test_a_cap_on_nothing_that_is_left_holds_nothing_back():
    ledger = Ledger(3, [images(3, 3)], [quota("source", [0, 0, 1], caps=[2, 2])])
    ledger.walk(np.arange(3))
    assert ledger.full() == []


def test_a_limit_binds_only_if_something_is_left_that_it_alone_keeps_out():
    ledger = Ledger(3, [images(3, 3), limit("money", 5, [2, 2, 2])])
    assert ledger.walk(np.arange(3)).tolist() == [0, 1]
    assert {name: amount["binding"] for name, amount in ledger.spent().items()} == {"images": False, "money": True}


def test_sums_of_prices_that_fit_but_for_rounding_fit():
    ledger = Ledger(10, [limit("money", 1, np.full(10, 0.1))])
    assert len(ledger.walk(np.arange(10))) == 10


def test_free_images_stay_open_when_the_money_is_gone():
    ledger = Ledger(3, [limit("money", 1, [1, 0, 1])])
    assert ledger.walk(np.array([0, 2, 1])).tolist() == [0, 1]


def test_nothing_is_open_among_no_candidates():
    for quotas in ([], [quota("source", [-1], floors=[1])]):
        n = len(quotas)
        ledger = Ledger(n, [images(n, 3)], quotas)
        assert ledger.done == (n == 0)
    assert Ledger.of_images(0, 3).left == 0
    assert Ledger.of_images(2, 3).left == 2
