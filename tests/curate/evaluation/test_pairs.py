"""Paired comparisons of runs against sums written out."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.evaluation._intervals import Resamples, accuracy
from curate.evaluation._pairs import MOST, Contestant, compare_pairs, discordant, holm, left_out, mcnemar


def contestant(arm, correct, kind="run", units=None):
    correct = np.asarray(correct, bool)
    drawn = Resamples(units=np.arange(len(correct)) if units is None else units, n_train=50)
    linear = drawn.measure({"linear": accuracy(correct)})["linear"]
    return Contestant(arm=arm, kind=kind, linear=linear, correct=correct, resamples=drawn)


@given(st.integers(0, 30), st.integers(0, 30))
def test_mcnemar_is_the_binomial_tail(first, second):
    n = first + second
    weights = [comb(n, i) for i in range(n + 1)]
    wanted = sum(w for w in weights if w <= weights[first]) / 2**n
    assert mcnemar(first, second) == pytest.approx(wanted)


def test_nothing_discordant_tells_nothing():
    assert mcnemar(0, 0) == 1


@given(st.lists(st.floats(0, 1), max_size=7))
def test_holm_step_by_step(p):
    """The smallest p times the number of pairs, the next times one fewer, never below the one before."""
    wanted, reached = dict.fromkeys(range(len(p)), 0.0), 0.0
    for step, i in enumerate(sorted(range(len(p)), key=lambda i: (p[i], i))):
        reached = max(reached, min(1.0, (len(p) - step) * p[i]))
        wanted[i] = reached
    assert holm(p) == pytest.approx(list(wanted.values()))


def test_a_unit_counts_once():
    """Ten crops of a picture that only the first one reads are one discordant unit; a draw within a unit is none."""
    units = np.repeat([7, 3, 9], [10, 2, 1])
    first = np.array([True] * 10 + [True, False] + [False])
    second = np.array([False] * 10 + [False, True] + [True])
    assert discordant(first, second, units) == (1, 1)


def test_of_several_trainings_the_share_counts_and_rounding_is_a_draw():
    """Thirds in another order cancel; two of three trainings against one is a lead."""
    units = np.array([0, 0, 0, 1, 2])
    first = np.array([1 / 3, 2 / 3, 0.1 + 0.2, 2 / 3, 1 / 3])
    second = np.array([2 / 3, 0.3, 1 / 3, 1 / 3, 2 / 3])
    assert first[:3].sum() != second[:3].sum()
    assert discordant(first, second, units) == (1, 1)


def test_beyond_a_dozen_runs_none_are_compared_and_a_fact_says_so():
    arms = [contestant(f"r{i}", np.arange(20) % 2) for i in range(MOST)]
    arms += [contestant(f"{kind}+{i}", np.arange(20) % 2, "finetuned") for kind, i in [("frozen", 0), ("r", 0)]]
    assert len(compare_pairs("set", arms, "accuracy")) == MOST * (MOST - 1) // 2 + 1
    assert left_out(arms) == {}
    arms.append(contestant("more", np.arange(20) % 2))
    assert compare_pairs("set", arms, "accuracy") == []
    assert left_out(arms) == {"runs_not_paired": MOST + 1}


def test_every_two_of_a_kind_in_order():
    rng = np.random.default_rng(0)
    arms = [("a", "run"), ("a+", "finetuned"), ("b", "run"), ("frozen+", "finetuned"), ("c", "run")]
    pairs = compare_pairs("set", [contestant(arm, rng.random(40) < 0.5, kind) for arm, kind in arms], "accuracy")
    assert [(p.first, p.second) for p in pairs] == [("a", "b"), ("a", "c"), ("a+", "frozen+"), ("b", "c")]
    assert {p.labeled for p in pairs} == {"set"}
    assert [p.p_holm for p in pairs] == holm([p.p for p in pairs])


def test_the_difference_is_paired():
    first, second = np.arange(100) < 80, np.arange(100) < 70  # the second is right on a part of the first one's
    (pair,) = compare_pairs("set", [contestant("a", first), contestant("b", second)], "accuracy")
    assert (pair.first_only, pair.second_only) == (10, 0)
    assert pair.difference.value == pytest.approx(0.1)
    assert pair.difference.se == pytest.approx(0.03, rel=0.1)
    assert pair.p == pair.p_holm == pytest.approx(2 / 2**10)


def test_one_run_has_no_pair_and_a_twin_is_not_told_apart():
    only = contestant("a", np.arange(40) % 2)
    assert compare_pairs("set", [only], "accuracy") == []
    (pair,) = compare_pairs("set", [only, contestant("twin", np.arange(40) % 2)], "accuracy")
    assert (pair.p, pair.difference.value) == (1, 0)
    assert pair.difference.low == -pair.difference.high == pytest.approx(-1.96 / 42, rel=1e-4)


def test_the_test_keeps_its_level():
    rng = np.random.default_rng(1)
    found = sum(
        mcnemar(*discordant(rng.random(60) < 0.6, rng.random(60) < 0.6, np.arange(60))) < 0.05 for _ in range(400)
    )
    assert found <= 26  # 5% of 400, and two standard errors
