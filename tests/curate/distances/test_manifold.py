from dataclasses import fields
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.distances import Manifold, coverage, prdc
from curate.distances import _manifold as module
from curate.distances._left_out import WHOLE, fold_error, kth_distances
from embeddings.errors import EncoderMismatchError, SourceError, TooFewImagesError
from embeddings.moments import FOLDS, fold_of
from embeddings.store import EmbeddingStore

NAMES = [f.name for f in fields(Manifold)]


def values(manifold):
    return [getattr(manifold, name).value for name in NAMES]


def brute(target, pool, k):
    """The definitions, by double loops over rounded squared distances."""
    x, y = np.asarray(target, np.float64), np.asarray(pool, np.float64)

    def squared(a, b):
        return np.array([[((u - v) ** 2).sum() for v in b] for u in a]).round(6)

    def radii(a, rank):
        return np.array([np.sort(np.delete(row, i))[rank - 1] for i, row in enumerate(squared(a, a))])

    cross, first = squared(x, y), radii(x, 1)
    in_target, in_pool = cross <= radii(x, k)[:, None], cross <= radii(y, k)
    authentic = [cross[:, j].min() > first[cross[:, j].argmin()] for j in range(len(y))]
    return [in_target.any(0).mean(), in_pool.any(1).mean(), in_target.sum(0).mean() / k, in_target.any(1).mean(),
            np.mean(authentic)]  # fmt: skip


def test_hand_case():
    found = values(prdc(np.arange(5.0)[:, None], np.array([[0.4], [1.6], [9.0]]), k=1))
    assert found == pytest.approx([2 / 3, 1, 4 / 3, 3 / 5, 1 / 3])


def test_figures_of_the_prdc_package():
    rng = np.random.default_rng(5)
    real = rng.normal(size=(1000, 32)).astype(np.float32)
    fake = (0.8 * rng.normal(size=(1000, 32)) + 0.1).astype(np.float32)
    found = prdc(real, fake, k=5)
    assert values(found)[:4] == pytest.approx([0.992, 0.266, 4.6208, 0.999], abs=1e-9)
    assert (found.density.null, found.coverage.null) == (1.0, pytest.approx(0.9690, abs=1e-4))
    assert found.coverage.value == coverage(real, fake, k=5).value


@given(
    seed=st.integers(0, 1000), n=st.integers(3, 25), m=st.integers(3, 25), k=st.integers(1, 2), grid=st.booleans(),
    offset=st.sampled_from([0.0, 100.0])
)  # fmt: skip
def test_equals_the_definitions(seed, n, m, k, grid, offset):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 3)), rng.normal(size=(m, 3)) + 0.5
    if grid:  # ties and copies
        x, y = x.round(), y.round()
    expected = brute(x, y, k)
    found = values(
        prdc((x + offset).astype(np.float32) if grid else x, (y + offset).astype(np.float32) if grid else y, k=k)
    )
    assert found[:4] == pytest.approx(expected[:4])
    if not grid:  # of several nearest rows, any may be asked for its spacing
        assert found[4] == pytest.approx(expected[4])


def test_block_size_and_row_order_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(150, 6)), rng.normal(size=(90, 6)) * 0.8
    whole = prdc(x, y)
    keys, order = [str(i) for i in range(90)], rng.permutation(90)
    shuffled = EmbeddingStore.from_vectors(y[order], keys=[keys[i] for i in order])
    monkeypatch.setattr(module, "BLOCK", 17)
    monkeypatch.setattr(module, "HITS", 50)
    monkeypatch.setattr(module, "HELD_BYTES", 2 * 4 * 17 * x.shape[1])
    assert prdc(x, shuffled) == whole


def test_rotation_and_a_common_offset_in_float32_change_nothing():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(200, 5)), rng.normal(size=(150, 5)) * 0.8
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    assert values(prdc(x @ turn, y @ turn)) == pytest.approx(values(prdc(x, y)))
    x32, y32 = (x + 100).astype(np.float32), (y + 100).astype(np.float32)
    assert values(prdc(x32, y32)) == pytest.approx(values(prdc(x, y)), abs=0.02)
    assert values(prdc(x32, y32)) == values(prdc(x32.astype(np.float64) - 100, y32.astype(np.float64) - 100))


def test_copies_count_as_hits_where_prdc_reads_0_28():
    x = np.repeat(np.random.default_rng(2).normal(size=(40, 8)), 7, axis=0)
    found = prdc(x, x, k=5)
    assert values(found) == [1.0, 1.0, pytest.approx(7 / 5), 1.0, 0.0]
    constant = prdc(np.ones((20, 3)), np.ones((12, 3)))
    assert values(constant) == [1.0, 1.0, 4.0, 1.0, 0.0]
    assert constant.precision.low is None  # one group of copies has no spread


