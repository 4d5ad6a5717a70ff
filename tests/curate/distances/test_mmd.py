from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from scipy.spatial.distance import pdist

from curate.distances import mmd, mmd_permutation
from curate.distances._kernels import Gaussian, Polynomial, Side, cross_sums, gaussian_mixture, middle, own_sums
from curate.distances._kid import unbiased_mmd
from curate.distances._mmd import KernelSums, kernel_sums, moment_sums
from curate.distances._mmd_permutation import MAX_ROWS, permutation_p, unit_sums
from embeddings.errors import EncoderMismatchError, SourceError, TooFewImagesError, UnknownNameError, UsageError
from embeddings.moments import FOLDS, Moments, fold_of
from embeddings.store import EmbeddingStore

EVERY_FOLD = np.arange(FOLDS)


def grouped(x, groups):
    """A store whose rows carry groups; keys sort in row order."""
    store = EmbeddingStore.from_vectors(np.asarray(x), keys=[f"{i:06}" for i in range(len(x))])
    place = store.rows().schema.get_field_index("group")
    rows = store.rows().set_column(place, "group", pa.array([str(g) for g in groups], pa.string()))
    return EmbeddingStore(spec=store.spec, rows=rows, vectors=store.vectors())


def moments(x):
    store = EmbeddingStore.from_vectors(x)
    return Moments.from_vectors(store.vectors(), fold_of(store.rows()), encoder=store.spec.fingerprint)


def polynomial(degree):
    return lambda a, b, d: (a @ b / d + 1) ** degree


def mixture(x, y):
    """The Gaussian mixture from its definition; for small samples of one size without copies."""
    median = np.median(pdist(np.concatenate([x, y]), "sqeuclidean"))
    return lambda a, b, d: np.mean(
        [np.exp(-((a - b) ** 2).sum() / (2 * s * median)) for s in (2, 1, 1 / 2, 1 / 4, 1 / 8)]
    )


def brute_force(x, y, k, groups=None):
    """U-statistic by double loops, leaving out pairs of one group."""
    (n, d), m = x.shape, len(y)
    g = groups or (range(n), range(m))
    c = (x.mean(axis=0) + y.mean(axis=0)) / 2
    own = [
        np.mean([k(s[i] - c, s[j] - c, d) for i in range(len(s)) for j in range(len(s)) if h[i] != h[j]])
        for s, h in ((x, g[0]), (y, g[1]))
    ]
    return sum(own) - 2 * np.mean([k(a - c, b - c, d) for a in x for b in y])


def sums_about(kernel, x, y, center):
    a, b = (Side.of(EmbeddingStore.from_vectors(s)) for s in (x, y))
    return KernelSums(own_sums(kernel, a, center)[0], own_sums(kernel, b, center)[0], cross_sums(kernel, a, b, center))


