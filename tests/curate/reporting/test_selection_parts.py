"""What a report says of selections and of methods compared."""

# ruff: noqa: RUF001 - the report prints real minus signs

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from html_page import Page
from report_examples import comparison_of, selection_of

from curate import terminal
from curate.comparison import Comparison, Judge
from curate.reporting import render_html, render_markdown, summarize
from curate.reporting.figures import comparison_chart, supply_chart
from curate.reporting.selections import own_words, share_rows, share_words, wishes
from curate.reporting.text import comparison_lines, comparison_table
from curate.results import LEFT_OUT, Selection

EVIL = "<script>alert('x')</script>\"&'"


def point(value: float | None, width: float | None = 2.0) -> dict[str, Any]:
    ends = {"low": None, "high": None} if None in (value, width) else {"low": value - width, "high": value + width}
    return {"value": value, "se": None, "n": [1, 2], "unit": "squared embedding units", **ends}


SUPPLY = {
    "n": [100, 200, 300, 400],
    "distance": [point(10.0), point(11.0), point(30.0), point(60.0)],
    "knee": {"n": 250, "low": 220, "high": 500, "reason": "the windows turn far"},
    "words": ["Near images run out at about 250."],
    "curve": {"first": 25, "own": 25, "points": [], "target_images": 60},
}


def priced() -> Selection:
    """30 images, the last ten of them far, with limits, terms and a supply curve."""
    rows = [("web" if i < 20 else "open", f"k{i:02d}", f"k{i:02d}.png") for i in range(30)]
    facts = {
        "spent": {
            "images": {"most": 50, "used": 30.0, "binding": False},
            "money": {"most": 32.5, "used": 30.0, "binding": True},
        },
        "terms": {"web": {"price": "0.02", "license": "cc-by", "cap": 500}, "open": {"floor": 5, "of": 100_000}},
        "weights": {"defect": 10.0},
        "limits": {"images": 50, "money": 32.5, "max_per_label": 8, "licenses": ["cc-by", "cc0"], "far": 0.33},
        "supply": SUPPLY,
    }
    selection = selection_of(rows, {"web": "", "open": ""}, budget=50, **facts)
    codes = pa.array(["near-first"] * 20 + ["far"] * 10)
    column = selection.table.schema.get_field_index("code")
    return replace(selection, table=selection.table.set_column(column, "code", codes))


def left_out_of(rows: list[tuple[str, str, str, str]]) -> pa.Table:
    names = ("source", "key", "code", "because_of")
    return pa.Table.from_pylist(
        [dict(zip(names, row, strict=True), reason=f"{row[2]} {row[3]}") for row in rows], schema=LEFT_OUT
    )


def test_limits_terms_parts_and_costs_are_told() -> None:
    summary = summarize(selections={"s": priced()}, thumbnails=False)
    (part,) = summary["selections"]
    assert part["parts"] == {"near": 20, "far": 10}
    assert part["by_source"] == [
        {"name": "web", "n": 20, "cost": 20.0, "far": 0},
        {"name": "open", "n": 10, "cost": 10.0, "far": 10},
    ]
    text = Page(render_html(summary)).text
    for expected in (
        "The far part is 10 images (33%).",
        "web: price 0.02, license cc-by, at most 500",
        "open: a sample of 100,000, at least 5",
        "target images that count more or less: defect 10 times",
        "at most 8 of a label",
        "licenses allowed: cc-by, cc0",
        "money 32.5 30 yes",
        "images 50 30 no",
        "web 20 0 20 1",
        "all 30 10 30 1",
        "near images run out at about 250",
        "Near images run out at about 250.",
    ):
        assert expected in text, expected
    markdown = render_markdown(summary)
    assert "money: 30 of 32.5 used" in markdown
    assert "cost: web 20, open 10" in markdown
    assert "Near images run out at about 250." in markdown


