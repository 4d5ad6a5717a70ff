"""evaluate: order of arms, refusals, determinism; features come from a stand-in for the encoders unless said."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

import curate.evaluation
from curate.eval_report import EvalReport
from curate.evaluation import _images, _pairs, evaluate, verdicts
from curate.evaluation._comparison import Comparison
from curate.evaluation.settings import Settings
from curate.results import Run
from embeddings import files
from embeddings.errors import CorruptError, EncoderMismatchError, TooFewImagesError, UnknownNameError, UsageError
from embeddings.spec import EncoderSpec
from embeddings.store import ROWS, EmbeddingStore

N = 120
QUALITY = {"lite0": 1.0, "lite0:untrained": 6.0}  # deviation of an encoder's noise; runs say theirs in their name
NAMES = ("a", "b", "c", "d")


def spec_of(encoder, size=128):
    return EncoderSpec(name=encoder, dim=24, size=size, preprocessing="stand-in", weights=encoder)


def features_of(encoder, keys, labels):
    """Class centers plus noise that depends on encoder and key alone."""
    centers = np.random.default_rng(0).standard_normal((len(NAMES), 24))
    scale = QUALITY.get(encoder) or float(encoder.rsplit("-", 1)[1])
    seeds = [int.from_bytes(hashlib.sha256(f"{encoder}{key}".encode()).digest()[:4], "big") for key in keys]
    noise = np.stack([np.random.default_rng(seed).standard_normal(24) for seed in seeds])
    return (centers[labels] + scale * noise).astype(np.float16)


class Gallery:
    """Labeled sources by address, and what every encoder makes of them."""

    def __init__(self):
        self.labels, self.calls, self.order = {}, [], None

    def add(self, address, n=N, labels=None, prefix="k"):
        keys = [f"{prefix}{i:03d}" for i in range(n)]
        truth = np.array([int(hashlib.sha256(key.encode()).hexdigest(), 16) % len(NAMES) for key in keys])
        self.labels[address] = (keys, truth, [NAMES[t] for t in truth] if labels is None else labels)
        return address

    def as_store(self, thing, *, name, encoder, **settings):
        if isinstance(thing, EmbeddingStore):
            if thing.spec.size and thing.spec != spec_of(encoder):
                raise EncoderMismatchError(f"{name} comes from {thing.spec.name}")
            return thing
        if not isinstance(thing, str):
            return EmbeddingStore.from_vectors(thing)
        self.calls.append((thing, encoder))
        keys, truth, labels = self.labels[thing]
        columns = {field.name: pa.nulls(len(keys), field.type) for field in ROWS}
        columns |= {"key": pa.array(keys), "label": pa.array(labels, pa.string())}
        columns["sha256"] = columns["pixels"] = pa.array([f"{thing}{key}" for key in keys])
        rows = pa.table(columns, schema=ROWS)
        vectors = features_of(encoder, keys, truth)
        return EmbeddingStore(spec=spec_of(encoder), rows=rows, vectors=vectors, facts={"source": thing})


@pytest.fixture
def gallery(monkeypatch):
    stand_in = Gallery()
    monkeypatch.setattr(_images, "as_store", stand_in.as_store)
    return stand_in


@pytest.fixture
def run_of(tmp_path):
    def _run_of(noise, samples=1000):
        folder = tmp_path / f"run-{noise}"
        config = {"method": "simclr"}
        files.write_json(folder / "run.json", {"schema": "curate.run/1", "samples_seen": samples, "config": config})
        return folder

    return _run_of


def test_frozen_first_then_the_untrained_twin_then_the_runs(gallery, run_of):
    sets = {name: gallery.add(name) for name in ("one", "two")}
    report = evaluate({"weak": run_of(3), "good": Run.open(run_of(0.5))}, sets)
    wanted = [("frozen:lite0", "frozen"), ("untrained:lite0", "untrained"), ("weak", "run"), ("good", "run")]
    assert [(s.labeled, s.arm, s.kind) for s in report.scores] == [(n, *arm) for n in sets for arm in wanted]
    frozen, untrained, weak, good = report.scores[:4]
    assert list(frozen.metrics) == ["linear", "linear_balanced", "linear_f1", "linear_ece", "knn", "knn_balanced"]
    assert all(e.lower_is_closer == (name == "linear_ece") for name, e in frozen.metrics.items())
    assert all(e.lower_is_closer == (name == "linear_ece") for name, e in good.against_frozen.items())
    assert frozen.metrics["linear_ece"].null > 0
    accuracy = [s.metrics["linear"].value for s in (untrained, weak, frozen, good)]
    assert accuracy == sorted(accuracy)
    assert (frozen.against_frozen, frozen.label_equivalents) == ({}, None)
    assert good.facts["samples_seen"] == 1000
    assert frozen.facts["fingerprint"] == spec_of("lite0").fingerprint


def test_gains_are_differences_of_the_accuracies(gallery, run_of):
    report = evaluate({"run": run_of(0.5)}, {"set": gallery.add("set")})
    frozen, _, run = report.scores
    for name, gain in run.against_frozen.items():
        assert gain.value == pytest.approx(run.metrics[name].value - frozen.metrics[name].value)
        assert gain.low <= gain.value <= gain.high
        assert gain.n == run.metrics[name].n == (84, 36)


def test_facts_tell_the_split_and_the_frozen_curve(gallery):
    facts = evaluate({}, {"set": gallery.add("set")}).labeled["set"]
    assert (facts["n_train"], facts["n_test"], facts["classes"]) == (84, 36, 4)
    assert facts["frozen_curve"]["labels"][-1] == 84
    assert facts["frozen_curve"]["linear"][-1] == pytest.approx(
        evaluate({}, {"set": "set"}).scores[0].metrics["linear"].value
    )


def test_every_encoder_embeds_every_set_once(gallery, run_of):
    evaluate({"run": run_of(1)}, {"set": gallery.add("set")})
    assert sorted(gallery.calls) == sorted([("set", e) for e in ("lite0", "lite0:untrained", f"run:{run_of(1)}")])


def test_the_same_seed_gives_the_same_report(gallery, run_of):
    gallery.add("set")
    first = evaluate({"run": run_of(1)}, {"set": "set"})
    assert evaluate({"run": run_of(1)}, {"set": "set"}).to_json() == first.to_json()
    assert evaluate({"run": run_of(1)}, {"set": "set"}, seed=1).to_json() != first.to_json()


def test_test_labels_decide_nothing_but_the_score(gallery, run_of):
    gallery.add("train")
    gallery.add("test", n=40, prefix="t")
    plain = evaluate({"run": run_of(1)}, {"set": "train::test"})
    keys, truth, labels = gallery.labels["test"]
    gallery.labels["test"] = (keys, truth, list(np.random.default_rng(0).permutation(labels)))
    permuted = evaluate({"run": run_of(1)}, {"set": "train::test"})
    for before, after in zip(plain.scores, permuted.scores, strict=True):
        assert before.facts == after.facts
        assert before.kind == "untrained" or before.metrics["linear"].value > after.metrics["linear"].value


def test_a_pair_is_train_and_test(gallery):
    gallery.add("train")
    gallery.add("test", n=30, prefix="t")
    paired, joined = (evaluate({}, {"set": thing}) for thing in (("train", "test"), "train::test"))
    assert paired.to_json() == joined.to_json()
    assert paired.labeled["set"]["how"] == "the test part was given"
    assert paired.scores[0].metrics["linear"].n == (N, 30)


def test_a_store_lends_its_labels_and_its_images(gallery):
    gallery.add("set")
    store = gallery.as_store("set", name="set", encoder="lite0")
    coarse = pa.array([{"a": "x", "b": "x"}.get(label, "y") for label in store.column("label")])
    renamed = EmbeddingStore(
        spec=store.spec, rows=store.rows().set_column(2, "label", coarse), vectors=store.vectors(), facts=store.facts
    )
    half = renamed.take(np.arange(0, N, 2))
    report = evaluate({}, {"set": half})
    assert report.labeled["set"]["class_names"] == ["x", "y"]
    assert report.labeled["set"]["n_train"] + report.labeled["set"]["n_test"] == 60
    assert report.scores[1].metrics["linear"].value < report.scores[0].metrics["linear"].value


def test_the_report_reads_back(gallery, run_of, tmp_path):
    report = evaluate({"run": run_of(1), "off": run_of(0.01)}, {"set": gallery.add("set")})
    report.save(tmp_path)
    assert EvalReport.open(tmp_path) == report
    json.dumps(report.to_json(), allow_nan=False)


def test_predictions_are_those_behind_the_accuracies(gallery, run_of):
    sets = {name: gallery.add(name, n) for name, n in (("one", 120), ("two", 90))}
    report = evaluate({"a": run_of(1), "b": run_of(2)}, sets)
    for score in report.scores:
        rows = [r for r in report.predictions.to_pylist() if (r["labeled"], r["arm"]) == (score.labeled, score.arm)]
        assert len(rows) == report.labeled[score.labeled]["n_test"]
        right = np.mean([r["truth"] == r["predicted"] for r in rows])
        assert right == pytest.approx(score.metrics["linear"].value)
        assert all(1 / len(NAMES) <= r["confidence"] <= 1 for r in rows)
        keys, truth, _ = gallery.labels[score.labeled]
        assert {r["key"]: r["truth"] for r in rows}.items() <= {
            key: NAMES[t] for key, t in zip(keys, truth, strict=True)
        }.items()


def test_runs_are_compared_with_each_other(gallery, run_of):
    runs = {"weak": run_of(6), "good": run_of(0.5), "fair": run_of(1)}
    report = evaluate(runs, {name: gallery.add(name) for name in ("one", "two")})
    names = [("weak", "good"), ("weak", "fair"), ("good", "fair")]
    assert [(p.labeled, p.first, p.second) for p in report.pairs] == [
        (s, *pair) for s in ("one", "two") for pair in names
    ]
    accuracy = {(s.labeled, s.arm): s.metrics["linear"].value for s in report.scores}
    for pair in report.pairs:
        gap = accuracy[pair.labeled, pair.first] - accuracy[pair.labeled, pair.second]
        assert pair.difference.value == pytest.approx(gap)
    assert report.pairs[0].p_holm < 0.05
    assert any("good" in line and "of the runs" in line for line in verdicts(report))


def test_a_folder_of_an_earlier_version_reads(gallery, tmp_path):
    report = evaluate({}, {"set": gallery.add("set")})
    document = report.to_json()
    del document["pairs"]
    for score in document["scores"]:
        del score["label_cost"]
    files.write_json(tmp_path / "evaluate.json", document)
    read = EvalReport.open(tmp_path)
    assert (read.scores, read.pairs, read.predictions, read.label_lists) == (report.scores, (), None, None)


def test_tables_of_an_earlier_report_do_not_stay(gallery, tmp_path):
    gallery.add("set")
    evaluate({}, {"set": "set"}, also=("labels",)).save(tmp_path)
    assert len(EvalReport.open(tmp_path).label_lists) == 3 * 84
    evaluate({}, {"set": "set"}).save(tmp_path)
    assert EvalReport.open(tmp_path).label_lists is None


def test_labels_have_a_price(gallery, run_of):
    report = evaluate({"run": run_of(1.1)}, {"set": gallery.add("set")}, settings=Settings(label_price=3.0))
    frozen, _, run = report.scores
    assert frozen.label_cost is None
    assert run.label_cost.value == pytest.approx(3 * run.label_equivalents.value)
    assert "which cost" in verdicts(report)[1]


def test_cross_fitted_every_labeled_image_is_a_test_image(gallery, run_of):
    runs = {"weak": run_of(3), "good": run_of(0.5)}
    report = evaluate(runs, {"set": gallery.add("set", n=60)}, settings=Settings(folds=2))
    keys = gallery.labels["set"][0]
    for score in report.scores:
        rows = [r for r in report.predictions.to_pylist() if r["arm"] == score.arm]
        assert [row["key"] for row in rows] == keys
        assert np.mean([r["truth"] == r["predicted"] for r in rows]) == pytest.approx(score.metrics["linear"].value)
        assert {estimate.n for estimate in score.metrics.values()} == {(30, 60)}
    frozen, _, weak, good = report.scores
    gain = good.against_frozen["linear"]
    assert gain.value == pytest.approx(good.metrics["linear"].value - frozen.metrics["linear"].value)
    assert weak.label_equivalents.n == report.pairs[0].difference.n == gain.n == (30, 60)
    facts = report.labeled["set"]
    assert (facts["folds"], facts["n_test"], facts["frozen_curve"]["labels"][-1]) == (2, 60, 30)
    assert "examined" not in facts
    assert verdicts(report)[-1].startswith("Every labeled image was tested")
    json.dumps(report.to_json(), allow_nan=False)


def test_examinations_of_what_is_cross_fitted_keep_one_split(gallery):
    settings, also = Settings(folds=2, seeds=1, fractions=(50.0, 100.0)), ("labels",)
    report = evaluate({}, {"set": gallery.add("set", n=60)}, also=also, settings=settings)
    plain = evaluate({}, {"set": "set"}, also=also, settings=replace(settings, folds=1))
    for ours, theirs in zip(report.scores, plain.scores, strict=True):
        assert ours.findings == theirs.findings
        assert ours.metrics["linear"] != theirs.metrics["linear"]
    split = {name: plain.labeled["set"][name] for name in ("n_train", "n_test", "how")}
    assert report.labeled["set"]["examined"] == split
    assert report.label_lists == plain.label_lists


def test_what_folds_do_not_go_with_is_refused_before_anything_is_embedded(gallery):
    for name in ("train", "test"):
        gallery.add(name)
    with pytest.raises(UsageError, match="set has a test part of its own"):
        evaluate({}, {"set": "train::test"}, settings=Settings(folds=5))
    with pytest.raises(UsageError, match="folds=5 and references do not go together"):
        evaluate({}, {"set": "train"}, also=("references",), settings=Settings(folds=5))
    assert not gallery.calls
    with pytest.raises(TooFewImagesError, match="fold"):
        evaluate({}, {"set": gallery.add("tiny", n=12)}, settings=Settings(folds=13))


def test_unequal_runs_are_refused_unless_allowed(gallery, run_of):
    runs = {"short": run_of(1, samples=1000), "long": run_of(2, samples=20_000)}
    with pytest.raises(UsageError, match="short 1,000, long 20,000") as caught:
        evaluate(runs, {"set": gallery.add("set")})
    assert "--allow-unequal" in caught.value.hint
    assert not gallery.calls
    report = evaluate(runs, {"set": "set"}, allow_unequal=True)
    assert [s.facts["samples_seen"] for s in report.scores[2:]] == [1000, 20_000]


@pytest.mark.parametrize("name", ["frozen:lite0", "untrained:x", " "])
def test_names_of_the_references_are_taken(gallery, run_of, name):
    with pytest.raises(UsageError, match="cannot name an arm"):
        evaluate({name: run_of(1)}, {"set": gallery.add("set")})


def test_an_arm_named_as_the_encoder_would_be_tuned_under_its_name(gallery, run_of):
    with pytest.raises(UsageError, match="'finetuned:lite0' is the encoder, fine-tuned"):
        evaluate({"lite0": run_of(1)}, {"set": gallery.add("set")})
    assert not gallery.calls


def test_a_fact_and_a_sentence_tell_that_runs_are_not_paired(gallery, run_of, monkeypatch):
    monkeypatch.setattr(_pairs, "MOST", 1)
    report = evaluate({"a": run_of(1), "b": run_of(2)}, {"set": gallery.add("set")})
    assert (report.pairs, report.labeled["set"]["runs_not_paired"]) == ((), 2)
    assert verdicts(report)[-2].startswith("set: 2 runs are too many")


def test_what_is_no_run(gallery, tmp_path):
    with pytest.raises(UsageError, match=r"no run\.json"):
        evaluate({"run": tmp_path / "nothing"}, {"set": gallery.add("set")})


def test_a_normal_label_that_no_set_has_is_refused_before_any_probe(gallery, monkeypatch):
    sets = {name: gallery.add(name) for name in ("one", "two")}
    monkeypatch.setattr(Comparison, "probe", lambda *_: pytest.fail("probed"))
    with pytest.raises(UnknownNameError, match="Unknown normal label of 'one', 'two': 'c00'") as caught:
        evaluate({}, sets, also=["rare"], settings=Settings(normal="c00"))
    assert caught.value.nearest


def test_a_set_without_the_normal_label_says_so_and_the_others_are_examined(gallery):
    sets = {"one": gallery.add("one"), "two": gallery.add("two", labels=["x", "y"] * (N // 2))}
    report = evaluate({}, sets, also=["rare"], settings=Settings(normal="x"))
    findings = {name: next(s for s in report.scores if s.labeled == name).findings for name in sets}
    (only,) = findings["one"]
    assert (only.about, only.estimate.value) == ("rare", None)
    assert only.estimate.reason == "no image of one has the label 'x', which normal= names"
    assert {f.condition for f in findings["two"]} == {"x", "y", "all but x"}


def test_no_set_no_labels_no_images(gallery):
    with pytest.raises(UsageError, match="No labeled set"):
        evaluate({}, {})
    with pytest.raises(UsageError, match="No image has a label"):
        evaluate({}, {"set": gallery.add("bare", labels=[None] * N)})
    with pytest.raises(TooFewImagesError):
        evaluate({}, {"set": gallery.add("tiny", n=12)})
    with pytest.raises(UsageError, match="vectors without images"):
        evaluate({}, {"set": np.random.default_rng(0).standard_normal((50, 24))})


def test_images_that_vanish_between_encoders(gallery, monkeypatch):
    gallery.add("set")
    plain = gallery.as_store

    def losing(thing, *, encoder, **settings):
        store = plain(thing, encoder=encoder, **settings)
        return store if encoder == "lite0" else store.take(np.arange(5, N))

    monkeypatch.setattr(_images, "as_store", losing)
    with pytest.raises(CorruptError, match="5 images of set, as 'k000'"):
        evaluate({}, {"set": "set"})


@pytest.mark.parametrize(
    ("encoder", "arms"),
    [
        ("lite0@224", {"frozen:lite0@224": "lite0@224", "untrained:lite0@224": "lite0:untrained@224"}),
        ("torchvision:resnet18", {"frozen:torchvision:resnet18": "torchvision:resnet18", "untrained:random": "random"}),
    ],
)
def test_the_twin_of_another_encoder(gallery, monkeypatch, encoder, arms):
    for name in arms.values():
        monkeypatch.setitem(QUALITY, name, 1.0)
    report = evaluate({}, {"set": gallery.add("set")}, encoder=encoder)
    assert {s.arm: s.facts["encoder"] for s in report.scores} == arms


def test_progress_reaches_its_end(gallery):
    told = []
    evaluate({}, {"set": gallery.add("set")}, progress=lambda *what: told.append(what))
    assert told == [
        ("evaluate", 0, 2, "frozen:lite0 on set"),
        ("evaluate", 1, 2, "untrained:lite0 on set"),
        ("evaluate", 2, 2),
    ]


def test_every_exported_name_reads_twice():
    for _ in range(2):
        for name in curate.evaluation.__all__:
            assert callable(getattr(curate.evaluation, name)), name
    with pytest.raises(AttributeError):
        curate.evaluation.nothing  # noqa: B018


@pytest.fixture
def real_run(tmp_path):
    """A run folder with the backbone of an untrained network."""
    from curate.pretraining.backbones import save_backbone
    from embeddings.encoders.networks import build_network

    folder = tmp_path / "run"
    save_backbone(folder, build_network("tiny-resnet", seed=1), size=32)
    files.write_json(folder / "run.json", {"schema": "curate.run/1", "samples_seen": 10})
    return folder


def test_real_images_and_a_real_run(pictures, image_folder, real_run, tmp_path):
    labeled = str(image_folder(pictures(60, classes=("cat", "dog", "owl"))))
    report = evaluate({"near": real_run}, {"pets": labeled}, encoder="random", work=tmp_path / "work")
    assert [s.arm for s in report.scores] == ["frozen:random", "untrained:random", "near"]
    assert report.scores[0].metrics == report.scores[1].metrics
    assert report.scores[0].metrics["linear"].value > 0.9  # the classes differ in color
    assert len(list((tmp_path / "work" / "stores").iterdir())) == 2
    assert len(verdicts(report)) == 3
    assert "--set folds=5" in verdicts(report)[-1]
    in_memory = evaluate({"near": real_run}, {"pets": labeled}, encoder="random", work=None)
    assert in_memory.to_json() == report.to_json()


def test_any_order_of_rows_gives_the_same_report(pictures, image_table, real_run):
    images = pictures(60, classes=("cat", "dog", "owl"))
    shuffled = dict(np.random.default_rng(0).permutation(np.array(list(images.items()), dtype=object)).tolist())
    assert list(shuffled) != list(images)
    first, second = (
        evaluate({"near": real_run}, {"pets": str(image_table(p, f"{n}.parquet"))}, encoder="lite0@32", work=None)
        for n, p in enumerate((images, shuffled))
    )
    assert first.to_json() == second.to_json()
