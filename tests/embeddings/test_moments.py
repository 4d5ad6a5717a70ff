from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embeddings.errors import EncoderMismatchError, TooFewImagesError, UsageError
from embeddings.moments import FOLDS, Moments, block_names, connected_rows, fold_of, pack, unpack


def rows(keys, groups=None, sha=None, pixels=None):
    n = len(keys)
    return pa.table(
        {
            "key": pa.array(keys),
            "group": pa.array(groups or [None] * n, pa.string()),
            "sha256": pa.array(sha or [f"s{k}" for k in keys], pa.string()),
            "pixels": pa.array(pixels or [f"p{k}" for k in keys], pa.string()),
        }
    )


def sample(n=500, d=7, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + offset, rng.integers(0, FOLDS, n)


def test_pooled_equals_numpy_at_once_and_by_folds():
    x, folds = sample()
    moments = Moments.from_vectors(x, folds)
    n, mean, covariance = moments.pooled()
    assert n == len(moments) == 500
    np.testing.assert_allclose(mean, x.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(x.T), atol=1e-11)
    some = np.isin(folds, [1, 4, 5])
    np.testing.assert_allclose(moments.pooled([1, 4, 5])[2], np.cov(x[some].T), atol=1e-11)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 499), max_size=12), st.sampled_from([0.0, 3.0, 100.0]), st.randoms())
def test_any_sharding_order_and_merge_tree_gives_the_same_statistics(cuts, offset, random):
    x, folds = sample(offset=offset)
    order = random.sample(range(500), 500)
    parts = [Moments.from_vectors(x[i], folds[i]) for i in np.split(order, sorted(cuts)) if len(i)]
    while len(parts) > 1:
        random.shuffle(parts)
        parts.append(parts.pop().merge(parts.pop()))
    whole = Moments.from_vectors(x, folds)
    assert (parts[0].n == whole.n).all()
    for ours, theirs in ((parts[0].mean, whole.mean), (parts[0].scatter, whole.scatter)):
        assert abs(ours - theirs).max() <= 1e-12 * abs(theirs).max()


@pytest.mark.parametrize("d", [1, 2, 5, 8])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_fold_has_the_statistics_of_its_rows(d, dtype):
    x = (np.random.default_rng(d).normal(size=(40, d)) + 2).astype(dtype)
    folds = np.arange(40) % 7 + 1  # folds 0, 8 and 9 are empty
    kept = x.copy()
    moments = Moments.from_vectors(x, folds)
    assert (x == kept).all()
    for fold in range(FOLDS):
        part = x[folds == fold].astype(np.float64)
        center = part.mean(axis=0) if len(part) else np.zeros(d)
        np.testing.assert_allclose(moments.mean[fold], center, atol=1e-14)
        np.testing.assert_allclose(unpack(moments.scatter[fold]), (part - center).T @ (part - center), atol=1e-13)


def test_part_sizes_change_nothing(monkeypatch):
    x, folds = sample()
    whole = Moments.from_vectors(x, folds)
    monkeypatch.setattr("embeddings.moments.PART_ROWS", 3)
    parts = Moments.from_vectors(x, folds)
    assert (parts.n == whole.n).all()
    np.testing.assert_allclose(parts.mean, whole.mean, atol=1e-13)
    assert abs(parts.scatter - whole.scatter).max() <= 1e-13 * abs(whole.scatter).max()


def test_merging_changes_neither_side():
    x, folds = sample()
    a, b = Moments.from_vectors(x[:200], folds[:200]), Moments.from_vectors(x[200:], folds[200:])
    before = a.scatter.copy(), b.scatter.copy()
    a.merge(b)
    np.testing.assert_array_equal((a.scatter, b.scatter), before)


def test_halves_share_no_image_and_are_the_whole_together():
    x, folds = sample()
    folds[folds == 3] = 4
    whole = Moments.from_vectors(x, folds)
    a, b = whole.halves()
    assert a.n.tolist() == [*whole.n[[0, 2, 5, 7, 9]], *[0] * 5]
    assert b.n.tolist() == [*whole.n[[1, 4, 6, 8]], *[0] * 6]
    np.testing.assert_allclose(a.pooled()[2], whole.pooled([0, 2, 5, 7, 9])[2])
    np.testing.assert_allclose(b.pooled()[1], x[np.isin(folds, [1, 4, 6, 8])].mean(axis=0))


def test_moments_of_some_directions_give_no_union():
    x, folds = sample()
    whole = Moments.from_vectors(x, folds)
    part = replace(whole, rank=3)
    assert part.halves()[0].rank == 3
    for a, b in ((whole, part), (part, whole)):
        with pytest.raises(UsageError, match="all 7 dimensions; these moments hold 3 directions"):
            a.merge(b)


def test_a_common_offset_costs_no_digits_in_float32():
    x, folds = sample(offset=100.0)
    x = x.astype(np.float32)
    covariance = Moments.from_vectors(x, folds).pooled()[2]
    np.testing.assert_allclose(covariance, np.cov(x.astype(np.float64).T), rtol=1e-5, atol=1e-5)


