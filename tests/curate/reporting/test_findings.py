"""What explanations look like: which parts, which words, which pictures, on the page and in Markdown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from finding_examples import (
    delivery,
    estimate,
    explained_report,
    factor,
    factors,
    gray_factors,
    judged,
    memorized,
    slices,
    target_slice,
    telling,
    unexplained_report,
)
from html_page import Page
from report_examples import pool_score, shift_report

from curate.attribution._results import Factors, Repair
from curate.reporting import findings as explained
from curate.reporting import headline, render_html, render_markdown, summarize, write_report
from curate.reporting.findings import PARTS, not_needed, steps_tried, telling_words
from curate.reporting.measures import MEASURES, measured
from curate.reporting.sentences import judge_sentence
from curate.results import Estimate, ShiftReport
from curate.scoring.measures import MEASURES as TAKEN
from curate.scoring.repairs import repair_words

EVIL = "<script>alert('x')</script>\"&'|"


@pytest.fixture
def keys(photos: Path) -> list[str]:
    return sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))


@pytest.fixture
def report(keys: list[str], photos: Path) -> ShiftReport:
    return explained_report(keys, str(photos))


def page_of(report: ShiftReport, **settings: Any) -> Page:
    return Page(render_html(summarize(shift=report, **settings)))


def test_every_part_is_there_in_order_and_linked(report: ShiftReport) -> None:
    page = page_of(report)
    assert [a["id"] for a in page.all("section")] == ["pools", *PARTS, "target", "notes"]
    assert {str(a["href"]) for a in page.all("a")} == {f"#{a['id']}" for a in page.all("section")}


def test_there_is_no_part_without_something_to_show() -> None:
    assert explained.parts(None) == {}
    plain = summarize(shift=shift_report([pool_score("a", 5.0, rank=1)]))["shift"]
    assert explained.parts(plain) == {}
    one = summarize(shift=shift_report([pool_score("a", 5.0, rank=1, findings={"delivery": delivery()})]))["shift"]
    assert list(explained.parts(one)) == ["delivery"]
    alone = replace(shift_report([]), findings={"slices": {"reason": "no pool"}})
    assert explained.parts(summarize(shift=alone)["shift"]) == {}


@pytest.mark.parametrize(
    "expected",
    [
        "Convert both to gray: index 31 → 26, 19% of the distance (15 to 23); the rest is content.",
        "26.0 25 to 27",  # the chart's reading
        "a fact; on 118 pool images",
        "Not needed: compression (JPEG quality high in the target, high in the pool).",
        "0 of the pool and 3 of the target could not be used",
        "web null 94%",  # the head of the table of slices
        "Flags 80 images unserved 10% 0 to 20%",
        "A linear classifier tells them apart by images it has not seen: AUC 0.900 (0.850 to 0.950), p = 0.002",
        "cat0 20 6.00 5.00 to 7.00",
        "2 more pull less than these",
        "suspicious 25.0% 20.0 to 31.0% 3.9% 5.6% 1 of 1 42% null 32% 0.0%",
        "0.26; 2 bits of 64 differ",
        "all pools 500 498 475 100.6 36.5 33.5 to 39.5",
        "Turned round: web is nearer than open by lite0, and farther by color-texture",
        "7,180 6,780 to 7,580 of 10,000",
        "25% of the sample seem to be copies of target images; they count as usable here. Ask how many there are.",
        "Offset of the means",
        "0.98 0.97 to 0.99 null 0.50",
        "which orders hang on that",  # the note on the encoder
    ],
)
def test_figures_are_told_in_words(report: ShiftReport, expected: str) -> None:
    assert expected in page_of(report).text


def test_pictures_are_those_the_explanations_name(report: ShiftReport, keys: list[str]) -> None:
    summary = summarize(shift=report)
    assert list(summary["shift"]["shown"]["target"]["pictures"]) == [*keys[:8]]
    assert set(summary["shift"]["shown"]["web"]["pictures"]) == {keys[0], *keys[5:14]}
    page = Page(render_html(summary))
    shown = [str(a["alt"]) for a in page.all("img")]
    assert shown.count(keys[7]) >= 2 + 3 * 2  # of the target and of three rows, of two pools
    assert summary["missing"] == {}


def test_images_that_the_source_no_longer_lists_say_so(report: ShiftReport, photos: Path, keys: list[str]) -> None:
    for key in keys[:3]:
        (photos / key).unlink()
    page = page_of(report)
    assert page.text.count("the source lists no image of this key any more") >= 3
    assert page.all("img")


def test_without_pictures_the_keys_are_named(report: ShiftReport, keys: list[str], tmp_path: Path) -> None:
    bare = page_of(report, thumbnails=False)
    assert not bare.all("img")
    assert bare.text.count(keys[5]) >= 4
    vectors = explained_report(keys, "")
    text = page_of(vectors).text
    assert "No pictures: these are vectors" in text
    assert text.count(keys[5]) >= 4
    assert "No pictures: No folder or file at" in page_of(explained_report(keys, str(tmp_path / "gone"))).text


def test_reasons_stand_where_findings_would(tmp_path: Path) -> None:
    report = unexplained_report("web is a file of moments")
    page = page_of(report)
    assert [a["id"] for a in page.all("section")] == ["pools", *PARTS, "target", "notes"]
    assert page.text.count("web is a file of moments") == 8
    markdown = render_markdown(summarize(shift=report))
    assert markdown.count("web is a file of moments") == 8
    assert "not asked" not in headline(summarize(shift=report))[2]
    assert write_report(tmp_path, summarize(shift=report)).is_file()


def test_hostile_keys_labels_and_reasons_are_escaped(photos: Path) -> None:
    hostile = {
        "factors": gray_factors(fact=EVIL),
        "images": telling([EVIL], [EVIL], label=EVIL),
        "memorized": memorized([(EVIL, EVIL)]),
        "delivery": delivery(EVIL),
    }
    pool = pool_score(EVIL, 5.0, rank=1, source=str(photos), findings=hostile)
    pool = replace(pool, metrics={**pool.metrics, EVIL: Estimate(value=None, reason=EVIL, unit=EVIL, method=EVIL)})
    shift = shift_report([pool], source=str(photos))
    found = {
        "slices": slices(target_slice(EVIL, 0.1, "unserved", [EVIL], [EVIL]), notes=[EVIL]),
        "diversity": {"reason": EVIL},
        "judge": judged(shift, {EVIL: 3.0}),
    }
    for given in (replace(shift, findings=found), unexplained_report(EVIL)):
        summary = summarize(shift=given)
        html = render_html(summary)
        assert "<script" not in html
        assert EVIL in Page(html).text
        markdown = render_markdown(summary)
        assert "<script" not in markdown.replace("\\<", "")
        assert EVIL not in markdown


def test_pools_without_a_figure_keep_their_row(report: ShiftReport) -> None:
    nothing = Estimate(value=None, reason="partner is a file of moments")
    partner = pool_score("partner", 20.0, rank=3)
    metrics = {**partner.metrics, **dict.fromkeys(("coverage", "copies", "frechet_full", "auc"), nothing)}
    findings = {"images": {"reason": "needs vectors"}}
    given = replace(report, pools=(*report.pools, replace(partner, metrics=metrics, findings=findings)))
    text = page_of(given).text
    assert text.count("n/a partner is a file of moments") == 4
    assert "null n/a" not in text
    assert "not in the table: partner." in text
    assert "None" not in text


def test_the_same_bytes_and_a_plain_document(report: ShiftReport, tmp_path: Path) -> None:
    summary = summarize(shift=report)
    assert render_html(summary) == render_html(summarize(shift=report))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    report.save(tmp_path)
    assert render_html(summarize(shift=ShiftReport.open(tmp_path))) == render_html(summary)


def test_markdown_has_the_short_tables(report: ShiftReport) -> None:
    markdown = render_markdown(summarize(shift=report))
    heads = [line for line in markdown.splitlines() if line.startswith("## ")]
    assert heads == ["## Pools", *(f"## {title}" for title in PARTS.values())]
    assert "| web | 31.0 (30.0 to 32.0) | 26.4 (25.4 to 27.4) | Convert both to gray: index 31 → 26" in markdown
    assert "| Flags | 80 | unserved | 10% | 10% | web |" in markdown
    assert "| web | 1 | 2 | 8.0 near | 50.0 far |" in markdown
    assert "| web | 7,180 of 10,000 | 6,780 to 7,580 | 72% | 9,500 | 25% of the sample seem" in markdown
    assert "they count as usable here. Ask how many there are. |" in markdown


def test_the_words_for_a_repair() -> None:
    assert repair_words({"reason": "too few images"}) == "Not measured: too few images"
    content = factors(factor("gray", 33.0, -3.0, step="convert both to gray"))
    assert repair_words(content) == "No step of preprocessing repairs any of the distance: it is content."
    none = Factors(n=(9, 9), left_out=(0, 0), before=estimate(0.5), index=estimate(0.1), content=estimate(0.1))
    assert "nothing to repair" in repair_words(none.to_json())
    both = Repair(
        names=("resolution", "gray"),
        steps=("shrink both", "convert both to gray"),
        after=estimate(1.0),
        repaired=Estimate(value=None, reason="x"),
        explains=True,
    )
    said = repair_words(factors(best=both, content=-0.4))
    assert said == "Shrink both, then convert both to gray: index 31 → 0; that is what the shift is."


def test_steps_are_charted_nearest_first_with_what_they_do() -> None:
    found = gray_factors()
    rows = steps_tried(found)
    assert [(row["title"], row["effect"]) for row in rows] == [
        ("As it is", "ink"),
        ("Convert both to gray", "near"),
        ("Turn the pool by 90 degrees", "muted"),
        ("Pad both to squares", "far"),
    ]
    assert not_needed(found) == [
        {"name": "Compression", "fact": "JPEG quality high in the target, high in the pool", "why": ""}
    ]
    two = {**found, "best": {**found["best"], "names": ["gray", "aspect"]}}
    assert steps_tried(two)[-1]["detail"] == "gray, then aspect"


def test_a_classifier_at_chance_warns_of_its_order() -> None:
    assert "hardly tells them apart" in telling_words(telling([], [], p=0.4))
    assert "p < 0.001" in telling_words(telling([], [], p=0.0001))
    nothing = {"auc": Estimate(value=None, reason="too few").to_json(), "p": 1.0}
    assert telling_words(nothing) == "Not measured: too few."


def test_a_delivery_is_read_with_its_notes_and_its_copies() -> None:
    honest = {"findings": {"delivery": delivery("Ask."), "memorized": memorized()}}
    assert explained.delivery_notes(honest) == ["Ask."]
    copied = {"findings": {"delivery": delivery("Ask."), "memorized": memorized([("a", "b")])}}
    assert len(explained.delivery_notes(copied)) == 2
    unknown = {"findings": {"delivery": delivery("Ask."), "memorized": {"reason": "no images"}}}
    assert explained.delivery_notes(unknown) == ["Ask."]


def test_many_slices_are_summed_up() -> None:
    many = [target_slice(f"s{i:02d}", 0.1, "unserved", ["k"], ["a"]) for i in range(45)]
    pool = pool_score("a", 5.0, rank=1)
    text = page_of(replace(shift_report([pool]), findings={"slices": slices(*many)})).text
    assert "and 5 more slices" in text
    assert "and 33 more unserved slices" in text
    assert "s44" not in text
    assert "All together" not in text  # of one pool it is the pool


def test_how_sure_says_what_a_second_encoder_does(report: ShiftReport) -> None:
    sure = headline(summarize(shift=report, thumbnails=False))[2]
    assert sure.endswith(
        "all distances are lite0's view, and a second encoder, color-texture, turns round 1 settled pair of its order."
    )
    alike = replace(report, findings={"judge": judged(report, {"web": 9.0, "open": 40.0})})
    assert headline(summarize(shift=alike, thumbnails=False))[2].endswith("contradicts no order that is settled.")
    assert judge_sentence({"reason": "no images"}) == "A second encoder was not asked: no images"


def test_every_measure_that_can_be_taken_has_a_readable_name() -> None:
    taken = {figure for measure in TAKEN.values() for figure in measure.figures}
    assert taken <= {*MEASURES, "coverage", "copies", "frechet_full"}
    assert {*MEASURES} <= taken


def test_measures_are_shown_with_sensible_digits() -> None:
    metrics = {
        "to_pool": estimate(1.07, 0.04, null=1.04),
        "mean_gap": Estimate(value=47.61, null=0.0),
        "recall": Estimate(value=0.274, low=0.2, high=0.33),
        "auc_p": Estimate(value=0.00195),
        "new": Estimate(value=2.0, unit="apples", method="counted", lower_is_closer=False),
    }
    pool = replace(pool_score("a", 5.0, rank=1), metrics=metrics)
    rows = {row["title"]: row for row in measured([pool.to_json(), pool_score("b", 6.0, rank=2).to_json()])}
    cells = {title: row["cells"][0] for title, row in rows.items()}
    assert cells["Target to pool"] == {"value": "1.07", "span": "1.03 to 1.11", "null": "1.04", "reason": ""}
    assert cells["Offset of the means"]["null"] == "0"
    assert cells["Recall"] == {"value": "27%", "span": "20 to 33", "null": "", "reason": ""}
    assert cells["p of that classifier"]["value"] == "0.002"
    assert (rows["new"]["unit"], rows["new"]["says"], rows["new"]["direction"]) == (
        "apples",
        "counted",
        "higher is nearer",
    )
    assert rows["Recall"]["cells"][1]["reason"] == "not taken"


def test_pictures_of_explanations_stay_under_the_cap(report: ShiftReport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.reporting.thumbnails.Album.develop.__defaults__", (4_000,), raising=True)
    page = page_of(report)
    assert sum(len(str(image["src"])) for image in page.all("img")) <= 4_000
    assert "left out: the report would grow too large" in page.text
