import numpy as np
import pyarrow as pa
import pytest

from curate.distances import fd_infinity, frechet_full
from embeddings.errors import EncoderMismatchError, SourceError, TooFewImagesError, UsageError
from embeddings.moments import FOLDS, Moments
from embeddings.store import ROWS, EmbeddingStore

DIM = 64
TRUTH = 0.8140  # of the published comparison at d = 64, n = m = 1,500


def moments(rows, rng):
    return Moments.from_vectors(rows, rng.integers(0, FOLDS, len(rows)))


def two_samples(seed, n, m, *, null=False, dim=DIM):
    """Gaussians with a falling spectrum; the pool is wider by a fifth and shifted so that their FD is TRUTH."""
    rng, spectrum = np.random.default_rng(seed), np.arange(1, dim + 1) ** -0.5
    wider = 1.0 if null else 1.2
    of_widths = ((np.sqrt(wider) - 1) ** 2 * spectrum).sum()
    shift = 0.0 if null else np.sqrt((TRUTH - of_widths) / dim)
    x = rng.normal(size=(n, dim)) * np.sqrt(spectrum)
    y = rng.normal(size=(m, dim)) * np.sqrt(wider * spectrum) + shift
    return moments(x, rng), moments(y, rng)


def repeated(repetitions, n, m, **options):
    found = [fd_infinity(*two_samples(seed, n, m, **options)) for seed in range(repetitions)]
    return np.array([e.value for e in found]), np.array([(e.low, e.high) for e in found])


class TestCalibration:
    def test_the_reference_experiment(self):
        values, ends = repeated(25, 1500, 1500)
        assert abs(values.mean() - TRUTH) < 3 * values.std() / np.sqrt(25)
        assert values.std() < 0.05  # 0.033 in the published comparison
        assert np.mean((ends[:, 0] <= TRUTH) & (ends[:, 1] >= TRUTH)) >= 0.88
        plain = frechet_full(*two_samples(0, 1500, 1500))
        assert plain - TRUTH > 5 * values.std()

    def test_unequal_sizes(self):
        values, _ = repeated(25, 600, 2400)
        assert abs(values.mean() - TRUTH) < 3 * values.std() / np.sqrt(25)

    def test_the_null_is_zero(self):
        values, ends = repeated(25, 500, 900, null=True, dim=32)
        assert abs(values.mean()) < 3 * values.std() / np.sqrt(25)
        assert np.mean((ends[:, 0] <= 0) & (ends[:, 1] >= 0)) >= 0.92

    @pytest.mark.slow
    @pytest.mark.parametrize(("null", "least", "most"), [(False, 0.93, 0.97), (True, 0.96, 0.995)])
    def test_2000_repetitions(self, null, least, most):
        values, ends = repeated(2000, 240, 300, null=null, dim=12)
        truth = 0.0 if null else TRUTH
        assert least <= np.mean((ends[:, 0] <= truth) & (ends[:, 1] >= truth)) <= most
        assert abs(values.mean() - truth) < 0.1 * values.std()


