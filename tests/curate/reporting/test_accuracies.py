"""References, fine-tuned runs, pairs of runs, and pages of many runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from html_page import Page
from report_examples import accuracy, arm_score, eval_report, frozen_scores, run_in, selection_of

from curate.eval_report import ArmScore, Pair
from curate.reporting import headline, render_html, render_markdown, summarize
from curate.reporting.accuracies import beside, color, lacks_tuned, matches, tuned_public
from curate.reporting.examined import ARMS, examinations
from curate.reporting.figures import accuracy_chart, loss_chart
from curate.reporting.selections import PICTURED, pictured
from curate.results import Estimate

EVIL = "<script>alert('x')</script>\"&'"
UNTUNED = "The public encoder was not fine-tuned here"


def tuned(arm: str, linear: float, kind: str = "finetuned") -> ArmScore:
    """A fine-tuned network: only its own head has an accuracy."""
    score = arm_score(f"{kind}:{arm}", linear, kind=kind, gain=(0.0, 0.1))
    return replace(score, metrics={"linear": accuracy(linear)})


def pair(first: str, second: str, value: float | None, **rest: Any) -> Pair:
    ends = {} if value is None else {"low": value - 0.01, "high": value + 0.01}
    facts = {"labeled": "emoji", "metric": "linear", "first_only": 30, "second_only": 9, "p": 0.001, "p_holm": 0.002}
    return Pair(first=first, second=second, difference=Estimate(value=value, **ends), **{**facts, **rest})


def labeled_of(*scores: ArmScore, pairs: tuple[Pair, ...] = ()) -> dict[str, Any]:
    report = replace(eval_report([*frozen_scores(), *scores]), pairs=pairs)
    (labeled,) = summarize(evaluation=report, thumbnails=False)["evaluation"]["labeled"]
    return dict(labeled)


def page_of(*scores: ArmScore, pairs: tuple[Pair, ...] = ()) -> Page:
    report = replace(eval_report([*frozen_scores(), *scores]), pairs=pairs)
    return Page(render_html(summarize(evaluation=report, thumbnails=False)))


def action(*scores: ArmScore) -> str:
    return headline(summarize(evaluation=eval_report([*frozen_scores(), *scores]), thumbnails=False))[1]


NEAR = arm_score("near", 0.8, gain=(0.02, 0.06))


def test_fine_tuned_runs_stand_beside_their_runs_in_a_color_of_theirs() -> None:
    found = [NEAR, arm_score("far", 0.6), tuned("far", 0.7), tuned("near", 0.9), tuned("lite0", 0.85)]
    scores = labeled_of(*found, tuned("tiny", 0.5, "supervised"))["scores"]
    assert {s["arm"]: color(s, scores) for s in scores} == {
        "frozen:lite0": "ink",
        "untrained:lite0": "muted",
        "near": "run",
        "finetuned:near": "run",
        "far": "run",
        "finetuned:far": "run",
        "finetuned:lite0": "copies",
        "supervised:tiny": "middle",
    }
    assert [s["arm"] for s in scores][2:6] == ["near", "finetuned:near", "far", "finetuned:far"]
    assert beside(scores) == scores
    assert (tuned_public(scores) or {})["arm"] == "finetuned:lite0"


def test_a_run_called_like_the_encoder_is_not_the_reference() -> None:
    scores = labeled_of(arm_score("near", 0.6), tuned("near", 0.7))["scores"]
    assert tuned_public(scores) is None
    assert lacks_tuned(scores)


def test_the_fine_tuned_public_encoder_is_a_line_in_the_figure() -> None:
    chart = accuracy_chart(labeled_of(NEAR, tuned("lite0", 0.85)))
    assert chart["tuned"] == chart["scale"].at(0.85)
    page = page_of(NEAR, tuned("lite0", 0.85))
    assert "public encoder, fine-tuned" in page.text
    assert UNTUNED not in page.text
    unknown = replace(tuned("lite0", 0.8), metrics={"linear": Estimate(value=None, reason="too few")})
    assert accuracy_chart(labeled_of(NEAR, unknown))["tuned"] is None


def test_a_run_that_was_pretrained_on_test_images_is_told_on_the_page_and_beside_its_gain() -> None:
    facts = {"samples_seen": 20_000, "test_images_pretrained_on": 12}
    scores = [*frozen_scores(), replace(NEAR, facts=facts), replace(tuned("near", 0.82), facts=facts)]
    summary = summarize(evaluation=eval_report(scores), thumbnails=False)
    told = "near was pretrained on 12 of 470 test images (without labels), so its figures may be too good"
    assert f"Careful: {told}." in Page(render_html(summary)).text
    assert render_markdown(summary).count("Careful: ") == 1
    assert summary["headline"][2].count(told) == 1
    for count in (0, None):
        silent = replace(NEAR, facts={**facts, "test_images_pretrained_on": count})
        assert "pretrained on" not in page_of(silent).text


def test_test_images_known_from_training_are_told_on_the_page_too() -> None:
    found = eval_report(frozen_scores())
    known = {"emoji": {**found.labeled["emoji"], "near_duplicates_in_train": 9}}
    summary = summarize(evaluation=replace(found, labeled=known))
    told = "9 of 470 test images are nearly the same picture as a training image"
    assert told in render_markdown(summary)
    assert told in Page(render_html(summary)).text
    assert "nearly the same" not in render_markdown(summarize(evaluation=found))


def test_what_was_not_fine_tuned_is_said_and_nothing_claimed() -> None:
    assert f"{UNTUNED}: --also references adds" in page_of(NEAR).text
    assert f"{UNTUNED}: --also references" in render_markdown(
        summarize(evaluation=eval_report([*frozen_scores(), NEAR]), thumbnails=False)
    )
    assert UNTUNED not in page_of().text
    assert "fine-tun" not in action(NEAR)


@pytest.mark.parametrize(
    ("level", "said"),
    [
        (0.85, "; fine-tuning the public encoder reads 85.0%;"),
        (0.81, "; fine-tuning the public encoder reads 81.0%, not told from it by these intervals;"),
        (0.70, None),
    ],
)
def test_a_gain_is_set_against_fine_tuning(level: float, said: str | None) -> None:
    told = action(NEAR, tuned("lite0", level))
    start = "Pretrain: it beat doing nothing, the frozen public encoder, but not its fine-tuning; near reads 80.0%"
    if said is None:
        assert "tuning" not in told
    else:
        assert told.startswith(start)
        assert said in told


def test_pairs_are_told_better_first_best_run_first() -> None:
    runs = [arm_score("a", 0.7, gain=(-0.1, 0.0)), arm_score("b", 0.8, gain=(0.0, 0.1)), arm_score("c", 0.75)]
    pairs = (pair("a", "b", -0.1), pair("a", "c", -0.05, p_holm=0.4), pair("b", "c", 0.05), pair("c", "a", None))
    found = matches(labeled_of(*runs, pairs=pairs))
    assert [(m.first, m.second, m.told) for m in found] == [("b", "c", "yes"), ("b", "a", "yes"), ("c", "a", "no")]
    assert found[1] == ("b", "a", "+10.0 (+9.0 to +11.0)", "9 against 30", "corrected McNemar p 0.002", "yes")
    report = replace(eval_report([*frozen_scores(), *runs]), pairs=pairs)
    summary = summarize(evaluation=report, thumbnails=False)
    assert "b c +5.0 (+4.0 to +6.0) 30 against 9 corrected McNemar p 0.002 yes" in Page(render_html(summary)).text
    assert "| b | c | +5.0 (+4.0 to +6.0) | 30 against 9 | corrected McNemar p 0.002 | yes |" in render_markdown(
        summary
    )
    assert "; on emoji b is surely better than c: +5.0 (+4.0 to +6.0) points" in summary["headline"][2]
    assert "overlap" not in summary["headline"][2]


def test_runs_that_cannot_be_told_apart_are_said_to_be_so() -> None:
    runs = [arm_score("a", 0.7, gain=(-0.1, 0.0)), arm_score("b", 0.8, gain=(0.0, 0.1))]
    report = replace(eval_report([*frozen_scores(), *runs]), pairs=(pair("a", "b", -0.1, p_holm=0.06),))
    assert "; on emoji b cannot be told from a: +10.0" in headline(summarize(evaluation=report, thumbnails=False))[2]
    assert "Runs against each other" not in page_of(*runs).text


def test_hostile_arms_do_nothing() -> None:
    page = page_of(arm_score(EVIL, 0.7), tuned(EVIL, 0.7), pairs=(pair(EVIL, "near", 0.1),))
    assert not page.all("script")
    assert EVIL in page.text


# many


def test_many_runs_share_colors_by_arm_and_their_rows_can_be_opened(tmp_path: Path) -> None:
    runs = {f"{arm}~s{i}": run_in(tmp_path / f"{arm}{i}") for arm in ("near", "far") for i in range(22)}
    summary = summarize(runs=runs, thumbnails=False)
    chart = loss_chart(summary["runs"])
    assert chart is not None
    assert chart["legend"] == [{"name": "near, 22 runs", "color": "c0"}, {"name": "far, 22 runs", "color": "c1"}]
    assert [line["color"] for line in chart["lines"]] == ["c0"] * 22 + ["c1"] * 22
    assert all(len(run["curve"]) == 50 for run in summary["runs"])
    html = render_html(summary)
    assert "4 further runs" in Page(html).text
    assert html.index("near~s21") < html.index("<details>") < html.index('data-label="Arm"><div>far~s21')


def test_few_runs_have_a_color_each(tmp_path: Path) -> None:
    runs = {f"near~s{i}": run_in(tmp_path / str(i)) for i in range(3)}
    chart = loss_chart(summarize(runs=runs, thumbnails=False)["runs"])
    assert chart is not None
    assert [entry["name"] for entry in chart["legend"]] == list(runs)


def test_many_selections_show_pictures_of_one_of_a_kind(photos: Path) -> None:
    keys = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    chosen = selection_of([("web", key, key) for key in keys[:6]], {"web": str(photos)})
    names = [f"{arm}~N{n}" for arm in ("near", "far") for n in range(21)]
    summary = summarize(selections=dict.fromkeys(names, chosen))
    assert [s["name"] for s in summary["selections"] if s["sheets"]] == ["near~N0", "far~N0"]
    text = Page(render_html(summary)).text
    assert "2 further selections" in text  # beyond 40 bars
    assert "40 further selections, without pictures" in text
    assert pictured(names[:PICTURED]) == names[:PICTURED]


def test_many_arms_are_cut_in_tables_of_examinations_and_can_be_opened_in_that_of_accuracies() -> None:
    from curate.eval_report import Finding

    finding = Finding(about="labels", condition="5%", metric="linear", estimate=accuracy(0.5))
    runs = [arm_score(f"r{i:02}", 0.5 + i / 100, findings=(finding,)) for i in range(45)]
    frozen = [replace(score, findings=(finding,)) for score in frozen_scores()]
    summary = summarize(evaluation=eval_report([*frozen, *runs]), thumbnails=False)
    (found,) = examinations(summary["evaluation"]["labeled"][0])
    assert found.arms == ["frozen:lite0", "untrained:lite0", *(f"r{i}" for i in range(35, 45))]
    assert len(found.arms) == ARMS
    assert "At most 12 arms are shown" in found.lead
    text = Page(render_html(summary)).text
    assert text.count("7 further arms") == 2
