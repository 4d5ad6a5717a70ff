"""Which sample of a run comes from which stage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.pretraining.schedule import Images, Schedule
from curate.pretraining.stages import Order
from embeddings.errors import TooFewImagesError, UnknownNameError, UsageError


def schedule(order, *, sizes=(30, 10), samples=80, repeats=1, batch=2):
    n = sum(sizes)
    stages = np.repeat(np.arange(len(sizes)), sizes)
    facts = Images(np.arange(n, dtype=np.uint64), np.broadcast_to(repeats, n).astype(np.int64), stages)
    return Schedule(facts, samples=samples, batch=batch, seed=0, order=Order.parse(order))


def seen(plan):
    """Row and visit of every sample of a run, in order."""
    return np.concatenate([np.stack([b.rows, b.visits], axis=1) for b in plan.batches()])


def test_stages_follow_each_other_with_their_own_part_of_the_budget():
    plan = schedule("stages")
    rows, visits = seen(plan).T
    assert plan.stage_samples == [60, 20]
    assert (rows[:60] < 30).all()
    assert (rows[60:] >= 30).all()
    assert np.bincount(rows).tolist() == [2] * 40
    assert sorted(visits[:60]) == [0] * 30 + [1] * 30


def test_reversed_and_given_shares():
    rows = seen(schedule("reversed:0.75,0.25")).T[0]
    assert (rows[:60] >= 30).all()
    assert (rows[60:] < 30).all()
    assert np.bincount(rows)[30:].tolist() == [6] * 10


def test_repeats_weigh_a_stage():
    plan = schedule("stages", repeats=np.where(np.arange(40) < 30, 1, 3), samples=120)
    assert plan.stage_samples == [60, 60]
    assert np.bincount(seen(plan).T[0]).tolist() == [2] * 30 + [6] * 10


def test_mixed_is_one_stream_over_all():
    rows = seen(schedule("mixed")).T[0]
    assert sorted(rows[:40]) == list(range(40))
    assert (rows[:60] >= 30).any()


def test_a_ramp_goes_evenly_from_one_stage_to_the_other():
    rows = seen(schedule("ramp", sizes=(40, 40), samples=4000)).T[0]
    shares = (rows >= 40).reshape(10, 400).mean(axis=1)
    assert shares == pytest.approx(np.arange(0.05, 1, 0.1), abs=0.005)
    counts = np.bincount(rows)
    assert set(counts) == {50}


@given(st.sampled_from(["stages", "reversed", "mixed", "ramp", "stages:0.5,0.5"]), st.integers(10, 300))
def test_every_sample_is_spent_and_every_visit_happens_once(order, samples):
    plan = schedule(order, sizes=(17, 9), samples=samples)
    rows, visits = seen(plan).T
    assert len(rows) == samples == sum(plan.stage_samples)
    for row in np.unique(rows):
        assert visits[rows == row].tolist() == list(range(np.count_nonzero(rows == row)))
    assert plan.unique_images == len(np.unique(rows))
    assert np.array_equal(rows, np.concatenate([plan[step].rows for step in range(plan.steps)]))


def test_stages_without_images_between_them_are_no_stages():
    facts = Images(np.arange(20, dtype=np.uint64), np.ones(20, np.int64), np.repeat([0, 7], 10))
    plan = Schedule(facts, samples=40, batch=2, seed=0)
    assert plan.stage_samples == [20, 20]


@pytest.mark.parametrize("wrong", ["stages:0.5", "stages:0.7,0.7", "stages:a,b", "mixed:0.5,0.5", "stages:1.5,-0.5"])
def test_orders_that_mean_nothing(wrong):
    with pytest.raises(UsageError):
        schedule(wrong, sizes=(10, 10, 10) if wrong == "stages:0.5" else (10, 10))


def test_orders_that_the_selection_cannot_have():
    with pytest.raises(UnknownNameError, match="stages"):
        Order.parse("stage")
    with pytest.raises(UsageError, match="the selection has 1"):
        schedule("ramp", sizes=(20,))
    with pytest.raises(UsageError, match="3 shares were given for the 2 stages"):
        schedule("stages:0.5,0.25,0.25")
    with pytest.raises(TooFewImagesError, match="A stage of 5 images"):
        schedule("stages", sizes=(20, 5))
    assert schedule("mixed", sizes=(20, 5)).stage_samples == [80]


def test_the_words_read_back():
    for text in ("stages", "ramp", "reversed:0.75,0.25"):
        assert str(Order.parse(text)) == text
