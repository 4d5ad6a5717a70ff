"""What the command line prints: progress, tables, errors. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.panel import Panel
from rich.progress import Progress as RichProgress
from rich.progress import ProgressColumn, Task, TimeRemainingColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from curate.printable import printable
from embeddings.errors import CurateError
from embeddings.progress import Progress, silent

if TYPE_CHECKING:
    from curate.reporting.text import TextTable

SECONDS_BETWEEN_LINES = 10.0
PIPED_WIDTH = 200  # columns of tables in files and pipes, unless COLUMNS says otherwise
LONGEST_BAR, SHORTEST_BAR = 40, 10  # columns


class FittedLine(ProgressColumn):
    """A stage on one line, as much of it as the terminal is wide."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console, self._remaining, self._widest = console, TimeRemainingColumn(), 0

    def render(self, task: Task) -> Table:
        """The parts that fit; short names of stages are padded to one width."""
        width, note, name = self._console.width, task.fields["note"], task.description
        self._widest = max(self._widest, cell_len(name))
        name = set_cell_size(name, max(cell_len(name), min(self._widest, width // 3)))
        count, left = f"{task.completed:,.0f}/{task.total or 0:,.0f}", self._remaining.render(task).plain
        name, bar, count, left, note = fit_line(width, name=name, count=count, left=left, note=note)
        drawn = [ProgressBar(total=task.total, completed=task.completed, width=bar)] if bar else []
        texts = [Text(count), Text(left), Text(note, style="dim")]
        line = Table.grid(padding=(0, 1, 0, 0), pad_edge=False)
        line.add_row(Text(name), *drawn, *filter(None, texts))
        return line


def fit_line(width: int, *, name: str, count: str, left: str, note: str) -> tuple[str, int, str, str, str]:
    """What a progress line shows at this width: name, columns of its bar, count, time left and note.

    What is least needed gives way first: length of the bar, all but the first clause of the note, the bar, the time
    left, the rest of the note, the end of the name.
    """
    clauses = note.split(", ")
    kept = [", ".join(clauses[:k]) for k in range(len(clauses), 0, -1)]
    choices = [*((left, said, SHORTEST_BAR) for said in kept), (left, kept[-1], 0), ("", kept[-1], 0), ("", "", 0)]
    for time_left, said, least in choices:
        room = width - sum(cell_len(text) + 1 for text in (name, count, time_left, said) if text)
        if room >= least:
            return name, min(room, LONGEST_BAR) if least else 0, count, time_left, said
    return set_cell_size(name, max(1, width - cell_len(count) - 1)), 0, count, "", ""


class BarProgress:
    """One live bar per stage, for a terminal."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._tasks: dict[str, Any] = {}

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Moves the stage's bar; a stage without units is an announcement."""
        note = printable(note)
        if not total:
            self._bars.console.print(Text(note))
            return
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(printable(stage), total=total, note=note)
        self._bars.update(self._tasks[stage], completed=done, total=total, note=note)


class LineProgress:
    """At most one plain line per stage and ten seconds, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: dict[str, float] = {}

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Prints a line if one is due, and one when the stage is finished; a stage without units is an announcement."""
        if not total:
            self._console.print(Text(printable(note)))
            return
        now, finished = time.monotonic(), done >= total
        if finished and self._last.get(stage) == float("inf"):
            return
        if not finished and now - self._last.get(stage, 0.0) < SECONDS_BETWEEN_LINES:
            return
        self._last[stage] = float("inf") if finished else now
        told = f"{stage}: {done:,} of {total:,}{f', {note}' if note else ''}"
        self._console.print(printable(told), highlight=False, markup=False)


@contextmanager
def shown_progress(console: Console, *, quiet: bool) -> Iterator[Progress]:
    """The progress display that fits: bars on a terminal, throttled lines elsewhere, nothing if quiet."""
    if quiet:
        yield silent
    elif not console.is_terminal:
        yield LineProgress(console)
    else:
        with RichProgress(FittedLine(console), console=console) as bars:
            yield BarProgress(bars)


def error_console() -> Console:
    """Console on stderr."""
    return Console(stderr=True, soft_wrap=not sys.stderr.isatty())


def usage_console() -> Console:
    """Console on stderr for the panels of wrong flags, wide enough to hold them off a terminal."""
    return Console(stderr=True) if sys.stderr.isatty() else Console(stderr=True, width=_piped_width())


def result_console() -> Console:
    """Console on stdout; piped output keeps whole lines, and tables are as wide as COLUMNS says."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(soft_wrap=True, highlight=False, width=_piped_width())


def _piped_width() -> int:
    """Columns of what is not a terminal."""
    said = os.environ.get("COLUMNS", "")
    return int(said) if said.isdecimal() and int(said) > 0 else PIPED_WIDTH


def print_error(error: CurateError, *, as_json: bool) -> None:
    """The message and its remedy, on stderr; with --json also one document on stdout."""
    if as_json:
        document = {"schema": "curate.error/1", "kind": type(error).__name__, "message": error.message}
        print_json({**document, "hint": error.hint, "exit_code": error.exit_code})
    console, body = error_console(), Text(printable(error.message))
    if error.hint:
        body.append(f"\n{printable(error.hint)}", style="bold")
    if console.is_terminal:
        console.print(Panel(body, title="error", title_align="left", border_style="red"))
    else:
        console.print(Text("error: ").append_text(body))  # a panel would cut long paths in a log


def print_json(document: dict[str, Any]) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n")
    sys.stdout.flush()


def print_notes(lines: Sequence[str]) -> None:
    """Plain lines on stderr: what a person wants to know and a program does not."""
    for line in lines:
        error_console().print(Text(printable(line)))


def print_lines(lines: Sequence[str]) -> None:
    """Plain lines on stdout, no markup."""
    for line in lines:
        result_console().print(Text(printable(line)))


def print_rows(content: TextTable) -> None:
    """A table on stdout, in parts where it says so; the first column left, the others right aligned."""
    console = result_console()
    for part in content.printable().parts(console.width):
        head, *lead = part.title.split("\n")
        console.print(Text(head, style="bold"))
        for line in lead:
            console.print(Text(line))
        console.print(_grid(part))
        for line in part.below:
            console.print(Text(line))
        console.print()


def _grid(content: TextTable) -> Table:
    is_headed = any(content.header)  # without a header the second column holds words as well as numbers
    table = Table(box=None, pad_edge=False, show_header=is_headed)
    for i, name in enumerate(content.header):
        table.add_column(Text(name), justify="right" if i and is_headed else "left", overflow="fold")
    for row in content.rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
