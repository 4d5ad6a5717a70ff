"""A study in the report: every state of a claim, figures, several targets, and nothing where there is none."""

# ruff: noqa: RUF001 - the report prints real minus signs

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from html_page import Page
from report_examples import pool_score, shift_report
from study_report_examples import (
    analysis_of,
    claim_of,
    effect_of,
    figures_of,
    point,
    study_of,
    write_targets,
)

from curate import cli
from curate.experiments.protocol import Protocol
from curate.reporting import headline, refresh, render_html, render_markdown, summarize, summarize_folder
from curate.reporting.study import by_question, predicted, protocol_rows, target_folders
from curate.reporting.study_figures import arm_chart, diversity_chart
from embeddings import files
from embeddings.errors import CorruptError

EVIL = "<script>alert('x')</script>\"&'"
LONE = effect_of(seeds=1, p=None, power=None, detectable=None, reason="one draw; the interval covers test images only")


def page_of(study: dict[str, Any], **rest: Any) -> Page:
    return Page(render_html(summarize(study=study, thumbnails=False, **rest)))


def say(*claims: Any, **rest: Any) -> list[str]:
    return headline(summarize(study=study_of(*claims, **rest), thumbnails=False))


@pytest.mark.parametrize("status", ["supported", "refuted", "equivalent", "undecided"])
@pytest.mark.parametrize("question", ["primary", "frozen", "order"])
def test_every_state_of_a_claim_is_a_word_beside_its_figures(status: str, question: str) -> None:
    claim = claim_of(question, status)
    summary = summarize(study=study_of(claim), thumbnails=False)
    html = render_html(summary)
    assert html.count(f">{status}</span>") == 1
    text = Page(html).text
    tells = "power 64% for 1.0 points; tells 1.2 points with 80%"
    if question == "primary":  # in plain words
        tells = "such a study would tell it 64 times of 100; it tells 1.2 points 80 times of 100."
    for told in (claim.statement, "+3.0 (+2.1 to +3.9)", tells):
        assert told in text
    markdown = render_markdown(summary)
    assert f"| {status} | {claim.statement} | +3.0 (+2.1 to +3.9) | 69.0% against 66.0% |" in markdown
    assert ("p 0.004" if question == "primary" else "p 0.008 after Holm") in text


def test_claims_that_settle_nothing_say_why() -> None:
    lone = claim_of("frozen", "undecided", effect=LONE)
    none = claim_of("Q1", "undecided", effect=None, means=None, notes=("no runs of both",))
    bare = claim_of("secondary", "undecided", effect=effect_of(half=None, seeds_needed=9, power=0.2))
    text = page_of(study_of(lone, none, bare)).text
    assert "one draw; the interval covers test images only" in text
    assert "near is better by Q1 no runs of both n/a n/a" in text
    assert "power 20% for 1.0 points; tells 1.2 points with 80%; 9 seeds would give 80%" in text


def test_the_primary_contrast_comes_first_and_the_questions_in_order() -> None:
    questions = ("Q2", "frozen", "Q1", "order", "secondary", "primary", "finetuned, both")
    study = study_of(*(claim_of(question) for question in questions))
    assert list(by_question(study["results"])) == [
        "The primary contrast",
        "Against the frozen public encoder",
        "Fine-tuned, against the fine-tuned public encoder",
        "Between the arms",
        "Contrast: order",
        "Which arm wins at equal N and C?",
        "Does accuracy change with D = N / C?",
    ]
    html = render_html(summarize(study=study, thumbnails=False))
    assert html.index('<section id="study">') < html.index('<div class="primary">') < html.index("Accuracy by arm")


def test_the_protocol_is_told_with_its_digest() -> None:
    rows = dict(protocol_rows(study_of()["results"]))
    assert rows == {
        "Primary contrast": "near against random",
        "Metric": "linear, of emoji",
        "What matters": "a difference of 1.0 points",
        "Level": "95% intervals; tests at 5%, Holm by family",
        "Secondary contrasts": "near against own",
        "Further contrasts": "order: arm near against arm own, images 500",
        "Only runs with": "init public",
        "sha256 of protocol.json": "ab12ab12ab12",
    }
    assert "ab12ab12ab12" in page_of(study_of()).text
    assert dict(protocol_rows(study_of(protocol=Protocol())["results"]))["Primary contrast"] == "none"


