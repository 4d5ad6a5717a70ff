import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from curate.distances import frechet, frechet_full
from curate.distances._frechet import TargetFrame, bures, frechet_to, refit_frechet
from curate.distances._frechet_full import FullTarget
from curate.distances._jackknife import delete_fold_jackknife
from curate.distances._refits import Refits, order_probability
from embeddings.errors import EncoderMismatchError, SourceError, TooFewImagesError, UsageError
from embeddings.moments import FOLDS, Moments
from embeddings.store import EmbeddingStore


def spectrum_sample(n, d, rng, shift=0.0, scale=1.0):
    return scale * rng.normal(size=(n, d)) / np.sqrt(np.arange(1, d + 1)) + shift


def moments(x, rng):
    return Moments.from_vectors(x, rng.integers(0, FOLDS, len(x)))


class TestTraceTerm:
    def test_diagonal_matrices(self):
        a, b = np.diag([1.0, 2, 3, 4, 5]), np.diag([5.0, 4, 3, 2, 1])
        assert bures(a, b) == pytest.approx(3.742019591016081, abs=1e-12)

    def test_two_by_two_closed_form(self):
        a, b = np.array([[2, 0.5], [0.5, 1]]), np.array([[1, -0.3], [-0.3, 3]])
        shift = (1 - 0) ** 2 + (2 + 1) ** 2
        assert bures(a, b) + shift == pytest.approx(10.929311854967773, abs=1e-12)
        rule = (
            np.trace(a) + np.trace(b) - 2 * np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a) * np.linalg.det(b)))
        )
        assert bures(a, b) == pytest.approx(rule, abs=1e-12)

    def test_rank_one_matrices(self):
        u, v = np.array([1.0, 2, 3]), np.array([2.0, 0, 1])
        assert bures(np.outer(u, u), np.outer(v, v)) == pytest.approx(9.0, abs=1e-7)


class TestFull:
    def test_published_value(self):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(1000, 64))
        y = 1.2 * rng.normal(size=(1000, 64)) + 0.1
        assert frechet_full(x, y) == pytest.approx(5.9680256113409, abs=1e-10)

    def test_identical_sets_read_zero_below_and_above_d(self):
        for n in (50, 400):
            x = np.random.default_rng(1).normal(size=(n, 128)) * 3 + 5
            assert abs(frechet_full(x, x)) < 1e-9 * 128 * 9

    def test_shift_and_scale(self):
        x = np.random.default_rng(2).normal(size=(300, 20)) + 0.5
        assert frechet_full(x, x + 2.0) == pytest.approx(20 * 4.0, rel=1e-9)
        mean, total = x.mean(axis=0), np.trace(np.cov(x.T))
        assert frechet_full(x, 3 * x) == pytest.approx(4 * ((mean**2).sum() + total), rel=1e-9)

    def test_rotation_changes_nothing_and_the_dual_agrees_with_moments(self):
        rng = np.random.default_rng(3)
        x, y = spectrum_sample(80, 120, rng), spectrum_sample(90, 120, rng, 0.2)
        q = np.linalg.qr(rng.normal(size=(120, 120)))[0]
        assert frechet_full(x @ q, y @ q) == pytest.approx(frechet_full(x, y), rel=1e-9)
        assert frechet_full(moments(x, rng), moments(y, rng)) == pytest.approx(frechet_full(x, y), rel=1e-5)

    def test_jackknife_removes_the_bias(self):
        d, n = 64, 1500
        base = np.arange(1, d + 1) ** -0.5
        truth = (0.1**2) * d + ((base - 1.2 * base) ** 2).sum()
        plain, debiased = [], []
        for seed in range(12):
            rng = np.random.default_rng(seed)
            x, y = (
                moments(rng.normal(size=(n, d)) * base, rng),
                moments(rng.normal(size=(n, d)) * base * 1.2 + 0.1, rng),
            )
            plain.append(frechet_full(x, y))
            debiased.append(frechet_full(x, y, debias=True))
        error = np.std(debiased) / np.sqrt(12)
        assert abs(np.mean(debiased) - truth) < 3 * error
        assert np.mean(plain) - truth > 10 * error

    def test_null_is_what_the_target_reads_against_itself(self):
        rng = np.random.default_rng(4)
        predicted = FullTarget(moments(spectrum_sample(800, 100, rng), rng)).null(800)
        real = [frechet_full(spectrum_sample(800, 100, rng), spectrum_sample(800, 100, rng)) for _ in range(5)]
        assert predicted == pytest.approx(np.mean(real), rel=0.25)


