"""Tables for a terminal: never wider than it, in parts that repeat what each row is about."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from report_examples import arm_score, eval_report, frozen_scores

from curate import terminal
from curate.eval_report import Finding
from curate.reporting.text import TextTable, evaluation_table, examination_tables
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