def test_which_distance_predicts_accuracy() -> None:
    first, second, third = predicted(study_of()["results"])
    assert list(first.values()) == ["index", "90%", "82 to 97", "12", "reached", "1.2", "0.4 to 2.0"]
    assert (second["goal"], third["share"], third["interval"]) == ("missed", "n/a", "no two pools are apart")
    assert "sliced w n/a no two pools are apart" in page_of(study_of()).text
    assert "predict" not in page_of(study_of(prediction={})).text


def test_three_sentences_rest_on_the_primary_claim() -> None:
    says, do, sure = say(claim_of(), claim_of("frozen", effect=effect_of(0.1)), claim_of("frozen", arm="own"))
    assert says == (
        "near is better by primary: supported, +3.0 points (+2.1 to +3.9) over 3 seeds and 2 targets; "
        "written down before the runs."
    )
    assert do == (
        "Pretrain: near beats the frozen public encoder, +10.0 points (+9.1 to +10.9) over 3 seeds and 2 targets, "
        "and so does own."
    )
    assert sure == (
        "The primary contrast has a power of 64% for a difference of 1.0 points, and tells 1.2 points with 80%."
    )


@pytest.mark.parametrize(
    ("question", "status", "said"),
    [
        ("finetuned", "supported", "; fine-tuning the public encoder reads 66.0%, and it beats that, too, +3.0 points"),
        ("finetuned", "refuted", "Fine-tune the public encoder rather than pretrain: that reads 66.0%, near stands at"),
        ("finetuned", "undecided", "Pretrain or fine-tune: near beats"),
        ("finetuned", "equivalent", "and that it beats that is not so: they are equivalent, +3.0 points"),
        ("finetuned, both", "supported", "reads 66.0%, and fine-tuned, it beats that, too"),
        ("finetuned, both", "refuted", "that reads 66.0%, near, fine-tuned, stands at +3.0 points"),
    ],
)
def test_fine_tuning_the_public_encoder_is_weighed(question: str, status: str, said: str) -> None:
    arm = "near" if question == "finetuned" else "near, fine-tuned,"
    assert said in say(claim_of("frozen"), claim_of(question, status, arm))[1]


def test_keeping_the_frozen_encoder() -> None:
    worse = [claim_of("frozen", "refuted", arm, effect=effect_of(-0.05 - i / 100)) for i, arm in enumerate(("a", "b"))]
    assert say(*worse)[1] == (
        "Keep the frozen public encoder: no arm beats it; the best arm, a, reads 5.0 points less than it "
        "(difference −5.9 to −4.1) over 3 seeds and 2 targets: that a beats it is refuted."
    )
    open_ = say(worse[1], claim_of("frozen", "undecided", "a"))[1]
    assert "that an arm beats it is not shown; the best arm, a, reads 3.0 points more than it (difference +2.1" in open_
    assert open_.endswith("that a beats it is undecided.")
    same = say(claim_of("frozen", "equivalent", effect=effect_of(0.001)))[1]
    assert "every arm is equivalent to it; near reads 0.1 points more than it (difference −0.8 to +1.0) over" in same
    assert same.endswith("targets: the two are equivalent.")
    assert say(claim_of())[1] == "No arm was compared with the frozen public encoder."
    shift = shift_report([pool_score("web", 8.0, rank=1)])
    study = study_of(claim_of("frozen"))
    assert headline(summarize(study=study, shift=shift, thumbnails=False))[1].endswith("2 targets; use web.")


@pytest.mark.parametrize(
    ("taken", "status", "said"),
    [
        ({"near": {"target": 9}}, "supported", "; near took the target's own images alone, none of a pool."),
        ({"near": {"target": 9}}, "undecided", "; near took the target's own images alone, none of a pool."),
        ({"near": {"target": 8, "web": 1}}, "supported", "2 targets; use web."),
        ({"near": {"target": 8, "web": 1}}, "undecided", "; if you pretrain all the same, use web."),
        ({}, "undecided", "; if you pretrain all the same, use web."),
    ],
)
def test_pools_are_advised_on_only_where_the_arm_that_is_named_took_from_one(
    taken: dict[str, dict[str, int]], status: str, said: str
) -> None:
    study = study_of(claim_of("frozen", status), claim_of("frozen", "refuted", "random", effect=effect_of(-0.1)))
    summary = summarize(study=study, shift=shift_report([pool_score("web", 8.0, rank=1)]), thumbnails=False)
    taken = {**taken, "random": {"web": 9}}
    drawn = [{"digest": arm, "counts": counts, "supply": None} for arm, counts in taken.items()]
    run = {"health": {"verdict": "healthy"}}
    runs = [{"name": f"{arm}~s{seed}", "selection": arm, **run} for arm in taken for seed in (0, 1)]
    assert headline({**summary, "selections": drawn, "runs": runs})[1].endswith(said)


