import numpy as np
import pyarrow as pa
import pytest
from scipy.special import logsumexp

from curate.distances import _transport, sinkhorn
from curate.distances._drawn_points import MAX_ROWS
from curate.distances._transport import Points, divergence
from embeddings.errors import EncoderMismatchError, SourceError, UsageError
from embeddings.store import ROWS, EmbeddingStore

POT_VALUE = 1.2457043264313432  # ot.sinkhorn 0.9.7 in the log domain, eps = 0.2 median, <P, C> + eps KL, debiased


def squared(x, y):
    return ((x[:, None] - y) ** 2).sum(axis=2)


def plain_transport(cost, epsilon):
    """OT of uniform weights by 300 log-domain iterations."""
    f, g = np.zeros(len(cost)), np.zeros(cost.shape[1])
    for _ in range(300):
        f = -epsilon * (logsumexp((g - cost) / epsilon, axis=1) - np.log(len(g)))
        g = -epsilon * (logsumexp((f[:, None] - cost) / epsilon, axis=0) - np.log(len(f)))
    return f.mean() + g.mean()


def plain_divergence(x, y, epsilon):
    own = (plain_transport(squared(s, s), epsilon) / 2 for s in (x, y))
    return plain_transport(squared(x, y), epsilon) - sum(own)


def samples():
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 3)), rng.normal(size=(40, 3)) + 0.5


def uniform(rows):
    return Points(rows, np.full(len(rows), 1 / len(rows)), np.zeros(len(rows), np.int64))


def cost_of(a, b):
    return squared(a.rows, b.rows)


def grouped(vectors, groups):
    plain = EmbeddingStore.from_vectors(vectors, keys=[f"{i:04}" for i in range(len(vectors))])
    rows = plain.rows()
    rows = rows.set_column(rows.schema.get_field_index("group"), "group", pa.array(groups, pa.string()))
    return EmbeddingStore(spec=plain.spec, rows=rows.cast(ROWS), vectors=vectors)


class TestValues:
    def test_an_independent_loop_agrees(self):
        x, y = samples()
        for share in (0.05, 0.2, 1.0):
            wanted = plain_divergence(x, y, share * np.median(squared(x, y)))
            assert sinkhorn(x, y, epsilon=share).value == pytest.approx(wanted, rel=1e-6)

    def test_pot_agrees(self):
        x, y = samples()
        assert sinkhorn(x, y).value == pytest.approx(POT_VALUE, rel=1e-6)

    def test_a_translation_costs_its_square(self):
        x, _ = samples()
        for step in (np.array([0.3, 0, 0]), np.array([2.0, -1.0, 4.0])):
            assert sinkhorn(x, x + step).value == pytest.approx(step @ step, rel=1e-5)

    def test_two_points(self):
        assert sinkhorn(np.zeros((1, 2)), np.array([[3.0, 4.0]])).value == pytest.approx(25.0)

    def test_a_small_epsilon_is_the_best_assignment(self):
        from scipy.optimize import linear_sum_assignment

        rng = np.random.default_rng(1)
        x, y = rng.normal(size=(12, 2)), rng.normal(size=(12, 2)) + 1
        cost = squared(x, y)
        assert sinkhorn(x, y, epsilon=1e-3).value == pytest.approx(cost[linear_sum_assignment(cost)].mean(), rel=5e-3)

    def test_what_lies_outside_the_directions_is_left_out(self):
        rng = np.random.default_rng(2)
        x, y = (np.hstack([10 * rng.normal(size=(80, 2)), 0.01 * rng.normal(size=(80, 5))]) for _ in range(2))
        assert sinkhorn(x, y, dim=2).value == pytest.approx(sinkhorn(x[:, :2], y[:, :2]).value, rel=1e-2)


class TestInvariances:
    def test_a_set_against_itself_is_zero_to_the_last_bit(self):
        rng = np.random.default_rng(3)
        for n in (1, 2, 30, 700):
            x = rng.normal(size=(n, 40)).astype(np.float32)
            assert sinkhorn(x, x).value == 0.0
            assert sinkhorn(x, x[rng.permutation(n)]).value == 0.0
            assert sinkhorn(x, np.repeat(x, 2, axis=0)).value == 0.0

    def test_of_a_large_set_the_same_rows_are_drawn(self):
        x = np.random.default_rng(4).normal(size=(MAX_ROWS + 50, 2))
        estimate = sinkhorn(x, x)
        assert estimate.value == 0.0
        assert estimate.n == (MAX_ROWS, MAX_ROWS)

    def test_rotation_offset_scale_and_order_of_the_sets(self):
        x, y = samples()
        base, q = sinkhorn(x, y).value, np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
        assert sinkhorn(x @ q + 7, y @ q + 7).value == pytest.approx(base, rel=1e-6)
        assert sinkhorn(3 * x, 3 * y).value == pytest.approx(9 * base, rel=1e-6)
        assert sinkhorn(y, x).value == pytest.approx(base, rel=1e-6)

    def test_a_common_offset_in_float32(self):
        x, y = (s.astype(np.float32) for s in samples())
        assert sinkhorn(x + np.float32(100), y + np.float32(100)).value == pytest.approx(sinkhorn(x, y).value, rel=1e-3)

    def test_memory_mapped_half_precision(self, tmp_path):
        x, y = (s.astype(np.float16) for s in samples())
        np.save(tmp_path / "x.npy", x)
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        assert sinkhorn(mapped, y).value == sinkhorn(x, y).value