def test_merging_other_encoders_or_dimensions_is_refused():
    x, folds = sample()
    moments = Moments.from_vectors(x, folds, encoder="a")
    with pytest.raises(EncoderMismatchError, match="encoder a"):
        moments.merge(Moments.from_vectors(x, folds, encoder="b"))
    with pytest.raises(EncoderMismatchError, match="d = 6"):
        moments.merge(Moments.from_vectors(x[:, :6], folds, encoder="a"))


def test_one_image_has_no_covariance():
    with pytest.raises(TooFewImagesError, match="1 images"):
        Moments.from_vectors(np.ones((1, 3)), np.array([0])).pooled()


def test_saving_keeps_seven_digits_and_is_tied_to_its_digest(tmp_path):
    x, folds = sample()
    moments = Moments.from_vectors(x, folds, encoder="e")
    moments.save(tmp_path / "m.npz", "digest")
    again = Moments.open(tmp_path / "m.npz", "digest")
    assert again is not None
    assert again.encoder == "e"
    assert (again.n == moments.n).all()
    np.testing.assert_allclose(again.scatter, moments.scatter, rtol=1e-6, atol=1e-5)
    assert Moments.open(tmp_path / "m.npz", "another digest") is None
    assert Moments.open(tmp_path / "absent.npz", "digest") is None
    whole = (tmp_path / "m.npz").read_bytes()
    for damaged in (b"", b"not a file of ours", whole[: len(whole) // 2]):
        (tmp_path / "m.npz").write_bytes(damaged)
        assert Moments.open(tmp_path / "m.npz", "digest") is None


def test_projected_scatter_is_the_scatter_of_the_projection():
    x, folds = sample()
    basis = np.linalg.qr(np.random.default_rng(2).normal(size=(7, 3)))[0]
    moments, part = Moments.from_vectors(x, folds), x[folds == 4]
    (inside, one), trace = moments.projected_scatter(basis, basis[:, :1])
    np.testing.assert_allclose(one, inside[:, :1, :1], atol=1e-10)
    np.testing.assert_allclose(inside[4], np.cov((part @ basis).T) * (len(part) - 1), atol=1e-10)
    np.testing.assert_allclose(trace[4], ((part - part.mean(axis=0)) ** 2).sum())


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_triangles_are_mirrored_in_strips_of_any_size(monkeypatch, size):
    monkeypatch.setattr("embeddings.moments.MIRROR_ROWS", size)
    matrix = np.random.default_rng(0).normal(size=(7, 7))
    assert (unpack(pack(matrix + matrix.T)) == matrix + matrix.T).all()


def test_triangles_round_trip():
    matrix = np.cov(np.random.default_rng(0).normal(size=(5, 9)))
    np.testing.assert_array_equal(unpack(pack(matrix)), np.tril(matrix) + np.tril(matrix, -1).T)


def test_folds_do_not_depend_on_row_order_and_spread_evenly():
    keys = [f"image-{i}" for i in range(4000)]
    folds = fold_of(rows(keys))
    order = np.random.default_rng(0).permutation(4000)
    assert (fold_of(rows([keys[i] for i in order])) == folds[order]).all()
    counts = np.bincount(folds, minlength=FOLDS)
    assert counts.min() > 330
    assert counts.max() < 470
    assert (fold_of(rows(keys), salt="other") != folds).mean() > 0.85


def test_groups_and_copies_stay_together_also_through_each_other():
    table = rows(
        ["a", "b", "c", "d", "e"],
        groups=["lot1", "lot1", None, None, None],
        sha=["1", "2", "2", "4", "5"],
        pixels=["p1", "p2", "p3", "p4", "p4"],
    )
    names = block_names(table)
    assert names[0] == names[1] == names[2]  # a, b by lot; b, c by bytes
    assert names[3] == names[4] == "d"  # by pixels
    assert names[0] != names[3]
    assert len(set(fold_of(table)[:3])) == 1


def test_rows_without_a_digest_are_not_copies_of_each_other_or_of_the_word_none():
    table = rows(["a", "b", "c", "d"], sha=[None, None, "None", "4"], pixels=[None, "p", "q", "p"])
    assert block_names(table).tolist() == ["a", "b", "c", "b"]


CELLS = st.none() | st.sampled_from("xyz")


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=12))
def test_connected_rows_are_those_a_walk_over_shared_labels_reaches(table):
    found = connected_rows(*(pa.chunked_array([pa.array(column, pa.string())]) for column in zip(*table, strict=True)))
    reached = [{i} for i in range(len(table))]
    for _ in table:
        for i, row in enumerate(table):
            near = [
                j
                for j, other in enumerate(table)
                if any(a == b and a is not None for a, b in zip(row, other, strict=True))
            ]
            reached[i] |= set().union(*(reached[j] for j in near)) if near else set()
    assert all((found[i] == found[j]) == (j in reached[i]) for i in range(len(table)) for j in range(len(table)))
