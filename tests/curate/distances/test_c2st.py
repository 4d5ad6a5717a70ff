import numpy as np
import pytest
from scipy import stats

from curate.distances import c2st
from curate.distances._c2st import CrossFit, Side, shrunk, sign_flip_p
from curate.distances._samples import joint_folds
from embeddings.errors import EncoderMismatchError, SourceError, TooFewImagesError
from embeddings.moments import FOLDS, Moments
from embeddings.store import EmbeddingStore


def store(x, prefix=""):
    return EmbeddingStore.from_vectors(x, keys=[f"{prefix}{i:05d}" for i in range(len(x))])


def pair(n, m, d, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)), rng.normal(size=(m, d))
    x[:, 0] += shift
    return x, y


def p_of(x, y, x_folds, y_folds, independent=None):
    sizes = independent or (len(x), len(y))
    parts = ((x, x_folds, sizes[0]), (y, y_folds, sizes[1]))
    fit = CrossFit(*(Side(v, folds, Moments.from_vectors(v, folds), n) for v, folds, n in parts))
    return sign_flip_p(*fit.gaps(), fit.within())


class TestValues:
    def test_gaussians_at_mahalanobis_distance_one(self):
        found = c2st(*pair(20_000, 20_000, 3, 0, shift=1.0))
        assert found.auc.value == pytest.approx(0.7602499389065234, abs=0.006)
        assert found.accuracy.value == pytest.approx(0.6914624612740131, abs=0.006)
        assert found.pad.value == pytest.approx(0.7658498450960525, abs=0.024)
        assert found.p == 1 / 2 ** (FOLDS - 1)

    def test_the_auc_agrees_with_loops_over_folds_and_pairs(self):
        x, y = pair(60, 45, 5, 0, shift=0.7)
        folds = joint_folds(store(x), store(y))
        right, pairs = 0.0, 0
        for f in range(FOLDS):
            train = [v[fold != f] for v, fold in zip((x, y), folds, strict=True)]
            covariance = sum(np.cov(v.T) for v in train) / 2
            gap = train[0].mean(axis=0) - train[1].mean(axis=0)
            w = np.linalg.solve(shrunk(covariance, 4 / (1 / 60 + 1 / 45)), gap)
            for a in x[folds[0] == f] @ w:
                for b in y[folds[1] == f] @ w:
                    right, pairs = right + (a > b) + 0.5 * (a == b), pairs + 1
        assert c2st(store(x), store(y)).auc.value == pytest.approx(right / pairs, abs=1e-12)

    def test_shrinkage_agrees_with_scikit_learn(self):
        from sklearn.covariance import oas

        for n, d in ((30, 80), (200, 10)):
            x = np.random.default_rng(1).normal(size=(n, d)) * np.arange(1, d + 1)
            expected, _ = oas(x)
            np.testing.assert_allclose(shrunk(np.cov(x.T, bias=True), n), expected, rtol=1e-10)

    def test_scores_are_the_log_odds_of_images_not_seen(self):
        x, y = pair(3000, 3000, 2, 2, shift=1.5)
        found = c2st(x, y)
        # Of unit Gaussians 1.5 apart the log odds are linear with slope 1.5 and zero halfway.
        assert np.corrcoef(found.target_scores, x[:, 0])[0, 1] > 0.99
        np.testing.assert_allclose(np.polyfit(x[:, 0], found.target_scores, 1), [1.5, -1.125], atol=0.12)

    def test_the_images_that_tell_the_sets_apart_are_named_by_their_rows(self):
        x, y = pair(120, 130, 4, 3, shift=1.0)
        x[[11, 100], 0], y[[2, 10], 0] = (9.0, 8.0), (-9.0, -8.0)
        found = c2st(x, y)
        assert [rows.tolist() for rows in found.most_telling(2)] == [[11, 100], [2, 10]]
        assert found.target_scores.shape == (120,)
        assert found.target_scores.dtype == np.float64


class TestInvariances:
    def test_order_rotation_scale_and_offset_change_nothing(self):
        x, y = pair(80, 90, 12, 4, shift=1.0)
        base = c2st(store(x), store(y))
        rng = np.random.default_rng(5)
        q, order = np.linalg.qr(rng.normal(size=(12, 12)))[0], rng.permutation(80)
        shuffled = EmbeddingStore.from_vectors(x[order], keys=[f"{i:05d}" for i in order])
        offset = [store((v + 100).astype(np.float32)) for v in (x, y)]
        for other in (c2st(shuffled, store(y)), c2st(store(3 * x @ q), store(3 * y @ q)), c2st(*offset)):
            assert other.auc.value == pytest.approx(base.auc.value, abs=1e-9)
            assert other.p == base.p

    def test_exchanging_the_sides_turns_the_scores_around(self):
        x, y = pair(60, 50, 6, 6, shift=1.0)
        a, b = c2st(store(x), store(y)), c2st(store(y), store(x))
        assert b.auc.value == pytest.approx(a.auc.value)
        np.testing.assert_allclose(b.pool_scores, -a.target_scores, atol=2e-6)

    def test_memory_mapped_half_precision_is_accepted(self, tmp_path):
        x, y = (v.astype(np.float16) for v in pair(60, 60, 6, 7, shift=1.0))
        np.save(tmp_path / "x.npy", x)
        mapped = EmbeddingStore(
            spec=store(x).spec, rows=store(x).rows(), vectors=np.load(tmp_path / "x.npy", mmap_mode="r")
        )
        assert c2st(mapped, store(y)).auc == c2st(store(x), store(y)).auc


