"""Sentences: a gain inside the noise is called that."""

# ruff: noqa: RUF001 - sentences have real minus signs

from __future__ import annotations

import dataclasses

import pytest

from curate.eval_report import ArmScore, EvalReport, Pair
from curate.evaluation import verdict, verdicts
from curate.results import Estimate
from embeddings.errors import UnknownNameError


def estimate(value, low=None, high=None, **more):
    return Estimate(value=value, low=low, high=high, n=(650, 290), lower_is_closer=False, **more)


def score(arm, kind, linear, gain=None, labels=None):
    metrics = {"linear": estimate(linear, linear - 0.05, linear + 0.05), "knn": estimate(linear - 0.02)}
    against = {"linear": gain} if gain else {}
    return ArmScore(
        arm=arm, labeled="emoji", kind=kind, metrics=metrics, against_frozen=against, label_equivalents=labels
    )


def report(*runs, pairs=()):
    frozen = score("frozen:lite0", "frozen", 0.76)
    untrained = score("untrained:lite0", "untrained", 0.25, estimate(-0.51, -0.6, -0.4))
    labeled = {"emoji": {"n_train": 650, "n_test": 290, "classes": 9}}
    return EvalReport(scores=(frozen, untrained, *runs), labeled=labeled, pairs=pairs)


@pytest.mark.parametrize(
    ("gain", "labels", "sentence"),
    [
        (
            estimate(-0.14, -0.18, -0.1),
            estimate(140.2),
            "near does not beat the frozen public encoder: linear 0.620 against 0.760, difference −0.140 "
            "(−0.180 to −0.100); the frozen encoder needs about 140 labels for as much, of 650.",
        ),
        (
            estimate(0.02, -0.01, 0.05),
            estimate(None, reason="more than 650"),
            "near is not to be told from the frozen public encoder, the difference being inside the noise: "
            "linear 0.620 against 0.760, difference +0.020 (−0.010 to +0.050); "
            "the frozen encoder needs more than 650 labels for as much, of 650.",
        ),
        (
            estimate(0.04, 0.01, 0.07),
            None,
            "near beats the frozen public encoder: linear 0.620 against 0.760, difference +0.040 (+0.010 to +0.070).",
        ),
        (
            estimate(0.04),
            None,
            "near cannot be judged against the frozen public encoder, the difference having no interval: "
            "linear 0.620 against 0.760, difference +0.040.",
        ),
    ],
)
def test_sentences(gain, labels, sentence):
    assert verdict(report(score("near", "run", 0.62, gain, labels)), "near", "emoji") == sentence


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.05), (-0.05, 0.0)])
def test_an_interval_that_touches_zero_is_noise(low, high):
    run = score("near", "run", 0.62, estimate(0.02, low, high))
    assert "inside the noise" in verdict(report(run), "near", "emoji")


@pytest.mark.parametrize(
    ("linear", "knn", "told"),
    [
        ((-0.1, 0.1), (-0.28, -0.08), "; by k-NN it is surely worse: −0.180 (−0.280 to −0.080)."),
        ((0.01, 0.1), (-0.28, -0.08), "; by k-NN it is surely worse: −0.180 (−0.280 to −0.080)."),
        ((-0.1, 0.1), (0.01, 0.03), "; by k-NN it is surely better: +0.020 (+0.010 to +0.030)."),
        ((-0.2, -0.1), (-0.28, -0.08), ""),
        ((-0.1, 0.1), (-0.28, 0.0), ""),
    ],
)
def test_neighbors_are_heard_where_they_surely_say_another_thing(linear, knn, told):
    gains = {name: estimate(sum(ends) / 2, *ends) for name, ends in (("linear", linear), ("knn", knn))}
    run = dataclasses.replace(score("near", "run", 0.62), against_frozen=gains)
    said = verdict(report(run), "near", "emoji")
    assert said.endswith(told) if told else "k-NN" not in said


def test_one_line_to_beat_and_one_per_run():
    runs = [score(name, "run", 0.6, estimate(-0.16, -0.2, -0.1)) for name in ("near", "random")]
    lines = verdicts(report(*runs))
    assert lines[0] == (
        "emoji: the frozen public encoder reads linear 0.760 (0.710 to 0.810), knn 0.740; "
        "650 training and 290 test images, 9 classes."
    )
    assert [line.split(" ")[:3] for line in lines[1:]] == [["emoji:", "near", "does"], ["emoji:", "random", "does"]]


