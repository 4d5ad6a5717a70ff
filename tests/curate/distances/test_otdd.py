import numpy as np
import pyarrow as pa
import pytest
from scipy.linalg import sqrtm
from scipy.optimize import linear_sum_assignment

from curate.distances import otdd, sinkhorn
from curate.distances._drawn_points import MAX_ROWS
from curate.distances._otdd import class_distances
from curate.distances._transport import Points
from embeddings.errors import EncoderMismatchError, UsageError
from embeddings.store import ROWS, EmbeddingStore


def classes_of(n, names=("cat", "dog", "owl")):
    return [names[i % len(names)] for i in range(n)]


def labeled(vectors, labels):
    plain = EmbeddingStore.from_vectors(vectors, keys=[f"{i:05}" for i in range(len(vectors))])
    rows = plain.rows()
    rows = rows.set_column(rows.schema.get_field_index("label"), "label", pa.array(labels, pa.string()))
    return EmbeddingStore(spec=plain.spec, rows=rows.cast(ROWS), vectors=vectors)


def clustered(n, seed=0, dim=5, shift=0.0):
    """Three classes around their own centers."""
    rng, centers = np.random.default_rng(seed), np.random.default_rng(99).normal(size=(3, dim)) * 3
    return (centers[np.arange(n) % 3] + rng.normal(size=(n, dim)) + shift).astype(np.float32)


class TestSelfDistance:
    @pytest.mark.parametrize("n", [1, 2, 3, 60, 500, MAX_ROWS + 100])
    def test_is_zero_to_the_last_bit(self, n):
        x = clustered(n, dim=3)
        estimate = otdd(x, x, labels=(classes_of(n), classes_of(n)))
        assert estimate.value == 0.0
        assert estimate.n == (min(n, MAX_ROWS), min(n, MAX_ROWS))

    def test_also_with_other_names_another_order_and_copies(self):
        x, y, order = clustered(90), classes_of(90), np.random.default_rng(1).permutation(90)
        renamed = [{"cat": "z", "dog": "a", "owl": "m"}[name] for name in y]
        assert otdd(x, x, labels=(y, renamed)).value == 0.0
        assert otdd(x, x[order], labels=(y, np.array(y)[order])).value == 0.0
        assert otdd(x, np.repeat(x, 7, axis=0), labels=(y, np.repeat(y, 7))).value == 0.0