class TestHeadline:
    def test_unbiased_under_the_null_with_honest_errors(self):
        values, errors = [], []
        for seed in range(120):
            rng = np.random.default_rng(seed)
            estimate = frechet_to(
                TargetFrame.of(moments(spectrum_sample(160, 48, rng), rng)), moments(spectrum_sample(240, 48, rng), rng)
            )
            values.append(estimate.value)
            errors.append(estimate.se)
        assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(120)
        # Jackknife errors are conservative where target and pool are alike, but not without measure.
        covered = np.mean(np.abs(np.array(values)) < 2.1 * np.array(errors))
        assert 0.93 <= covered <= 0.995
        assert np.mean(errors) < 2 * np.std(values)

    def test_a_basis_from_the_measured_images_would_be_biased(self):
        # The reason for the cross-fit: the same pipeline with V and F on one half reads well above zero.
        rng = np.random.default_rng(5)
        values = []
        for _ in range(20):
            target = moments(spectrum_sample(100, 200, rng), rng)
            frame = TargetFrame.of(target)
            swapped = tuple(
                tuple(replace(d, folds=other[0].folds) for d in half)
                for half, other in zip(frame.halves, frame.halves[::-1], strict=True)
            )
            cheating = TargetFrame(swapped, frame.k, frame.total_variance, target)
            pool = moments(spectrum_sample(100, 200, rng), rng)
            values.append(frechet_to(cheating, pool).value - frechet_to(frame, pool).value)
        assert np.mean(values) > 4 * np.std(values) / np.sqrt(20)

    def test_a_known_shift_is_found(self):
        truth, values, errors = 0.3**2 * 32, [], []
        for seed in range(30):
            rng = np.random.default_rng(seed)
            x, y = spectrum_sample(400, 32, rng), spectrum_sample(400, 32, rng, shift=0.3)
            estimate = frechet(x, y)
            values.append(estimate.value)
            errors.append(estimate.se)
            assert estimate.low < estimate.value < estimate.high
        assert np.mean(values) == pytest.approx(truth, abs=3 * np.std(values) / np.sqrt(30) + 0.02)

    def test_rotation_and_order_change_nothing_and_scale_is_squared(self):
        rng = np.random.default_rng(6)
        x, y = spectrum_sample(200, 24, rng), spectrum_sample(300, 24, rng, 0.2)
        q = np.linalg.qr(rng.normal(size=(24, 24)))[0]
        folds = [rng.integers(0, FOLDS, n) for n in (200, 300)]

        def distance(a, b, order=slice(None)):
            target = Moments.from_vectors(a[order], folds[0][order])
            return frechet_to(TargetFrame.of(target), Moments.from_vectors(b, folds[1])).value

        base = distance(x, y)
        assert distance(x @ q, y @ q) == pytest.approx(base, rel=1e-8)
        assert distance(x, y, rng.permutation(200)) == pytest.approx(base, rel=1e-8)
        assert distance(3 * x + 7, 3 * y + 7) == pytest.approx(9 * base, rel=1e-8)

    def test_small_n_reduces_k_and_still_works_with_n_below_d(self):
        rng = np.random.default_rng(7)
        estimate = frechet(spectrum_sample(40, 300, rng), spectrum_sample(25, 300, rng, 0.5))
        assert "k=6" in estimate.method
        assert estimate.n == (25, 40)
        assert estimate.low > 0

    def test_constant_and_duplicated_features_survive(self):
        rng = np.random.default_rng(8)
        constant = np.hstack([np.ones((60, 5)), rng.normal(size=(60, 1))])
        assert frechet(constant, constant).value <= 0
        with pytest.raises(TooFewImagesError, match="independent groups"):
            frechet(np.ones((60, 5)), constant[:, :5])
        x, y = spectrum_sample(60, 12, rng), spectrum_sample(60, 12, rng)
        repeated = frechet(np.repeat(x, 7, axis=0), np.repeat(y, 7, axis=0))
        # Copies are no evidence: the error must not shrink as if there were seven times the images.
        assert repeated.se > 0.6 * frechet(x, y).se

    def test_another_seed_draws_other_folds(self):
        rng = np.random.default_rng(9)
        x, y = spectrum_sample(100, 16, rng), spectrum_sample(100, 16, rng, 0.3)
        assert frechet(x, y, seed=1).value != frechet(x, y).value
        assert frechet(x, y, seed=1) == frechet(x, y, seed=1)

    def test_too_few_images_and_other_encoders_are_refused(self):
        rng = np.random.default_rng(10)
        x = spectrum_sample(100, 8, rng)
        with pytest.raises(TooFewImagesError, match="pool has 1 image;"):
            frechet(x, x[:1])
        with pytest.raises(TooFewImagesError, match="target has 19"):
            frechet(x[:19], x)
        with pytest.raises(EncoderMismatchError):
            frechet(x, x[:, :7])
        one_group = Moments.from_vectors(x, np.zeros(100, int))
        with pytest.raises(TooFewImagesError, match="one group"):
            frechet_to(TargetFrame.of(moments(x, rng)), one_group)
        with pytest.raises(TooFewImagesError, match="independent groups"):
            TargetFrame.of(one_group)

    def test_vectors_that_are_not_finite_are_refused_with_their_key(self):
        x = np.ones((30, 3))
        x[4, 1] = np.nan
        with pytest.raises(SourceError, match="'row4'"):
            EmbeddingStore.from_vectors(x, keys=[f"row{i}" for i in range(30)])


