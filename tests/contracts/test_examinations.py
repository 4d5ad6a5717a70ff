"""What every examination that ``evaluate --also`` can take must do: real pictures, small networks.

One report of all of them per case: ``plain``; the same again; the same with the test labels permuted; and ``odd``, in
which a class is missing in the training part, another in the test part, and a third has one test image.
"""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.eval_report import EvalReport
from curate.evaluation import evaluate
from curate.evaluation.examinations import EXAMINATIONS
from curate.evaluation.settings import Settings
from curate.pretraining.backbones import save_backbone
from curate.reporting import summarize
from curate.reporting.closing import closing
from curate.reporting.examined import examinations
from embeddings import files
from embeddings.encoders.networks import build_network

CLASSES = ("cat", "dog", "owl")
ARMS = ("frozen:lite0@32", "untrained:lite0@32", "run")
SETTINGS = Settings(seeds=2, fractions=(50.0, 100.0), severities=(1, 5), images=8, noise=(20.0,), label_price=2.0)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, pictures):
    """``evaluated(case)`` -> the report of all examinations, made once."""
    folder, reports = tmp_path_factory.mktemp("examined"), {}
    save_backbone(folder / "run", build_network("tiny-resnet", seed=1), size=32)
    files.write_json(folder / "run" / "run.json", {"schema": "curate.run/1", "samples_seen": 10})
    parts = {name: pictures(n, classes=CLASSES, size=(32, 32), seed=1) for name, n in (("train", 60), ("all", 96))}
    parts["test"] = {key: data for key, data in parts.pop("all").items() if key not in parts["train"]}

    def write(name, images, labels):
        lots = [f"lot{i % 7}" for i in range(len(images))]
        columns = {"key": list(images), "image": list(images.values()), "label": labels, "group": lots}
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
        return str(folder / f"{name}.parquet")

    def labeled(case):
        train, test = ([key.split("/")[0] for key in parts[part]] for part in ("train", "test"))
        if case == "permuted":
            test = np.random.default_rng(0).permutation(test).tolist()
        if case == "odd":
            train = ["eel" if label == "owl" else label for label in train]
            test = ["owl", *("cat" if label == "owl" else label for label in test[1:])]
        source = "plain" if case in ("again", "plain, kept") else case
        return "::".join(
            write(f"{source}-{part}", parts[part], labels) for part, labels in (("train", train), ("test", test))
        )

    def _evaluated(case):
        if case not in reports:
            shared = {"encoder": "lite0@32", "also": EXAMINATIONS, "settings": SETTINGS, "work": folder / "work"}
            kept = folder / "kept" if case.startswith("plain") else None
            reports[case] = evaluate({"run": folder / "run"}, {"pets": labeled(case)}, **shared, kept=kept)
        return reports[case]

    return _evaluated


def found_by(name, score):
    return [finding for finding in score.findings if finding.about == name]


def places(name, report, arm):
    (score,) = [s for s in report.scores if s.arm == arm]
    return [(finding.condition, finding.metric) for finding in found_by(name, score)]


@pytest.mark.parametrize("case", ["plain", "odd"])
@pytest.mark.parametrize("name", EXAMINATIONS)
def test_every_arm_is_examined_under_the_same_conditions(name, case, evaluated):
    report = evaluated(case)
    assert tuple(s.arm for s in report.scores) == ARMS
    first = places(name, report, ARMS[0])
    assert first
    assert len(set(first)) == len(first)
    for arm in ARMS[1:]:
        assert places(name, report, arm) == first


@pytest.mark.parametrize("case", ["plain", "odd"])
@pytest.mark.parametrize("name", EXAMINATIONS)
def test_a_figure_is_finite_within_its_interval_or_says_why_it_is_missing(name, case, evaluated):
    for score in evaluated(case).scores:
        for finding in found_by(name, score):
            for estimate in filter(None, (finding.estimate, finding.against_frozen)):
                if estimate.value is None:
                    assert estimate.reason, finding
                    continue
                assert math.isfinite(estimate.value), finding
                assert estimate.unit, finding
                assert estimate.method, finding
                assert (estimate.low is None) == (estimate.high is None), finding
                if estimate.low is not None:
                    assert estimate.low <= estimate.high, finding


@pytest.mark.parametrize("name", EXAMINATIONS)
def test_differences_to_the_frozen_encoder_are_those_of_the_figures(name, evaluated):
    frozen, *others = evaluated("plain").scores
    ours = {(f.condition, f.metric): f.estimate for f in found_by(name, frozen)}
    assert all(finding.against_frozen is None for finding in found_by(name, frozen))
    for finding in (finding for score in others for finding in found_by(name, score)):
        gain, estimate = finding.against_frozen, ours[finding.condition, finding.metric]
        assert finding.estimate.lower_is_closer == estimate.lower_is_closer
        if gain is not None:
            assert gain.value == pytest.approx(finding.estimate.value - estimate.value)
            assert gain.lower_is_closer == estimate.lower_is_closer


def test_every_examination_is_there_in_its_order(evaluated):
    for score in evaluated("plain").scores:
        assert list(dict.fromkeys(finding.about for finding in score.findings)) == list(EXAMINATIONS)


def test_the_same_seed_finds_the_same(evaluated):
    first, second = (evaluated(case).to_json() for case in ("plain", "again"))
    assert first == second


def test_what_was_kept_of_all_of_them_is_found_again(evaluated, monkeypatch):
    plain = evaluated("plain").to_json()
    monkeypatch.setattr("curate.evaluation.arms.examine", None)
    assert evaluated("plain, kept").to_json() == plain


@pytest.mark.parametrize("name", EXAMINATIONS)
def test_test_labels_choose_nothing(name, evaluated):
    """Permuted, they change figures; conditions, metrics and what was chosen stay."""
    plain, permuted = (evaluated(case) for case in ("plain", "permuted"))
    for before, after in zip(plain.scores, permuted.scores, strict=True):
        assert before.facts == after.facts
        assert places(name, plain, before.arm) == places(name, permuted, after.arm)


def test_what_was_found_reads_back(evaluated, tmp_path):
    for case in ("plain", "odd"):
        report = evaluated(case)
        json.dumps(report.to_json(), allow_nan=False)
        report.save(tmp_path / case)
        assert EvalReport.open(tmp_path / case).to_json() == report.to_json()


@pytest.mark.parametrize("case", ["plain", "odd"])
def test_every_examination_ends_with_a_sentence(evaluated, case):
    part = summarize(evaluation=evaluated(case), thumbnails=False)["evaluation"]["labeled"][0]
    told = {examination.about: closing(examination) for examination in examinations(part)}
    assert list(told) == list(EXAMINATIONS)
    for sentence in told.values():
        assert sentence.endswith(".")
        assert "nan" not in sentence
