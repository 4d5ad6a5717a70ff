"""Tables for a terminal: never wider than it, in parts that repeat what each row is about."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from report_examples import arm_score, eval_report, frozen_scores

from curate import terminal
from curate.eval_report import Finding
from curate.reporting.text import TextTable, evaluation_table, even_parts, examination_tables
from curate.results import Estimate


def wide(columns: int, kept: int = 2) -> TextTable:
    header = ["", *(f"arm {i}" for i in range(columns))]
    rows = [[f"condition {r}", *(f"{r}.{i:03} ±0.001" for i in range(columns))] for r in range(2)]
    return TextTable("title", header, rows, ("below",), kept=kept)


@pytest.mark.parametrize("width", [40, 55, 80, 100])
def test_parts_fit_and_together_are_the_table(width: int) -> None:
    table = wide(7)
    parts = table.parts(width)
    for part in parts:
        assert max(len("  ".join(row)) for row in part.rows) <= width
        assert [row[:2] for row in (part.header, *part.rows)] == [row[:2] for row in (table.header, *table.rows)]
    joined = [[*table.rows[r][:2], *(cell for part in parts for cell in part.rows[r][2:])] for r in range(2)]
    assert joined == table.rows
    assert [part.title for part in parts] == ["title", *["(continued)"] * (len(parts) - 1)]
    assert [part.below for part in parts] == [*[()] * (len(parts) - 1), ("below",)]


def test_a_table_that_fits_or_that_may_fold_stays_whole() -> None:
    assert wide(7).parts(200) == [wide(7)]
    assert wide(7, kept=0).parts(40) == [wide(7, kept=0)]
    assert len(wide(3).parts(5)) == 2  # too narrow for anything: a column a part, none lost
    bare = TextTable("nothing found", [""], [], ("why",), kept=2)
    assert bare.parts(5) == [bare]


@pytest.mark.parametrize(
    ("columns", "width", "sizes"),
    [
        (5, 14 * 5 - 1, [3, 2]),  # four would fit beside the name: 4 and 1
        (4, 14 * 4 - 1, [2, 2]),
        (7, 14 * 5, [4, 3]),
        (7, 14 * 4, [3, 2, 2]),
        (3, 14 * 3, [2, 1]),  # nothing more even is to be had
        (5, 14 * 6, [5]),
    ],
)
def test_parts_hold_about_as_many_columns_each(columns: int, width: int, sizes: list[int]) -> None:
    parts = wide(columns, kept=1).parts(width)
    assert [len(part.header) - 1 for part in parts] == sizes


@pytest.mark.parametrize(
    ("widths", "room", "parts"),
    [
        ([], 9, []),
        ([5, 5, 20, 20], 30, [[0, 1, 2], [3]]),  # the two wide ones do not fit together
        ([10, 40, 10], 30, [[0], [1], [2]]),
        ([20, 5, 5, 5], 30, [[0, 1], [2, 3]]),
        ([5, 5, 5, 20, 10], 30, [[0, 1, 2], [3, 4]]),
    ],
)
def test_columns_of_unequal_widths_are_spread_as_evenly_as_they_fit(
    widths: list[int], room: int, parts: list[list[int]]
) -> None:
    assert [list(part) for part in even_parts(widths, room)] == parts


def test_headers_are_broken_where_that_saves_a_part() -> None:
    table = TextTable("arms", ["", "accuracy", "against frozen, points", "beats it"], [["near", "1%", "+1.0", "yes"]])
    table = table._replace(kept=1)
    (part,) = table.parts(30)
    assert part.header == ["", "accuracy", "against\nfrozen,\npoints", "beats\nit"]
    assert table.parts(80) == [table]
    longer = table._replace(rows=[["near", "1%", "+1.0 (+0.2 to +1.8)", "yes"]])
    assert longer.parts(44)[0].header == ["", "accuracy", "against frozen,\npoints", "beats\nit"]
    assert [part.header for part in longer.parts(30)] == [  # three parts in any case
        ["", "accuracy"],
        ["", "against frozen, points"],
        ["", "beats it"],
    ]


def estimate(value: float, low: float, high: float) -> Estimate:
    return Estimate(value=value, low=low, high=high, n=(650, 290), lower_is_closer=False)


def rare(gain: float | None = None) -> tuple[Finding, ...]:
    """Figures as of a class that is always found: their intervals are lopsided."""
    against = None if gain is None else estimate(gain, gain - 0.1, gain + 0.1)
    return tuple(
        Finding(about="rare", condition=name, metric=metric, estimate=estimate(1.0, 0.914, 1.0), against_frozen=against)
        for name in ("Animals & Nature", "all but People & Body")
        for metric in ("auroc", "average_precision", "recall")
    )


@pytest.mark.parametrize(("columns", "parts"), [(80, 4), (100, 2), (140, 2), (160, 1)])
def test_nothing_of_an_evaluation_is_wider_than_the_terminal_or_folded(
    columns: int, parts: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    console: Any = terminal.Console
    monkeypatch.setattr(terminal, "result_console", lambda: console(width=columns, highlight=False))
    public, untrained = frozen_scores()
    arms = [arm_score(f"near-first~s{i}", 0.7, gain=(-0.1, 0.04), findings=rare(0.0)) for i in range(3)]
    arms = [replace(arm, label_equivalents=estimate(493.0, 221.0, 678.0)) for arm in arms]
    report = eval_report([replace(public, findings=rare()), replace(untrained, findings=rare(-0.1)), *arms])
    for table in (evaluation_table(report), *examination_tables(report)):
        terminal.print_rows(table)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    assert sum("1.000 (0.914 to 1.000)" in line for line in lines) == 6 * parts
    assert any(re.search(r"−0.030 \(−0.100 to \+0.040\)", line) for line in lines)  # noqa: RUF001
    assert "linear" in " ".join(lines)
