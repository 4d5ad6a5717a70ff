"""Independent tasks, done once each: in this process, or by one worker process for each of several devices.

The same call continues where it stopped. Several calls at once on one folder, also from several machines, share the
tasks out among themselves; see ``curate.experiments.task`` for what a task leaves in its folder.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from curate.experiments.board import Board
from curate.experiments.task import POLL_S, Outcome, Task, attempt
from curate.experiments.workers import do_in_workers
from embeddings.errors import UsageError
from embeddings.progress import Progress, silent


def run_all(tasks: Sequence[Task], *, devices: Sequence[str], folder: Path, progress: Progress = silent) -> None:
    """Does every task that is not done yet, and returns when all are.

    Args:
        tasks: in the order in which they are begun.
        devices: one name for each task that may be under way at once, as ["cuda:0", "cuda:1"] or ["cpu", "cpu"]; with
            one, tasks run in this process.
        folder: to which the tasks' folders are relative.
        progress: told how many tasks are done, and what is under way.

    Raises:
        ForeignFolderError: a task's folder holds another task's work; nothing was begun.
        TasksFailedError: some failed; the others are done, and the next call tries these again.
        KeyboardInterrupt: SIGINT or SIGTERM; workers were stopped first.
    """
    placed = [replace(task, folder=folder / task.folder) for task in tasks]
    _require_distinct(placed)
    open_tasks = [task for task in placed if not task.is_done()]
    board = Board(total=len(placed), done=len(placed) - len(open_tasks), progress=progress)
    with sigterm_interrupts():
        if len(devices) == 1:
            _do_here(open_tasks, devices[0], board)
        elif open_tasks:
            do_in_workers(open_tasks, devices, board)
    board.require_none_failed()


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Turns SIGTERM into KeyboardInterrupt inside the block, if this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler) or signal.SIG_DFL
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _do_here(tasks: Sequence[Task], device: str, board: Board) -> None:
    """One after another; tasks that others are at come last, when they are done or free."""
    waiting = list(tasks)
    while waiting:
        outcomes = [_do_one(task, device, board) for task in waiting]
        waiting = [task for task, outcome in zip(waiting, outcomes, strict=True) if outcome == "busy"]
        if waiting:
            time.sleep(POLL_S)


def _do_one(task: Task, device: str, board: Board) -> Outcome:
    board.begin(task)
    outcome, why = attempt(task, device=device, progress=board.listener(task))
    board.note(task, outcome, why)
    return outcome


def _require_distinct(tasks: Sequence[Task]) -> None:
    """Raises UsageError for two tasks of one name or folder."""
    for kind, seen in (("name", [task.name for task in tasks]), ("folder", [str(task.folder) for task in tasks])):
        twice = sorted({value for value in seen if seen.count(value) > 1}) if len(set(seen)) < len(seen) else []
        if twice:
            raise UsageError(f"Several tasks have the {kind} {twice[0]!r}.", hint="Give each one its own.")
