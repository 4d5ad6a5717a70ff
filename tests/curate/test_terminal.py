"""What the terminal shows fits into it: progress lines at every width, tables as wide as COLUMNS says."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from curate import terminal
from curate.reporting.text import TextTable, profile_table
from curate.results import Estimate
from curate.terminal import LONGEST_BAR, SHORTEST_BAR, fit_line, shown_progress
from embeddings.errors import UsageError

NOTE = "68 images/s, 82% of the time waiting for encode"
LINE = {"name": "embed target", "count": "96/150", "left": "0:00:02", "note": NOTE}


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (200, ("embed target", 40, "96/150", "0:00:02", NOTE)),
        (100, ("embed target", 24, "96/150", "0:00:02", NOTE)),
        (80, ("embed target", 40, "96/150", "0:00:02", "68 images/s")),
        (60, ("embed target", 20, "96/150", "0:00:02", "68 images/s")),
        (45, ("embed target", 0, "96/150", "0:00:02", "68 images/s")),
        (36, ("embed target", 0, "96/150", "", "68 images/s")),
        (20, ("embed target", 0, "96/150", "", "")),
        (12, ("embed", 0, "96/150", "", "")),
    ],
)
def test_what_is_least_needed_gives_way_first(width, shown):
    assert fit_line(width, **LINE) == shown


@given(st.integers(16, 200), st.text("ab日, ", max_size=60), st.text("xé本 ", min_size=1, max_size=40))
def test_a_line_is_never_wider_than_the_terminal(width, note, name):
    shown, bar, *texts = fit_line(width, name=name, count="1,234/5,678", left="0:00:02", note=note)
    parts = [cell_len(text) for text in (shown, *texts) if text]
    assert sum(parts) + len(parts) - 1 + (bar + 1 if bar else 0) <= width
    assert bar == 0 or SHORTEST_BAR <= bar <= LONGEST_BAR
    assert "1,234/5,678" in texts


@pytest.mark.parametrize("width", [60, 80, 120])
def test_bars_are_drawn_on_one_line_each_and_nothing_is_cut(width):
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    with shown_progress(console, quiet=False) as progress:
        progress("embed [red]фото", 96, 150, NOTE)
        progress("vectors for near duplicates", 562, 562)
        progress("pretrain", 12_345, 200_000, "loss 4.812, probe 61.3% (frozen 75.0%)")
    shown = [line for line in console.file.getvalue().split("\x1b[2K")[-1].splitlines()[:3] if line.strip()]
    assert [line.split("  ")[0].rstrip("━ ")[:15] for line in shown] == [
        "embed [red]фото",
        "vectors for nea",
        "pretrain",
    ]
    assert ["96/150" in shown[0], "562/562" in shown[1], "12,345/200,000" in shown[2]] == [True] * 3
    assert ["68 images/s" in shown[0], "loss 4.812" in shown[2], "…" in "".join(shown)] == [True, True, False]
    assert all(cell_len(line) <= width for line in shown)


@pytest.mark.parametrize(("columns", "width"), [("60", 60), ("", 200), ("0", 200), ("wide", 200)])
def test_what_is_piped_is_as_wide_as_columns_says(monkeypatch, columns, width):
    monkeypatch.setenv("COLUMNS", columns)
    assert terminal.result_console().width == width


ODD = "two\nlines \x1b[31mred\x1b[0m \u202eback\udcff tab\t"
SHOWN = r"two\nlines \x1b[31mred\x1b[0m \u202eback\udcff tab\t"


def test_what_others_wrote_moves_no_cursor_and_breaks_no_line(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    terminal.print_lines([f"label {ODD}"])
    table = TextTable("Labels\nbelow", ["label", "number:\nn"], [[ODD, "1"]], below=(ODD,), kept=1)
    terminal.print_rows(table)
    out = capsys.readouterr().out
    assert out.count(SHOWN.partition(r"\n")[2]) == 3  # line, cell and sentence; never twice escaped
    assert [line.split()[:2] for line in out.splitlines()[:3]] == [["label", r"two\nlines"], ["Labels"], ["below"]]
    assert out.splitlines()[5].startswith(f"{SHOWN}  ")  # below a title and a header of two lines
    assert not set(out) & set("\x1b\t\u202e\udcff")


def test_a_profile_tells_classes_apart_from_their_counts():
    held = {"7": 37, " ": 28, "x" * 40: 20, "two\nlines": 41, "3.50": 57, "z": 1}
    facts = {"n": 184, "errors": 0, "duplicates": 0, "sizes": {"width": None, "height": None}, "gray_share": 0.0}
    facts |= {"classes": held, "groups": 0, "effective_rank": 3.0, "carries": []}
    rows = dict(profile_table(SimpleNamespace(target=facts, floor=Estimate(value=None, reason="few"))).printable().rows)
    assert rows["classes"] == '6 (3.50: 57, two\\nlines: 41, 7: 37, " ": 28, 2 more)'


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_and_errors_show_controls_escaped(is_terminal, capsys):
    console = Console(width=160, file=io.StringIO(), force_terminal=is_terminal, color_system=None)
    with shown_progress(console, quiet=False) as progress:
        progress(f"embed {ODD}", 3, 3, ODD)
        progress("plan", 0, 0, f"reason {ODD}")
    shown = console.file.getvalue()
    assert (f"embed {SHOWN}" in shown, f"reason {SHOWN}" in shown) == (True, True)
    assert "\x1b[31m" not in shown
    terminal.print_error(UsageError(f"no {ODD}", hint=f"not {ODD}"), as_json=False)
    assert capsys.readouterr().err.splitlines() == [f"error: no {SHOWN}", f"not {SHOWN}"]


def test_facts_stand_beside_their_names(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    terminal.print_rows(TextTable("Run", ["", ""], [["images", "580"], ["health", "healthy: " + "so it goes on " * 5]]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["images", "580"]
    assert lines[1].index("580") == lines[2].index("healthy")
    assert max(len(line.rstrip()) for line in lines) <= 60