class TestKnownAnswers:
    def test_a_set_against_itself_and_shifted(self):
        x = np.random.default_rng(0).normal(size=(300, 12))
        assert fd_infinity(x, x).value == pytest.approx(0.0, abs=1e-9)
        assert fd_infinity(x, x).se == pytest.approx(0.0, abs=1e-9)
        assert fd_infinity(x, x + 0.5).value == pytest.approx(0.25 * 12, rel=1e-9)

    def test_a_line_through_two_sizes_by_hand(self):
        x, y = two_samples(3, 300, 400, dim=8)
        nine = [[f for f in range(FOLDS) if f != left] for left in range(FOLDS)]

        def at(folds):
            (n, mean, cov), (m, other, wider) = x.pooled(folds), y.pooled(folds)
            root = np.linalg.cholesky(cov)
            trace = np.sqrt(np.linalg.eigvalsh(root.T @ wider @ root)).sum()
            return 1 / n + 1 / m, ((mean - other) ** 2).sum() + np.trace(cov + wider) - 2 * trace

        whole, left_out = np.array(at(list(range(FOLDS)))), np.mean([at(f) for f in nine], axis=0)
        slope = (left_out[1] - whole[1]) / (left_out[0] - whole[0])
        assert fd_infinity(x, y, points=2).value == pytest.approx(whole[1] - slope * whole[0], rel=1e-8)

    def test_rotation_order_and_scale(self):
        rng = np.random.default_rng(1)
        x, y = rng.normal(size=(200, 10)), rng.normal(size=(160, 10)) + 0.3
        q = np.linalg.qr(rng.normal(size=(10, 10)))[0]
        stores = [EmbeddingStore.from_vectors(s, keys=[f"{i}" for i in range(len(s))]) for s in (x, y)]
        base = fd_infinity(*stores)
        order = rng.permutation(200)
        mixed = EmbeddingStore.from_vectors(x[order], keys=[str(i) for i in order])
        assert fd_infinity(mixed, stores[1]).value == pytest.approx(base.value, rel=1e-9)
        folds = [rng.integers(0, FOLDS, len(s)) for s in (x, y)]
        plain, turned, scaled = (
            fd_infinity(*(Moments.from_vectors(change(s), f) for s, f in zip((x, y), folds, strict=True))).value
            for change in (lambda s: s, lambda s: s @ q, lambda s: 3 * s + 100)
        )
        assert turned == pytest.approx(plain, rel=1e-8)
        assert scaled == pytest.approx(9 * plain, rel=1e-8)

    def test_a_common_offset_in_float32(self):
        rng = np.random.default_rng(2)
        x, y = (rng.normal(size=(200, 10)).astype(np.float32) for _ in range(2))
        folds = [rng.integers(0, FOLDS, 200) for _ in range(2)]
        plain, offset = (
            fd_infinity(*(Moments.from_vectors(s + o, f) for s, f in zip((x, y), folds, strict=True))).value
            for o in (np.float32(0), np.float32(100))
        )
        assert offset == pytest.approx(plain, abs=1e-3)


class TestDegenerate:
    def test_fewer_images_than_dimensions_are_told(self):
        rng = np.random.default_rng(4)
        estimate = fd_infinity(rng.normal(size=(80, 60)), rng.normal(size=(90, 60)))
        assert estimate.null is None
        assert "the line does not hold" in estimate.method
        assert fd_infinity(rng.normal(size=(300, 9)), rng.normal(size=(300, 9))).null == 0.0

    def test_copies_and_groups_stay_together(self):
        rng = np.random.default_rng(5)
        x, y = rng.normal(size=(150, 4)), rng.normal(size=(150, 4)) + 0.4
        one, seven = fd_infinity(x, y), fd_infinity(np.repeat(x, 7, axis=0), np.repeat(y, 7, axis=0))
        assert seven.value == pytest.approx(one.value, abs=one.se)
        assert 0.4 < seven.se / one.se < 2.5
        rows = EmbeddingStore.from_vectors(x).rows()
        rows = rows.set_column(rows.schema.get_field_index("group"), "group", pa.array(["one"] * 150, pa.string()))
        grouped = EmbeddingStore(spec=EmbeddingStore.from_vectors(x).spec, rows=rows.cast(ROWS), vectors=x)
        with pytest.raises(TooFewImagesError, match="target's 150 images"):
            fd_infinity(grouped, y)

    def test_constant_features(self):
        rng = np.random.default_rng(6)
        flat = np.hstack([np.ones((100, 3)), rng.normal(size=(100, 2))])
        assert np.isfinite(fd_infinity(flat, flat[::-1] * 2).value)
        with pytest.raises(TooFewImagesError, match="target's 100 images"):  # copies of one image
            fd_infinity(np.ones((100, 3)), flat[:, :3])

    def test_what_it_cannot_measure_is_refused(self):
        x = np.random.default_rng(7).normal(size=(60, 3))
        with pytest.raises(TooFewImagesError, match="pool's 1 images"):
            fd_infinity(x, x[:1])
        with pytest.raises(EncoderMismatchError):
            fd_infinity(x, x[:, :2])
        with pytest.raises(SourceError, match="not finite"):
            fd_infinity(x, np.where(x == x[0, 0], np.nan, x))
        with pytest.raises(UsageError, match="through 9 sizes"):
            fd_infinity(x, x, points=9)
        assert fd_infinity(x, x + 1, seed=3).seed == 3
