"""The invariance audit on labels that are known to be a color, a direction, a small spot or a shape."""

from __future__ import annotations

import colorsys
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from curate.evaluation._invariance import Judge
from curate.evaluation._ridge import PENALTIES, fit_folds, fit_views, held_out_hits
from curate.evaluation.augmentations import AugmentationAudit, audit_augmentations
from curate.pretraining.augment.operations import NOTHING, operations
from curate.pretraining.augment.presets import PRESETS
from embeddings.errors import TooFewImagesError, UnknownNameError, UsageError

N, EDGE = 60, 64
SETTINGS = {"encoder": "color-texture", "work": None, "workers": 1, "images": N}


def color_of(hue, value=0.8):
    return tuple(int(255 * c) for c in colorsys.hsv_to_rgb(hue % 1, 0.9, value))


def canvas(rng):
    gray = int(rng.integers(90, 150))
    return Image.new("RGB", (EDGE, EDGE), (gray,) * 3)


def by_hue(kind, rng):
    """A disk somewhere; its hue is the label."""
    picture = canvas(rng)
    x, y = rng.integers(4, 24, 2).tolist()
    ImageDraw.Draw(picture).ellipse(
        (x, y, x + 36, y + 36), fill=color_of(kind / 3 + rng.uniform(-0.04, 0.04), rng.uniform(0.3, 0.95))
    )
    return picture


def by_direction(kind, rng):
    """A wedge of any color that points left or right."""
    picture = canvas(rng)
    color = color_of(rng.random())
    ImageDraw.Draw(picture).polygon([(32, 6), (56, 56), (8, 56)], fill=color)
    picture = picture.rotate(90)
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if kind else picture


def by_spot(kind, rng):
    """A few red pixels somewhere, or none; the rest is green."""
    picture = Image.new("RGB", (EDGE, EDGE), color_of(0.33, rng.uniform(0.5, 0.9)))
    if kind:
        x, y = rng.integers(2, EDGE - 8, 2).tolist()
        ImageDraw.Draw(picture).rectangle((x, y, x + 5, y + 5), fill=color_of(0.0))
    return picture


def by_shape(kind, rng):
    """Stripes or a chessboard, of any two colors."""
    rows, columns = np.indices((EDGE, EDGE)) // 8
    mask = (rows + columns if kind else rows + 0 * columns) % 2
    colors = np.array([color_of(rng.random(), 0.25), color_of(rng.random(), 0.95)])
    return Image.fromarray(colors[mask].astype(np.uint8))


@pytest.fixture
def labeled(image_folder, encode):
    """``labeled(draw, classes)`` -> a folder with a sub-folder per class."""

    def build(draw, classes, n=N):
        rng = np.random.default_rng(0)
        return str(image_folder({f"{i % classes}/{i:03d}.png": encode(draw(i % classes, rng)) for i in range(n)}))

    return build


def verdicts(audit):
    """The worst verdict of each kind of operation."""
    order = ["destroys", "costs", "unclear", "keeps"]
    found = {}
    for effect in audit.operations:
        found[effect.name] = min(found.get(effect.name, "keeps"), effect.verdict, key=order.index)
    return found


def test_labels_that_are_colors(labeled):
    audit = audit_augmentations(labeled(by_hue, 3), presets=("natural", "inspection"), **SETTINGS)
    found = verdicts(audit)
    assert audit.accuracy.value > 0.95
    assert found["gray"] == "destroys"
    assert {found[kind] for kind in ("flip", "quarter turn", "blur", "brightness")} == {"keeps"}
    assert audit.recommended != "natural"


def test_labels_that_are_directions(labeled):
    audit = audit_augmentations(labeled(by_direction, 2), presets=("inspection",), **SETTINGS)
    found = verdicts(audit)
    assert found["quarter turn"] == found["flip"] == "destroys"
    assert {found[kind] for kind in ("saturation", "brightness", "contrast", "blur")} == {"keeps"}
    assert audit.recommended is None


def test_labels_that_are_small_spots(labeled):
    audit = audit_augmentations(labeled(by_spot, 2), presets=("natural", "inspection"), **SETTINGS)
    crops = {effect.within: effect for effect in audit.operations if effect.name == "crop"}
    assert crops["natural",].verdict == "destroys"
    assert crops["inspection",].share < crops["natural",].share
    assert {verdicts(audit)[kind] for kind in ("flip", "quarter turn")} == {"keeps"}


def test_labels_that_are_shapes(labeled):
    audit = audit_augmentations(labeled(by_shape, 2), presets=("natural",), **SETTINGS)
    found = verdicts(audit)
    assert {found[kind] for kind in ("hue", "saturation", "gray", "flip")} == {"keeps"}


