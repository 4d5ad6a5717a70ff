"""Few labels: lists that are nested, fair and everyone's; accuracies with them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.evaluation._comparison import Comparison
from curate.evaluation._linear import Scaler, fitted
from curate.evaluation._split import split_labeled
from curate.evaluation.examinations import as_findings
from curate.evaluation.examinations.labels import (
    examine,
    label_lists,
    list_seeds,
    lists_table,
)
from curate.evaluation.settings import Settings
from curate.results import Estimate
from embeddings.store import ROWS

CENTERS = np.random.default_rng(0).standard_normal((4, 12))


def rows_of(labels):
    n = len(labels)
    columns = {field.name: pa.nulls(n, field.type) for field in ROWS}
    columns |= {"key": pa.array([f"k{i:04d}" for i in range(n)]), "label": pa.array([f"c{label}" for label in labels])}
    columns["sha256"] = columns["pixels"] = pa.array([f"s{i}" for i in range(n)])
    return pa.table(columns, schema=ROWS)


def view_of(labels, noise=1.5, saw_labels=False, seed=0, **settings):
    """A view of labeled points about their class's center."""
    labels, rng = np.asarray(labels), np.random.default_rng(1)
    features = CENTERS[labels] + noise * rng.standard_normal((len(labels), 12))
    rows = rows_of(labels)
    comparison = Comparison(split=split_labeled(rows), frozen_features=features, seed=seed)
    images = SimpleNamespace(name="set", rows=rows)
    shared = {"comparison": comparison, "features": features, "probed": comparison.frozen, "images": images}
    return SimpleNamespace(saw_labels=saw_labels, settings=Settings(**settings), **shared)


def found(view):
    return {(figure.condition, figure.metric): figure for figure in examine(view)}


@given(st.integers(0, 10_000), st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_every_list_holds_all_classes_and_about_their_shares(seed, counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    order = label_lists([f"k{i}" for i in range(len(labels))], labels, seed)
    assert sorted(order) == list(range(len(labels)))
    for size in range(1, len(labels) + 1):
        held = np.bincount(labels[order[:size]], minlength=len(counts))
        assert (held > 0).sum() == min(size, len(counts)) or size > len(counts)
        assert (held > 0).all() or size < len(counts)
        assert (np.abs(held - size * np.array(counts) / len(labels)) <= len(counts) + 1).all()


@given(st.integers(0, 100), st.randoms(use_true_random=False))
def test_lists_depend_on_keys_labels_and_seed_alone(seed, random):
    keys, labels = np.array([f"k{i}" for i in range(30)]), np.arange(30) % 4
    order = list(range(30))
    random.shuffle(order)
    first, second = label_lists(list(keys), labels, seed), label_lists(list(keys[order]), labels[order], seed)
    assert list(keys[first]) == list(keys[order][second])


def test_another_seed_gives_another_list():
    keys, labels = [f"k{i}" for i in range(30)], np.arange(30) % 3
    lists = {tuple(label_lists(keys, labels, seed)) for seed in list_seeds(5, 4)}
    assert len(lists) == 4


def test_the_saved_lists_are_those_that_were_used():
    view = view_of(np.arange(200) % 4, seeds=2, seed=3)
    table = lists_table(view)
    keys = np.array(view.images.rows["key"].to_pylist())[view.comparison.split.train]
    labels = view.comparison.split.labels[view.comparison.split.train]
    assert table["seed"].unique().to_pylist() == [3, 4]
    for seed in (3, 4):
        rows = [row for row in table.to_pylist() if row["seed"] == seed]
        assert [row["rank"] for row in rows] == list(range(len(keys)))
        assert [row["key"] for row in rows] == list(keys[label_lists(list(keys), labels, seed)])


def test_accuracy_with_few_labels_is_that_of_a_fit_on_the_list():
    """Eight labels of 140 are too few to choose on: one fit under the penalty chosen on all."""
    view = view_of(np.arange(200) % 4, seeds=1, fractions=(6.0, 100.0))
    split, features = view.comparison.split, view.features
    train, labels = features[split.train], split.labels[split.train]
    keys = view.images.rows["key"].take(pa.array(split.train)).to_pylist()
    rows, scaler = np.sort(label_lists(keys, labels, 0)[:8]), Scaler.of(train)
    model = fitted(scaler(train[rows]), labels[rows], view.probed.chosen["linear"]["penalty"], n_classes=4)
    wanted = (model.predict(scaler(features[split.test])) == split.labels[split.test]).mean()
    assert found(view)["6%", "linear"].found.value == pytest.approx(wanted)


def test_accuracy_rises_with_labels_and_ends_at_the_arms_own():
    figures = found(view_of(np.arange(600) % 4, fractions=(100.0, 1.0, 10.0)))
    assert [place[0] for place in figures][::2] == ["1%", "10%", "100%"]
    for metric in ("linear", "knn"):
        values = [figures[condition, metric].found.value for condition in ("1%", "10%", "100%")]
        assert values == sorted(values)
    view = view_of(np.arange(600) % 4)
    assert found(view)["100%", "linear"].found is view.probed.measured["linear"]


def test_settings_are_chosen_on_the_list_where_it_is_long_enough():
    view = view_of(np.arange(600) % 4, fractions=(4.0, 10.0))
    figures = found(view)
    assert "settings chosen on all labels" in figures["4%", "linear"].note
    assert "settings chosen on each list" in figures["10%", "linear"].note
    finding = as_findings({("labels", "10%", "linear"): figures["10%", "linear"]}, None, view.comparison.resamples)[0]
    assert finding.estimate.n == (42, 180)
    assert finding.estimate.method.endswith("and over 3 lists of labels; settings chosen on each list")


def test_classes_without_a_label_are_told():
    figures = found(view_of(np.arange(200) % 4, fractions=(2.0,)))
    assert figures["2%", "linear"].note.endswith("1 of 4 classes without a label")


def test_fewer_than_two_labels_have_no_figure():
    figure = found(view_of(np.arange(60) % 2, fractions=(1.0,)))["1%", "linear"]
    assert figure.found == Estimate(value=None, reason="1% of 42 labels is fewer than 2", lower_is_closer=False)


def test_a_network_that_saw_all_labels_is_not_examined():
    figures = found(view_of(np.arange(600) % 4, saw_labels=True))
    assert figures["10%", "linear"].found.reason == "the network was trained on all labels"
    assert figures["100%", "linear"].found.value > 0.5
