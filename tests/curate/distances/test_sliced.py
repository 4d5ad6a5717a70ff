import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from curate.distances import sliced
from curate.distances._kernels import Side
from curate.distances._sliced import _plan, directions, interpolated, measure
from embeddings.errors import EncoderMismatchError, SourceError, TooFewImagesError, UsageError
from embeddings.store import EmbeddingStore


def plug_in(x, y, axes):
    """The squared distance before it is debiased."""
    sides = tuple(Side.of(EmbeddingStore.from_vectors(s)) for s in (x, y))
    return measure(sides, [_plan(*sides)[0]], np.asarray(axes, np.float32))[0]


class TestPlugIn:
    def test_optimal_assignment_agrees(self):
        rng = np.random.default_rng(0)
        x, y, axes = rng.normal(size=(40, 5)), 1.4 * rng.normal(size=(40, 5)) + 1, directions(5, 8, seed=0)
        costs = []
        for axis in axes.T:
            cost = ((x @ axis)[:, None] - (y @ axis)) ** 2
            costs.append(cost[linear_sum_assignment(cost)].mean())
        assert plug_in(x, y, axes) == pytest.approx(np.mean(costs), rel=1e-5)

    def test_published_values(self):
        # POT 0.9.7.post1, ot.sliced_wasserstein_distance(x, y, projections=np.eye(6)) ** 2
        rng = np.random.default_rng(3)
        x, y = rng.normal(size=(50, 6)), 1.3 * rng.normal(size=(50, 6)) + 0.2
        assert plug_in(x, y, np.eye(6)) == pytest.approx(0.2771551744692837, rel=1e-5)
        rng = np.random.default_rng(3)
        x, y = rng.normal(size=(900, 6)), 1.3 * rng.normal(size=(1300, 6)) + 0.2
        assert plug_in(x, y, np.eye(6)) == pytest.approx(0.13180967089192103, rel=0.01)  # it takes steps for quantiles

    def test_a_shift_reads_its_square_over_d(self):
        x = np.random.default_rng(1).normal(size=(100, 12))
        c = np.arange(12.0)
        for count in (12, 36):
            assert plug_in(x, x + c, directions(12, count, seed=0)) == pytest.approx(c @ c / 12, rel=1e-5)

    def test_gaussians_of_two_scales(self):
        rng = np.random.default_rng(2)
        estimate = sliced(rng.normal(size=(4000, 8)), 1.5 * rng.normal(size=(3000, 8)), projections=16)
        assert estimate.low < 0.25 < estimate.high
        assert estimate.se < 0.02

    def test_quantiles_interpolate(self):
        values = np.array([[0.0, 2.0, 10.0]], np.float32)
        np.testing.assert_array_equal(interpolated(values, 3), values)
        np.testing.assert_allclose(interpolated(values, 6)[0], [0, 0.5, 1.5, 4, 8, 10], rtol=1e-6)
        np.testing.assert_array_equal(interpolated(values[:, :1], 4), np.zeros((1, 4)))

    def test_blocks_of_directions_change_nothing(self, monkeypatch):
        rng = np.random.default_rng(4)
        x, y = rng.normal(size=(60, 5)), rng.normal(size=(80, 5)) + 0.3
        whole = sliced(x, y, projections=10)
        monkeypatch.setattr("curate.distances._sliced.PROJECTED_BYTES", 4 * 80 * 3)
        monkeypatch.setattr("curate.distances._sliced.SORTED_VALUES", 80 * 2)
        assert sliced(x, y, projections=10).value == pytest.approx(whole.value, rel=1e-6)

    def test_directions_are_orthonormal_in_sets(self):
        axes = directions(6, 15, seed=3).astype(np.float64)
        for part in (axes[:, :6], axes[:, 6:12], axes[:, 12:]):
            np.testing.assert_allclose(part.T @ part, np.eye(part.shape[1]), atol=1e-6)
        np.testing.assert_array_equal(directions(6, 15, seed=3), axes)
        assert not np.array_equal(directions(6, 15, seed=4), axes)


