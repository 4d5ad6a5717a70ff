import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from curate.distances import NeuronHistograms, neurons
from curate.distances._neurons import neurons_between
from embeddings.errors import EncoderMismatchError, SourceError, TooFewImagesError, UsageError
from embeddings.moments import FOLDS
from embeddings.store import EmbeddingStore


def levels(count, repeats, d, seed=0):
    """[count * repeats, d] whole numbers from 0, each as often as the other."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(np.tile(np.arange(float(count)), repeats)) for _ in range(d)], axis=1)


def store(x, prefix=""):
    return EmbeddingStore.from_vectors(x, keys=[f"{prefix}{i:05d}" for i in range(len(x))])


def exact(x, y):
    return np.array([wasserstein_distance(a, b) for a, b in zip(x.T, y.T, strict=True)])


class TestValues:
    @pytest.mark.parametrize("shift", [1.0, 3.0, 1000.0])
    def test_a_shift_is_measured_in_activation_units_however_far(self, shift):
        x = levels(8, 50, 3)
        found = neurons(x, x + shift, bins=8)  # bins of width 1 around the levels
        np.testing.assert_allclose(found.plain_by_neuron, shift, rtol=1e-12)
        assert found.plain.value == pytest.approx(shift, rel=1e-12)
        assert found.emd.value == pytest.approx(shift, rel=1e-9)

    def test_the_number_of_bins_is_no_unit(self):
        x = levels(8, 50, 3)
        values = [neurons(x, x + 2.0, bins=bins).plain.value for bins in (8, 15, 71)]
        np.testing.assert_allclose(values, 2.0, rtol=1e-9)

    def test_fine_bins_agree_with_scipy(self):
        rng = np.random.default_rng(1)
        x, y = rng.normal(size=(300, 5)), 1.4 * rng.exponential(size=(200, 5)) - 2
        found = neurons(x, y, bins=4096)
        np.testing.assert_allclose(found.plain_by_neuron, exact(x, y), atol=2e-4)
        np.testing.assert_allclose(neurons(x, y).plain_by_neuron, exact(x, y), atol=0.01)

    def test_a_neuron_that_is_constant_in_the_target_is_exact(self):
        rng = np.random.default_rng(2)
        x, y = rng.normal(size=(50, 3)) + 3, rng.normal(size=(60, 3)) + 3
        x[:, :2] = y[:, 1] = 3.0
        found = neurons(x, y)
        np.testing.assert_allclose(found.plain_by_neuron[:2], exact(x, y)[:2], rtol=1e-12)
        assert found.plain_by_neuron[1] == found.by_neuron[1] == 0.0

    def test_the_neurons_that_moved_most_are_named(self):
        rng = np.random.default_rng(3)
        x, y = rng.normal(size=(200, 6)), rng.normal(size=(200, 6))
        y[:, 4] += 2
        y[:, 1] -= 1
        assert neurons(x, y).most_moved(2).tolist() == [4, 1]

    def test_scale_order_and_offset(self):
        rng = np.random.default_rng(4)
        x, y, order = rng.normal(size=(150, 4)), rng.normal(size=(120, 4)) + 0.4, rng.permutation(150)
        base = neurons(store(x), store(y))
        shuffled = EmbeddingStore.from_vectors(x[order], keys=[f"{i:05d}" for i in order])
        assert neurons(shuffled, store(y)).emd == base.emd
        assert neurons(store(3 * x), store(3 * y)).emd.value == pytest.approx(3 * base.emd.value)
        offset = neurons(*(store((v + 100).astype(np.float32)) for v in (x, y)))
        assert offset.emd.value == pytest.approx(base.emd.value, abs=1e-3)

    def test_memory_mapped_half_precision_is_accepted(self, tmp_path):
        rng = np.random.default_rng(5)
        x, y = (rng.normal(size=(60, 4)).astype(np.float16) for _ in range(2))
        np.save(tmp_path / "x.npy", x)
        mapped = EmbeddingStore(
            spec=store(x).spec, rows=store(x).rows(), vectors=np.load(tmp_path / "x.npy", mmap_mode="r")
        )
        assert neurons(mapped, store(y)).emd == neurons(store(x), store(y)).emd


class TestHistograms:
    @given(st.lists(st.integers(0, 400), min_size=0, max_size=5), st.integers(0, 2**16))
    def test_any_sharding_and_any_order_of_merging_give_the_same_counts(self, cuts, seed):
        rng = np.random.default_rng(seed)
        x, folds = rng.normal(size=(400, 3)) * 2, rng.integers(0, FOLDS, 400)
        empty = NeuronHistograms.spanning(x[:50], bins=9)
        parts = [empty.count(part, f) for part, f in zip(np.split(x, sorted(cuts)), np.split(folds, sorted(cuts)))]  # noqa: B905
        merged = empty
        for i in rng.permutation(len(parts)):
            merged = merged.merge(parts[i])
        whole = empty.count(x, folds)
        np.testing.assert_array_equal(merged.counts, whole.counts)
        np.testing.assert_allclose(merged.beyond, whole.beyond, rtol=1e-12, atol=1e-12)
        assert merged.counts.dtype == np.int64

    def test_counts_agree_with_numpy_and_the_ends_are_open(self):
        rng = np.random.default_rng(6)
        x, y = rng.normal(size=(100, 2)), 3 * rng.normal(size=(5000, 2))
        found = NeuronHistograms.spanning(x, bins=7).count(y, np.zeros(5000, np.uint8))
        for j in range(2):
            edges = np.linspace(found.low[j], found.high[j], 8)
            np.testing.assert_array_equal(found.counts[0, j, 1:-1], np.histogram(y[:, j], edges)[0])
            np.testing.assert_array_equal(
                found.counts[0, j, [0, -1]], [(y[:, j] < edges[0]).sum(), (y[:, j] > edges[-1]).sum()]
            )
            assert found.beyond[0, j, 1] == pytest.approx(np.maximum(y[:, j] - edges[-1], 0).sum())
        assert found.n.tolist() == [5000] + [0] * 9

    def test_extremes_of_the_target_are_inside(self):
        x = np.random.default_rng(7).normal(size=(100, 3)).astype(np.float16)
        found = NeuronHistograms.spanning(x).count(x, np.zeros(100, int))
        assert not found.counts[:, :, [0, -1]].any()
        assert not found.beyond.any()

    def test_arrays_read_back(self):
        x = np.random.default_rng(8).normal(size=(40, 3))
        kept = NeuronHistograms.spanning(x, bins=5, encoder="abc").count(x, np.arange(40) % FOLDS)
        again = NeuronHistograms.from_arrays(kept.to_arrays())
        assert neurons_between(kept, again).plain.value == 0.0
        assert again.encoder == "abc"

    def test_other_ranges_bins_and_encoders_do_not_merge(self):
        x = np.random.default_rng(9).normal(size=(40, 3))
        base = NeuronHistograms.spanning(x)
        for other in (
            NeuronHistograms.spanning(x + 1),
            NeuronHistograms.spanning(x, bins=9),
            NeuronHistograms.spanning(x, encoder="b"),
        ):
            with pytest.raises(EncoderMismatchError):
                base.merge(other)


class TestDegenerate:
    def test_a_set_against_itself_or_its_copies_under_other_names_reads_zero(self):
        x = np.random.default_rng(10).normal(size=(80, 4))
        for other in (store(x), store(x, "copy")):
            found = neurons(store(x), other)
            assert (found.emd.value, found.emd.low, found.emd.high, found.plain.value) == (0.0, 0.0, 0.0, 0.0)

    def test_copies_are_no_evidence(self):
        rng = np.random.default_rng(11)
        x, y = rng.normal(size=(60, 4)), rng.normal(size=(60, 4)) + 0.5
        copies = [np.repeat(v, 7, axis=0) for v in (x, y)]
        once, often = ([neurons(*pair, seed=seed) for seed in range(12)] for pair in ((x, y), copies))
        assert often[0].plain.value == pytest.approx(once[0].plain.value)
        # Seven times as many images would lower both to 0.38.
        for figure in (lambda f: f.emd.se, lambda f: f.plain.null):
            assert 0.6 < np.mean([figure(f) for f in often]) / np.mean([figure(f) for f in once]) < 1.6

    def test_fewer_images_than_dimensions(self):
        rng = np.random.default_rng(12)
        assert neurons(rng.normal(size=(30, 200)), rng.normal(size=(25, 200)) + 1).emd.low > 0.5

    def test_what_cannot_be_compared_is_refused(self):
        x = np.random.default_rng(13).normal(size=(40, 3))
        with pytest.raises(TooFewImagesError, match="pool has 1 image;"):
            neurons(x, x[:1])
        with pytest.raises(TooFewImagesError, match="hold images of both sides"):
            neurons(np.ones((40, 3)), x)
        with pytest.raises(EncoderMismatchError):
            neurons(x, x[:, :2])
        with pytest.raises(UsageError, match="1 bins"):
            neurons(x, x, bins=1)
        x[5, 0] = np.nan
        with pytest.raises(SourceError, match="'5' is not finite"):
            neurons(x, x)


class TestCalibration:
    def test_nothing_reads_as_nothing_and_the_plain_figure_as_its_null(self):
        found = [between(seed, 0.0) for seed in range(150)]
        values = np.array([f.emd.value for f in found])
        assert abs(values.mean()) < 3 * values.std() / np.sqrt(len(values))
        plain, null = (np.mean([getattr(f.plain, name) for f in found]) for name in ("value", "null"))
        assert null == pytest.approx(plain, rel=0.06)
        assert np.mean([f.emd.low <= 0 <= f.emd.high for f in found]) >= 0.95

    def test_another_seed_draws_other_folds(self):
        rng = np.random.default_rng(14)
        x, y = rng.normal(size=(60, 4)), rng.normal(size=(60, 4))
        assert neurons(x, y, seed=1).emd.value != neurons(x, y).emd.value
        assert neurons(x, y, seed=1).plain.value == pytest.approx(neurons(x, y).plain.value)

    @pytest.mark.parametrize("groups", [1, 7])
    @pytest.mark.parametrize("shift", [0.1, 0.3, 1.0])
    def test_the_interval_covers_small_and_large_shifts(self, shift, groups):
        covered = [(f := between(seed, shift, groups).emd).low <= shift <= f.high for seed in range(150)]
        assert np.mean(covered) >= 0.90

    @pytest.mark.slow
    @pytest.mark.parametrize(("shift", "most"), [(0.0, 1.0), (0.3, 0.98), (1.0, 0.98)])
    def test_the_interval_covers_as_often_as_it_says(self, shift, most):
        covered = [(f := between(seed, shift).emd).low <= shift <= f.high for seed in range(2000)]
        assert 0.935 <= np.mean(covered) <= most


def between(seed, shift, groups=1):
    """Two samples of correlated neurons, all shifted alike; with groups, the target's images come in equal sevens."""
    rng, sides = np.random.default_rng(seed), []
    for n, copies in ((105 // groups, groups), (150, 1)):
        x = np.sqrt(0.5) * (rng.normal(size=(n, 8)) + rng.normal(size=(n, 1)))
        sides.append((np.repeat(x, copies, axis=0), np.repeat(rng.integers(0, FOLDS, n), copies)))
    (x, x_folds), (y, y_folds) = sides
    empty = NeuronHistograms.spanning(x, bins=64)
    return neurons_between(empty.count(x, x_folds), empty.count(y + shift, y_folds))