def test_a_source_that_gives_nothing_is_said_to() -> None:
    assert wishes({"terms": {"target": {"cap": 0}, "web": {"cap": 5, "floor": 2}}}) == [
        "target: none",
        "web: at most 5, at least 2",
    ]


def test_an_older_selection_without_these_facts_is_told_too() -> None:
    summary = summarize(selections={"s": selection_of([("web", "a", "a")], {"web": ""})}, thumbnails=False)
    text = Page(render_html(summary)).text
    assert "Allowed" not in text
    assert "How far the near images last" not in text
    assert "The budget was met." in text


def test_what_was_left_out_is_counted_by_code() -> None:
    rows = [("web", "a", "near-duplicate", "web/x"), ("open", "b", "near-duplicate", "web/x"), ("web", "c", "odd", "")]
    selection = replace(priced(), left_out=left_out_of(rows))
    found = summarize(selections={"s": selection}, thumbnails=False)["selections"][0]["left_out"]
    assert found == [
        {"code": "near-duplicate", "reason": "near duplicates", "n": 2, "sources": {"open": 1, "web": 1}},
        {"code": "odd", "reason": "odd", "n": 1, "sources": {"web": 1}},
    ]


def test_rejected_images_stand_beside_what_they_were_left_out_for(photos: Path) -> None:
    keys = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    rows = [("web", key, "duplicate", f"web/{keys[0]}") for key in keys[1:21]]
    rows += [("web", keys[30], "near-duplicate", f"a/b/{keys[31]}"), ("web", keys[32], "excluded", f"web/{keys[33]}")]
    selection = replace(selection_of([("web", keys[0], keys[0])], {}), left_out=left_out_of(rows))
    selection = replace(selection, sources={"web": str(photos), "a": "nowhere", "a/b": str(photos)})
    summary = summarize(selections={"s": selection})
    found = summary["selections"][0]["rejected"]
    assert len(found) == 12
    assert [p["code"] for p in found[:4]] == ["duplicate", "near-duplicate", "excluded", "duplicate"]
    assert all(p["image"] in summary["images"] for p in found)
    assert all(p["other"] in summary["images"] for p in found if p["code"] != "excluded")
    assert found[2]["other"] == ""  # an image of an excluded source, whose name may be that of a pool
    page = Page(render_html(summary))
    assert len([a for a in page.all("figure") if a.get("class") == "pair"]) == 12
    assert f"web/{keys[33]}" in page.text
    assert summarize(selections={"s": selection}) == summary


def test_rejected_images_that_cannot_be_shown_are_named(tmp_path: Path) -> None:
    rows = [("web", "a.png", "duplicate", "web/b.png"), ("web", "c.png", "license", "")]
    selection = selection_of([("web", "a", "a")], {"web": str(tmp_path / "gone")})
    text = Page(render_html(summarize(selections={"s": replace(selection, left_out=left_out_of(rows))}))).text
    assert "a.png" in text
    assert "web/b.png" in text
    assert "no image" in text


SHARES: dict[str, Any] = {
    "column": "label",
    "images": 300,
    "without": 1,
    "rows": [
        {"group": "food", "target": 0.4, "pools": 0.2, "selection": 0.3},
        {"group": EVIL, "target": 0.1, "pools": 0.5, "selection": 0.4},
    ],
    "rest": {"groups": 12, "target": 0.5, "pools": 0.2, "selection": 0.25},
    "foreign": {"groups": 1, "target": 0.0, "pools": 0.1, "selection": 0.05},
    "apart": 0.35,
    "pools_apart": 0.5,
    "chance": 0.043,
    "weights": {"food": 1.6, "a b": 0.25},
    "heeded": True,
    "cap": 120,
}


