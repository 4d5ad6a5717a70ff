from dataclasses import replace
from pathlib import Path

import pytest
from finding_examples import explained_report, unexplained_report
from report_examples import pool_score, shift_report

from curate.reporting import render_html, summarize
from curate.reporting.score_lines import finding_lines
from curate.reporting.text import score_output, unread_lines
from curate.results import ShiftReport


@pytest.fixture
def explained(photos: Path) -> ShiftReport:
    keys = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    return explained_report(keys, str(photos))


def test_everything_that_was_asked_for_is_on_the_terminal(explained: ShiftReport) -> None:
    lines = finding_lines(explained.to_json())
    for start in (
        "Slices: of the target's ",
        "web: A linear classifier ",
        "Variety (Vendi score of ",
        "web: of 10,000",
    ):
        assert any(line.startswith(start) for line in lines), start
    assert any("of target images, " in line for line in lines)
    assert lines[-1].endswith("report.html, which --out writes.")
    assert lines == score_output({"target": explained})[1][-len(lines) :]


def test_slices_that_no_pool_serves_are_named_with_what_is_there(explained: ShiftReport) -> None:
    rows = explained.findings["slices"]["slices"]
    (said,) = [line for line in finding_lines(explained.to_json()) if line.startswith("Slices")]
    for row in rows[:3]:
        assert (row["name"] in said) == (row["verdict"] == "unserved")
    served = {**explained.findings["slices"], "slices": [{**row, "verdict": "served"} for row in rows]}
    document = {**explained.to_json(), "findings": {"slices": served}}
    assert f"of the target's {len(rows)} " in finding_lines(document)[0]
    assert finding_lines(document)[0].endswith("all that can be told are served by some pool.")


def test_reasons_are_told_instead() -> None:
    lines = finding_lines(unexplained_report("web is a file of moments").to_json())
    assert sum("web is a file of moments" in line for line in lines) == len(lines) - 1


def test_nothing_is_said_of_what_was_not_asked_for() -> None:
    assert finding_lines(shift_report([pool_score("web", 8.0, rank=1)]).to_json()) == []


def test_images_that_could_not_be_read_are_counted() -> None:
    torn, whole = pool_score("torn", 9.0, rank=1), pool_score("whole", 12.0, rank=2)
    torn = replace(torn, facts={**torn.facts, "n": 900, "errors": 30})
    report = shift_report([torn, whole], errors=0)
    (told,) = unread_lines(report)
    assert told.startswith("Images that could not be read and count nowhere: 30 of 930 of torn; `curate embed")
    assert told in score_output({"target": report})[1]
    assert "30 not readable" in render_html(summarize(shift=report, thumbnails=False))
    assert unread_lines(shift_report([whole], errors=0)) == []
    assert "2 of 471 of target" in unread_lines(shift_report([torn], errors=2))[0]