class TestValue:
    @pytest.mark.parametrize("kernel", ["poly2", "poly3", "gaussian"])
    def test_double_loops_agree(self, kernel):
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(24, 5)) + 3, 1.5 * rng.normal(size=(24, 5)) + 3.4
        k = mixture(x, y) if kernel == "gaussian" else polynomial(int(kernel[-1]))
        assert mmd(x, y, kernel=kernel).value == pytest.approx(brute_force(x, y, k), rel=2e-6)

    def test_unequal_sizes_and_fewer_rows_than_dimensions(self):
        rng = np.random.default_rng(1)
        x, y = rng.normal(size=(7, 30)), rng.normal(size=(19, 30)) + 0.5
        assert mmd(x, y, kernel="poly3").value == pytest.approx(brute_force(x, y, polynomial(3)), rel=1e-5)

    @pytest.mark.parametrize("held", [1, 3 * 4 * 4 * 7])  # bytes: of no tile, which holds one, and of seven
    def test_tiles_cover_every_pair_once(self, monkeypatch, held):
        rng = np.random.default_rng(2)
        x, y = rng.normal(size=(150, 4)), rng.normal(size=(90, 4)) + 0.5
        whole = mmd(x, y, kernel="gaussian").value
        monkeypatch.setattr("curate.distances._kernels.TILE_ROWS", 3)
        monkeypatch.setattr("curate.distances._kernels.HELD_BYTES", held)
        assert mmd(x, y, kernel="gaussian").value == pytest.approx(whole, rel=1e-6)

    def test_published_cubic_value(self):
        rng = np.random.default_rng(1)
        x, y = rng.normal(size=(4000, 16)), np.sqrt(2) * rng.normal(size=(4000, 16))
        published = 0.19392612750554505  # torch-fidelity and torchmetrics, not centered
        assert unbiased_mmd(x, y) == pytest.approx(published, abs=1e-13)
        sums = sums_about(Polynomial(3), x, y, np.zeros(16))
        assert sums.mmd(EVERY_FOLD, EVERY_FOLD) == pytest.approx(published, rel=1e-6)
        estimate = mmd(x, y, kernel="poly3")
        assert estimate.low < 3 * (1 - 2) ** 2 / 16 < estimate.high
        assert estimate.value == pytest.approx(published, rel=2e-3)

    def test_gaussian_closed_form(self):
        rng = np.random.default_rng(3)
        x, y = rng.normal(size=(3000, 16)), 0.5 + np.sqrt(2) * rng.normal(size=(3000, 16))
        sums = sums_about(Gaussian(16.0), x, y, np.full(16, 0.25))
        assert sums.cross.mean(EVERY_FOLD, EVERY_FOLD) + 1 == pytest.approx(0.2276228, abs=2e-3)
        assert sums.mmd(EVERY_FOLD, EVERY_FOLD) == pytest.approx(0.1022708154066243, abs=3e-3)

    def test_bandwidths_come_from_the_median_squared_distance(self):
        rng = np.random.default_rng(4)
        x, y = rng.normal(size=(60, 8)), rng.normal(size=(60, 8)) + 2
        kernel = gaussian_mixture(*(EmbeddingStore.from_vectors(s) for s in (x, y)))
        median = np.median(pdist(np.concatenate([x, y]), "sqeuclidean"))
        assert kernel.variance == pytest.approx(2 * median, rel=1e-5)
        copied = gaussian_mixture(*(EmbeddingStore.from_vectors(np.repeat(s, 7, axis=0)) for s in (x, y)))
        assert copied.variance == pytest.approx(kernel.variance, rel=0.05)


class TestMoments:
    def test_degree_two_equals_the_pairs_of_different_folds(self):
        rng = np.random.default_rng(5)
        x, y = rng.normal(size=(300, 12)) + 4, 1.3 * rng.normal(size=(170, 12)) + 4.2
        a, b = (EmbeddingStore.from_vectors(s) for s in (x, y))
        direct = kernel_sums(Polynomial(2), Side.of(a), Side.of(b))
        by_moments = moment_sums(moments(x), moments(y))
        different = ~np.eye(FOLDS, dtype=bool)
        for side in ("target", "pool"):
            found, wanted = getattr(by_moments, side), getattr(direct, side)
            np.testing.assert_allclose(found.sums[different], wanted.sums[different], rtol=1e-4, atol=1e-4)
            np.testing.assert_array_equal(found.counts[different], wanted.counts[different])
            assert not found.counts[~different].any()
        np.testing.assert_allclose(by_moments.cross.sums, direct.cross.sums, rtol=1e-4, atol=1e-4)

    def test_degree_two_is_exact_in_float64(self):
        rng = np.random.default_rng(6)
        x, y = rng.normal(size=(200, 9)), 1.3 * rng.normal(size=(150, 9)) + 0.2
        folds = [fold_of(EmbeddingStore.from_vectors(s).rows()) for s in (x, y)]
        order = [np.argsort(np.array([str(i) for i in range(len(s))], object), kind="stable") for s in (x, y)]
        groups = [f[np.argsort(o)].tolist() for f, o in zip(folds, order, strict=True)]
        wanted = brute_force(x, y, polynomial(2), groups)
        sums = moment_sums(moments(x), moments(y))
        assert sums.mmd(EVERY_FOLD, EVERY_FOLD) == pytest.approx(wanted, abs=1e-12)

    def test_moments_and_vectors_estimate_the_same_thing(self):
        rng = np.random.default_rng(7)
        x, y = rng.normal(size=(400, 8)), rng.normal(size=(300, 8)) + 0.2
        a, b = mmd(x, y), mmd(moments(x), y)
        assert b.value == pytest.approx(a.value, abs=a.se)
        assert b.se == pytest.approx(a.se, rel=0.3)
        assert mmd(moments(x), moments(y)).value == pytest.approx(b.value, rel=1e-5)

    def test_the_inputs_are_left_as_they_were(self):
        m = moments(np.random.default_rng(8).normal(size=(60, 4)))
        before = m.scatter.copy()
        mmd(m, m)
        np.testing.assert_array_equal(m.scatter, before)

    def test_other_kernels_are_refused(self):
        m = moments(np.random.default_rng(9).normal(size=(60, 4)))
        with pytest.raises(UsageError, match="poly2 only"):
            mmd(m, m, kernel="gaussian")


