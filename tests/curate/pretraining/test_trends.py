"""Beginnings, ends and falls of noisy curves against closed forms."""

import math

import numpy as np
import pytest
from hand_curves import rows
from hypothesis import given
from hypothesis import strategies as st

from curate.pretraining.trends import (
    by_stage,
    falls,
    last_known,
    loss_ends,
    noise_of,
    onset,
    smooth,
    standard_error,
    window,
)


def loss_of(row):
    return row["loss"]


@pytest.mark.parametrize(("count", "wanted"), [(1, 1), (3, 1), (8, 4), (20, 10), (100, 10), (400, 40)])
def test_a_tenth_is_averaged_but_ten_rows_at_least_and_half_at_most(count, wanted):
    assert window(rows([1.0] * count)) == wanted


def test_smooth_looks_back_only():
    curve = rows([1.0, 2.0, 3.0, 4.0])
    assert smooth(curve, "loss") == [1, 1.5, 2.5, 3.5]
    assert smooth(curve, "unknown") == [math.inf] * 4
    assert loss_ends(curve) == (1, 3.5)


def test_last_known_waits_for_the_first_value():
    assert last_known(rows([1.0] * 4, probe=[None, 0.5, None, 0.7]), "probe") == [math.inf, 0.5, 0.5, 0.7]


def test_falls_by_hand():
    """A line from 39 to 0: the first two rows, ten and twenty lie at 38.5, 34.5, 29.5; the last ones at 4.5 and 9.5."""
    found = falls(rows(list(range(39, -1, -1))), loss_of)
    assert [fall for fall, _ in found] == [34, 30, 20]
    noise = math.sqrt(1 / 2)  # of steps of one
    assert [error for _, error in found] == pytest.approx([noise * math.sqrt(x) for x in (0.6, 0.2, 0.1)])


@given(st.floats(-2, 2), st.integers(0, 50))
def test_noise_is_known_whatever_the_trend(slope, seed):
    values = np.random.default_rng(seed).normal(size=2000) + slope * np.linspace(0, 10, 2000)
    assert noise_of(values.tolist()) == pytest.approx(1, abs=0.12)
    assert noise_of([7.0]) == 0


def test_the_errors_of_falls_are_those_of_many_runs_of_noise():
    rng = np.random.default_rng(0)
    found = np.array([falls(rows(rng.normal(size=40).tolist()), loss_of) for _ in range(400)])
    assert found[..., 0].std(axis=0) == pytest.approx(found[..., 1].mean(axis=0), rel=0.12)


def test_standard_error_is_that_of_the_mean():
    values = [1.0, 2.0, 4.0]
    assert standard_error(values) == pytest.approx(np.std(values, ddof=1) / math.sqrt(3))
    assert standard_error([1.0]) == standard_error([1.0, math.inf]) == math.inf


@pytest.mark.parametrize(("holds", "step"), [([1, 0, 1, 1], 3), ([1, 1, 1, 1], 1), ([0, 0, 0, 1], 4)])
def test_onset_is_where_it_began_to_last(holds, step):
    assert onset(rows([1.0] * 4), list(map(bool, holds))) == step


def test_stages_follow_each_other():
    curve = rows([1.0, 2.0, 3.0], stage=[0, 1, 1])
    assert [[row["step"] for row in part] for part in by_stage(curve)] == [[1], [2, 3]]
    assert len(by_stage(rows([1.0, 2.0]))) == 1