class TestInvariances:
    def test_offset_scale_and_exchange(self):
        rng = np.random.default_rng(5)
        x, y = rng.normal(size=(90, 4)), rng.normal(size=(70, 4)) + 0.5
        value = sliced(x, y, projections=8).value
        assert sliced(x + 9, y + 9, projections=8).value == pytest.approx(value, rel=1e-4)
        assert sliced(3 * x, 3 * y, projections=8).value == pytest.approx(9 * value, rel=1e-4)
        assert sliced(y, x, projections=8).value == pytest.approx(value, rel=1e-4)

    def test_row_order_and_float16_on_disk(self, tmp_path):
        rng = np.random.default_rng(6)
        x, y = rng.normal(size=(50, 3)).astype(np.float16), rng.normal(size=(60, 3)).astype(np.float16)
        keys, order = [f"{i:03}" for i in range(60)], rng.permutation(60)
        shuffled = EmbeddingStore.from_vectors(y[order], keys=[keys[i] for i in order])
        ordered = EmbeddingStore.from_vectors(y, keys=keys)
        np.save(tmp_path / "x.npy", x)
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        assert sliced(mapped, shuffled) == sliced(x, ordered)

    def test_an_offset_of_100_in_float32(self):
        rng = np.random.default_rng(7)
        x, y = rng.normal(size=(200, 16)), rng.normal(size=(200, 16)) + 0.3
        far = sliced(*((s + 100).astype(np.float32) for s in (x, y)), projections=16)
        assert far.value == pytest.approx(sliced(x, y, projections=16).value, rel=1e-3)


class TestDegenerate:
    def test_a_set_against_itself_reads_its_missing_bias(self):
        x = np.random.default_rng(8).normal(size=(100, 4))
        assert plug_in(x, x, np.eye(4)) == 0.0
        assert -0.1 < sliced(x, x, projections=8).value < 0

    def test_constant_features_and_fewer_rows_than_dimensions(self):
        rng = np.random.default_rng(9)
        flat = np.ones((40, 3)) + np.arange(40)[:, None] * 1e-12
        estimate = sliced(flat, flat + 2, projections=6)
        assert estimate.value == pytest.approx(4.0, rel=1e-5)
        assert np.isfinite(sliced(rng.normal(size=(20, 300)), rng.normal(size=(25, 300))).value)

    def test_seven_copies_of_everything_are_no_evidence(self):
        rng = np.random.default_rng(10)
        x, y = rng.normal(size=(60, 4)), rng.normal(size=(60, 4)) + 0.3
        one, seven = sliced(x, y), sliced(np.repeat(x, 7, axis=0), np.repeat(y, 7, axis=0))
        assert seven.value == pytest.approx(one.value, abs=one.se)
        assert 0.4 < seven.se / one.se < 2.5

    def test_one_image_is_refused(self):
        x = np.random.default_rng(11).normal(size=(30, 3))
        with pytest.raises(TooFewImagesError, match="pool's 1 images fall into one fold"):
            sliced(x, x[:1])
        with pytest.raises(TooFewImagesError, match="target's 7"):
            sliced(np.repeat(x[:1], 7, axis=0), x)

    def test_bad_input_is_refused(self):
        x = np.random.default_rng(12).normal(size=(30, 3))
        with pytest.raises(EncoderMismatchError):
            sliced(x, x[:, :2])
        with pytest.raises(SourceError, match="not finite"):
            sliced(x, np.where(x == x[0, 0], np.inf, x))
        with pytest.raises(UsageError, match="0 projections"):
            sliced(x, x, projections=0)


def repeated(repetitions, shift, n=60, m=100):
    scale, found = np.arange(1, 9) ** -0.3, []
    for seed in range(repetitions):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(n, 8)) * scale, rng.normal(size=(m, 8)) * scale + shift
        found.append(sliced(x, y, projections=8))  # all of an orthonormal set: the truth is shift^2
    covered = np.mean([e.low <= shift**2 <= e.high for e in found])
    return covered, np.array([e.value for e in found])


class TestCalibration:
    def test_unbiased_with_honest_intervals(self):
        for shift, least in ((0.0, 0.93), (0.4, 0.88)):
            covered, values = repeated(80, shift)
            assert abs(values.mean() - shift**2) < 3.5 * values.std() / np.sqrt(80)
            assert covered >= least

    def test_equal_small_samples_are_unbiased_too(self):
        _, values = repeated(80, 0.0, n=60, m=60)
        assert abs(values.mean()) < 3.5 * values.std() / np.sqrt(80)

    @pytest.mark.slow
    def test_2000_repetitions(self):
        for shift in (0.0, 0.4):
            covered, values = repeated(2000, shift)
            assert 0.93 <= covered <= 0.99
            assert abs(values.mean() - shift**2) < 0.1 * values.std()
