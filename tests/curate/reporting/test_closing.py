"""What an examination says in one sentence."""

# ruff: noqa: RUF001 - sentences have real minus signs

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from report_examples import arm_score, eval_report, frozen_scores

from curate.eval_report import Finding
from curate.evaluation.examinations import EXAMINATIONS
from curate.reporting import closing as module
from curate.reporting import render_html, render_markdown, summarize
from curate.reporting.closing import below, closing, reasons
from curate.reporting.examined import Examination, examinations
from curate.reporting.text import examination_tables
from curate.results import Estimate

Place = tuple[str, str, str]  # examination, condition, metric


def finding(
    place: Place, value: float | None, gain: float | None = None, *, half: float = 0.02, **rest: Any
) -> Finding:
    """A figure ±0.02, and its difference ±``half`` to the frozen encoder."""
    ends = {} if value is None else {"low": value - 0.02, "high": value + 0.02}
    lower = {"lower_is_closer": rest.pop("lower", False)}
    against = None if gain is None else Estimate(value=gain, low=gain - half, high=gain + half, **lower)
    about, condition, metric = place
    estimate = Estimate(value=value, **ends, **lower, **rest)
    return Finding(about=about, condition=condition, metric=metric, estimate=estimate, against_frozen=against)


def found(frozen: list[Finding], **runs: list[Finding]) -> Examination:
    """The one examination of the frozen encoder, of an untrained network like it, and of runs."""
    public, untrained = frozen_scores()
    scores = [replace(public, findings=tuple(frozen)), replace(untrained, findings=tuple(frozen))]
    scores += [arm_score(name, 0.7, findings=tuple(told)) for name, told in runs.items()]
    (only,) = examinations(summarize(evaluation=eval_report(scores), thumbnails=False)["evaluation"]["labeled"][0])
    return only


RECALL, SPENT = ("rare", "all but good", "recall"), ("rare", "all but good", "false_reject")
COST, SAVED = ("rare", "costs", "cost"), ("rare", "costs", "saved_over_accepting_all")
AUROC, MEMORY = ("anomaly", "neighbors", "auroc"), ("anomaly", "patch-memory", "auroc")
ALL, KEPT, DROP = (
    ("robustness", "all corruptions", "linear"),
    ("robustness", "all corruptions", "retained"),
    ("robustness", "shift plant", "drop"),
)
SLOPE, GAP, GAP_P = ("noise", "noise", "slope"), ("groups", "lot", "gap"), ("groups", "lot", "gap_p")


@pytest.mark.parametrize(
    ("frozen", "run", "sentence"),
    [
        (
            [finding(("labels", "1%", "linear"), 0.25), finding(("labels", "100%", "linear"), 0.714)],
            [finding(("labels", "1%", "linear"), 0.35, 0.1)],
            "With 1% of the labels the frozen encoder reads 0.250, with 100% 0.714; with 1%, near reads 0.350, a "
            "difference of +0.100 (+0.080 to +0.120): better, and settled.",
        ),
        (
            [finding(RECALL, 0.944), finding(SPENT, 0.051)],
            [finding(RECALL, 0.887, -0.057)],
            "The frozen encoder finds 0.944 of all but good, rejecting 0.051 of what is in order, taking good for "
            "that (normal=LABEL names another); near reads 0.887, a difference of −0.057 (−0.077 to −0.037): worse, "
            "and settled.",
        ),
        (
            [finding(COST, 1.25), finding(SAVED, 2.0), finding(RECALL, 0.9)],
            [finding(COST, 1.2, -0.05, lower=True)],
            "By your costs the frozen encoder's decisions cost 1.25 an image, 2.000 (1.980 to 2.020) less than "
            "accepting all; near reads 1.200, a difference of −0.050 (−0.070 to −0.030): better, and settled.",
        ),
        (
            [finding(AUROC, 0.939), finding(MEMORY, 0.966)],
            [finding(MEMORY, 0.949, -0.017)],
            "With no label of a defect, the frozen encoder's patch memory ranks what is not in order before what is 97 "
            "times of 100 (AUROC 0.966); near reads 0.949, a difference of −0.017 (−0.037 to +0.003): not settled, the "
            "interval holding zero.",
        ),
        (
            [finding(ALL, 0.659), finding(KEPT, 0.89), finding(DROP, 0.12)],
            [finding(ALL, 0.653)],
            "Under corruptions the frozen encoder reads 0.659, 89% of what it reads without; near reads 0.653: not "
            "judged; on plant it loses 0.120 (0.100 to 0.140).",
        ),
        (
            [finding(SLOPE, 2.026, lower=True)],
            [finding(SLOPE, 3.0, 1.0, lower=True)],
            "Every 10% of wrong labels costs the frozen encoder 2.0 points; near reads 3.0, a difference of +1.0 (+1.0 "
            "to +1.0) points: worse, and settled.",
        ),
        (
            [
                finding(GAP, 0.2),
                finding(GAP_P, 0.004),
                finding(("groups", "lot", "weight"), 2.0, unit="select lot:b=2"),
            ],
            [],
            "Between groups of lot the frozen encoder's accuracy differs by 0.200, more than chance makes (p 0.004); "
            "select lot:b=2 asks for more of the worst one.",
        ),
        (
            [finding(("groups", "lot", "standardized_gap"), 0.05), finding(GAP, 0.2), finding(GAP_P, 0.004)],
            [],
            "Between groups of lot the frozen encoder's accuracy differs by 0.050 at one mix of classes.",
        ),
        (
            [finding(GAP, None, reason="No labeled image has a lot.")],
            [],
            "Not measured: No labeled image has a lot.",
        ),
    ],
)
def test_the_sentence(frozen: list[Finding], run: list[Finding], sentence: str) -> None:
    assert closing(found(frozen, near=run)) == sentence


