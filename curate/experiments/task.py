"""A task: a function and its arguments. It works in a folder of its own, which holds what it is and how it went.

    task.json   what it is; another task is refused there
    done.json   written last: the digest of task.json, seconds, device; a task whose product is gone is done again
    error.json  why the last attempt failed: type, message, hint
    lock.N      who is at it (see ``curate.experiments.lock``); gone when it is done

A function that was stopped is called again in the same folder: it continues or starts over. What it calls may claim
folders for itself, so it should write into folders below its own.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from curate.experiments import lock
from curate.experiments.named import named
from embeddings import files
from embeddings.errors import CurateError, one_line
from embeddings.progress import Progress

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