def test_shares_of_labels_stand_beside_those_of_the_target() -> None:
    summary = summarize(
        selections={"s": selection_of([("web", "a", "a")], {"web": ""}, shares=SHARES)}, thumbnails=False
    )
    html = render_html(summary)
    assert "<script" not in html
    text, markdown = Page(html).text, render_markdown(summary)
    for expected in (
        "Label Target Pools Selection Off by, points food 40.0% 20.0% 30.0% −10.0",
        f"{EVIL} 10.0% 50.0% 40.0% +30.0",
        "12 more labels 50.0% 20.0% 25.0% −25.0 1 label that the target lacks 0.0% 10.0% 5.0% +5.0",
        "35.0% of the selection would have to be of other labels",
        "for it to be like the target, 50.0% of what the pools hold; by chance a selection like",
        "would be 4.3% apart. 1 chosen image has no label and is not counted.",
        "--weight food=1.6 --weight 'a b=0.25' or max-per-label=120 in the budget.",
    ):
        assert expected in text, expected
    assert "| food | 40.0% | 20.0% | 30.0% | −10.0 |" in markdown
    assert "35.0% of the selection" in markdown
    assert "<script" not in markdown.replace("\\<", "")


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"cap": None}, "To bring it nearer: --weight food=1.6 --weight 'a b=0.25'. Look"),
        ({"cap": None, "heeded": False}, "--weight 'a b=0.25' with a method that heeds weights. Look"),
        ({"weights": {}, "column": "group"}, "To bring it nearer: max-per-group=120 in the budget. Look"),
        ({"weights": {}, "cap": None}, ""),
    ],
)
def test_ways_to_the_shares_of_the_target(facts: dict[str, Any], said: str) -> None:
    words = " ".join(share_words({**SHARES, **facts}))
    assert said in words
    assert ("To bring it nearer" in words) == bool(said)


def test_a_long_name_of_a_label_is_shortened_where_it_is_shown() -> None:
    (row, *_) = share_rows({**SHARES, "rows": [{**SHARES["rows"][0], "group": "a" * 200 + "z"}]})
    assert (len(row["group"]), row["group"][-1]) == (60, "z")


def test_shares_are_not_told_of_rows_that_were_cut_off() -> None:
    whole = selection_of([("web", "a", "a")], {"web": ""}, shares=SHARES, weights={"food": 2.0})
    for selection, is_told in ((whole, True), (whole.truncate(1), False), (whole.at_least(0.5), False)):
        html = render_html(summarize(selections={"s": selection}, thumbnails=False))
        assert ("Shares by label" in html, "Target, as weighted" in html) == (is_told, is_told)


def test_a_supply_curve_is_drawn_with_its_knee() -> None:
    chart = supply_chart(SUPPLY)
    assert chart is not None
    assert chart["points"].split()[0] == "20,87.5"  # 100 images between 25 and 400, 10 of 80
    assert chart["x"].ticks == (25, 100, 200, 300, 400)  # it begins where the pools do, not at zero
    assert (chart["begins"], chart["own"], chart["own_first"]) == (100, 25, True)
    assert len(chart["band"].split()) == 8
    assert chart["knee"] == {"at": 60.0, "start": 52.0, "width": 48.0, "n": 250}  # ends at the figure's edge


@pytest.mark.parametrize(
    "supply",
    [None, {}, {"n": [1], "distance": [point(1.0)]}, {"n": [1, 2], "distance": [point(None), point(3.0)]}, {"n": None}],
)
def test_no_curve_without_two_points(supply: dict[str, Any] | None) -> None:
    assert supply_chart(supply) is None


def test_a_curve_without_intervals_or_knee() -> None:
    chart = supply_chart({"n": [1, 2, 3], "distance": [point(1.0, None), point(None), point(2.0, None)], "knee": None})
    assert chart is not None
    assert (chart["band"], chart["knee"], len(chart["points"].split())) == ("", None, 2)


