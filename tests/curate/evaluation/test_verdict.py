"""Sentences: a gain inside the noise is called that."""

from __future__ import annotations

import pytest

from curate.eval_report import ArmScore, EvalReport
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


def report(*runs):
    frozen = score("frozen:lite0", "frozen", 0.76)
    untrained = score("untrained:lite0", "untrained", 0.25, estimate(-0.51, -0.6, -0.4))
    return EvalReport(
        scores=(frozen, untrained, *runs), labeled={"emoji": {"n_train": 650, "n_test": 290, "classes": 9}}
    )


@pytest.mark.parametrize(
    ("gain", "labels", "sentence"),
    [
        (
            estimate(-0.14, -0.18, -0.1),
            estimate(140.2),
            "near does not beat the frozen public encoder (linear 0.620 against 0.760, difference -0.140 "
            "[-0.180, -0.100]); the frozen encoder needs about 140 labels for as much, of 650.",
        ),
        (
            estimate(0.02, -0.01, 0.05),
            estimate(None, reason="more than 650"),
            "near is not to be told from the frozen public encoder, the difference being inside the noise "
            "(linear 0.620 against 0.760, difference +0.020 [-0.010, +0.050]); "
            "the frozen encoder needs more than 650 labels for as much, of 650.",
        ),
        (
            estimate(0.04, 0.01, 0.07),
            None,
            "near beats the frozen public encoder (linear 0.620 against 0.760, difference +0.040 [+0.010, +0.070]).",
        ),
        (
            estimate(0.04),
            None,
            "near cannot be judged against the frozen public encoder: the difference has no interval "
            "(linear 0.620 against 0.760, difference +0.040).",
        ),
    ],
)
def test_sentences(gain, labels, sentence):
    assert verdict(report(score("near", "run", 0.62, gain, labels)), "near", "emoji") == sentence


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.05), (-0.05, 0.0)])
def test_an_interval_that_touches_zero_is_noise(low, high):
    run = score("near", "run", 0.62, estimate(0.02, low, high))
    assert "inside the noise" in verdict(report(run), "near", "emoji")


def test_one_line_to_beat_and_one_per_run():
    runs = [score(name, "run", 0.6, estimate(-0.16, -0.2, -0.1)) for name in ("near", "random")]
    lines = verdicts(report(*runs))
    assert lines[0] == (
        "emoji: the frozen public encoder reads linear 0.760 [0.710, 0.810], knn 0.740 "
        "(650 training and 290 test images, 9 classes)."
    )
    assert [line.split(" ")[:3] for line in lines[1:]] == [["emoji:", "near", "does"], ["emoji:", "random", "does"]]


def test_the_frozen_encoder_is_the_measure():
    assert verdict(report(), "frozen:lite0", "emoji") == "frozen:lite0 is what the others are compared with."


def test_an_unknown_arm():
    with pytest.raises(UnknownNameError, match="nera") as caught:
        verdict(report(score("near", "run", 0.6)), "nera", "emoji")
    assert caught.value.nearest == ["near"]