def test_what_is_told_and_written(labeled):
    folder = labeled(by_spot, 2, n=48)
    settings = {**SETTINGS, "presets": ("gray-small",), "images": 44}
    audit = audit_augmentations(folder + "::absent", name="parts", **settings)
    assert (audit.n, audit.classes, audit.size, audit.recommended) == (44, 2, 64, "gray-small")
    assert [effect.name for effect in audit.operations] == ["crop", "flip", "brightness", "contrast"]
    assert all(len(row) == len(audit.header()) for row in audit.rows())
    assert "parts: frozen color-texture at 64 pixels is right on" in audit.lines()[0]
    document = json.loads(json.dumps(audit.to_json()))
    assert [e["name"] for e in document["presets"]] == ["gray-small"]
    assert audit_augmentations(folder, name="parts", **settings) == audit
    for effect in audit.operations:
        assert effect.lost.value == pytest.approx(audit.accuracy.value - effect.accuracy)


@pytest.mark.parametrize(
    ("change", "error"), [({"presets": ("naturel",)}, UnknownNameError), ({"images": 39}, UsageError)]
)
def test_refusals(labeled, change, error):
    with pytest.raises(error):
        audit_augmentations(labeled(by_spot, 2, n=48), **{**SETTINGS, **change})


def test_too_few_images(labeled):
    with pytest.raises(TooFewImagesError, match="38 labeled images"):
        audit_augmentations(labeled(by_spot, 2, n=38), **SETTINGS)


def test_labels_without_signal_recommend_nothing():
    rng = np.random.default_rng(0)
    judge = Judge(rng.normal(size=(60, 1, 5)), np.repeat([0, 1], 30), np.arange(60))
    assert not judge.has_signal
    assert judge.signal == pytest.approx(judge.hits.mean() - 0.5)


def test_ridge_equals_the_normal_equations():
    rng = np.random.default_rng(0)
    for d in (3, 30):  # fewer and more features than rows
        views, labels = rng.normal(size=(9, 2, d)) + 5, np.arange(9) % 3
        found = fit_views(views, labels, 3)
        x = views.reshape(18, d)
        x = (x - x.mean(axis=0)) / x.std(axis=0)
        y = np.eye(3)[np.repeat(labels, 2)]
        for weights, penalty in zip(found.weights, PENALTIES, strict=True):
            wanted = np.linalg.solve(x.T @ x + 18 * d * penalty * np.eye(d), x.T @ (y - y.mean(axis=0)))
            np.testing.assert_allclose(weights, wanted, atol=1e-8)
        hits = found.predict(views)[2] == (x @ found.weights[2] + y.mean(axis=0)).argmax(axis=1).reshape(9, 2)
        assert hits.all()


def test_ridge_survives_constant_features():
    views = np.zeros((8, 1, 4))
    views[:, 0, 0] = [0, 1] * 4
    assert (fit_views(views, np.array([0, 1] * 4), 2).predict(views)[..., 0] == [0, 1] * 4).all()


def test_an_image_is_judged_by_fits_that_did_not_see_it_nor_its_views():
    rng = np.random.default_rng(1)
    views, labels = np.repeat(rng.normal(size=(40, 1, 200)), 3, axis=1), rng.integers(0, 2, 40)  # easy to memorize
    halves = [(np.arange(20), np.arange(20, 40)), (np.arange(20, 40), np.arange(20))]
    hits = held_out_hits(fit_folds(views, labels, halves), views, labels, halves)
    assert np.abs(hits.mean(axis=1) - 0.5).max() < 0.3
    seen = [(np.arange(40), np.arange(40))]
    assert held_out_hits(fit_folds(views, labels, seen), views, labels, seen)[-1].all()


def test_losses_are_paired_and_their_error_counts_units():
    rng = np.random.default_rng(0)
    labels, units = np.tile([0, 1], 30), np.repeat(np.arange(30), 2)
    images = labels[:, None, None] + 0.01 * rng.normal(size=(60, 1, 3))
    judge = Judge(images, labels, units)
    assert judge.accuracy.value == 1
    hits = np.ones(60)
    hits[:12] = 0  # six whole units
    lost = judge.lost(hits)
    assert lost.value == pytest.approx(0.2)
    assert lost.se == pytest.approx(np.sqrt(0.2 * 0.8 / 29))  # of 30 units, not of 60 images
    assert judge.lost(judge.hits).se == 0


def test_operations_of_presets():
    found = operations(("natural", "inspection"))
    kinds = [operation.name for operation in found]
    assert kinds == sorted(kinds, key=kinds.index)  # those of one kind together
    assert {operation.within for operation in found if operation.name == "flip"} == {("natural", "inspection")}
    assert "solarize" not in kinds
    for operation in found:
        changed = {name for name in vars(NOTHING) if getattr(operation.preset, name) != getattr(NOTHING, name)}
        assert 1 <= len(changed - {"crop_ratio", "blur_sigma"}) == 1, operation
    hue = next(operation for operation in found if operation.name == "hue")
    assert hue.preset.hue == PRESETS["natural"].hue
    assert isinstance(AugmentationAudit.header(), list)