class TestError:
    def test_null_and_standard_error_are_what_repetitions_show(self):
        for shift in (0.0, 0.6):
            found = []
            for seed in range(40):
                rng = np.random.default_rng(seed)
                found.append(sinkhorn(rng.normal(size=(120, 4)), rng.normal(size=(160, 4)) + shift))
            values, errors = np.array([e.value for e in found]), np.array([e.se for e in found])
            if shift:
                assert 0.75 < errors.mean() / values.std() < 1.5
                assert np.mean([e.low <= values.mean() <= e.high for e in found]) >= 0.88
            else:
                assert np.mean([e.null for e in found]) == pytest.approx(values.mean(), rel=0.2)
                assert errors.mean() > values.std()

    def test_copies_and_groups_are_no_evidence(self):
        rng = np.random.default_rng(6)
        x, y = rng.normal(size=(80, 3)), rng.normal(size=(80, 3)) + 1
        one, seven = sinkhorn(x, y), sinkhorn(np.repeat(x, 7, axis=0), np.repeat(y, 7, axis=0))
        assert seven.value == pytest.approx(one.value, rel=1e-9)
        assert seven.se == pytest.approx(one.se, rel=1e-6)
        centers = np.repeat(rng.normal(size=(20, 3)), 8, axis=0)
        near = centers + 0.01 * rng.normal(size=centers.shape)
        groups = [f"g{i // 8}" for i in range(160)]
        assert sinkhorn(grouped(near, groups), y).se > 1.4 * sinkhorn(grouped(near, [None] * 160), y).se

    def test_one_image_has_no_null(self):
        x, y = samples()
        assert sinkhorn(x[:1], y).null is None
        assert sinkhorn(x[:1], y).value > 0

    def test_the_seed_draws_other_folds(self):
        x, y = samples()
        one, other = sinkhorn(x, y), sinkhorn(x, y, seed=1)
        assert one.value == other.value
        assert one.null != other.null


class TestDegenerate:
    def test_constant_features_and_few_images(self):
        rng = np.random.default_rng(7)
        assert sinkhorn(np.ones((5, 4)), np.ones((9, 4))).value == 0.0
        assert sinkhorn(np.ones((5, 4)), np.ones((9, 4)) + 1).value == pytest.approx(4.0)
        assert np.isfinite(sinkhorn(rng.normal(size=(6, 300)), rng.normal(size=(9, 300))).value)

    def test_no_convergence_is_told(self, monkeypatch):
        monkeypatch.setattr(_transport, "MAX_ITERATIONS", 3)
        monkeypatch.setattr(_transport, "STAGE_ITERATIONS", 1)
        estimate = sinkhorn(*samples(), epsilon=1e-4)
        assert estimate.value is None
        assert "not converged" in estimate.reason
        assert "larger epsilon" in estimate.reason

    def test_an_extreme_epsilon_does_not_overflow(self):
        x, y = samples()
        found = divergence(cost_of, uniform(x[:8]), uniform(y[:8]), 1e-5)
        assert np.isfinite(found.value)
        assert divergence(cost_of, uniform(x), uniform(y), 1e6).value == pytest.approx(
            ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum(), rel=1e-3
        )

    def test_bad_input_is_refused(self):
        x, y = samples()
        with pytest.raises(EncoderMismatchError):
            sinkhorn(x, y[:, :2])
        with pytest.raises(SourceError, match="not finite"):
            sinkhorn(x, np.where(y == y[0, 0], np.inf, y))
        for settings in ({"dim": 0}, {"epsilon": 0.0}, {"epsilon": float("nan")}):
            with pytest.raises(UsageError, match="wanted at least 1"):
                sinkhorn(x, y, **settings)


def test_derivatives_are_those_of_the_weights():
    x, y = samples()
    a, b, epsilon, step = uniform(x), uniform(y), 0.8, 1e-4
    found = divergence(cost_of, a, b, epsilon)
    for i in (0, 17):
        weights = a.weights * (1 - step)
        weights[i] += step
        moved = divergence(cost_of, Points(x, weights, a.classes), b, epsilon).value
        slope = found.by_first[i] - a.weights @ found.by_first
        assert (moved - found.value) / step == pytest.approx(slope, rel=2e-2, abs=2e-3)
