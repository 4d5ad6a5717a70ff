"""The page: well-formed, self-contained, escaped, bounded, the same bytes for the same input."""

# ruff: noqa: RUF001 - the report prints real minus signs

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from html_page import Page
from report_examples import arm_score, eval_report, frozen_scores, pool_score, run_in, selection_of, shift_report

from curate.evaluation import verdict
from curate.reporting import render_html, render_markdown, summarize
from curate.results import Estimate, PoolScore

EVIL = "<script>alert('x')</script>\"&'"


@pytest.fixture
def summary(study: dict[str, Any]) -> dict[str, Any]:
    return summarize(**study)


def test_every_part_is_there_in_order(summary: dict[str, Any]) -> None:
    page = Page(render_html(summary))
    sections = [attributes["id"] for attributes in page.all("section")]
    assert sections == ["pools", "target", "selections", "comparisons", "runs", "accuracy", "notes"]
    assert {a["href"] for a in page.all("a")} == {f"#{name}" for name in sections}
    for sentence in summary["headline"]:
        assert sentence in page.text
    assert page.text.index(summary["headline"][0]) < page.text.index("Pools, nearest first")


def test_figures_are_told_in_words_too(summary: dict[str, Any]) -> None:
    text = Page(render_html(summary)).text
    for expected in (
        "8.0 6.0 to 10.0",  # index and its interval
        "52.2 ± 6.0",  # 600 * 8 / 92
        "null 97%",
        "202 null 148",
        "two halves of the target against each other (−1.0 to 2.0)",
        "Gray images 4%",
        "People & Body 190",
        "needs 2,560 images (2 d)",
        "Stopped at 5: the pools are used up.",
        "exact duplicates 1 (web 1)",
        "chance, 6.24",
        "1,000 20.0 20,000 0.050",
        "healthy",
        "75.6% 73.6 to 77.6",
        "−10.0 −13.0 to −7.0",
        "All runs saw 20,000 samples.",
        "full-dimension",
    ):
        assert expected in text, expected


def test_the_first_arm_is_the_frozen_encoder_and_stands_out(summary: dict[str, Any]) -> None:
    html = render_html(summary)
    rows = re.findall(r'<tr class="best">.*?</tr>', html[html.index('<section id="accuracy">') :], flags=re.DOTALL)
    assert len(rows) == 2
    assert all("frozen: lite0" in row and "the line to beat" in row for row in rows)
    assert html.index("frozen: lite0") < html.index("untrained: lite0")


def test_nothing_is_loaded_from_anywhere(summary: dict[str, Any]) -> None:
    html = render_html(summary)
    page = Page(html)
    assert not page.all("script")
    assert not page.all("link")
    assert not page.all("iframe")
    assert all(str(image["src"]).startswith("data:image/webp;base64,") for image in page.all("img"))
    assert not re.search(r"https?:|url\(|@import|\son\w+=|srcset", html)
    assert "default-src 'none'" in html


def evil_study(tmp_path: Path) -> dict[str, Any]:
    pool = pool_score(EVIL, 5.0, rank=1, tied_with=(EVIL,), source=str(tmp_path / EVIL.replace("/", "-")))
    run = run_in(tmp_path / "run", verdict=EVIL)
    selection = selection_of(
        [(EVIL, EVIL, EVIL)], {EVIL: str(tmp_path)}, method=EVIL, stopped={"reason": EVIL, "at": 1}
    )
    scores = [*frozen_scores(labeled=EVIL), arm_score(EVIL, 0.7, gain=(-0.1, 0.1), labeled=EVIL)]
    shift = shift_report([pool], classes={EVIL: 3}, source=EVIL)
    return {"shift": shift, "selections": {EVIL: selection}, "runs": {EVIL: run}, "evaluation": eval_report(scores)}


def test_names_and_keys_are_escaped(tmp_path: Path) -> None:
    html = render_html(summarize(**evil_study(tmp_path)))
    page = Page(html)
    assert "<script" not in html
    assert EVIL in page.text
    assert any(EVIL in str(attributes.get("title")) for attributes in page.all("figure"))


def test_markdown_is_escaped(tmp_path: Path) -> None:
    markdown = render_markdown(summarize(**evil_study(tmp_path)))
    assert "<script" not in markdown.replace("\\<", "")
    assert "\\<script\\>" in markdown
    piped = render_markdown(summarize(shift=shift_report([pool_score("a|b", 5.0, rank=1)])))
    assert piped.count("a|b") == 0
    assert piped.count("a\\|b") == 3  # two sentences and the table