class TestInvariances:
    @pytest.mark.parametrize("kernel", ["poly2", "poly3", "gaussian"])
    def test_offset_rotation_order_and_exchange(self, kernel):
        rng = np.random.default_rng(10)
        x, y = rng.normal(size=(80, 6)), 1.2 * rng.normal(size=(60, 6)) + 0.3
        q = np.linalg.qr(rng.normal(size=(6, 6)))[0]
        value = mmd(x, y, kernel=kernel).value
        assert mmd(x + 7, y + 7, kernel=kernel).value == pytest.approx(value, rel=1e-5)
        assert mmd(x @ q, y @ q, kernel=kernel).value == pytest.approx(value, rel=2e-5, abs=2e-6)
        if kernel != "gaussian":  # its bandwidths are from equal shares, which order may change
            assert mmd(x[::-1], y, kernel=kernel).value == pytest.approx(value, rel=1e-5)
            assert mmd(y, x, kernel=kernel).value == pytest.approx(value, rel=1e-5)

    def test_an_offset_of_100_in_float32(self):
        rng = np.random.default_rng(11)
        x, y = rng.normal(size=(200, 32)), rng.normal(size=(200, 32)) + 0.3
        for kernel in ("poly3", "gaussian"):
            far = mmd((x + 100).astype(np.float32), (y + 100).astype(np.float32), kernel=kernel)
            assert far.value == pytest.approx(mmd(x, y, kernel=kernel).value, rel=1e-3)

    def test_the_center_does_not_depend_on_the_sizes(self):
        x, y = np.zeros((30, 2)), np.ones((10, 2))
        sides = [Side.of(EmbeddingStore.from_vectors(s)) for s in (x, y)]
        np.testing.assert_allclose(middle(*sides), 0.5)

    def test_float16_on_disk_is_read_like_any_other(self, tmp_path):
        rng = np.random.default_rng(12)
        x, y = (rng.normal(size=(50, 4)).astype(np.float16) for _ in range(2))
        np.save(tmp_path / "x.npy", x)
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        assert mmd(mapped, y).value == mmd(x.astype(np.float64), y.astype(np.float64)).value

    def test_the_seed_draws_other_folds_and_the_same_value(self):
        rng = np.random.default_rng(13)
        x, y = rng.normal(size=(90, 4)), rng.normal(size=(90, 4)) + 0.3
        a, b = mmd(x, y, seed=0), mmd(x, y, seed=1)
        assert a.value == pytest.approx(b.value, rel=1e-5)
        assert a.se != b.se
        assert mmd(x, y) == a


class TestGroupsAndCopies:
    def test_pairs_of_one_group_are_left_out(self):
        rng = np.random.default_rng(14)
        groups = [0, 0, 0, 1, 1, 2, 3, 4, 5, 5, 6, 7], list(range(9))
        x = rng.normal(size=(8, 3))[groups[0]] + 0.1 * rng.normal(size=(12, 3))
        y = rng.normal(size=(9, 3))
        found = mmd(grouped(x, groups[0]), grouped(y, groups[1])).value
        assert found == pytest.approx(brute_force(x, y, polynomial(2), groups), rel=1e-5)

    def test_seven_copies_of_everything_change_nothing(self):
        rng = np.random.default_rng(15)
        x, y = rng.normal(size=(40, 5)), rng.normal(size=(30, 5)) + 0.2
        for kernel in ("poly2", "poly3"):
            copied = mmd(np.repeat(x, 7, axis=0), np.repeat(y, 7, axis=0), kernel=kernel)
            assert copied.value == pytest.approx(mmd(x, y, kernel=kernel).value, rel=1e-4)

    def test_copies_are_no_evidence(self):
        rng = np.random.default_rng(16)
        x, y = rng.normal(size=(60, 4)), rng.normal(size=(60, 4)) + 0.3
        plain, copied = mmd(x, y), mmd(np.repeat(x, 7, axis=0), np.repeat(y, 7, axis=0))
        assert 0.4 < copied.se / plain.se < 2.5

    def test_a_set_against_itself_reads_the_missing_diagonal(self):
        x = np.random.default_rng(17).normal(size=(50, 4))
        c = x - x.mean(axis=0)
        k = (c @ c.T / 4 + 1) ** 2
        apart = (k.sum() - np.trace(k)) / (50 * 49)
        assert mmd(x, x).value == pytest.approx(2 * (apart - k.mean()), rel=1e-4)


