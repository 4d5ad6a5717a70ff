"""Label noise: exact shares, nesting, and accuracy by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.evaluation._comparison import Comparison
from curate.evaluation._images import Embedding, LabeledImages
from curate.evaluation._linear import linear_probe
from curate.evaluation._split import split_labeled
from curate.evaluation._view import View
from curate.evaluation.examinations.noise import examine, noisy_labels
from curate.evaluation.settings import Settings
from curate.pretraining.augment.draws import image_hash, uniforms
from embeddings.spec import EncoderSpec
from embeddings.store import ROWS, EmbeddingStore

SPEC = EncoderSpec(name="given", dim=12, size=32, preprocessing="", weights="")


def view_of(settings=None, *, kind="frozen", order=None, n=150, classes=3):
    rng = np.random.default_rng(0)
    truth = rng.integers(classes, size=n)
    vectors = (rng.standard_normal((classes, 12))[truth] + rng.standard_normal((n, 12))).astype(np.float16)
    order = np.arange(n) if order is None else order
    columns = {field.name: pa.nulls(n, field.type) for field in ROWS}
    columns["key"] = pa.array([f"k{i:03d}" for i in order])
    columns["sha256"] = columns["pixels"] = columns["key"]
    columns["label"] = pa.array([f"c{truth[i]}" for i in order])
    store = EmbeddingStore(spec=SPEC, rows=pa.table(columns, schema=ROWS), vectors=vectors[order], facts={})
    images = LabeledImages(name="given", stores=[store])
    comparison = Comparison(split=split_labeled(images.rows), frozen_features=store.vectors()[:])
    shared = {"images": images, "embedding": Embedding(work=None), "settings": settings or Settings(seeds=2)}
    return View(
        arm="arm",
        kind=kind,
        saw_labels=kind != "frozen",
        eye=lambda: pytest.fail("nothing is embedded"),
        features=comparison.frozen_features,
        comparison=comparison,
        probed=comparison.frozen,
        **shared,
    )


def by_place(figures):
    return {(figure.condition, figure.metric): figure for figure in figures}


@given(
    labels=st.lists(st.integers(0, 5), min_size=2, max_size=60).filter(lambda labels: len(set(labels)) > 1),
    percent=st.floats(0, 100),
    seed=st.integers(0, 99),
)
def test_exactly_a_share_is_wrong_and_draws_are_nested(labels, percent, seed):
    labels, u = np.array(labels), np.random.default_rng(seed).random((len(labels), 2))
    noisy = noisy_labels(labels, percent, u)
    assert (noisy != labels).sum() == round(percent / 100 * len(labels))
    assert set(noisy) <= set(labels)
    more = noisy_labels(labels, min(100, 2 * percent), u)
    was = noisy != labels
    np.testing.assert_array_equal(more[was], noisy[was])


def test_wrong_labels_are_spread_over_the_other_classes():
    labels, u = np.full(9_000, 2), np.random.default_rng(0).random((9_000, 2))
    labels[:3] = [0, 1, 5]
    found = np.bincount(noisy_labels(labels, 100, u)[3:], minlength=6)
    np.testing.assert_array_equal(found[[2, 3, 4]], 0)
    np.testing.assert_allclose(found[[0, 1, 5]], 3_000, rtol=0.06)


def test_with_two_classes_labels_flip():
    labels = np.array([0, 1, 1, 0, 1])
    np.testing.assert_array_equal(noisy_labels(labels, 100, np.random.default_rng(0).random((5, 2))), 1 - labels)
    np.testing.assert_array_equal(noisy_labels(labels, 0, np.random.default_rng(0).random((5, 2))), labels)


def test_accuracy_and_slope_by_hand():
    view = view_of(Settings(seeds=2, noise=(20.0, 60.0)))
    found, split = by_place(examine(view)), view.comparison.split
    keys = np.array(view.images.rows["key"].to_pylist())[split.train]
    hashes = np.array([image_hash("", key) for key in keys], np.uint64)
    train, test = view.features[split.train], view.features[split.test]
    wanted = {0.0: [view.probed.measured["linear"].value]}
    for percent in (20.0, 60.0):
        for draw in range(2):
            u = uniforms(0, hashes, np.full(len(hashes), draw), stream=3000, count=2)
            labels = noisy_labels(split.labels[split.train], percent, u)
            probe = linear_probe(train, labels, test, split.held_out)
            wanted.setdefault(percent, []).append((probe.predicted == split.labels[split.test]).mean())
    means = {percent: np.mean(accuracies) for percent, accuracies in wanted.items()}
    for percent, mean in means.items():
        assert found[f"{percent:g}%", "linear"].found.value == pytest.approx(mean)
    slope = np.polyfit([percent / 10 for percent in means], list(means.values()), 1)[0]
    assert found["noise", "slope"].found.value == pytest.approx(-100 * slope)
    assert found["noise", "slope"].lower_is_better
    assert found["60%", "linear"].found.value < found["0%", "linear"].found.value


def test_without_noise_it_is_the_linear_accuracy():
    view = view_of(Settings(noise=()))
    found = by_place(examine(view))
    assert list(found) == [("0%", "linear"), ("noise", "slope")]
    np.testing.assert_array_equal(found["0%", "linear"].found.draws, view.probed.measured["linear"].draws)
    assert found["noise", "slope"].found.value == 0


def figures_of(monkeypatch, hits):
    """Figures where the draws at 20% name these test images rightly [k, m], without noise every one."""
    view = view_of(Settings(noise=(20.0,)))
    monkeypatch.setattr("curate.evaluation.examinations.noise._hits", lambda *_: hits)
    view = replace(view, probed=replace(view.probed, correct=np.ones(hits.shape[1], bool)))
    return view, by_place(examine(view))


def test_draws_that_agree_have_the_interval_of_the_images(monkeypatch):
    right = np.arange(45) % 3 > 0
    view, found = figures_of(monkeypatch, np.tile(right, (3, 1)))
    resamples = view.comparison.resamples
    alone = resamples.measure({"accuracy": lambda weights: weights @ right / weights.sum(axis=1)})["accuracy"]
    np.testing.assert_allclose(found["20%", "linear"].found.draws, alone.draws)
    np.testing.assert_allclose(found["noise", "slope"].found.draws, 50 * (1 - alone.draws))  # of 100 points in 2 steps


def test_draws_that_differ_widen_the_intervals(monkeypatch):
    """Accuracies of 1, 2/3 and 1/3 have a variance of 1/9: the mean of three, of 1/27, beside that of the images."""
    hits = np.arange(45) % 3 < np.array([[3], [2], [1]])
    _, found = figures_of(monkeypatch, hits)
    of_image = hits.mean(axis=0)
    se = np.sqrt(1 / 27 + of_image.var() / 45)
    slope = found["noise", "slope"]
    assert slope.found.value == pytest.approx(50 * (1 - 2 / 3))
    assert slope.found.draws.std() == pytest.approx(50 * se, rel=0.06)
    assert found["20%", "linear"].found.draws.std() > 2 * of_image.std() / np.sqrt(45)
    assert slope.note == "and over 3 draws of wrong labels"
    assert found["0%", "linear"].note == ""


def test_one_draw_is_told_to_be_outside_the_interval():
    found = by_place(examine(view_of(Settings(seeds=1, noise=(20.0,)))))
    assert found["noise", "slope"].note == "of one draw of wrong labels, which the interval does not cover"


def test_any_order_of_rows_gives_the_same_figures():
    settings = Settings(seeds=1, noise=(30.0,))
    order = np.random.default_rng(1).permutation(150)
    first, second = (by_place(examine(view_of(settings, order=o))) for o in (None, order))
    for place, figure in first.items():
        assert second[place].found.value == pytest.approx(figure.found.value)


@pytest.mark.parametrize("kind", ["finetuned", "supervised"])
def test_a_network_that_saw_the_labels_has_no_figures(kind):
    settings = Settings(noise=(10.0, 30.0))
    found = by_place(examine(view_of(settings, kind=kind)))
    assert found.keys() == by_place(examine(view_of(Settings(noise=(10.0, 30.0), seeds=1)))).keys()
    assert all(figure.found.value is None and figure.found.reason for figure in found.values())