def test_methods_are_told_side_by_side() -> None:
    summary = summarize(comparisons={"near": comparison_of()})
    text = Page(render_html(summary)).text
    for expected in (
        "61 target images to select for, 60 to judge.",
        "near-first nearer 100 8.0 6.0 to 10.0 9.0 7.0 to 11.0 not settled −12.0 −15.0 to −9.0",
        "uniform not settled 100 22.0",
        "random the control",
        "Coverage its null",
        "near-first is nearer than random (index 8.0 against 20.0, settled); under judge color-texture: not settled",
        "broken chose nothing on half the target: no labels here.",
        "untrained network could not judge: the images are gone.",
        "web 60%, open 40%",
        "stopped: the pools are used up",
        "near-first web 60%, open 40% 34.0 31.0 to 37.0 12 1",  # 12 points for 12
        "among 90 of each",
    ):
        assert expected in text, expected
    sentence = "On target images that no method saw, near-first is nearer than and uniform is not to be told from"
    assert sentence in summary["headline"][2]
    assert "near-first not so under color-texture" in summary["headline"][2]
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_only_a_settled_best_stands_out() -> None:
    html = render_html(summarize(comparisons={"near": comparison_of()}))
    (best,) = re.findall(r'<tr class="best">.*?</tr>', html, flags=re.DOTALL)
    assert "near-first" in best
    tied = comparison_of()
    first = tied.contenders[0]
    readings = {**first.readings, "lite0": replace(first.readings["lite0"], tied_with=("uniform",))}
    tied = replace(tied, contenders=(replace(first, readings=readings), *tied.contenders[1:]))
    assert '<tr class="best">' not in render_html(summarize(comparisons={"near": tied}))


def test_a_comparison_that_could_not_be_made_says_why() -> None:
    none = Comparison(encoder="lite0", seen=0, judging=0, reason="The target splits into 9 and 8.")
    summary = summarize(comparisons={"near": none})
    assert "The methods could not be compared: The target splits into 9 and 8." in Page(render_html(summary)).text
    assert "could not be compared" in render_markdown(summary)
    assert comparison_table(none).rows == []


def test_markdown_and_terminal_tell_the_same() -> None:
    markdown = render_markdown(summarize(comparisons={"near": comparison_of()}))
    assert "| near-first | 100 | 8.0 (6.0 to 10.0) | 9.0 (7.0 to 11.0) | −12.0 (−15.0 to −9.0) |" in markdown
    table = comparison_table(comparison_of())
    assert table.title.endswith("nearest by lite0 first; *: settled")
    assert table.rows[0] == ["near-first *", "100", "8.0 ±2.0", "−12.0 ±3.0, nearer", "80% (97%)"]
    assert table.rows[1] == ["  color-texture", "", "9.0 ±2.0", "−1.5 ±2.5, not settled", "80% (97%)"]
    assert table.rows[2][3] == "the control"
    assert any("untrained network could not judge" in line for line in comparison_lines(comparison_of()))


def test_the_table_of_methods_fits_100_columns(capsys: pytest.CaptureFixture[str]) -> None:
    made, judge = comparison_of(), "timm:vit_base_patch14_reg4_dinov2.lvd142m"
    contenders = [
        replace(c, method="cluster-balanced", n=500_000, readings={"lite0": c.readings["lite0"], judge: reading})
        for c in made.contenders
        if (reading := c.readings.get("color-texture"))
    ]
    made = replace(made, contenders=tuple(contenders), judges=(Judge(name=judge),))
    terminal.print_rows(comparison_table(made))
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 100
    assert any("timm:vit_base_pa…g4_dinov2.lvd142m" in line for line in lines)


def test_the_untrained_network_is_never_called_as_the_method_is() -> None:
    made = comparison_of()
    contenders = tuple(
        replace(c, readings={("random" if name == "color-texture" else name): r for name, r in c.readings.items()})
        for c in made.contenders
    )
    summary = summarize(comparisons={"near": replace(made, contenders=contenders, judges=(Judge(name="random"),))})
    page, markdown = Page(render_html(summary)).text, render_markdown(summary)
    for text in (page, markdown):
        assert "index by untrained network" in text.lower() or "index by judge untrained network" in text.lower()
        assert "under the untrained network: not settled against random" in text
    assert "near-first not so under untrained network" in summary["headline"][2]


