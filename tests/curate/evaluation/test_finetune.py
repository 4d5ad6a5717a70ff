"""Fine-tuning and training from scratch: optima, what stays frozen, what is chosen on which images, what is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from curate.evaluation import evaluate
from curate.evaluation._comparison import Comparison
from curate.evaluation._images import Embedding, LabeledImages
from curate.evaluation._linear import Scaler, fitted
from curate.evaluation._split import split_labeled
from curate.evaluation._view import View
from curate.evaluation.examinations import anomaly, labels, noise, rare
from curate.evaluation.finetuning import finetune as _finetune
from curate.evaluation.finetuning import supervised as _supervised
from curate.evaluation.finetuning.finetune import finetune
from curate.evaluation.finetuning.layers import Depth, layer_factors, layers_of, parameter_groups
from curate.evaluation.finetuning.starts import can_finetune, pretrained
from curate.evaluation.finetuning.supervised import Classifier, Head, Lesson, Recipe, train
from curate.evaluation.settings import Settings
from curate.pretraining.augment.operations import NOTHING
from curate.pretraining.backbones import save_backbone
from embeddings import files
from embeddings.encoders import get_encoder
from embeddings.encoders.networks import build_network
from embeddings.encoders.torch_encoder import weights_digest
from embeddings.encoders.transform import Transform
from embeddings.errors import SourceError, TrainingError, UsageError

SIZE = 16


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    save_backbone(folder, build_network("tiny-resnet", seed=1), size=SIZE)
    return f"run:{folder}"


@pytest.fixture
def squares(encode, image_folder):
    """``squares(n)`` -> a folder: a colored square on a noisy ground of any color; its color is the label."""

    def _squares(n=60, name="squares", classes=("red", "green", "blue")):
        rng, found = np.random.default_rng(5), {}
        for i in range(n):
            kind = i % len(classes)
            image = rng.integers(0, 256, 3) * 0.6 + rng.integers(0, 100, (SIZE, SIZE, 3))
            top, left = rng.integers(1, SIZE - 6, 2)
            image[top : top + 5, left : left + 5] = 30 + 180 * (np.arange(3) == kind)
            found[f"{classes[kind]}/{i:03d}.png"] = encode(image.clip(0, 255).astype(np.uint8))
        return image_folder(found, name)

    return _squares


def look(source, encoder, *, work=None, workers=1, labels=None, **settings):
    """The view of an encoder on a labeled set, as ``evaluate`` makes it; ``labels`` replaces those of the split."""
    embedding = Embedding(work=work, device="cpu", workers=workers)
    images = LabeledImages.of("set", str(source), embedding, encoder)
    split = split_labeled(images.rows)
    split = split if labels is None else replace(split, labels=labels(split))
    features = images.own_features()[1]
    comparison = Comparison(split=split, frozen_features=features)
    return View(
        arm="run",
        kind="run",
        eye=partial(get_encoder, encoder, device="cpu"),
        features=features,
        comparison=comparison,
        probed=comparison.frozen,
        images=images,
        embedding=embedding,
        settings=Settings(**settings),
    )


@pytest.fixture
def eager(monkeypatch):
    """One rate, and held-out images that always favor it: something is trained."""
    monkeypatch.setattr(_finetune, "FINETUNE", replace(_finetune.FINETUNE, rates=(1e-3,)))
    monkeypatch.setattr(_finetune._Course, "_probe_accuracy", lambda self: -1.0)


def recipe(**changes):
    return Recipe(**{"rates": (0.1,), "passes": 1, "fewest": 1, "most": 1, "preset": NOTHING, **changes})


def test_published_decay_by_stage():
    assert layer_factors(4, 0.75) == [0.31640625, 0.421875, 0.5625, 0.75]
    network = build_network("tiny-resnet").module
    head = nn.Linear(2, 2)
    groups = parameter_groups(network, head, decay=0.5, weight_decay=0.1)
    rate = {id(p): g["factor"] for g in groups for p in g["params"]}
    decays = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    assert len(rate) == sum(1 for _ in network.parameters()) + 2
    assert [rate[id(layer[0])] for layer in layers_of(network)] == [0.5**5, 0.5**4, 0.5**3, 0.5**2, 0.5]
    assert rate[id(head.weight)] == 1
    assert {decays[id(p)] for p in network.parameters() if p.ndim > 1} == {0.1}
    assert {decays[id(p)] for p in network.parameters() if p.ndim == 1} | {decays[id(head.weight)]} == {0.0}


@pytest.mark.parametrize(("name", "stages"), [("lite0", 9), ("tiny-resnet", 5), ("resnet18", 9), ("tiny-vit", 5)])
def test_norms_belong_to_the_stage_before(name, stages):
    network = build_network(name, size=32).module
    layers = layers_of(network)
    assert len(layers) == stages
    assert sorted(id(p) for layer in layers for p in layer) == sorted(id(p) for p in network.parameters())


def test_more_stages_than_there_are():
    with pytest.raises(UsageError, match="the network has 5"):
        Depth.parse("last:6").apply(build_network("tiny-resnet").module)


@pytest.mark.parametrize("depth", ["", "last", "last:0", "last:x", "all", "head:1"])
def test_no_depth(depth):
    with pytest.raises(UsageError, match="depth is"):
        Settings(depth=depth)


def test_the_head_alone_converges_to_the_linear_probe():
    rng = np.random.default_rng(0)
    labels, penalty = np.arange(60) % 3, 0.1
    pixels = rng.integers(0, 156, (60, 2, 2, 3)).astype(np.uint8)
    pixels[..., 0] += (30 * labels).astype(np.uint8)[:, None, None]
    features = pixels.transpose(0, 3, 1, 2).reshape(60, 12).astype(np.float32)
    scaler = Scaler.of(features)
    wanted = fitted(scaler(features), labels, penalty)
    head = Head(12, 3)
    head.mean.copy_(torch.from_numpy(scaler.mean))
    head.scale.copy_(torch.from_numpy(scaler.scale))
    classifier = Classifier(nn.Flatten(), head, Transform(size=2, mean=0.0, std=1.0))
    lesson = Lesson(pixels, np.arange(60), np.arange(60, dtype=np.uint64), labels)
    train(classifier, lesson, recipe(), rate=0.05, penalty=penalty, samples=4_000, seed=0, told=id)
    found = head.linear.weight.detach().numpy().T
    assert found == pytest.approx(wanted.weights, abs=5e-3)
    assert head.probabilities(features) == pytest.approx(wanted.probabilities(scaler(features)), abs=5e-3)
    probe = Head.of_probe(features, labels, penalty)
    assert probe.probabilities(features) == pytest.approx(wanted.probabilities(scaler(features)), abs=1e-5)


def test_a_depth_of_head_leaves_the_features_as_they_are(squares, run, eager):
    view = look(squares(), run, depth="head", samples=64)
    tuned = finetune(view, run, from_scratch=False)
    assert np.array_equal(tuned.features.astype(np.float16), view.features)
    assert tuned.eye().spec.weights == view.eye().spec.weights
    assert not np.array_equal(tuned.probed.probabilities, view.probed.probabilities)


def test_stages_before_the_last_stay_bit_for_bit(squares, run, eager):
    view = look(squares(), run, depth="last:2", samples=64)
    course = _finetune._Course(view=view, encoder=run, from_scratch=False)
    state = course._trained(np.arange(len(course._train)), 1e-3, seed=0)
    before = course.start.build(0)
    last = {id(p) for layer in layers_of(before)[-2:] for p in layer}
    own = dict(before.named_parameters())
    for name, tensor in before.state_dict().items():
        changes = name in own and id(own[name]) in last
        assert torch.equal(tensor, state[f"network.{name}"]) != changes, name


def test_what_a_network_may_learn_beats_its_frozen_probe(squares, run, monkeypatch):
    monkeypatch.setattr(_finetune, "FINETUNE", replace(_finetune.FINETUNE, rates=(6e-3,)))
    view = look(squares(150), run, samples=800)
    tuned = finetune(view, run, from_scratch=False)
    told = tuned.facts["finetune"]
    assert tuned.probed.measured["linear"].value > view.probed.measured["linear"].value + 0.1
    assert told["held_out"]["0.006"] > told["held_out"]["0"]
    assert (told["samples"], told["samples_with_choice"], told["spread"]) == (800, 1600, None)
    assert tuned.probed.chosen["linear"]["held_out_accuracy"] == told["held_out"]["0.006"]
    test = view.comparison.split.test
    assert np.array_equal(tuned.probed.classify(tuned.features[test], test), tuned.probed.probabilities)
    assert tuned.facts["fingerprint"] == tuned.eye().spec.fingerprint != view.eye().spec.fingerprint


def test_the_probe_stays_where_no_rate_does_better(squares, run, monkeypatch):
    monkeypatch.setattr(_finetune, "FINETUNE", replace(_finetune.FINETUNE, rates=(1e-12, 1e30)))
    view = look(squares(), run, samples=32)
    tuned = finetune(view, run, from_scratch=False)
    told = tuned.facts["finetune"]
    assert told["outcome"].startswith("the probe stays")
    assert told["held_out"]["0"] == told["held_out"]["1e-12"] > told["held_out"]["1e+30"] == 0
    assert (told["samples"], told["starts"]) == (0, 0)
    assert tuned.features is view.features
    assert np.array_equal(tuned.probed.probabilities, view.probed.probabilities)
    assert tuned.probed.measured["linear"].value == view.probed.measured["linear"].value


@pytest.mark.parametrize("examine", [labels.examine, noise.examine, rare.examine, anomaly.examine])
def test_where_the_probe_stays_it_is_examined_as_the_probe(examine, squares, run, monkeypatch):
    """Nothing was trained on the labels, so nothing is lacking for that reason."""
    monkeypatch.setattr(_finetune, "FINETUNE", replace(_finetune.FINETUNE, rates=(1e-12,)))
    settings = {"seeds": 1, "fractions": (50.0, 100.0), "noise": (20.0,), "reject": 0.4}
    view = look(squares(), run, samples=32, **settings)
    tuned = finetune(view, run, from_scratch=False)
    assert not tuned.saw_labels
    found = examine(replace(view, kind="finetuned", probed=tuned.probed, saw_labels=tuned.saw_labels))
    for ours, theirs in zip(found, examine(view), strict=True):
        assert (ours.condition, ours.metric, type(ours.found)) == (theirs.condition, theirs.metric, type(theirs.found))
        assert ours.found.value == theirs.found.value


def test_a_final_training_that_diverges_leaves_the_probe(squares, run, tmp_path, monkeypatch):
    def diverges(classifier, lesson, *args, **settings):
        if len(lesson) == n_train:
            raise TrainingError("The loss is not finite after 16 samples at the rate 0.001.")
        _supervised.train(classifier, lesson, *args, **settings)

    monkeypatch.setattr(_finetune, "train", diverges)
    monkeypatch.setattr(_finetune, "FINETUNE", replace(_finetune.FINETUNE, rates=(1e-3,)))
    monkeypatch.setattr(_finetune._Course, "_probe_accuracy", lambda self: 0.0)
    view = look(squares(), run, work=tmp_path / "work", samples=48, starts=2)
    n_train = len(view.comparison.split.train)
    tuned = finetune(view, run, from_scratch=False)
    told = tuned.facts["finetune"]
    assert told["outcome"] == (
        "the probe stays: training on all training images failed. "
        "The loss is not finite after 16 samples at the rate 0.001."
    )
    assert (told["learning_rate"], told["starts"]) == (0, 0)
    assert np.array_equal(tuned.probed.probabilities, view.probed.probabilities)
    monkeypatch.setattr(_finetune, "train", lambda *args, **settings: pytest.fail("it was kept"))
    assert finetune(view, run, from_scratch=False).facts == tuned.facts


def test_test_labels_workers_and_where_pixels_lie_change_no_weight(squares, run, eager, monkeypatch):
    def permuted(split):
        labels = split.labels.copy()
        labels[split.test] = np.random.default_rng(0).permutation(labels[split.test])
        return labels

    source = squares()
    views = [look(source, run, samples=48), look(source, run, samples=48, labels=permuted, workers=2)]
    plain = finetune(views[0], run, from_scratch=False)
    monkeypatch.setattr(_finetune, "IN_MEMORY", 0)
    other = finetune(views[1], run, from_scratch=False)
    assert plain.eye().spec == other.eye().spec
    assert np.array_equal(plain.probed.probabilities, other.probed.probabilities)
    assert plain.probed.measured["linear"].value != other.probed.measured["linear"].value


def test_what_was_trained_is_kept_and_damage_is_mended(squares, run, eager, tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(_finetune, "train", lambda *a, **k: trained.append(k["seed"]) or _supervised.train(*a, **k))
    source, work = squares(), tmp_path / "work"

    def tune(**settings):
        trained.clear()
        tuned = finetune(look(source, run, work=work, samples=48, **settings), run, from_scratch=False)
        return tuned.facts, tuned.probed.probabilities.tobytes(), len(trained)

    facts, probabilities, trainings = tune()
    assert trainings == 2
    assert tune() == (facts, probabilities, 0)
    (file,) = work.glob("finetuned/*/start-0.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert tune() == (facts, probabilities, 2)
    assert tune() == (facts, probabilities, 0)
    assert tune(depth="last:1")[2] == 2


def test_starts_are_averaged(squares, run, eager):
    view = look(squares(), run, samples=96, starts=2)
    tuned = finetune(view, run, from_scratch=False)
    accuracies = tuned.facts["finetune"]["accuracies"]
    assert len(accuracies) == 2
    assert tuned.probed.measured["linear"].value == pytest.approx(np.mean(accuracies))
    assert tuned.probed.measured["linear"].draws.mean() == pytest.approx(np.mean(accuracies), abs=0.02)
    assert tuned.facts["finetune"]["spread"] == pytest.approx(np.std(accuracies, ddof=1))
    assert tuned.probed.correct.mean() == pytest.approx(np.mean(accuracies))
    assert set(tuned.probed.correct) <= {0, 0.5, 1}
    assert tuned.facts["finetune"]["predictions"] == "of the first start"


def test_other_pixels_of_the_same_files_are_trained_anew(squares, run):
    """As those of 16-bit pictures are under another white level."""
    view = look(squares(), run, samples=48)
    course = _finetune._Course(view=view, encoder=run, from_scratch=False)
    rows = view.images.rows
    other = rows.set_column(rows.schema.get_field_index("pixels"), "pixels", rows["key"])
    whiter = replace(view, images=SimpleNamespace(rows=other))
    assert replace(course, view=whiter)._document() != course._document()
    assert replace(course, view=replace(view, images=SimpleNamespace(rows=rows)))._document() == course._document()


def test_a_class_without_training_image_has_probability_zero(squares, run, eager):
    def lacking(split):
        labels = split.labels.copy()
        labels[split.train[labels[split.train] == 1]] = 2
        return labels

    tuned = finetune(look(squares(34), run, labels=lacking, samples=32), run, from_scratch=False)
    assert (tuned.probed.probabilities[:, 1] == 0).all()
    assert tuned.probed.probabilities.sum(axis=1) == pytest.approx(1)


def test_training_on_the_labels_alone(squares):
    encoder = "lite0:untrained@32"
    view = look(squares(), encoder, backbone="tiny-resnet", samples=600)
    tuned = finetune(view, encoder, from_scratch=True)
    told = tuned.facts["finetune"]
    assert tuned.network == "tiny-resnet"
    assert told["outcome"] == "trained on the labels alone"
    assert (told["held_out"], told["samples_with_choice"]) == ({}, 600)
    assert tuned.probed.measured["linear"].value > 0.5
    untrained = _finetune._Course(view=view, encoder=encoder, from_scratch=True).start.build(0)
    assert weights_digest(untrained) != tuned.eye().spec.weights
    assert tuned.features.shape == (60, 128)


def test_what_has_no_gradient_is_named(squares):
    view = look(squares(), "color-texture")
    assert "no torch network" in can_finetune(view.eye())
    with pytest.raises(UsageError, match="'color-texture' cannot be fine-tuned"):
        finetune(view, "color-texture", from_scratch=False)


def test_any_torch_encoder_starts_as_it_is():
    encoder = get_encoder("lite0@32", device="cpu")
    assert can_finetune(encoder) == ""
    start = pretrained("my:encoder", encoder)
    network = start.build(0)
    assert network is not encoder.module
    assert weights_digest(network) == weights_digest(encoder.module)
    assert all(p.requires_grad for p in network.parameters())
    assert not any(p.requires_grad for p in encoder.module.parameters())
    assert (start.larger.size, start.larger.shorter_side) == (40, None)


def test_images_that_change_meanwhile(squares, run, eager):
    source = squares()
    view = look(source, run, samples=32)
    (source / "red" / "000.png").write_bytes((source / "red" / "003.png").read_bytes())
    with pytest.raises(SourceError, match=r"red/000\.png.*no longer reads"):
        finetune(view, run, from_scratch=False)


def test_evaluate_adds_an_arm_to_every_arm(squares, run, tmp_path):
    files.write_json(Path(run.removeprefix("run:")) / "run.json", {"schema": "curate.run/1", "samples_seen": 10})
    settings = Settings(samples=16, backbone="tiny-resnet", depth="last:1")
    shared = {"encoder": "lite0@32", "also": ("finetune",), "settings": settings, "work": tmp_path / "work"}
    report = evaluate({"run": run.removeprefix("run:")}, {"set": str(squares(36))}, **shared)
    assert [(s.arm, s.kind) for s in report.scores] == [
        ("frozen:lite0@32", "frozen"),
        ("finetuned:lite0@32", "finetuned"),
        ("untrained:lite0@32", "untrained"),
        ("supervised:tiny-resnet", "supervised"),
        ("run", "run"),
        ("finetuned:run", "finetuned"),
    ]
    frozen, tuned, _, supervised, _, _ = report.scores
    assert set(supervised.metrics) == {name for name in frozen.metrics if not name.startswith("knn")}
    assert tuned.facts["finetune"]["depth"] == "last:1"
    assert supervised.facts["finetune"]["outcome"] == "trained on the labels alone"
    json.dumps(report.to_json(), allow_nan=False)
    fewer = evaluate({"run": run.removeprefix("run:")}, {"set": str(squares(36))}, **shared | {"also": ("references",)})
    assert fewer.scores == report.scores[:5]
