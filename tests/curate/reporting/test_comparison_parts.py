"""What is said of methods that are held against a random draw with the same own images of the target."""

from dataclasses import replace

from html_page import Page
from report_examples import comparison_of, contender, reading

from curate.comparison import Comparison, Contender
from curate.reporting import render_html, render_markdown, summarize
from curate.reporting.text import comparison_lines, comparison_table

MINUS = "\N{MINUS SIGN}"


def matched(*, alone: bool = False, mixed: bool = False) -> Comparison:
    """near-first took 70 own images; random with the same 70 reads 9.5. ``mixed``: uniform took none."""
    counts = {"target": 100} if alone else {"target": 70, "web": 30}
    made = comparison_of()
    near, blind, even, _ = made.contenders
    control = contender("random", {"lite0": reading(9.5), "color-texture": reading(9.2)}, counts=counts, diversity=None)
    near = replace(near, counts=counts, control=control)
    if alone:
        readings = {name: replace(read, against_random=None) for name, read in near.readings.items()}
        near = replace(near, readings=readings, control=Contender(method="random", reason="only own images."))
    else:
        readings = {**near.readings, "lite0": reading(8.0, (-2.0, -1.0))}
        near = replace(near, readings=readings)
    return replace(made, contenders=(near, blind, even) if mixed else (near, blind))


def test_a_gain_is_told_with_the_own_images_that_both_hold() -> None:
    made = matched()
    summary = summarize(comparisons={"near": made})
    sentence = (
        "With the same 70 own images on both sides, near-first is nearer than random (index 8.0 against 9.5, settled); "
        f"under judge color-texture: not settled against random (index 9.0 against 9.2; the difference is {MINUS}4.0 "
        "to +1.0)."
    )
    assert comparison_lines(made)[0] == sentence
    page, markdown = Page(render_html(summary)).text, render_markdown(summary)
    assert sentence in page
    assert sentence in markdown
    assert f"{MINUS}1.5 {MINUS}2.0 to {MINUS}1.0 against 9.5 with the same own images" in page
    assert "random for reference" in page
    assert (
        f"| near-first | 100 | 8.0 (6.0 to 10.0) | 9.0 (7.0 to 11.0) | {MINUS}1.5 ({MINUS}2.0 to {MINUS}1.0) |"
        in markdown
    )
    assert "| for reference |" in markdown
    head = "On target images that no method saw, near-first is nearer than a random draw with the same own images"
    assert any(head in text for text in summary["headline"])


def test_the_terminal_shows_the_control_below_its_method() -> None:
    rows = comparison_table(matched(mixed=True)).rows
    assert [row[0] for row in rows] == [
        "near-first *",
        "  color-texture",
        "  random, same own images",
        "random",
        "  color-texture",
        "uniform",
        "  color-texture",
    ]
    assert rows[0][3] == f"{MINUS}1.5 ±0.5, nearer"
    assert rows[2][1:4] == ["100", "9.5 ±2.0", "the control"]
    assert rows[3][3] == "the control"  # of uniform, which took no own image
    assert comparison_table(matched()).rows[3][3] == "for reference"


def test_controls_of_both_kinds_are_told_apart() -> None:
    head = summarize(comparisons={"near": matched(mixed=True)})["headline"]
    assert any(
        "uniform is not to be told from a random draw and near-first is nearer than a random draw with the same own "
        "images" in text
        for text in head
    )


def test_own_images_alone_claim_no_gain() -> None:
    made = matched(alone=True)
    summary = summarize(comparisons={"near": made})
    assert made.words == ("near-first is not compared with random: only own images.",)
    assert comparison_table(made).rows[0][0::3] == ["near-first", "own images alone"]
    assert made.best("lite0") is None
    page, markdown = Page(render_html(summary)).text, render_markdown(summary)
    assert "near-first own images alone" in page
    assert "| own images alone |" in markdown
    assert not any("random draw" in text for text in summary["headline"])


def test_one_own_image_is_told_of_as_one() -> None:
    made = matched()
    near = replace(made.contenders[0], counts={"target": 1, "web": 99})
    words = replace(made, contenders=(near, *made.contenders[1:])).words
    assert words[0].startswith("With the same 1 own image on both sides, ")
