import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.pretraining.schedule import Images, Schedule, count_steps, largest_batch, learning_rate_factor
from embeddings.errors import TooFewImagesError, UsageError


def schedule(n=20, samples=67, batch=5, seed=0, repeats=1):
    images = np.arange(n, dtype=np.uint64) * np.uint64(7919)
    facts = Images(images, np.broadcast_to(repeats, n).astype(np.int64), np.zeros(n, np.int64))
    return Schedule(facts, samples=samples, batch=batch, seed=seed)


def stream(plan):
    return np.concatenate([np.stack([b.rows, b.visits], axis=1) for b in plan.batches()])


@given(st.integers(8, 60), st.integers(1, 400), st.integers(2, 30))
def test_every_sample_is_spent_and_spread_evenly(n, samples, batch):
    samples = max(samples, min(batch, n // 4))
    plan = schedule(n, samples, batch)
    sizes = [len(b.rows) for b in plan.batches()]
    assert sum(sizes) == samples
    assert plan.batch <= n / 4
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 2
    assert max(sizes) <= max(plan.batch, 3)
    counts = np.bincount(stream(plan)[:, 0], minlength=n)
    assert set(counts) <= {samples // n, math.ceil(samples / n)}
    assert plan.unique_images == np.count_nonzero(counts)


def test_each_visit_happens_once_and_in_order():
    rows, visits = stream(schedule(samples=200)).T
    for row in range(20):
        assert visits[rows == row].tolist() == list(range(10))


def test_repeats_multiply_the_visits():
    repeats = np.arange(20) % 3 + 1
    plan = schedule(samples=3 * int(repeats.sum()), repeats=repeats)
    rows, visits = stream(plan).T
    assert np.array_equal(np.bincount(rows), 3 * repeats)
    for row in range(20):
        assert sorted(visits[rows == row]) == list(range(3 * repeats[row]))


def test_copies_of_one_image_lie_apart():
    repeats = np.where(np.arange(100) == 0, 10, 1)
    plan = schedule(100, samples=109, repeats=repeats)
    places = np.flatnonzero(stream(plan)[:, 0] == 0)
    tenths = places * 10 // 109
    assert len(places) == 10
    assert len(set(tenths)) >= 8


def test_passes_are_shuffled_differently_and_by_seed_alone():
    first, second = stream(schedule(samples=40))[:, 0].reshape(2, 20)
    assert sorted(first) == sorted(second) == list(range(20))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, stream(schedule(samples=20, seed=1))[:, 0])
    assert np.array_equal(first, stream(schedule(samples=20, batch=3))[:, 0])  # not by batch size or budget


def test_order_does_not_depend_on_the_row_an_image_stands_in():
    images, ones = np.arange(20, dtype=np.uint64) * np.uint64(31), np.ones(20, np.int64)
    mixed = np.random.default_rng(0).permutation(20)
    plain = Schedule(Images(images, ones, 0 * ones), samples=60, batch=5, seed=0)
    other = Schedule(Images(images[mixed], ones, 0 * ones), samples=60, batch=5, seed=0)
    assert np.array_equal(images[stream(plain)[:, 0]], images[mixed][stream(other)[:, 0]])


def test_a_restart_continues_the_same_stream():
    plan = schedule()
    late = list(plan.batches(first=5))
    assert [b.step for b in late] == list(range(5, plan.steps))
    for batch in late:
        assert np.array_equal(batch.rows, plan[batch.step].rows)
        assert batch.start == plan[batch.step - 1].end


def test_a_shuffle_is_unbiased():
    firsts = [int(schedule(8, samples=8, seed=seed)[0].rows[0]) for seed in range(800)]
    counts = np.bincount(firsts, minlength=8)
    assert ((counts - 100) ** 2 / 100).sum() < 24.3  # chi squared, 7 degrees of freedom, p = .001


@pytest.mark.parametrize(("samples", "batch", "steps"), [(100, 10, 10), (101, 10, 11), (3, 2, 1), (5, 2, 2), (2, 2, 1)])
def test_steps(samples, batch, steps):
    assert count_steps(samples, batch) == steps


def test_batch_is_at_most_a_quarter_of_the_images():
    assert largest_batch(1000, samples=5000, wished=256) == 250
    assert largest_batch(5000, samples=5000, wished=256) == 256


def test_too_few_images_or_samples():
    with pytest.raises(TooFewImagesError, match="there are 7"):
        largest_batch(7, samples=100, wished=4)
    with pytest.raises(UsageError, match="one batch of 64"):
        largest_batch(1000, samples=63, wished=64)


def test_learning_rate_by_hand():
    factor = [learning_rate_factor(share, warmup=0.2) for share in (0, 0.1, 0.2, 0.4, 0.6, 1.0)]
    assert factor == pytest.approx([0, 0.5, 1, 0.5 * (1 + math.cos(math.pi / 4)), 0.5, 0])
    assert learning_rate_factor(0.0, warmup=0.0) == 1
