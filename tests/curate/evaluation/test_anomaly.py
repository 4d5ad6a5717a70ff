"""The anomaly examination: what is remembered, scores of global features, and real pictures with planted defects."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from curate.evaluation._comparison import Comparison
from curate.evaluation._images import Embedding, LabeledImages
from curate.evaluation._intervals import Measured
from curate.evaluation._split import split_labeled
from curate.evaluation._view import View
from curate.evaluation.examinations import anomaly as _anomaly
from curate.evaluation.examinations.anomaly import NormalImages, neighbor_scores, normal_images, spread
from curate.evaluation.settings import Settings
from curate.results import Estimate
from embeddings.encoders import get_encoder

ENCODER = "lite0@64"
SIZE, SPOT = 64, 10
METHODS = ["neighbors", "gaussian", "patch-memory"]


def tile(rng, *, spot):
    """A striped tile uint8 [S, S, 3], with a bright spot if it has a defect."""
    stripes = 40 * np.sin(np.arange(SIZE)[None, :, None] * 0.8 + rng.random() * 6.3)
    image = (120 + stripes + rng.normal(0, 12, (SIZE, SIZE, 3))).clip(0, 255).astype(np.uint8)
    if spot:
        top, left = rng.integers(4, SIZE - SPOT - 4, 2)
        image[top : top + SPOT, left : left + SPOT] = 250
    return image


@pytest.fixture
def inspected(encode, image_table):
    """``inspected(train, test)`` of class names -> a view of tiles, a spot on those that are not "good"."""

    def _inspected(train, test, *, encoder=ENCODER, kind="frozen", copies=False, **settings):
        tables = []
        for seed, (part, labels) in enumerate((("train", train), ("test", test))):
            rng = np.random.default_rng(seed)
            images = [encode(tile(rng, spot=label != "good")) for label in labels]
            if copies:
                images = [images[labels.index(label)] for label in labels]
            names = {f"{label}/{i:03d}.png": data for i, (label, data) in enumerate(zip(labels, images, strict=True))}
            tables.append(str(image_table(names, f"{part}.parquet", group=[f"{part}{i}" for i in range(len(names))])))
        images = LabeledImages.of("tiles", tuple(tables), Embedding(device="cpu", workers=1), encoder)
        split, features = split_labeled(images.rows, images.n_train), images.own_features()[1]
        comparison = Comparison(split=split, frozen_features=features)
        return View(
            arm="frozen", kind=kind, saw_labels=kind != "frozen",
            eye=partial(get_encoder, encoder, device="cpu"), features=features,
            comparison=comparison, probed=comparison.frozen, images=images, embedding=Embedding(workers=1),
            settings=Settings(normal="good", **settings),
        )  # fmt: skip

    return _inspected


def by_place(view):
    return {(f.condition, f.metric): f.found for f in _anomaly.examine(view)}


def test_planted_spots_are_found(inspected):
    view = inspected(["good"] * 60 + ["spot"] * 2, ["good"] * 20 + ["spot"] * 8, reject=0.1)
    found = by_place(view)
    assert [place[0] for place in found][::4] == METHODS
    assert [place[1] for place in found][:4] == ["auroc", "average_precision", "recall", "false_reject"]
    assert found["patch-memory", "auroc"].value > 0.95
    assert found["patch-memory", "recall"].value > 0.7
    assert found["patch-memory", "false_reject"].value <= 0.3
    assert all(isinstance(figure, Measured) for figure in found.values())


def test_no_defect_is_ever_remembered(inspected):
    view = inspected(["good", "spot", "dent"] * 20, ["good", "spot"] * 5)
    labels = view.comparison.split.labels
    images = normal_images(view, 1)
    assert set(labels[np.concatenate([images.memory, images.held_out])]) == {1}
    assert not set(images.memory) & set(images.held_out)
    changed = labels.copy()
    changed[labels == 2] = 0
    object.__setattr__(view.comparison.split, "labels", changed)
    assert {name: value.tolist() for name, value in list(vars(normal_images(view, 1)).items())[:2]} == {
        "memory": images.memory.tolist(),
        "held_out": images.held_out.tolist(),
    }


def test_images_are_held_out_only_if_a_threshold_can_be_set(inspected):
    view = inspected(["good"] * 50 + ["spot"] * 2, ["good"] * 8 + ["spot"] * 4)
    images = normal_images(view, 0)
    assert (len(images.memory), len(images.held_out)) == (50, 0)
    assert images.n_found == pytest.approx(10, abs=2)
    found = by_place(view)
    assert found["neighbors", "recall"].reason.startswith(f"{images.n_found} images in order were held out")
    assert isinstance(found["patch-memory", "auroc"], Measured)


def test_a_single_normal_image(inspected):
    found = by_place(inspected(["good"] + ["spot"] * 5 + ["dent"] * 5, ["good"] * 6 + ["spot"] * 6))
    assert {found[name, "auroc"].value is None for name in METHODS} == {False}
    assert "takes 19" in found["patch-memory", "recall"].reason


def test_copies_of_one_normal_image(inspected):
    """Of copies, every copy in the test part scores 0, and every defect more."""
    found = by_place(inspected(["good"] * 12 + ["spot"] * 3, ["good"] * 6 + ["spot"] * 6, copies=True))
    for name in METHODS:
        assert np.isfinite(found[name, "auroc"].value)


def test_no_normal_image_and_no_defect(inspected):
    view = inspected(["spot", "dent"] * 6, ["good"] * 6 + ["spot"] * 6)
    assert {f.reason for f in by_place(view).values()} == {"the training part has no image of good"}
    view = inspected(["good"] * 12 + ["spot"] * 3, ["good"] * 12)
    found = by_place(view)
    assert found["patch-memory", "auroc"].reason == "the test part has no image that is not in order"
    assert found["neighbors", "average_precision"].reason == "the test part has no image that is not in order"


def test_arms_without_feature_maps_say_so(inspected):
    found = by_place(inspected(["good"] * 12 + ["spot"] * 3, ["good"] * 6 + ["spot"] * 6, encoder="color-texture"))
    assert {found["patch-memory", metric].reason for metric in _anomaly.METRICS} == {
        "the encoder of frozen has no feature maps"
    }
    assert isinstance(found["neighbors", "auroc"], Measured)


def test_networks_fitted_to_the_labels_have_no_threshold(inspected):
    view = inspected(["good"] * 60 + ["spot"] * 2, ["good"] * 6 + ["spot"] * 6, kind="finetuned", reject=0.1)
    found = by_place(view)
    assert "finetuned" in found["gaussian", "recall"].reason
    assert isinstance(found["gaussian", "auroc"], Measured)


def test_test_images_that_cannot_be_read_are_left_out(inspected, monkeypatch):
    view = inspected(["good"] * 12 + ["spot"] * 3, ["good"] * 6 + ["spot"] * 6)
    _, whole = _anomaly.patch_scores(view, normal_images(view, 0))
    read = _anomaly.read_pictures

    def losing(images, rows, **how):
        pixels, at = read(images, rows, **how)
        kept = rows[at] % 5 != 0
        return pixels[kept], at[kept]

    monkeypatch.setattr(_anomaly, "read_pictures", losing)
    monkeypatch.setattr(_anomaly, "READ", 4)
    found = by_place(view)
    lost = view.comparison.split.test % 5 == 0
    assert 0 < lost.sum() < len(lost)
    _, part = _anomaly.patch_scores(
        view, NormalImages(memory=view.comparison.split.train, held_out=np.zeros(0, int), n_found=0)
    )
    assert np.isnan(part).tolist() == lost.tolist()
    assert np.isfinite(whole).all()
    assert isinstance(found["patch-memory", "auroc"], Measured)
    monkeypatch.setattr(
        _anomaly, "read_pictures", lambda images, rows, **how: (np.zeros((0, 64, 64, 3), np.uint8), rows[:0])
    )
    assert isinstance(by_place(view)["patch-memory", "auroc"], Estimate)


def test_neighbor_scores_by_brute_force(inspected):
    view = inspected(["good"] * 12 + ["spot"] * 3, ["good"] * 6 + ["spot"] * 6)
    images = normal_images(view, 0)
    _, scores = neighbor_scores(view, images)
    unit = view.features.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    gaps = np.linalg.norm(unit[view.comparison.split.test][:, None] - unit[images.memory], axis=2)
    np.testing.assert_allclose(scores, np.sort(gaps, axis=1)[:, :2].mean(axis=1), atol=1e-3)


def test_at_most_so_many_evenly_spaced():
    assert spread(np.arange(10), 20).tolist() == list(range(10))
    assert spread(np.arange(100), 3).tolist() == [0, 49, 99]
    assert spread(np.arange(0), 3).tolist() == []