def test_missing_pictures_say_why_in_their_place(study: dict[str, Any], photos: Path) -> None:
    for path in photos.rglob("*.png"):
        path.write_bytes(b"gone bad")
    summary = summarize(**study)
    page = Page(render_html(summary))
    assert summary["images"] == {}
    assert not page.all("img")
    (why,) = {reason for name, reason in summary["missing"].items() if not name.startswith("gone:")}
    assert page.text.count(why) >= 24


def test_missing_sources_say_why_in_their_place(tmp_path: Path) -> None:
    report = shift_report([pool_score("a", 5.0, rank=1, source=str(tmp_path / "gone"))])
    text = Page(render_html(summarize(shift=report))).text
    assert "No pictures: No folder or file at" in text
    assert "No pictures: these are vectors" in text  # the target of this report has no source


def test_figures_without_a_value_give_their_reason() -> None:
    none = Estimate(value=None, reason="too few images")
    metrics = dict.fromkeys(("frechet", "coverage", "copies", "frechet_full"), none)
    pool = PoolScore(name="tiny", rank=1, verdict="unclear", n=3, index=none, metrics=metrics)
    arm = arm_score("run", 0.5, label_equivalents=Estimate(value=None, reason="more than 469"))
    target = {"gray_share": None, "sizes": {"width": None, "height": None}, "classes": None, "effective_rank": None}
    summary = summarize(shift=shift_report([pool], **target), evaluation=eval_report([*frozen_scores(), arm]))
    text = Page(render_html(summary)).text
    assert text.count("n/a too few images") == 5  # index, distance, coverage, copies, full FD
    assert "more than 469" in text
    assert "n/a: the target has no labels." in text
    assert "None" not in text.replace("None in this report", "")


@pytest.mark.parametrize(
    ("labels", "cost", "told"),
    [
        (Estimate(value=43, low=30, high=61, n=(469, 90)), Estimate(value=21.5), "21.5"),
        (
            Estimate(value=None, reason="more than 469"),
            Estimate(value=None, reason="more than 234.5"),
            "more than 234.5",
        ),
    ],
)
def test_page_and_verdict_tell_one_price_of_the_labels(labels: Estimate, cost: Estimate, told: str) -> None:
    arm = arm_score("run", 0.7, gain=(-0.1, 0.04), label_equivalents=labels, label_cost=cost)
    scores = [*frozen_scores(), arm, replace(arm, arm="unpriced", label_cost=None)]
    report = eval_report(scores)
    text = Page(render_html(summarize(evaluation=report, thumbnails=False))).text
    assert text.count(f" cost {told} ") == 1
    assert text.count(" cost ") == 1
    assert verdict(report, "run", "emoji").endswith(f"which cost {told}.")


@pytest.mark.parametrize("part", ["shift", "selections", "comparisons", "runs", "evaluation", ""])
def test_every_part_stands_alone(study: dict[str, Any], part: str) -> None:
    summary = summarize(**({part: study[part]} if part else {}))
    Page(render_html(summary))
    assert render_markdown(summary).startswith("# Curation report\n\n")


def test_many_classes_are_summed_up_largest_first() -> None:
    classes = {f"c{i:02d}": i for i in range(1, 16)}
    text = Page(render_html(summarize(shift=shift_report([], classes=classes)))).text
    assert "c15 15 c14 14" in text
    assert "c04 4" in text
    assert "and 3 more classes, with 6 images in all" in text


def test_a_profile_without_pools_shows_the_target(photos: Path) -> None:
    page = Page(render_html(summarize(shift=shift_report([], source=str(photos)))))
    assert [attributes["id"] for attributes in page.all("section")] == ["target", "notes"]
    assert len(page.all("img")) == 8


def test_same_input_same_bytes(study: dict[str, Any]) -> None:
    assert render_html(summarize(**study)) == render_html(summarize(**study))


def test_a_large_study_stays_under_the_cap(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.reporting.thumbnails.Album.develop.__defaults__", (20_000,), raising=True)
    pools = [pool_score(f"p{i}", i / 3, rank=i + 1, source=str(photos)) for i in range(60)]
    summary = summarize(shift=shift_report(pools, source=str(photos)))
    page = Page(render_html(summary))
    assert sum(len(str(image["src"])) for image in page.all("img")) <= 20_000
    assert "left out: the report would grow too large" in page.text