class TestDegenerate:
    def test_a_set_against_itself_or_its_copies_under_other_names_is_indistinguishable(self):
        x = np.random.default_rng(8).normal(size=(100, 5))
        for other in (store(x), store(x, "copy")):
            found = c2st(store(x), other)
            assert (found.auc.value, found.accuracy.value, found.pad.value, found.p) == (0.5, 0.5, 0.0, 1.0)

    def test_fewer_images_than_dimensions(self):
        assert c2st(*pair(30, 25, 200, 9)).p > 0.05
        x, y = pair(30, 25, 200, 9)
        found = c2st(x + 0.4, y)
        assert found.auc.value > 0.9
        assert found.p < 0.01

    def test_sets_told_apart_without_error_keep_an_interval(self):
        found = c2st(*pair(60, 40, 4, 10, shift=50.0))
        assert (found.auc.value, found.auc.high) == (1.0, 1.0)
        assert found.auc.low == pytest.approx(0.025 ** (1 / 40))
        assert found.pad.value == 2.0

    def test_constant_features(self):
        x, y = pair(40, 40, 3, 11)
        x[:, 1:] = y[:, 1:] = 7.0
        assert 0.2 < c2st(x, y).auc.value < 0.8
        y[:, 1] = 8.0
        assert c2st(x, y).auc.value == 1.0
        with pytest.raises(TooFewImagesError, match="folds hold images of both sides"):
            c2st(np.ones((40, 3)), y)

    def test_copies_are_no_evidence(self):
        x, y = pair(60, 60, 6, 12, shift=0.5)
        once, often = c2st(x, y), c2st(np.repeat(x, 7, axis=0), np.repeat(y, 7, axis=0))
        assert often.auc.se > 0.6 * once.auc.se
        assert abs(often.auc.value - once.auc.value) < 2 * once.auc.se

    def test_what_cannot_be_compared_is_refused(self):
        x, y = pair(40, 40, 3, 13)
        with pytest.raises(TooFewImagesError, match="pool has 1 image;"):
            c2st(x, y[:1])
        with pytest.raises(EncoderMismatchError):
            c2st(x, y[:, :2])
        x[3, 1] = np.inf
        with pytest.raises(SourceError, match="'3' is not finite"):
            c2st(x, y)


class TestCalibration:
    def test_another_seed_draws_other_folds(self):
        x, y = pair(60, 60, 4, 14, shift=0.5)
        assert c2st(x, y, seed=1).auc.value != c2st(x, y).auc.value
        assert c2st(x, y, seed=1).auc == c2st(x, y, seed=1).auc

    def test_p_counts_every_pattern_of_signs(self):
        # One dimension, equal gaps: only the observed pattern and its opposite reach the largest sum.
        assert sign_flip_p(np.ones((5, 1)), np.ones(5), np.eye(1)) == 1 / 16
        assert sign_flip_p(np.array([[1.0], [1], [-1]]), np.ones(3), np.eye(1)) == 1.0
        assert sign_flip_p(np.zeros((4, 2)), np.ones(4), np.eye(2)) == 1.0

    @pytest.mark.parametrize("groups", [False, True])
    def test_p_is_uniform_under_the_null(self, groups):
        values = [null_p(seed, groups) for seed in range(200)]
        assert stats.kstest(values, "uniform").pvalue > 0.01
        assert 0.01 <= np.mean(np.array(values) <= 0.05) <= 0.09

    def test_the_interval_covers_with_and_without_a_shift(self):
        for shift, truth in ((0.0, 0.5), (3.0, 0.98305)):
            found = [c2st(*pair(60, 80, 3, seed, shift)).auc for seed in range(60)]
            expected = truth if shift == 0 else np.mean([f.value for f in found])
            assert expected == pytest.approx(truth, abs=0.01)
            assert np.mean([f.low <= expected <= f.high for f in found]) >= 0.85

    @pytest.mark.slow
    @pytest.mark.parametrize("groups", [False, True])
    def test_p_rejects_a_true_null_as_often_as_it_says(self, groups):
        values = np.array([null_p(seed, groups) for seed in range(2000)])
        assert 0.03 <= np.mean(values <= 0.05) <= 0.07
        assert stats.kstest(values, "uniform").pvalue > 0.001

    @pytest.mark.slow
    @pytest.mark.parametrize(("shift", "truth"), [(0.0, 0.5), (1.0, None)])
    def test_the_interval_covers_as_often_as_it_says(self, shift, truth):
        found = [c2st(*pair(100, 100, 8, seed, shift)).auc for seed in range(1000)]
        expected = np.mean([f.value for f in found]) if truth is None else truth
        # Conservative under the null: the jackknife of a degenerate figure is up to 1.4 times too wide.
        assert 0.93 <= np.mean([f.low <= expected <= f.high for f in found]) <= 0.995


def null_p(seed, groups):
    """p of two samples of one distribution; with groups, of 30 and 60 patients with 1 to 9 images each."""
    rng = np.random.default_rng(seed)
    sides = []
    for n in (30, 60):
        sizes = rng.integers(1, 10, n) if groups else np.ones(n, int)
        patients = np.repeat(rng.exponential(size=(n, 12)), sizes, axis=0)
        folds = np.repeat(rng.integers(0, FOLDS, n), sizes)
        sides.append((patients + 0.5 * rng.normal(size=patients.shape), folds))
    (x, x_folds), (y, y_folds) = sides
    return p_of(x, y, x_folds, y_folds, (30, 60))