def test_where_no_pool_is_near_nothing_is_advised_all_the_same() -> None:
    study = study_of(claim_of("frozen", "undecided"))
    summary = summarize(study=study, shift=shift_report([pool_score("web", 45.0, rank=1)]), thumbnails=False)
    assert headline(summary)[1].endswith("is undecided; no pool is near: do not pretrain on these.")


def test_an_exploratory_study_says_so() -> None:
    claims = [claim_of("frozen"), claim_of("Q1", "undecided", effect=effect_of(power=0.2)), claim_of("Q2", effect=LONE)]
    says, _, sure = say(*claims, protocol=Protocol())
    assert says == (
        "Exploratory: no primary contrast was written down before the runs; of 3 claims, 2 supported and 1 undecided."
    )
    assert sure == "All claims are exploratory; the claims have a power of 20% to 64% for a difference of 1.0 points."
    assert say(claim_of(effect=LONE))[2] == "One draw; the interval covers test images only."
    assert (
        say(claim_of(effect=None, notes=()))[0] == "near is better by primary: supported; there are no runs to compare."
    )
    assert say(claim_of(effect=None))[2] == "There are no runs to compare."
    assert "Rules, none of them written down before" in page_of(study_of(protocol=Protocol())).text


def test_figures_by_hand() -> None:
    series = [point("a", 100, 0.6), point("b", 100, 0.7), point("a", 200, None)]
    results = {"figures": {"accuracy_by_arm": {"y": "linear", "series": series, "references": []}}}
    chart = arm_chart(results)
    assert chart is not None
    assert [(row["arm"], row["setting"], row["color"]) for row in chart["rows"]] == [("a", "", "c0"), ("b", "", "c1")]
    assert (chart["scale"].low, chart["scale"].high, chart["more"], chart["levels"]) == (0.55, 0.75, 0, [])
    assert diversity_chart(results) is None
    curves = diversity_chart({"figures": figures_of(sizes=(100, 1_000, 10_000))})
    assert curves is not None
    assert [tick["text"] for tick in curves["ticks"]] == ["0.01", "0.1", "1"]
    assert curves["ticks"][1]["at"] == 50.0
    assert [level["kind"] for level in curves["levels"]] == ["frozen", "finetuned"]
    first, second = (line["marks"] for line in curves["lines"])
    assert second[1]["x"] - first[1]["x"] == pytest.approx(0.7)
    assert all(mark["high"] < mark["y"] < mark["low"] for mark in first)


@pytest.mark.parametrize("figures", [{}, figures_of(arms=()), {"accuracy_by_arm": figures_of()["accuracy_by_arm"]}])
def test_missing_figures_leave_the_rest(figures: dict[str, Any]) -> None:
    page = page_of(study_of(figures=figures, prediction={}))
    assert "Accuracy against D" not in page.text
    assert "The primary contrast" in page.text


def test_accuracies_that_are_all_alike_stay_below_one() -> None:
    series = [{**point(arm, 100, 1.0), "low": 1.0, "high": 1.0} for arm in "ab"]
    chart = arm_chart({"figures": {"accuracy_by_arm": {"y": "linear", "series": series, "references": []}}})
    assert chart is not None
    assert (chart["scale"].low, chart["scale"].high) == (0.9, 1.0)


def test_many_settings_are_cut_and_counted() -> None:
    chart = arm_chart({"figures": figures_of(tuple(f"arm{i}" for i in range(30)), (500, 1_000, 2_000))})
    assert chart is not None
    assert (len(chart["rows"]), chart["more"]) == (40, 50)


