"""Further examinations as tables on the terminal, the page and in Markdown."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from report_examples import arm_score, eval_report, frozen_scores

from curate.eval_report import Finding
from curate.evaluation._intervals import NO_INTERVAL
from curate.reporting import summarize
from curate.reporting.closing import below
from curate.reporting.examined import examinations, gain, text_rows, with_half_width, writer
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
    assert (gain(found.rows[1].findings[0]), gain(None), writer([])(None)) == ("", "", "n/a")


def test_on_a_terminal_a_condition_is_told_once():
    told = [finding(), finding(metric="average_precision"), finding("1%")]
    assert [row[0] for row in text_rows(only(report_of(frozen=told)), grouped=True)[1]] == [
        "5% linear",
        "  avg. precision",
        "1% linear",
    ]


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
    assert (table.header, table.rows) == ([""], [])  # a line of n/a says nothing
    assert table.below == ("Not measured: no <group> has 20 images.",)
    summary = summarize(evaluation=report, thumbnails=False)
    for page in (render_html(summary), render_markdown(summary)):
        assert page.count("&lt;group" if "<html" in page else "<group") == 1


def test_rows_without_any_figure_are_summed_up_by_their_reason():
    names = [f"class {i}" for i in range(6)]
    none = [finding(name, None, metric=m, reason="no image") for name in names for m in ("auroc", "recall")]
    found = only(report_of(frozen=[finding(), *none, finding("5%", None, metric="recall", reason="no image")]))
    assert [row.name for row in found.summary] == ["5% linear"]
    assert below(found)[0] == "n/a for class 0, class 1, class 2 and 4 more: no image"


def of_interval(value, low, high):
    return Estimate(value=value, low=low, high=high).to_json()


def test_one_lopsided_interval_has_a_whole_table_told_in_full():
    even, lopsided = of_interval(0.7, 0.68, 0.72), of_interval(1.0, 0.914, 1.0)
    assert writer([even])(even) == with_half_width(even) == "0.700 ±0.020"
    assert writer([even, None, lopsided])(even) == "0.700 (0.680 to 0.720)"
    assert writer([even, lopsided])(lopsided) == "1.000 (0.914 to 1.000)"


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3).map(sorted))
def test_no_share_is_said_to_reach_beyond_0_or_1(ends):
    figure = of_interval(ends[1], ends[0], ends[2])
    value, _, half = writer([figure])(figure).partition(" ±")
    if half:
        assert float(value) - float(half) > -1e-9
        assert float(value) + float(half) < 1 + 1e-9


def test_conditions_with_too_few_images_are_counted_and_left_to_the_page():
    few = Estimate(value=1.0, unit="AUROC", method=f"{NO_INTERVAL}: the test images are of 2 units")
    of_class = Finding(about="rare", condition="dent", metric="auroc", estimate=few, detail=True)
    shown = replace(finding("good", metric="auroc"), about="rare")
    report = report_of(
        frozen=[shown, of_class, replace(of_class, metric="recall"), replace(shown, condition="b", detail=True)]
    )
    (table,) = examination_tables(report)
    assert [row[0] for row in table.rows] == ["good AUROC"]
    told = "Left to report.html, which --out writes: 1 class with fewer than 5 test units and 1 further figure."
    assert table.below[0] == told
    page = render_html(summarize(evaluation=report, thumbnails=False))
    assert "too few test images for an interval" in page
    assert "Left to" not in page


def test_without_examinations_nothing_is_said():
    report = report_of()
    assert examination_tables(report) == []
    assert "<h4>" not in render_html(summarize(evaluation=report, thumbnails=False))


def test_odd_names_of_classes_take_one_line():
    labels = ["odd\n2", " spaces ", "all but  spaces "]
    found = only(report_of(frozen=[finding(label) for label in labels]))
    assert [row.condition for row in found.rows] == ["odd\\n2", "' spaces '", "all but ' spaces '"]
