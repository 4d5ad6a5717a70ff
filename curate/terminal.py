"""What the command line prints: progress, tables, errors. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from embeddings.errors import CurateError
from embeddings.progress import Progress, silent

if TYPE_CHECKING:
    from curate.reporting.text import TextTable

SECONDS_BETWEEN_LINES = 10.0
PIPED_WIDTH = 200  # columns; tables in files and pipes are not folded


class BarProgress:
    """One live bar per stage, for a terminal."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._tasks: dict[str, Any] = {}

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Moves the stage's bar; a stage without units is an announcement."""
        if not total:
            self._bars.console.print(Text(note))
            return
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total, note=note)
        self._bars.update(self._tasks[stage], completed=done, total=total, note=note)


class LineProgress:
    """At most one plain line per stage and ten seconds, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: dict[str, float] = {}

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Prints a line if one is due, and one when the stage is finished; a stage without units is an announcement."""
        if not total:
            self._console.print(Text(note))
            return
        now, finished = time.monotonic(), done >= total
        if finished and self._last.get(stage) == float("inf"):
            return
        if not finished and now - self._last.get(stage, 0.0) < SECONDS_BETWEEN_LINES:
            return
        self._last[stage] = float("inf") if finished else now
        self._console.print(
            f"{stage}: {done:,} of {total:,}{f', {note}' if note else ''}", highlight=False, markup=False
        )


@contextmanager
def shown_progress(console: Console, *, quiet: bool) -> Iterator[Progress]:
    """The progress display that fits: bars on a terminal, throttled lines elsewhere, nothing if quiet."""
    if quiet:
        yield silent
    elif not console.is_terminal:
        yield LineProgress(console)
    else:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
        )
        with RichProgress(*columns, console=console) as bars:
            yield BarProgress(bars)


def error_console() -> Console:
    """Console on stderr."""
    return Console(stderr=True, soft_wrap=not sys.stderr.isatty())


def usage_console() -> Console:
    """Console on stderr for the panels of wrong flags, wide enough to hold them off a terminal."""
    return Console(stderr=True) if sys.stderr.isatty() else Console(stderr=True, width=PIPED_WIDTH)


def result_console() -> Console:
    """Console on stdout; piped output keeps whole lines."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(soft_wrap=True, highlight=False, width=PIPED_WIDTH)


def print_error(error: CurateError, *, as_json: bool) -> None:
    """The message and its remedy, on stderr; with --json also one document on stdout."""
    if as_json:
        document = {"schema": "curate.error/1", "kind": type(error).__name__, "message": error.message}
        print_json({**document, "hint": error.hint, "exit_code": error.exit_code})
    console, body = error_console(), Text(error.message)
    if error.hint:
        body.append(f"\n{error.hint}", style="bold")
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
        error_console().print(Text(line))


def print_lines(lines: Sequence[str]) -> None:
    """Plain lines on stdout, no markup."""
    for line in lines:
        result_console().print(Text(line))


def print_rows(content: TextTable) -> None:
    """A table on stdout, in parts where it says so; the first column left, the others right aligned."""
    console = result_console()
    for part in content.parts(console.width):
        head, *lead = part.title.split("\n")
        console.print(Text(head, style="bold"))
        for line in lead:
            console.print(Text(line))
        console.print(_grid(part))
        for line in part.below:
            console.print(Text(line))
        console.print()


def _grid(content: TextTable) -> Table:
    table = Table(box=None, pad_edge=False, show_header=any(content.header))
    for i, name in enumerate(content.header):
        table.add_column(Text(name), justify="left" if i == 0 else "right", overflow="fold")
    for row in content.rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