@pytest.mark.parametrize(
    ("gain", "sentence"),
    [
        (
            estimate(-0.51, -0.6, -0.4),
            "emoji: an untrained network reads linear 0.250, so what the public encoder has learned is worth "
            "+0.510 (+0.400 to +0.600) here.",
        ),
        (
            estimate(-0.02, -0.06, 0.02),
            "emoji: careful: an untrained network reads linear 0.250, so what the public encoder has learned is worth "
            "+0.020 (−0.020 to +0.060) here, not to be told from nothing. Do the labels belong to the images?",
        ),
        (
            estimate(-0.217, -0.411, 0.018),
            "emoji: an untrained network reads linear 0.250, so what the public encoder has learned is worth "
            "+0.217 (−0.018 to +0.411) here: the test images are too few to tell it from nothing.",
        ),
        (None, "emoji: an untrained network reads linear 0.250."),
    ],
)
def test_without_a_run_the_public_encoder_is_set_against_an_untrained_network(gain, sentence):
    found = report()
    lines = verdicts(dataclasses.replace(found, scores=(found.scores[0], score("untrained", "untrained", 0.25, gain))))
    assert lines[1:] == [sentence]


def test_references_are_told_like_runs_before_them():
    tuned = score("finetuned:lite0", "finetuned", 0.8, estimate(0.04, 0.01, 0.07))
    scratch = score("supervised:lite0", "supervised", 0.4, estimate(-0.36, -0.4, -0.3))
    own = score("finetuned:near", "finetuned", 0.82, estimate(0.06, 0.01, 0.1))
    found = report(tuned, scratch, score("near", "run", 0.77, estimate(0.01, -0.02, 0.03)), own)
    told = [line.partition("emoji: ")[2] for line in verdicts(found)[1:]]
    assert [line.partition(" the frozen public encoder")[0] for line in told] == [
        "the fine-tuned public encoder beats",
        "a network trained on the labels alone does not beat",
        "near is not to be told from",
        "fine-tuned near beats",
    ]
    against = pair("finetuned:lite0", "finetuned:near", estimate(-0.02, -0.05, 0.01), 0.3)
    assert verdicts(dataclasses.replace(found, pairs=(against,)))[-1] == (
        "emoji: fine-tuned near and the fine-tuned public encoder cannot be told apart: difference +0.020 "
        "(−0.010 to +0.050), corrected McNemar p 0.3."
    )


def test_the_frozen_encoder_is_the_measure():
    assert verdict(report(), "frozen:lite0", "emoji") == "frozen:lite0 is what the others are compared with."


def test_an_unknown_arm():
    with pytest.raises(UnknownNameError, match="nera") as caught:
        verdict(report(score("near", "run", 0.6)), "nera", "emoji")
    assert caught.value.nearest == ["near"]


def pair(first, second, difference, p):
    shared = {"labeled": "emoji", "metric": "linear", "first_only": 9, "second_only": 5, "p": p / 3, "p_holm": p}
    return Pair(first=first, second=second, difference=difference, **shared)


@pytest.mark.parametrize(
    ("difference", "p", "sentence"),
    [
        ((-0.05, -0.08, -0.02), 0.004, "far is surely better than near: difference +0.050 (+0.020 to +0.080)"),
        ((-0.05, -0.08, -0.02), 0.06, "far and near cannot be told apart: difference +0.050 (+0.020 to +0.080)"),
        ((-0.05, -0.11, 0.01), 0.01, "far and near cannot be told apart: difference +0.050 (−0.010 to +0.110)"),
        ((-0.05,), 0.01, "far and near cannot be told apart: difference +0.050"),
    ],
)
def test_the_best_run_and_the_next(difference, p, sentence):
    runs = [score(name, "run", value) for name, value in (("weak", 0.5), ("near", 0.7), ("far", 0.75))]
    others = [pair("weak", name, estimate(-0.2, -0.3, -0.1), 1e-6) for name in ("near", "far")]
    lines = verdicts(report(*runs, pairs=(*others, pair("near", "far", estimate(*difference), p))))
    assert lines[4:] == [f"emoji: of the runs, {sentence}, corrected McNemar p {p:.2g}."]


def test_too_many_runs_to_compare():
    found = report(*(score(f"r{i}", "run", 0.6) for i in range(13)))
    found.labeled["emoji"]["runs_not_paired"] = 13
    assert verdicts(found)[-1].startswith("emoji: 13 runs are too many to compare every two of them")


def test_one_run_is_not_compared():
    assert len(verdicts(report(score("near", "run", 0.7)))) == 2


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        (estimate(70.0), "about 140 labels for as much, of 650, which cost 70."),
        (estimate(280.7), "about 140 labels for as much, of 650, which cost 280.7."),
        (estimate(None, reason="more than 1,300"), "about 140 labels for as much, of 650, which cost more than 1,300."),
    ],
)
def test_labels_have_a_price(cost, words):
    gain = estimate(-0.14, -0.18, -0.1)
    run = dataclasses.replace(score("near", "run", 0.62, gain, estimate(140)), label_cost=cost)
    assert verdict(report(run), "near", "emoji").endswith(words)