def test_several_arms_are_told_by_what_is_settled() -> None:
    runs = {"a": 0.1, "b": 0.0, "c": 0.2, "d": -0.1}
    told = closing(found([finding(ALL, 0.5)], **{name: [finding(ALL, 0.5 + g, g)] for name, g in runs.items()}))
    assert told.endswith("; a and c are surely better, d is surely worse, b is not told from it.")


def test_every_examination_has_a_sentence_and_an_unknown_one_none() -> None:
    assert set(module._WRITTEN) == set(EXAMINATIONS)
    assert closing(found([finding(("own", "x", "y"), 0.5)])) == ""


def test_reasons_stand_once_under_the_table_and_not_in_its_cells() -> None:
    why = "no class has 5 test units of <every> group"
    places = [("groups", f"lot={name}", "standardized") for name in "ab"]
    examination = found([finding(GAP, 0.2), *(finding(place, None, reason=why) for place in places)])
    assert reasons(examination) == [f"n/a for lot=a and lot=b: {why}"]
    assert reasons(found([finding(GAP, 0.2)])) == []
    some = found([finding(("groups", "lot=a", "linear"), 0.2), finding(places[0], None, reason=why)])
    assert reasons(some) == [f"n/a for lot=a standardized: {why}"]


def test_a_reason_that_the_sentence_tells_is_not_told_twice() -> None:
    examination = found([finding(GAP, None, reason="lot has one value")])
    assert below(examination) == ["Not measured: lot has one value."]
    more = found([finding(GAP, 0.2), finding(("groups", "lot", "x"), None, reason="lot has one value")])
    assert [line.partition(":")[0] for line in below(more)][:1] == ["n/a for lot x"]
    assert len(below(more)) == 2


def test_what_wrong_labels_cost_is_not_told_as_sure_inside_the_noise() -> None:
    public, untrained = frozen_scores()
    (table,) = examination_tables(eval_report([replace(public, findings=(finding(SLOPE, 0.01),)), untrained]))
    told = "Every 10% of wrong labels costs the frozen encoder 0.0 (0.0 to 0.0) points"
    assert table.below == (f"{told}: not settled, the interval holding zero.",)


def test_it_stands_under_the_table_on_every_surface() -> None:
    public, untrained = frozen_scores()
    report = eval_report([replace(public, findings=(finding(SLOPE, 2.0),)), untrained])
    summary = summarize(evaluation=report, thumbnails=False)
    sentence = "Every 10% of wrong labels costs the frozen encoder 2.0 points."
    (table,) = examination_tables(report)
    assert table.below == (sentence,)
    assert sentence in render_html(summary)
    assert sentence in render_markdown(summary)


def test_a_normal_class_that_was_named_is_not_told_to_be_named():
    score = replace(frozen_scores()[0], findings=(finding(RECALL, 0.944),))
    summary = summarize(evaluation=eval_report([score]), thumbnails=False)["evaluation"]["labeled"][0]
    summary["facts"]["normal"] = "good"
    (only,) = examinations(summary)
    assert closing(only) == "The frozen encoder finds 0.944 of all but good, taking good for that."