class TestDegenerate:
    def test_one_image_or_one_group_is_refused(self):
        x = np.random.default_rng(18).normal(size=(30, 3))
        with pytest.raises(TooFewImagesError, match="pool's 1 image"):
            mmd(x, x[:1])
        with pytest.raises(TooFewImagesError, match="target's 7 images hold no independent pair"):
            mmd(np.repeat(x[:1], 7, axis=0), x)
        with pytest.raises(TooFewImagesError, match="no independent pair"):
            mmd(moments(x[:1]), moments(x))

    def test_two_images_give_a_value_without_interval(self):
        x = np.random.default_rng(19).normal(size=(30, 3))
        estimate = mmd(x[:2], x)
        assert np.isfinite(estimate.value)
        assert (estimate.low, estimate.high, estimate.se) == (None, None, None)

    @pytest.mark.parametrize("kernel", ["poly2", "poly3", "gaussian"])
    def test_constant_features(self, kernel):
        rng = np.random.default_rng(20)
        x, y = rng.normal(size=(40, 3)), rng.normal(size=(40, 3)) + 1
        flat = [np.hstack([s, np.full((40, 3), 5.0)]) for s in (x, y)]
        shrink = 1 if kernel == "gaussian" else np.sqrt(2)  # the same inner products over twice the dimensions
        wanted = mmd(x / shrink, y / shrink, kernel=kernel).value
        assert mmd(*flat, kernel=kernel).value == pytest.approx(wanted, rel=1e-5)
        with pytest.raises(TooFewImagesError):  # forty copies are one image
            mmd(np.ones((40, 3)), x, kernel=kernel)

    def test_bad_input_is_refused(self):
        x = np.random.default_rng(21).normal(size=(30, 3))
        bad = x.copy()
        bad[4, 1] = np.nan
        with pytest.raises(SourceError, match="Vector '4' is not finite"):
            mmd(x, bad)
        with pytest.raises(UnknownNameError, match="poly4"):
            mmd(x, x, kernel="poly4")
        with pytest.raises(EncoderMismatchError):
            mmd(x, x[:, :2])


def draws(rng, n, m, shift=0.0):
    scale = np.arange(1, 9) ** -0.3
    return rng.normal(size=(n, 8)) * scale, rng.normal(size=(m, 8)) * scale + shift


def coverage_of(repetitions, kernel, shift, truth=None):
    found = [mmd(*draws(np.random.default_rng(s), 80, 120, shift), kernel=kernel) for s in range(repetitions)]
    truth = np.mean([e.value for e in found]) if truth is None else truth
    return np.mean([e.low <= truth <= e.high for e in found]), found


class TestCalibration:
    def test_unbiased_and_conservative_under_the_null(self):
        for kernel in ("poly2", "gaussian"):
            covered, found = coverage_of(64, kernel, 0.0, truth=0.0)
            values = np.array([e.value for e in found])
            assert abs(values.mean()) < 4 * values.std() / 8
            assert covered >= 0.93

    def test_intervals_cover_where_the_distributions_differ(self):
        covered, _ = coverage_of(100, "poly3", 0.4)
        assert 0.89 <= covered <= 0.99

    @pytest.mark.slow
    @pytest.mark.parametrize("kernel", ["poly2", "poly3", "gaussian"])
    def test_intervals_at_2000_repetitions(self, kernel):
        null, _ = coverage_of(2000, kernel, 0.0, truth=0.0)
        shifted, _ = coverage_of(2000, kernel, 0.4)
        assert null >= 0.95
        assert 0.93 <= shifted <= 0.97