class TestValues:
    def test_names_of_labels_do_not_matter(self):
        x, y = clustered(90), clustered(120, seed=2, shift=0.4)
        base = otdd(x, y, labels=(classes_of(90), classes_of(120)))
        other = otdd(x, y, labels=(classes_of(90, ("b", "c", "a")), classes_of(120, (2, 0, 1))))
        assert other == base

    def test_equal_images_under_other_labels_differ(self):
        x = clustered(90)
        mixed = np.random.default_rng(3).permutation(classes_of(90))
        assert otdd(x, x, labels=(classes_of(90), mixed)).value > 1.0

    def test_one_class_of_all_is_sinkhorn_plus_the_distance_of_the_two_gaussians(self):
        x, y = clustered(60), clustered(50, seed=4, shift=0.5)
        # With one class a side, the class term is a constant across and 0 within; epsilon must be equal in both.
        plain, both = sinkhorn(x, y, epsilon=1e3), otdd(x, y, labels=([1] * 60, [1] * 50), epsilon=1e3)
        a, b = (np.cov(s.T, bias=True) for s in (x.astype(np.float64), y.astype(np.float64)))
        gap = x.astype(np.float64).mean(axis=0) - y.astype(np.float64).mean(axis=0)
        gaussians = gap @ gap + np.trace(a + b - 2 * sqrtm(a @ b).real)
        assert both.value == pytest.approx(plain.value + gaussians, rel=1e-3)

    def test_one_class_per_point_doubles_the_cost_of_the_best_assignment(self):
        rng = np.random.default_rng(5)
        x = 3 * rng.normal(size=(10, 2))
        y = rng.permutation(x) + 0.2 * rng.normal(size=(10, 2)) + 1
        cost = 2 * ((x[:, None] - y) ** 2).sum(axis=2)
        found = otdd(x, y, labels=(range(10), range(10)), epsilon=1e-3)
        assert found.value == pytest.approx(cost[linear_sum_assignment(cost)].mean(), rel=1e-3)

    def test_well_separated_classes_are_matched_by_their_gaussians(self):
        rng = np.random.default_rng(6)
        x = np.concatenate([rng.normal(size=(8, 2)), rng.normal(size=(8, 2)) * 0.1 + 50])
        y = np.concatenate([rng.normal(size=(8, 2)) * 0.5, rng.normal(size=(8, 2)) + 55])
        names = ["low"] * 8 + ["high"] * 8
        points = [Points(s, np.full(16, 1 / 16), np.repeat([0, 1], 8)) for s in (x, y)]
        gaussians = class_distances(*points).repeat(8, axis=0).repeat(8, axis=1)
        cost = ((x[:, None] - y) ** 2).sum(axis=2) + gaussians
        found = otdd(x, y, labels=(names, names), epsilon=1e-4)
        assert found.value == pytest.approx(cost[linear_sum_assignment(cost)].mean(), rel=2e-2)

    def test_class_distances_by_matrix_square_roots(self):
        x, y = clustered(30).astype(np.float64), clustered(40, seed=7).astype(np.float64)
        a, b = (Points(s, np.full(len(s), 1 / len(s)), np.arange(len(s)) % 3) for s in (x, y))
        found = class_distances(a, b)
        for i in range(3):
            for j in range(3):
                p, q = x[i::3], y[j::3]
                root = sqrtm(np.cov(p.T, bias=True) @ np.cov(q.T, bias=True)).real
                spread = np.cov(p.T, bias=True) + np.cov(q.T, bias=True) - 2 * root
                gap = p.mean(axis=0) - q.mean(axis=0)
                assert found[i, j] == pytest.approx(gap @ gap + np.trace(spread), rel=1e-9)
        np.testing.assert_array_equal(np.diag(class_distances(a, a)), 0.0)

    def test_the_null_is_what_a_second_sample_reads(self):
        found, centers = [], np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
        for seed in range(20):
            rng = np.random.default_rng(seed)
            labels = rng.integers(0, 3, (2, 120))
            x, y = (centers[side] + rng.normal(size=(120, 2)) for side in labels)
            found.append(otdd(x, y, labels=(labels[0], labels[1])))
        assert np.mean([e.null for e in found]) == pytest.approx(np.mean([e.value for e in found]), rel=0.3)
        assert found[0].low is None


class TestLabels:
    def test_the_label_column_of_a_store(self):
        x, y = clustered(40), clustered(50, seed=8)
        stores = labeled(x, classes_of(40)), labeled(y, classes_of(50))
        keyed = otdd(*stores)
        given = otdd(*stores, labels=(classes_of(40), classes_of(50)))
        arrays = otdd(x, y, labels=(classes_of(40), classes_of(50)))
        assert keyed.value == given.value == pytest.approx(arrays.value, rel=1e-12)

    def test_rows_without_label_are_left_out_and_counted(self):
        x, y = clustered(40), clustered(50, seed=9)
        partly = [None if i < 10 else name for i, name in enumerate(classes_of(40))]
        estimate = otdd(x, y, labels=(partly, classes_of(50)))
        assert "without label: 10 target, 0 pool images" in estimate.method
        assert estimate.n == (50, 30)
        assert estimate.value == pytest.approx(otdd(x[10:], y, labels=(classes_of(40)[10:], classes_of(50))).value)

    def test_no_labels_at_all_are_told(self):
        x = clustered(40)
        estimate = otdd(x, labeled(x, classes_of(40)))
        assert estimate.value is None
        assert "the target carries no labels" in estimate.reason
        assert "the pool carries no labels" in otdd(x, x, labels=(classes_of(40), [""] * 40)).reason

    def test_labels_of_another_number_are_refused(self):
        x = clustered(40)
        with pytest.raises(UsageError, match="39 labels for the pool's 40 images"):
            otdd(x, x, labels=(classes_of(40), classes_of(39)))
        with pytest.raises(EncoderMismatchError):
            otdd(x, x[:, :2], labels=(classes_of(40), classes_of(40)))


def test_classes_of_one_image_and_constant_features():
    x = np.hstack([clustered(30), np.ones((30, 2), np.float32)])
    single = [str(i) for i in range(30)]
    assert otdd(x, x + 1, labels=(single, single)).value == pytest.approx(2 * 7, rel=1e-4)
    assert otdd(np.ones((5, 3)), np.ones((4, 3)), labels=([1] * 5, [2] * 4)).value == 0.0