def test_an_exact_copy_is_not_authentic_and_new_points_far_away_are():
    x = np.random.default_rng(3).normal(size=(100, 4))
    copied = prdc(x, x)
    assert [*values(copied)[:2], copied.coverage.value, copied.authenticity.value] == [1, 1, 1, 0]
    assert copied.authenticity.lower_is_closer
    assert not copied.precision.lower_is_closer
    far = prdc(x, x + 1000)
    assert values(far) == [0, 0, 0, 0, 1]
    assert (far.precision.low, far.authenticity.high) == (0.0, 1.0)
    assert 0.02 < far.precision.high < 0.06


def test_mode_collapse_has_full_precision_and_no_recall():
    rng = np.random.default_rng(4)
    found = prdc(3 * rng.normal(size=(300, 16)), 0.1 * rng.normal(size=(300, 16)))
    assert (found.precision.value, found.recall.value) == (1.0, 0.0)


def test_fewer_rows_than_dimensions():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(12, 40)), rng.normal(size=(9, 40))
    assert values(prdc(x, y, k=2)) == pytest.approx(brute(x, y, 2))


def test_what_cannot_be_measured_is_refused():
    x = np.random.default_rng(6).normal(size=(6, 3))
    with pytest.raises(TooFewImagesError, match="pool has 5 images"):
        prdc(x, x[:5])
    with pytest.raises(TooFewImagesError, match="target has 1 images"):
        prdc(x[:1], x, k=1)
    with pytest.raises(EncoderMismatchError):
        prdc(x, x[:, :2], k=1)
    with pytest.raises(SourceError, match="'2' is not finite"):
        prdc(x, np.where(np.arange(6)[:, None] == 2, np.inf, x), k=1)


@pytest.mark.parametrize("kind", ["spread", "one fold holds a cluster", "copies"])
def test_distances_without_a_fold_are_those_of_the_reduced_base(kind):
    rng = np.random.default_rng(7)
    base, queries, folds = rng.normal(size=(80, 3)), rng.normal(size=(20, 3)), rng.integers(0, FOLDS, 80)
    if kind != "spread":
        folds[:30], base[:30] = 4, 0.01 * base[:30] if kind == "copies" else 0.01
    (others,) = kth_distances(queries, base, folds, (2,))
    (own,) = kth_distances(base, base, folds, (2,), exclude_self=True)
    for fold in range(FOLDS):
        kept = base[folds != fold]
        expected = [np.sort(((q - kept) ** 2).sum(axis=1))[1] for q in queries]
        np.testing.assert_allclose(others[:, fold], expected, atol=2e-6)
        expected = [np.sort(((q - kept) ** 2).sum(axis=1))[2] for q in kept]
        np.testing.assert_allclose(own[folds != fold, fold], expected, atol=2e-6)
        assert (own[folds == fold, fold] == -np.inf).all()
    np.testing.assert_allclose(
        others[:, WHOLE], [np.sort(((q - base) ** 2).sum(axis=1))[1] for q in queries], atol=2e-6
    )


def test_the_error_is_the_jackknife_of_the_figures_of_reduced_sets():
    rng = np.random.default_rng(8)
    x, y = (EmbeddingStore.from_vectors(rng.normal(size=(n, 3))) for n in (40, 35))
    found, (t, p) = prdc(x, y, k=2), (fold_of(s.rows()) for s in (x, y))

    @cache
    def without(fold, side):
        kept = [v[f != fold] if on else v for v, f, on in ((x.vectors(), t, not side), (y.vectors(), p, side))]
        return brute(*kept, 2)

    for number, name in enumerate(NAMES):
        samples = [(lambda f, s=side, i=number: without(f, s)[i], folds) for side, folds in ((0, t), (1, p))]
        estimate = getattr(found, name)
        assert estimate.se == pytest.approx(fold_error(estimate.value, samples), rel=1e-6)


def coverage_of_intervals(repetitions):
    rng = np.random.default_rng(9)
    found = [prdc(rng.normal(size=(150, 4)), rng.normal(size=(120, 4)) * 0.9 + 0.3) for _ in range(repetitions)]
    shares = {}
    for name in NAMES:
        estimates = [getattr(f, name) for f in found]
        mean = np.mean([e.value for e in estimates])
        shares[name] = np.mean([e.low <= mean <= e.high for e in estimates])
    return shares


def test_intervals_cover_the_mean():
    assert min(coverage_of_intervals(60).values()) >= 0.9


@pytest.mark.slow
def test_intervals_cover_the_mean_in_many_repetitions():
    shares = coverage_of_intervals(2_000)
    assert min(shares.values()) >= 0.93, shares


def test_coverage_and_density_read_their_nulls_for_two_parts_of_one_set():
    rng = np.random.default_rng(10)
    found = [prdc(rng.normal(size=(200, 4)), rng.normal(size=(60, 4))) for _ in range(15)]
    for name in ("coverage", "density"):
        mean = np.mean([getattr(f, name).value for f in found])
        assert mean == pytest.approx(getattr(found[0], name).null, abs=0.06)