class TestPermutation:
    def test_the_statistic_is_mmd(self):
        rng = np.random.default_rng(22)
        groups = rng.integers(0, 12, 40), rng.integers(0, 15, 50)
        stores = [grouped(s, g) for s, g in zip(draws(rng, 40, 50, 0.3), groups, strict=True)]
        x, y = (Side.of(s) for s in stores)
        sums, sizes = unit_sums(Polynomial(2), x, y)
        target = np.arange(len(sizes)) < x.units.max() + 1

        def mean(rows, columns):
            counts = np.outer(sizes, sizes) - np.diag(sizes**2)
            return sums[np.ix_(rows, columns)].sum() / counts[np.ix_(rows, columns)].sum()

        value = mean(target, target) + mean(~target, ~target) - 2 * mean(target, ~target)
        assert value == pytest.approx(mmd(*stores).value, rel=1e-4)

    def test_every_labeling_by_enumeration(self):
        # With 3 + 3 images there are 20 labelings; far more random ones than that must find the exact share.
        x, y = np.array([[0.0], [1.0], [2.5]]), np.array([[9.0], [7.0], [4.0]])
        sums, sizes = unit_sums(Polynomial(2), *(Side.of(EmbeddingStore.from_vectors(s)) for s in (x, y)))
        p = permutation_p(sums, sizes, 3, permutations=4000, rng=np.random.default_rng(0))
        both, center = np.concatenate([x, y]), (x.mean() + y.mean()) / 2

        def value(chosen):
            k = (((both - center) @ (both - center).T) + 1) ** 2
            rest = [i for i in range(6) if i not in chosen]
            own = [np.mean([k[i, j] for i in side for j in side if i != j]) for side in (chosen, rest)]
            return sum(own) - 2 * k[np.ix_(chosen, rest)].mean()

        values = [value(list(c)) for c in combinations(range(6), 3)]
        assert p == pytest.approx(np.mean(np.array(values) >= values[0] - 1e-3), abs=0.03)
        assert 0.1 <= p < 1

    def test_a_shift_is_found_and_p_is_never_zero(self):
        x, y = draws(np.random.default_rng(23), 60, 80, 0.8)
        estimate = mmd_permutation(x, y, permutations=99)
        assert estimate.value == pytest.approx(1 / 100)
        assert estimate.null == 0.5

    def test_identical_sets_and_constant_features_are_no_difference(self):
        x, _ = draws(np.random.default_rng(24), 40, 1)
        assert mmd_permutation(x, x, kernel="gaussian").value > 0.9
        # Two copies of one picture are one image, so constant features need groups of their own to be two.
        flat = np.column_stack([np.ones(40), np.arange(40) * 1e-12])
        assert mmd_permutation(flat, flat, permutations=50).value > 0.5

    def test_groups_are_dealt_whole(self):
        # One hundred frames of five scenes a side: a test that dealt frames would be certain of a difference.
        p, wrong = [], []
        for seed in range(30):
            rng = np.random.default_rng(seed)
            scenes = np.repeat(np.arange(5), 20)
            x, y = (rng.normal(size=(5, 4))[scenes] + 0.1 * rng.normal(size=(100, 4)) for _ in range(2))
            p.append(mmd_permutation(grouped(x, scenes), grouped(y, scenes), permutations=99).value)
            wrong.append(mmd_permutation(x, y, permutations=99).value)
        assert np.mean(np.array(p) <= 0.05) <= 0.2
        assert np.mean(np.array(wrong) <= 0.05) > 0.8

    def test_the_null_is_rejected_at_its_level(self):
        p = [mmd_permutation(*draws(np.random.default_rng(s), 30, 40), permutations=99).value for s in range(200)]
        assert 0.015 <= np.mean(np.array(p) <= 0.05) <= 0.1
        assert 0.42 <= np.mean(p) <= 0.58

    @pytest.mark.slow
    @pytest.mark.parametrize("kernel", ["poly2", "gaussian"])
    def test_the_null_at_2000_repetitions(self, kernel):
        p = [
            mmd_permutation(*draws(np.random.default_rng(s), 30, 40), kernel=kernel, permutations=99).value
            for s in range(2000)
        ]
        assert 0.03 <= np.mean(np.array(p) <= 0.05) <= 0.07

    def test_what_cannot_be_permuted_is_refused(self):
        x = np.random.default_rng(25).normal(size=(30, 3))
        with pytest.raises(TooFewImagesError, match="both sides need 2"):
            mmd_permutation(x, x[:1])
        with pytest.raises(UsageError, match="too many") as error:
            mmd_permutation(x, np.random.default_rng(0).normal(size=(MAX_ROWS, 3)))
        assert "random sample" in error.value.hint
        with pytest.raises(UsageError, match="0 permutations"):
            mmd_permutation(x, x, permutations=0)
