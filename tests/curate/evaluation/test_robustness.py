"""Robustness: which images are corrupted, for whom, what comes out, and shift sets; an encoder of a few pixel means."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from curate.evaluation._comparison import Comparison
from curate.evaluation._images import Embedding, LabeledImages
from curate.evaluation._intervals import Measured
from curate.evaluation._split import split_labeled
from curate.evaluation._view import View
from curate.evaluation.corruptions import corrupt, draws
from curate.evaluation.examinations import as_findings
from curate.evaluation.examinations.robustness import Sample, encoded, examine
from curate.evaluation.settings import Settings
from curate.pretraining.augment.draws import image_hash
from embeddings import embed
from embeddings.errors import UnknownNameError, UsageError
from embeddings.pipeline.batches import one_thread_each
from embeddings.spec import EncoderSpec

CLASSES = ("cat", "dog", "owl")
FEW = Settings(corruptions=("contrast", "gaussian-noise", "elastic"), severities=(1, 5), images=1000)


class Means:
    """Means of the 16 tiles of an image, by channel."""

    precision = "float32"

    def __init__(self, size=32, *, parallel=True, batch_size=8):
        self.spec = EncoderSpec(name=f"means{size}", dim=48, size=size, preprocessing="squash", weights="")
        self.parallel, self.batch_size = parallel, batch_size

    @property
    def prepare(self):
        size = self.spec.size
        return lambda image: np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))

    def encode(self, batch):
        assert len(batch) == self.batch_size
        tile = self.spec.size // 4
        tiles = batch.reshape(len(batch), 4, tile, 4, tile, 3).astype(np.float32)
        return tiles.mean(axis=(2, 4)).reshape(len(batch), -1) / 255


@pytest.fixture
def view_of(pictures, image_folder):
    """``view_of(encoder=..., settings=..., workers=1)`` -> an arm on sixty generated images."""
    folder = image_folder(pictures(60, classes=CLASSES, size=(32, 32)))
    store = embed(folder, encoder=Means(), workers=1)

    def _view_of(encoder=None, settings=FEW, workers=1, kind="frozen", seed=0):
        images = LabeledImages(name="pets", stores=[store])
        split = split_labeled(images.rows)
        encoder = encoder or Means()
        features = embed(folder, encoder=encoder, workers=1).vectors()[:]
        comparison = Comparison(split=split, frozen_features=images.own_features()[1], seed=seed)
        probed = comparison.probe(features)
        embedding = Embedding(work=None, workers=workers)
        shared = {"images": images, "embedding": embedding, "settings": settings, "comparison": comparison}
        return View(arm="arm", kind=kind, eye=lambda: encoder, features=features, probed=probed, **shared)

    _view_of.folder = folder
    return _view_of


def by_place(figures):
    found = {(figure.condition, figure.metric): figure for figure in figures}
    assert len(found) == len(figures)
    return found


def test_the_clean_figure_is_the_accuracy_on_the_test_part(view_of):
    view = view_of()
    clean = by_place(examine(view))["clean", "linear"]
    assert clean.found.value == view.probed.measured["linear"].value
    np.testing.assert_array_equal(clean.found.draws, view.probed.measured["linear"].draws)


def test_figures_by_hand(view_of):
    view, (name, severities) = view_of(), ("gaussian-noise", (1, 5))
    found, split, encoder = by_place(examine(view)), view.comparison.split, Means(batch_size=1)
    keys, truth = view.images.rows["key"].to_pylist(), split.labels[split.test]
    hits = {}
    for severity in (0, *severities):
        said = []
        for place, row in enumerate(split.test):
            image = np.asarray(Image.open(view_of.folder / keys[row]))
            picture = corrupt(image, name, severity, draws(0, image_hash("", keys[row]), name, severity))
            features = encoder.encode(picture[None]).astype(np.float16)
            said.append(view.probed.classify(features, np.array([place])).argmax())
        hits[severity] = np.array(said) == truth
    accuracy = {severity: right.mean() for severity, right in hits.items()}
    for severity in severities:
        assert found[f"{name} {severity}", "linear"].found.value == pytest.approx(accuracy[severity])
        assert found[f"{name} {severity}", "linear"].detail
    mean = np.mean([accuracy[s] for s in severities])
    assert found[name, "linear"].found.value == pytest.approx(mean)
    assert found[name, "retained"].found.value == pytest.approx(mean / accuracy[0])
    slope = np.polyfit((0, *severities), [accuracy[s] for s in (0, *severities)], 1)[0]
    assert found[name, "slope"].found.value == pytest.approx(-100 * slope)
    for metric in ("linear", "retained", "slope"):
        values = [found[corruption, metric].found.value for corruption in FEW.corruptions]
        assert found["all corruptions", metric].found.value == pytest.approx(np.mean(values))


def test_neither_workers_nor_other_corruptions_nor_batches_change_a_figure(view_of):
    whole = by_place(examine(view_of()))
    alone = Settings(corruptions=("elastic",), severities=(5,))
    for encoder in (Means(), Means(parallel=False), Means(batch_size=3)):
        for place, figure in by_place(examine(view_of(encoder, alone, workers=3))).items():
            if place in (("clean", "linear"), ("elastic 5", "linear")):
                np.testing.assert_array_equal(figure.found.draws, whole[place].found.draws)


def test_the_sample_has_the_lowest_key_hashes_and_its_own_resamples(view_of):
    view = view_of(settings=Settings(corruptions=("contrast",), severities=(1,), images=7))
    split, sample = view.comparison.split, Sample.read(view, Means())
    keys = np.array(view.images.rows["key"].to_pylist())[split.test]
    lowest = sorted(keys, key=lambda key: image_hash("", key))[:7]
    assert sorted(keys[sample.at]) == sorted(lowest)
    figures = examine(view)
    estimates = [f.estimate for f in as_findings({("r", f.condition, f.metric): f for f in figures}, None, None)]
    assert {estimate.n for estimate in estimates} == {(len(split.train), 7)}
    assert all(f"of {len(split.test)} test images, 7 with the lowest key hash" in e.method for e in estimates)


def test_an_arm_of_another_size_sees_the_same_pictures_resized(view_of):
    view, small = view_of(Means(16)), Means(16)
    sample = Sample.read(view, small)
    assert sample.pixels.shape[1:] == (32, 32, 3)
    with one_thread_each(1) as lanes:
        features = encoded(small, lambda number: sample.pixels[number], len(sample), lanes)
    wanted = [np.asarray(Image.fromarray(x).resize((16, 16), Image.Resampling.BICUBIC)) for x in sample.pixels]
    exact = Means(16, batch_size=len(wanted)).encode(np.stack(wanted)).astype(np.float16)
    np.testing.assert_array_equal(features, exact)
    assert by_place(examine(view)).keys() == by_place(examine(view_of())).keys()


def test_images_that_cannot_be_read_are_left_out_and_told(view_of):
    view = view_of()
    keys, test = view.images.rows["key"].to_pylist(), view.comparison.split.test
    for row in test[:3]:
        (view_of.folder / keys[row]).write_bytes(b"gone")
    sample = Sample.read(view, Means())
    np.testing.assert_array_equal(sample.at, np.arange(3, len(test)))
    assert "3 of which could not be read" in sample.told
    for row in test:
        (view_of.folder / keys[row]).unlink(missing_ok=True)
    figures = examine(view)
    assert all(figure.found.value is None for figure in figures)
    assert all(f"{len(test)} of which could not be read" in figure.found.reason for figure in figures)


def test_nothing_right_leaves_no_share_to_retain(view_of):
    view = view_of()
    wrong = SimpleNamespace(
        classify=lambda features, at: 1.0 - np.eye(3)[view.comparison.split.labels[view.comparison.split.test][at]],
        measured=view.probed.measured,
    )
    found = by_place(examine(View(**{**vars(view), "probed": wrong})))
    assert found["clean", "linear"].found.value == 0
    assert found["contrast", "retained"].found.value is None
    assert found["contrast", "slope"].found.value == 0


def test_knobs_that_cannot_be():
    with pytest.raises(UnknownNameError, match="gausian") as caught:
        Settings(corruptions=("gausian-noise",))
    assert "gaussian-noise" in caught.value.hint
    with pytest.raises(UsageError, match="severities"):
        Settings(severities=())


def shifted(view_of, source, **given):
    settings = Settings(corruptions=("contrast",), severities=(1,), shifts={"winter": str(source)})
    view = view_of(settings=settings, **given)
    figures = {k: f for k, f in by_place(examine(view)).items() if k[0] == "shift winter"}
    return view, figures


def test_a_shift_set_has_its_own_accuracy_and_a_drop(view_of, pictures, image_folder):
    images = pictures(40, classes=CLASSES, size=(32, 32))
    images = {name: images[name] for name in list(images)[12:]}  # other textures of the same colors, but for copies
    other = image_folder({f"{k}x.png": data for k, data in images.items()} | pictures(4, classes=("yak",)), "winter")
    view, found = shifted(view_of, other)
    linear, drop = found["shift winter", "linear"], found["shift winter", "drop"]
    trained = set(view.images.rows["sha256"].take(view.comparison.split.train).to_pylist())
    rows = embed(other, encoder=Means(), workers=1)
    known = [i for i, label in enumerate(rows.column("label")) if label != "yak"]
    kept = [i for i in known if rows.column("sha256")[i] not in trained]
    assert 0 < len(kept) < len(known)
    number = view.comparison.split.facts["class_names"].index
    said = view.probed.classify(rows.vectors()[:][kept], np.zeros(len(kept), int)).argmax(axis=1)
    truth = [number(rows.column("label")[i]) for i in kept]
    assert linear.found.value == pytest.approx(np.mean(said == truth))
    here = view.probed.measured["linear"]
    np.testing.assert_allclose(drop.found.draws, here.draws - linear.found.draws)
    assert linear.resamples.n_units == len(kept)
    assert "4 of classes without training images" in linear.note
    assert f"{len(known) - len(kept)} copies of training images" in linear.note
    assert drop.lower_is_better


def test_draws_of_a_shift_set_do_not_follow_those_of_the_test_part(view_of, pictures, image_folder):
    texture = pictures(60, classes=CLASSES, size=(32, 32), seed=0)
    other = image_folder({name.replace("/", "/n"): data for name, data in texture.items()}, "winter")
    view, found = shifted(view_of, other)
    mine = np.concatenate(list(found["shift winter", "linear"].resamples))
    theirs = np.concatenate(list(view.comparison.resamples))
    n = min(mine.shape[1], theirs.shape[1])
    assert n > 5
    assert abs(np.corrcoef(mine[:, :n].ravel(), theirs[:, :n].ravel())[0, 1]) < 0.02


def test_a_shift_set_without_a_known_class_says_so(view_of, pictures, image_folder):
    _, found = shifted(view_of, image_folder(pictures(6, classes=("yak", "")), "winter"))
    assert [f.found.value for f in found.values()] == [None, None]
    for figure in found.values():
        assert "3 without a label, 3 of classes without training images" in figure.found.reason


def test_the_gain_on_a_shift_set_is_paired(view_of, pictures, image_folder):
    other = image_folder(pictures(30, classes=CLASSES, size=(32, 32), seed=4), "winter")
    frozen, arm = (shifted(view_of, other, **given)[1] for given in ({}, {"encoder": Means(16), "kind": "run"}))
    place = ("shift winter", "linear")
    assert isinstance(arm[place].found, Measured)
    np.testing.assert_array_equal(arm[place].resamples.units, frozen[place].resamples.units)
    assert arm[place].resamples.seed == frozen[place].resamples.seed