def test_a_selection_comes_first_in_its_own_report_and_a_study_begins_with_its_score(
    demo_shift: Any, study: dict[str, Any]
) -> None:
    alone = {"shift": demo_shift, "selections": study["selections"], "thumbnails": False}
    for given, parts in ((alone, ["selections", "pools"]), ({**alone, "runs": study["runs"]}, ["pools", "selections"])):
        summary = summarize(**given)
        html, markdown = render_html(summary), render_markdown(summary)
        assert sorted(parts, key=lambda part: html.index(f'<section id="{part}">')) == parts
        assert sorted(parts, key=lambda part: html.index(f'<a href="#{part}">')) == parts
        assert sorted(parts, key=lambda part: markdown.index(f"## {part.capitalize()}")) == parts


def test_the_supply_figure_names_its_axes() -> None:
    selection = selection_of([("web", "a", "a")], {"web": ""}, supply=SUPPLY)
    html = render_html(summarize(selections={"near": selection}, thumbnails=False))
    name = "distance to the target of the pool images taken so far, squared embedding units"
    assert f'<div class="yname">{name}</div>' in html
    assert '<div class="xname">images taken' in html


def test_an_older_selection_has_no_unit_to_name() -> None:
    older = {**SUPPLY, "distance": [{**found, "unit": ""} for found in SUPPLY["distance"]]}
    selection = selection_of([("web", "a", "a")], {"web": ""}, supply=older)
    html = render_html(summarize(selections={"near": selection}, thumbnails=False))
    assert '<div class="yname">distance to the target of the pool images taken so far</div>' in html


def test_figures_of_the_index_name_their_axis(demo_shift: Any) -> None:
    html = render_html(summarize(shift=demo_shift, comparisons={"near": comparison_of()}, thumbnails=False))
    assert re.findall(r'<div class="axis-name">(.*?)</div>', html) == [
        "Index, lower is nearer",
        "Index of what was chosen, lower is nearer",
    ]


def coded(codes: str) -> Selection:
    """A selection by near-first: o own image, t and n near, of the target and of a near pool, x and y of others."""
    kinds = {"o": ("target", "own-image"), "t": ("target", "near"), "n": ("web", "near")}
    kinds |= {"x": ("open", "next"), "y": ("old", "next"), "f": ("open", "far")}
    selection = selection_of([(kinds[code][0], f"k{i}", "") for i, code in enumerate(codes)], {"web": ""})
    column = pa.array([kinds[code][1] for code in codes])
    return replace(
        selection, table=selection.table.set_column(selection.table.schema.names.index("code"), "code", column)
    )


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        ("oonnxxx", ""),  # only after the near ones
        ("ooxxtt", ""),  # the target's own are of no pool
        ("oonfn", ""),  # drawn for the far part
        ("xxx", ""),
        (
            "onxnyx",
            "1 image of pools that are not near (open 1) was taken before images of near pools, being much nearer to "
            "the target one by one (code next).",
        ),
        (
            "oxnyxnxnx",
            "4 images of pools that are not near (open 3, old 1) were taken before images of near pools, being much "
            "nearer to the target one by one (code next).",
        ),
    ],
)
def test_what_is_taken_before_the_near_pools_is_told(codes: str, said: str) -> None:
    summary = summarize(selections={"s": coded(codes)}, thumbnails=False)
    text, markdown = Page(render_html(summary)).text, render_markdown(summary)
    assert summary["selections"][0]["early"] == said
    assert (said in text, said in markdown) == (True, True)
    assert ("not near" in text, "not near" in markdown) == (bool(said), bool(said))


KNEE = {"n": 9, "low": 9, "high": 9, "from_pools": 0}
OWN_FIRST = {"target": 30, "web": 50}


