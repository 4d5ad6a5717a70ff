"""Splits: nothing that belongs together is cut, whatever the order of the rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from curate.evaluation import split_labeled, split_store
from curate.evaluation._split import FOLDS, hold_out
from embeddings.errors import TooFewImagesError, UsageError
from embeddings.store import ROWS, EmbeddingStore


def rows_of(labels, keys=None, groups=None, sha256=None, pixels=None):
    n = len(labels)
    columns = {field.name: pa.nulls(n, field.type) for field in ROWS}
    columns["key"] = pa.array(keys or [f"k{i:04d}" for i in range(n)])
    columns["label"] = pa.array(labels, pa.string())
    columns["group"] = pa.array(groups or [None] * n, pa.string())
    columns["sha256"] = pa.array(sha256 or [f"s{i}" for i in range(n)])
    columns["pixels"] = pa.array(pixels or [f"p{i}" for i in range(n)])
    return pa.table(columns, schema=ROWS)


def two_classes(n):
    return ["a" if i % 2 else "b" for i in range(n)]


@st.composite
def labeled_rows(draw):
    """Rows whose groups, bytes and pixels repeat in all combinations."""
    n = draw(st.integers(25, 80))
    column = st.lists(st.integers(0, 2 * n), min_size=n, max_size=n)
    groups = [None if g > n else f"g{g}" for g in draw(column)]
    shas, pixels = ([f"x{value}" for value in draw(column)] for _ in range(2))
    return rows_of(two_classes(n), groups=groups, sha256=shas, pixels=pixels)


def try_split(rows, n_train=None, **how):
    try:
        return split_labeled(rows, n_train, **how)
    except (TooFewImagesError, UsageError):
        assume(False)


@given(labeled_rows())
def test_groups_and_copies_never_straddle(rows):
    split = try_split(rows)
    for column in ("group", "sha256", "pixels"):
        values = rows[column].to_pylist()
        train, test = ({values[i] for i in part} - {None} for part in (split.train, split.test))
        assert not train & test
    assert sorted([*split.train, *split.test]) == list(range(len(rows)))


@given(labeled_rows())
def test_held_out_parts_never_straddle_either(rows):
    split = try_split(rows)
    seen = np.zeros(len(split.train), int)
    shas = np.array(rows["sha256"].to_pylist())[split.train]
    for fit, held in split.held_out:
        assert not set(shas[fit]) & set(shas[held])
        assert sorted([*fit, *held]) == list(range(len(split.train)))
        seen[held] += 1
    assert (seen == 1).all()


@given(labeled_rows(), st.randoms(use_true_random=False))
def test_the_split_does_not_depend_on_row_order(rows, random):
    split = try_split(rows)
    order = list(range(len(rows)))
    random.shuffle(order)
    other = split_labeled(rows.take(pa.array(order)))
    keys = np.array(rows["key"].to_pylist())
    assert set(keys[split.train]) == set(keys[order][other.train])
    assert split.facts == other.facts


@given(labeled_rows(), st.integers(2, 6))
def test_folds_test_every_image_once_and_cut_no_unit(rows, folds):
    split = try_split(rows, folds=folds)
    assert len(split.folds) == folds
    assert split.test.tolist() == list(range(len(rows)))
    assert len(split.train) == 0
    seen = np.zeros(len(rows), int)
    for fold in split.folds:
        assert sorted([*fold.train, *fold.test]) == list(range(len(rows)))
        for column in ("group", "sha256", "pixels"):
            values = rows[column].to_pylist()
            train, test = ({values[i] for i in part} - {None} for part in (fold.train, fold.test))
            assert not train & test
        held = np.concatenate([held for _, held in fold.held_out])
        assert len(set(held)) == len(held) <= len(fold.train)
        seen[fold.test] += 1
    assert (seen == 1).all()


def test_five_folds_choose_on_each_other():
    rows = rows_of(["a", "b"] * 20)
    split = split_labeled(rows, folds=5)
    tests = [set(fold.test.tolist()) for fold in split.folds]
    for number, fold in enumerate(split.folds):
        others = [test for other, test in enumerate(tests) if other != number]
        assert [set(fold.train[held].tolist()) for _, held in fold.held_out] == others
        for fit, held in fold.held_out:
            assert sorted([*fit, *held]) == list(range(len(fold.train)))


def test_folds_of_few_groups_choose_on_images():
    """Without two of five groups a class would often be gone."""
    split = split_labeled(rows_of(two_classes(40), groups=[f"g{i % 5}" for i in range(40)]), folds=5)
    for fold in split.folds:
        assert [len(held) for _, held in fold.held_out] == [7, 7, 6, 6, 6]


@given(labeled_rows(), st.randoms(use_true_random=False))
def test_folds_do_not_depend_on_row_order(rows, random):
    split = try_split(rows, folds=3)
    order = list(range(len(rows)))
    random.shuffle(order)
    other = split_labeled(rows.take(pa.array(order)), folds=3)
    keys = np.array(rows["key"].to_pylist())
    for ours, theirs in zip(split.folds, other.folds, strict=True):
        assert set(keys[ours.test]) == set(keys[order][theirs.test])
    assert split.facts == other.facts


def test_folds_are_of_one_size():
    split = split_labeled(rows_of([None, *two_classes(148), None]), folds=5)
    assert [len(fold.test) for fold in split.folds] == [30, 30, 30, 29, 29]
    assert not {0, 149} & {*split.test}
    facts = {name: split.facts[name] for name in ("n_train", "n_test", "folds", "test_units", "unlabeled_left_out")}
    assert facts == {"n_train": 118, "n_test": 148, "folds": 5, "test_units": 148, "unlabeled_left_out": 2}
    assert split.facts["how"] == "every image is tested once, in 5 folds by key; the other folds train"


@pytest.mark.parametrize(
    ("rows", "folds", "error", "message"),
    [
        (rows_of([None] * 40), 5, UsageError, "No image has a label"),
        (rows_of(two_classes(9)), 2, TooFewImagesError, "There are 9 labeled images; at least 10"),
        (rows_of(two_classes(12)), 2, TooFewImagesError, "All folds but one have 6 labeled images"),
        (rows_of(two_classes(15)), 20, TooFewImagesError, "15 labeled images in 15 units .* 20 folds"),
        (rows_of(two_classes(40), groups=["x", "y", "z", "z"] * 10), 5, TooFewImagesError, "in 3 units"),
        (rows_of(two_classes(40), sha256=["same"] * 40), 2, TooFewImagesError, "in 1 units"),
        (rows_of(["a"] * 40), 5, UsageError, "training images have one label"),
        (rows_of([f"c{i}" for i in range(50)]), 5, TooFewImagesError, "40 different labels"),
        (
            rows_of([f"c{i // 10}" for i in range(40)], groups=[f"g{i // 10}" for i in range(40)]),
            4,
            UsageError,
            "40 of 40 test images are of classes without a training image",
        ),
    ],
)
def test_what_cannot_be_cross_fitted(rows, folds, error, message):
    with pytest.raises(error, match=message) as caught:
        split_labeled(rows, folds=folds)
    assert caught.value.hint


def test_folds_of_a_given_test_part():
    with pytest.raises(UsageError, match="folds=2 tests every labeled image, but the labeled set has a test part"):
        split_labeled(rows_of(two_classes(40)), 20, folds=2)


def test_by_key_about_70_to_30():
    split = split_labeled(rows_of(two_classes(1000)))
    assert (len(split.train), len(split.test)) == (700, 300)
    assert split.facts["how"] == "70% of the images train, by key"
    assert (split.facts["n_train"], split.facts["n_test"]) == (700, 300)


def test_by_group_as_near_as_groups_allow():
    groups = [f"lot{i // 25}" for i in range(100)]
    split = split_labeled(rows_of(two_classes(100), groups=groups))
    assert len(split.train) == 75
    assert split.facts["how"] == "70% of the images train, by group"
    assert split.facts["test_units"] == 1


def test_unlabeled_images_are_counted_and_left_out():
    labels = [None, *two_classes(60), None]
    split = split_labeled(rows_of(labels))
    assert split.facts["unlabeled_left_out"] == 2
    assert not {0, 61} & {*split.train, *split.test}
    assert (split.labels[[0, 61]] == -1).all()


def test_an_empty_label_is_none():
    split = split_labeled(rows_of([*two_classes(50), "", None]))
    assert split.facts["unlabeled_left_out"] == 2
    assert split.facts["class_names"] == ["a", "b"]
    assert split.labels[-2:].tolist() == [-1, -1]


def test_a_given_test_part_stays_and_its_copies_leave_the_training_part():
    train, test = two_classes(30), two_classes(12)
    shas = [f"s{i}" for i in range(42)]
    shas[30] = shas[4]
    pixels = [f"p{i}" for i in range(42)]
    pixels[31] = pixels[5]
    groups = [None] * 42
    groups[7] = groups[33] = "lot"
    split = split_labeled(rows_of(train + test, sha256=shas, pixels=pixels, groups=groups), n_train=30)
    assert split.test.tolist() == list(range(30, 42))
    assert split.train.tolist() == [i for i in range(30) if i not in (4, 5)]
    assert (split.facts["copies_left_out"], split.facts["groups_in_both"]) == (2, 1)


def test_classes_missing_on_either_side_are_counted():
    labels = ["a", "b"] * 10 + ["only-train"] * 2 + ["a", "b"] * 6 + ["only-test"]
    split = split_labeled(rows_of(labels), n_train=22)
    facts = split.facts
    assert (facts["classes"], facts["classes_missing_in_train"], facts["classes_missing_in_test"]) == (4, 1, 1)
    assert facts["class_names"] == ["a", "b", "only-test", "only-train"]


@pytest.mark.parametrize(
    ("rows", "n_train", "error", "message"),
    [
        (rows_of([None] * 40), None, UsageError, "No image has a label"),
        (rows_of(["a"] * 40), None, UsageError, "All 28 training images have one label"),
        (rows_of(two_classes(20)), None, TooFewImagesError, "The test part has 6 labeled images; at least 10"),
        (rows_of(two_classes(8)), None, TooFewImagesError, "The training part has 6 labeled images"),
        (rows_of([f"c{i}" for i in range(50)]), None, TooFewImagesError, "35 different labels"),
        (rows_of(two_classes(50), groups=["one"] * 50), None, TooFewImagesError, "belong to one group"),
        (rows_of(two_classes(50), sha256=["same"] * 50), 25, TooFewImagesError, "The training part has 0"),
        (rows_of(["a"] * 25 + ["b"] * 25), 25, UsageError, "one label"),
    ],
)
def test_what_cannot_be_evaluated(rows, n_train, error, message):
    with pytest.raises(error, match=message) as caught:
        split_labeled(rows, n_train)
    assert caught.value.hint


def test_folds_are_balanced_and_five():
    units = np.repeat(np.arange(40), np.random.default_rng(0).integers(1, 6, 40))  # about 120 images
    parts = hold_out(units)
    assert len(parts) == FOLDS
    sizes = [len(held) for _, held in parts]
    assert max(sizes) - min(sizes) <= 5


@pytest.mark.parametrize(("n", "folds"), [(10, 5), (1_000, 5), (1_250, 4), (2_000, 3), (5_000, 1), (20_000, 1)])
def test_no_more_is_held_out_than_settles_the_choice(n, folds):
    parts = hold_out(np.arange(n))
    assert len(parts) == folds
    assert {len(held) for _, held in parts} == {n // FOLDS}
    assert all(len(np.union1d(fit, held)) == n for fit, held in parts)


def test_too_few_groups_to_hold_out_fall_back_to_images():
    groups = ["lot0"] * 30 + ["lot1"] * 30
    split = split_labeled(rows_of(two_classes(60), groups=groups), n_train=30)
    assert len(split.held_out) == FOLDS


def test_the_parts_of_a_store():
    vectors = np.arange(120, dtype=np.float32).reshape(60, 2)
    plain = EmbeddingStore.from_vectors(vectors, keys=[f"k{i:04d}" for i in range(60)])
    rows = plain.rows().set_column(2, "label", pa.array(two_classes(60)))
    store = EmbeddingStore(spec=plain.spec, rows=rows, vectors=vectors)
    train, test = split_store(store)
    split = split_labeled(rows)
    assert train.column("key") == [f"k{i:04d}" for i in split.train]
    np.testing.assert_array_equal(test.vectors(), vectors[split.test])
    none, every = split_store(store, folds=5)
    assert (len(none), every.column("key")) == (0, store.column("key"))


def test_all_folds_are_used_where_every_image_is_to_be_held_out():
    units = np.arange(2_500)
    held = [rows for _, rows in hold_out(units, enough=len(units))]
    assert sorted(np.concatenate(held).tolist()) == units.tolist()
    assert sum(len(rows) for _, rows in hold_out(units)) == 1_000


def test_a_test_part_of_classes_that_training_lacks_is_refused():
    rows = rows_of(["a", "b"] * 10 + ["c"] * 20)
    with pytest.raises(UsageError, match="20 of 20 test images are of classes without a training image"):
        split_labeled(rows, 20)
