"""Further examinations as tables on the terminal, the page and in Markdown."""

from __future__ import annotations

from dataclasses import replace

from report_examples import arm_score, eval_report, frozen_scores

from curate.eval_report import Finding
from curate.reporting import summarize
from curate.reporting.examined import examinations, gain, half_width, reading, text_rows
from curate.reporting.html import render_html
from curate.reporting.markdown import render_markdown
from curate.reporting.text import examination_tables
from curate.results import Estimate


def finding(condition="5%", value=0.7, *, metric="linear", detail=False, paired=None, **facts):
    estimate = Estimate(value=value, low=None if value is None else value - 0.02, high=value and value + 0.02, **facts)
    against = None if paired is None else Estimate(value=paired, low=paired - 0.01, high=paired + 0.01)
    return Finding(
        about="labels", condition=condition, metric=metric, estimate=estimate, against_frozen=against, detail=detail
    )


def report_of(**findings):
    """The frozen encoder and one run, each with its findings."""
    frozen, untrained = frozen_scores()
    run = arm_score("near", 0.7, labeled="emoji")
    frozen = replace(frozen, findings=tuple(findings.get("frozen", ())))
    return eval_report([frozen, untrained, replace(run, findings=tuple(findings.get("run", ())))])


def only(report):
    (labeled,) = summarize(evaluation=report, thumbnails=False)["evaluation"]["labeled"]
    (found,) = examinations(labeled)
    return found


def test_conditions_are_rows_and_arms_with_findings_are_columns():
    found = only(report_of(frozen=[finding(), finding("1%", 0.5)], run=[finding("1%", 0.6, paired=0.1)]))
    assert (found.title, found.arms) == ("Few labels", ["frozen:lite0", "near"])
    assert text_rows(found) == (
        ["", "frozen:lite0", "near"],
        [["5% linear", "0.700 ±0.020", "n/a"], ["1% linear", "0.500 ±0.020", "0.600 ±0.020"]],
    )
    assert gain(found.rows[1].findings[1]) == "+0.100 (+0.090 to +0.110)"
    assert (gain(found.rows[1].findings[0]), gain(None), reading(None)) == ("", "", "n/a")


def test_details_are_left_to_the_page():
    report = report_of(frozen=[finding("mean"), finding("fog 3", 0.123, detail=True)])
    (table,) = examination_tables(report)
    assert [row[0] for row in table.rows] == ["mean linear"]
    page = render_html(summarize(evaluation=report, thumbnails=False))
    assert "fog 3" in page
    assert "0.123" in page
    assert "1 further figure<" in page
    assert "fog 3" not in render_markdown(summarize(evaluation=report, thumbnails=False))


def test_a_reason_is_told_where_there_is_no_figure():
    report = report_of(frozen=[finding("worst group", None, reason="no <group> has 20 images")])
    (table,) = examination_tables(report)
    assert table.rows == [["worst group linear", "n/a"]]
    assert table.below[0] == "n/a: no <group> has 20 images"
    page = render_html(summarize(evaluation=report, thumbnails=False))
    assert "no &lt;group&gt; has 20 images" in page


def test_a_lopsided_interval_is_told_in_full():
    whole = finding(value=1.0)
    whole = replace(whole, estimate=replace(whole.estimate, low=0.914, high=1.0))
    assert reading(whole.to_json()) == "1.000 (0.914 to 1.000)"
    assert half_width(whole.to_json()["estimate"]) == "1.000 ±0.086"  # the wider side, on a terminal
    assert half_width(finding().to_json()["estimate"]) == "0.700 ±0.020"


def test_without_examinations_nothing_is_said():
    report = report_of()
    assert examination_tables(report) == []
    assert "<h4>" not in render_html(summarize(evaluation=report, thumbnails=False))
