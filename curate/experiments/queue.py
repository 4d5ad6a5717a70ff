"""Independent tasks, done once each: in this process, or by one worker process for each of several devices.

A task is a function and its arguments; it works in a folder of its own, which holds

    task.json   what it is; another task is refused there
    done.json   written last: the digest of task.json, seconds, device; a task whose product is gone is done again
    error.json  why the last attempt failed: type, message, hint
    lock.N      who is at it (see ``curate.experiments.lock``); gone when it is done

The same call continues where it stopped. Several calls at once on one folder, also from several machines, share the
tasks out among themselves. A function that was stopped is called again in the same folder: it continues or starts over.
What it calls may claim folders for itself, so it should write into folders below its own.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from curate.experiments import lock
from curate.experiments.named import named
from embeddings import files
from embeddings.errors import CurateError, UsageError, one_line
from embeddings.progress import Progress, silent

TASK, DONE, ERROR = "task.json", "done.json", "error.json"
POLL_S = 1.0  # between two looks at tasks that others are at
Outcome = Literal["done", "failed", "busy"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One piece of work.

    ``function`` is ``package.module:name`` and is called as ``name(folder, device=..., progress=..., **arguments)``;
    what it returns is not kept. ``arguments`` are JSON. ``product`` is a file that it leaves, relative to its folder.
    """

    name: str
    folder: Path  # relative to the study's
    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    product: str | None = None  # None: its being done is told by done.json alone

    def document(self) -> dict[str, Any]:
        """What the task is; holds no path but those among the arguments."""
        return {
            "schema": "curate.task/1",
            "name": self.name,
            "function": self.function,
            "arguments": dict(self.arguments),
        }

    def is_done(self) -> bool:
        """True if it is finished.

        Raises:
            ForeignFolderError: the folder holds another task's work, or something else.
        """
        if (self.folder / TASK).exists():
            files.require_same_config(self.folder, files.read_json(self.folder / TASK), self.document())
        elif files.list_names(str(self.folder)):  # no hidden ones: somebody may be writing the first file just now
            files.refuse_foreign(self.folder, (TASK,))
        return (self.folder / DONE).exists() and self._has_product()

    def _has_product(self) -> bool:
        return self.product is None or Path(os.path.normpath(self.folder / self.product)).exists()


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
        CurateError: some tasks failed; the others are done, and the next call tries these again.
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
            from curate.experiments.workers import do_in_workers

            do_in_workers(open_tasks, devices, board)
    board.require_none_failed()


class Board:
    """What is done, what failed, and what is under way where."""

    def __init__(self, *, total: int, done: int, progress: Progress) -> None:
        self.total, self.done = total, done
        self.failed: dict[str, str] = {}
        self._under_way: dict[int, str] = {}
        self._progress = progress

    def begin(self, task: Task, slot: int = 0) -> None:
        """A task was taken up in a slot."""
        self._under_way[slot] = task.name
        self._tell()

    def note(self, task: Task, outcome: Outcome, why: str = "", slot: int = 0) -> None:
        """What became of it, and why it failed."""
        self._under_way.pop(slot, None)
        self.done += outcome == "done"
        if outcome == "failed":
            self.failed[task.name] = why
        self._tell()

    def listener(self, task: Task, slot: int = 0) -> Progress:
        """Takes a task's own progress; its announcements are passed on under its name."""

        def told(stage: str, done: int, total: int, note: str = "") -> None:
            if not total:
                self._progress(stage, done, total, f"{task.name}: {note}")
                return
            self._under_way[slot] = f"{task.name}: {stage} {100 * done // total}%"
            self._tell()

        return told

    def require_none_failed(self) -> None:
        """Raises a CurateError that names all failures."""
        if self.failed:
            reasons = "; ".join(f"{name}: {' '.join(why.split())[:160]}" for name, why in self.failed.items())
            raise CurateError(
                f"{len(self.failed)} of {self.total} tasks failed: {reasons}",
                hint=f"{ERROR} in each one's folder says more. The same command tries them again.",
            )

    def _tell(self) -> None:
        failed = [f"{len(self.failed)} failed"] if self.failed else []
        self._progress("tasks", self.done, self.total, "; ".join([*failed, *self._under_way.values()]))


def attempt(task: Task, *, device: str, progress: Progress) -> tuple[Outcome, str]:
    """Does one task unless somebody else is at it; says what became of it, and why it failed.

    An error is kept in its folder too, until somebody tries again: which may be at once, so it is not read back.

    Raises:
        ForeignFolderError: the folder holds another task's work.
        StorageError: nothing can be written there.
        KeyboardInterrupt: it was stopped.
    """
    if task.is_done():
        return "done", ""
    if not (task.folder / TASK).exists():
        files.write_json(task.folder / TASK, task.document())
    held = lock.acquire(task.folder)
    if held is None:
        return "busy", ""
    try:
        with held:
            outcome, why = _perform(task, device, progress)
    except KeyboardInterrupt:
        if not held.lost:
            raise
    if held.lost:  # what became of it is the other's to say
        return "busy", ""
    if outcome == "done":
        lock.clear(task.folder)
    return outcome, why


def keep_error(task: Task, error: BaseException) -> str:
    """Writes why an attempt failed; returns the message."""
    known = isinstance(error, CurateError)
    document = {
        "type": type(error).__name__,
        "message": error.message if isinstance(error, CurateError) else one_line(error),
        "hint": error.hint if isinstance(error, CurateError) else None,
        "trace": [] if known else traceback.format_exception(error),
    }
    files.write_json(task.folder / ERROR, document)
    return str(document["message"])


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


def _perform(task: Task, device: str, progress: Progress) -> tuple[Outcome, str]:
    if task.is_done():  # by somebody else, until just now
        return "done", ""
    (task.folder / ERROR).unlink(missing_ok=True)
    start = time.perf_counter()
    try:
        module, _, name = task.function.partition(":")
        with named(task.name):
            getattr(import_module(module), name)(task.folder, device=device, progress=progress, **task.arguments)
    except Exception as error:
        return "failed", keep_error(task, error)
    seconds = round(time.perf_counter() - start, 3)  # of this attempt
    facts = {"schema": "curate.task-done/1", "digest": files.digest(task.document())}
    files.write_json(task.folder / DONE, {**facts, "seconds": seconds, "device": device})
    return "done", ""


def _require_distinct(tasks: Sequence[Task]) -> None:
    """Raises UsageError for two tasks of one name or folder."""
    for kind, seen in (("name", [task.name for task in tasks]), ("folder", [str(task.folder) for task in tasks])):
        twice = sorted({value for value in seen if seen.count(value) > 1}) if len(set(seen)) < len(seen) else []
        if twice:
            raise UsageError(f"Several tasks have the {kind} {twice[0]!r}.", hint="Give each one its own.")