@pytest.mark.parametrize(
    ("own", "web", "facts", "said"),
    [
        (
            *(9, 0, {"candidates": OWN_FIRST, "stopped": {"at": 9, "reason": "Far."}, "supply": {"knee": KNEE}}),
            "All 9 chosen are the target's own training images: no pool adds a near one. Look for pools nearer to the "
            "target (`curate score` tells how far each is), go on into the far ones with --past-knee, or leave the "
            "target's own images out with #cap:0 at the end of the target's address.",
        ),
        (
            *(19, 1, {"candidates": OWN_FIRST, "stopped": {"at": 20, "reason": "Far."}}),
            "19 of the 20 chosen are the target's own training images, the others web 1; the target's own are "
            "candidates like the others. To have others instead, leave them out with #cap:0 at the end of the target's "
            "address.",
        ),
        (
            *(9, 0, {"candidates": OWN_FIRST}),
            "All 9 chosen are the target's own training images; the target's own are candidates like the others. For "
            "more images of the pools raise --budget above 30 images, or leave them out with #cap:0 at the end of the "
            "target's address.",
        ),
        (
            *(1, 0, {"candidates": OWN_FIRST}),
            "The one chosen is the target's own training image; the target's own are candidates like the others. For "
            "more images of the pools raise --budget above 30 images, or leave them out with #cap:0 at the end of the "
            "target's address.",
        ),
        (8, 2, {"candidates": OWN_FIRST}, ""),
        (9, 0, {"candidates": {"target": 9}}, ""),
        (0, 9, {"candidates": OWN_FIRST}, ""),
    ],
)
def test_a_selection_of_hardly_more_than_the_targets_own_says_so(
    own: int, web: int, facts: dict[str, Any], said: str
) -> None:
    rows = [("target", f"t{i}", "") for i in range(own)] + [("web", f"w{i}", "") for i in range(web)]
    chosen = selection_of(rows, {"web": ""}, **{"stopped": None, "supply": None, **facts})
    assert own_words(chosen) == said
    if said and not facts.get("supply"):
        summary = summarize(selections={"s": chosen}, thumbnails=False)
        assert said in Page(render_html(summary)).text
        assert said.partition(" #")[0] in render_markdown(summary).replace("\\", "")


def test_why_it_stopped_is_told_once() -> None:
    words = SUPPLY["words"][0]
    stopped = {"stopped": {"at": 250, "reason": words}, "supply": SUPPLY}
    summary = summarize(selections={"s": selection_of([("web", "a", "a")], {"web": ""}, **stopped)}, thumbnails=False)
    assert Page(render_html(summary)).text.count(words) == 1
    assert render_markdown(summary).count(words) == 1


def test_names_are_escaped_here_too() -> None:
    comparison = comparison_of(names=(EVIL, "x"), notes=(EVIL,))
    rows = [("web", EVIL, "duplicate", f"web/{EVIL}"), ("web", "b", EVIL, "")]
    facts = {
        "terms": {EVIL: {"price": EVIL}},
        "weights": {EVIL: 2},
        "spent": {EVIL: {"most": 1, "used": 1, "binding": True}},
    }
    facts["supply"] = {**SUPPLY, "words": [EVIL]}
    selection = replace(selection_of([("web", "a", "a")], {"web": ""}, **facts), left_out=left_out_of(rows))
    summary = summarize(selections={EVIL: selection}, comparisons={EVIL: comparison})
    html = render_html(summary)
    assert "<script" not in html
    assert EVIL in Page(html).text
    assert "<script" not in render_markdown(summary).replace("\\<", "")


def test_the_chart_needs_every_encoder() -> None:
    document = summarize(comparisons={"near": comparison_of()})["comparisons"][0]
    chart = comparison_chart(document)
    assert chart is not None
    assert [row["contender"]["method"] for row in chart["rows"]] == ["near-first", "random", "uniform"]
    assert [[mark["encoder"] for mark in row["marks"]] for row in chart["rows"]] == [["lite0", "color-texture"]] * 3
    assert comparison_chart({**document, "contenders": []}) is None
