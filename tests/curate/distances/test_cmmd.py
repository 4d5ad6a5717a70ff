import numpy as np
import pytest

from curate.distances import cmmd
from embeddings.errors import EncoderMismatchError, SourceError


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def brute_force(x, y):
    k = lambda a, b: np.mean([np.exp(-((p - q) ** 2).sum() / 200) for p in a for q in b])  # noqa: E731
    x, y = unit(x), unit(y)
    return 1000 * (k(x, x) + k(y, y) - 2 * k(x, y))


def samples(n=40, m=30, d=6, shift=0.5):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, d)) + 1, rng.normal(size=(m, d)) + 1 + shift


def test_double_loops_agree():
    x, y = samples()
    assert cmmd(x, y).value == pytest.approx(brute_force(x, y), rel=1e-5)


def test_it_is_ten_times_the_squared_distance_of_mean_directions():
    x, y = samples(1500, 1500, 64)
    assert cmmd(x, y).value == pytest.approx(10 * ((unit(x).mean(axis=0) - unit(y).mean(axis=0)) ** 2).sum(), rel=0.01)


def test_null_is_the_excess_over_the_unbiased_figure():
    x, y = samples()
    a, b = unit(x), unit(y)
    bias = 0.0
    for s in (a, b):
        k = np.exp(-((s[:, None] - s[None]) ** 2).sum(axis=2) / 200)
        apart = (k.sum() - np.trace(k)) / (len(s) * (len(s) - 1))
        bias += 1000 * (np.diag(k).mean() - apart) / len(s)
    assert cmmd(x, y).null == pytest.approx(bias, rel=1e-5)


def test_the_null_is_what_one_distribution_reads():
    found = [cmmd(*np.random.default_rng(seed).normal(size=(2, 50, 8))) for seed in range(100)]
    values = np.array([e.value for e in found])
    assert values.mean() == pytest.approx(np.mean([e.null for e in found]), abs=4 * values.std() / 10)
    assert values.mean() > 10 * values.std() / 10


def test_length_does_not_count_and_an_offset_costs_no_digits():
    x, y = samples()
    assert cmmd(x * 7, y * 0.1).value == pytest.approx(cmmd(x, y).value, rel=1e-5)
    far = [(s + 100).astype(np.float32) for s in (x, y)]
    assert cmmd(*far).value == pytest.approx(brute_force(*(s.astype(np.float64) for s in far)), rel=1e-3)


def test_copies_leave_the_value_and_the_null():
    x, y = samples()
    a, b = cmmd(x, y), cmmd(np.repeat(x, 7, axis=0), np.repeat(y, 7, axis=0))
    assert (b.value, b.null) == (pytest.approx(a.value, rel=1e-5), pytest.approx(a.null, rel=1e-4))


def test_degenerate_sets():
    x, y = samples()
    assert cmmd(x, x).value == pytest.approx(0.0, abs=1e-6)
    assert cmmd(np.ones((5, 3)), np.ones((4, 3))).value == pytest.approx(0.0, abs=1e-6)
    one = cmmd(x, y[:1])
    assert one.value == pytest.approx(brute_force(x, y[:1]), rel=1e-5)
    assert one.null is None
    assert cmmd(np.zeros((3, 2)), np.array([[1.0, 0.0]])).value == pytest.approx(
        2000 * (1 - np.exp(-1 / 200)), rel=1e-5
    )


def test_bad_input_is_refused():
    x, y = samples()
    with pytest.raises(EncoderMismatchError):
        cmmd(x, y[:, :2])
    with pytest.raises(SourceError, match="not finite"):
        cmmd(x, np.full((3, 6), np.nan))