def test_hostile_names_do_nothing() -> None:
    claims = [claim_of(question, EVIL, EVIL, notes=(EVIL,), statement=EVIL) for question in ("primary", EVIL, "Q1")]
    rest = {"figures": figures_of(arms=(EVIL, "b")), "notes": (EVIL,), "protocol": Protocol(primary=(EVIL, "b"))}
    study = study_of(*claims, targets=(EVIL, "javascript:x"), **rest)
    summary = summarize(study=study, part_of={"page": "../report.html", "words": EVIL}, thumbnails=False)
    html = render_html(summary)
    page = Page(html)
    assert not page.all("script")
    assert "<script" not in html
    assert not re.search(r"(?<!\\)[<>]", render_markdown(summary))
    assert not [a for a in page.all("a") if str(a["href"]).startswith("javascript:")]
    assert EVIL in page.text


def test_without_a_study_nothing_of_it_is_on_the_page(study: dict[str, Any]) -> None:
    summary = summarize(**study)
    html = render_html(summary)
    assert (summary["study"], summary["part_of"]) == (None, None)
    assert 'id="study"' not in html
    assert ".level" not in html
    assert summary["headline"][0].startswith("Of 2 pools compared")


def test_a_study_of_one_target_stands_on_its_page(tmp_path: Path) -> None:
    root = write_targets(tmp_path, "own", analysis=None) / "own"
    analysis_of().save(root)
    page = Page(refresh(root).read_text(encoding="utf-8"))
    assert [section["id"] for section in page.all("section")] == ["study", "pools", "target", "accuracy", "notes"]
    document = files.read_json(root / "report.json")
    assert document["study"] == {"results": analysis_of().to_json(), "targets": []}
    assert headline(document) == document["headline"]


def test_a_study_of_several_targets_has_a_page_for_each(tmp_path: Path) -> None:
    root = write_targets(tmp_path / "two", "b", "a", ".hidden", analysis=analysis_of())
    (root / "tasks").mkdir()
    assert [folder.name for folder in target_folders(root)] == ["a", "b"]
    page = Page(refresh(root).read_text(encoding="utf-8"))
    assert [a["href"] for a in page.all("a")][:1] + [a["href"] for a in page.all("a")][2:4] == [
        "#study",
        "a/report.html",
        "b/report.html",
    ]
    of_target = Page((root / "b" / "report.html").read_text(encoding="utf-8"))
    assert "pool-of-b" in of_target.text
    assert "near is better by primary: supported" in of_target.text
    assert "../report.html" in [a["href"] for a in of_target.all("a")]
    markdown = (root / "report.md").read_text(encoding="utf-8")
    assert "- [a](a/report.html)\n- [b](b/report.html)" in markdown
    assert "[study](../report.html)" in (root / "a" / "report.md").read_text(encoding="utf-8")
    before = (root / "report.html").read_bytes()
    assert refresh(root).read_bytes() == before  # the reports themselves are no results


def test_several_targets_before_anything_is_claimed(tmp_path: Path) -> None:
    root = write_targets(tmp_path, "a", "b")
    assert summarize_folder(root)["headline"][:2] == [
        "This study has 2 targets, a and b; each has a page of its own.",
        "Nothing was evaluated over all targets yet.",
    ]
    assert "Report of a" in Page(refresh(root).read_text(encoding="utf-8")).text


def test_results_of_another_version_are_refused(tmp_path: Path) -> None:
    files.write_json(tmp_path / "study-results.json", {"schema": "curate.study/9"})
    with pytest.raises(CorruptError, match=r"schema 'curate\.study/9'"):
        summarize_folder(tmp_path)


@pytest.mark.parametrize("as_json", [True, False])
def test_run_of_several_targets_names_every_report(
    as_json: bool, tmp_path: Path, image_folder: Any, pictures: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seed in (("mine", 1), ("other", 2), ("web", 3)):
        image_folder(pictures(40, seed=seed), name)
    text = "".join(f'[targets.{name}]\nuri = "{name}"\n' for name in ("mine", "other")) + '[pools.web]\nuri = "web"\n'
    (tmp_path / "c.toml").write_text(text, encoding="utf-8")
    words = ["run", tmp_path / "c.toml", "--out", tmp_path / "o", "--until", "score", "--encoder", "color-texture"]
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(word) for word in (*words, "--work", tmp_path / "w", *(["--json"] if as_json else []))])
    told = capsys.readouterr().out
    assert stopped.value.code == 0
    if as_json:
        assert [target["name"] for target in json.loads(told)["study"]["targets"]] == ["mine", "other"]
    else:
        assert "Report of mine:" in told.replace("\n", " ")
        assert "This study has 2 targets" in told
    assert all((tmp_path / "o" / name / "report.html").is_file() for name in ("mine", "other", "."))