def refits_of(rng, shifts, n=120, d=24):
    """Refits of pools at given shifts against one target."""
    frame = TargetFrame.of(moments(spectrum_sample(n, d, rng), rng))
    return [refit_frechet(frame, moments(spectrum_sample(n, d, rng, shift), rng)) for shift in shifts]


class TestRefits:
    def test_the_interval_is_students_and_follows_from_the_refits_read_back(self):
        (refits,) = refits_of(np.random.default_rng(11), [0.3])
        estimate = refits.estimate()
        reach = (estimate.high - estimate.low) / 2 / estimate.se
        assert 2.0 < reach < stats.t.ppf(0.975, 4)  # the degrees of one half of the target are the fewest possible
        assert estimate.low + estimate.high == pytest.approx(2 * estimate.value)
        again = Refits.from_json(json.loads(json.dumps(refits.to_json())))
        assert again.estimate() == estimate

    def test_order_of_pools(self):
        near, far, same = refits_of(np.random.default_rng(12), [0.0, 0.6, 0.0])
        assert order_probability(near, far) > 0.999
        assert order_probability(far, near) == pytest.approx(1 - order_probability(near, far))
        assert 0.01 < order_probability(near, same) < 0.99
        assert order_probability(near, near) == 0.5

    def test_sets_without_variance_have_an_order_without_doubt(self):
        rng = np.random.default_rng(13)
        target = np.hstack([rng.normal(size=(60, 1)), np.zeros((60, 2))])
        frame = TargetFrame.of(moments(target, rng))
        near, far = (refit_frechet(frame, moments(np.full((40, 3), value), rng)) for value in (0.0, 9.0))
        assert near.estimate().value < far.estimate().value
        assert order_probability(near, far) > 0.999

    def test_what_the_target_does_to_both_distances_cancels(self):
        wins, alone, together = 0, [], []
        for seed in range(40):
            a, b = refits_of(np.random.default_rng(seed), [0.5, 0.6])
            independent = np.hypot(a.estimate().se, b.estimate().se)
            alone.append(stats.norm.cdf((b.value - a.value) / independent))
            together.append(order_probability(a, b))
            wins += a.value < b.value
        assert wins > 30  # a is the nearer one
        assert np.mean(together) > np.mean(alone)

    def test_pools_of_different_targets_are_not_ordered(self):
        (a,), (b,) = refits_of(np.random.default_rng(14), [0.1]), refits_of(np.random.default_rng(15), [0.1])
        with pytest.raises(UsageError, match="needs one target"):
            order_probability(a, b)

    @pytest.mark.parametrize("n", [100, 250])
    def test_a_class_sorted_folder_is_at_distance_zero_from_its_own_kind(self, n):
        # Folds by key, not by blocks of rows: each block of a sorted folder holds one class only.
        values, covered, by_block = [], [], []
        for seed in range(30):
            rng = np.random.default_rng(seed)
            labels = rng.integers(0, 10, 2 * n)
            x = 3 * np.eye(20)[labels] + rng.normal(size=(2 * n, 20))
            order = n + np.argsort(labels[n:], kind="stable")
            keys = [f"{labels[i]}/{i:04d}.png" for i in order]
            target, pool = EmbeddingStore.from_vectors(x[:n]), EmbeddingStore.from_vectors(x[order], keys=keys)
            estimate = frechet(target, pool)
            values.append(estimate.value)
            covered.append(estimate.low <= 0 <= estimate.high)
            blocks = Moments.from_vectors(pool.vectors(), np.arange(n) * FOLDS // n, encoder=target.spec.fingerprint)
            by_block.append(frechet(target, blocks).value)
        assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(30)
        assert np.mean(covered) > 0.85
        assert np.mean(by_block) < -10 * np.std(values) / np.sqrt(30)


@pytest.mark.slow
@pytest.mark.parametrize("d", [16, 64])
@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_intervals_cover_and_equal_pools_are_rarely_called_ordered(d, shift):
    n, m, repeats = 120, 200, 2000
    values, ends, called = [], [], 0
    for seed in range(repeats):
        rng = np.random.default_rng([d, seed])
        frame = TargetFrame.of(moments(spectrum_sample(n, d, rng), rng))
        a, b = (refit_frechet(frame, moments(spectrum_sample(m, d, rng, shift), rng)) for _ in range(2))
        estimate = a.estimate()
        values.append(estimate.value)
        ends.append((estimate.low, estimate.high))
        called += abs(order_probability(a, b) - 0.5) > 0.475
    low, high = np.transpose(ends)
    # The means alone differ: of that no basis misses anything. Near zero errors are conservative, and k is large for n.
    truth = d * shift**2
    assert abs(np.mean(values) - truth) < 0.25 * np.std(values)
    assert 0.93 <= np.mean((low <= truth) & (truth <= high)) <= 0.993
    assert 0.001 <= called / repeats <= 0.07


def test_jackknife_of_a_mean_is_its_standard_error_and_of_a_square_its_bias():
    x = np.random.default_rng(0).normal(2.0, 1.0, 30)
    left_out = np.array([np.delete(x, i).mean() for i in range(30)])
    plain = delete_fold_jackknife(float(x.mean()), left_out, np.ones(30))
    assert plain.correction == pytest.approx(0.0, abs=1e-12)
    assert plain.variance == pytest.approx(x.var(ddof=1) / 30)
    squared = delete_fold_jackknife(float(x.mean() ** 2), left_out**2, np.ones(30))
    assert squared.correction == pytest.approx(-x.var(ddof=1) / 30)
