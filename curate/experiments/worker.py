"""A process that does the tasks it is told to, one after another: ``python -m curate.experiments.worker DEVICE``.

It reads one task a line from its standard input (``{"name", "folder", "function", "arguments", "product"}``) and
writes lines of JSON: ``{"ready": true}`` once it runs, ``{"progress": [stage, done, total, note]}`` and
``{"log": [level, message]}`` meanwhile, at the end of each ``{"outcome": "done", "why": ""}``, ``failed`` and why, or
``busy``. Whatever else is printed goes to standard error. It ends with its input, so it finishes its task, and takes
no further one, if the process that started it dies.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from curate.experiments.task import Task, attempt

INTERRUPTED = 130
BETWEEN_S = 0.2  # of two progress messages
_one_at_a_time = threading.Lock()


class Told:
    """Sends progress on, a few times a second, and whenever a stage is finished."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._last = 0.0

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """See ``embeddings.progress.Progress``."""
        now = time.monotonic()
        if done < total and now - self._last < BETWEEN_S:
            return
        self._last = now
        send(self._out, {"progress": [stage, done, total, note]})


class Forwarded(logging.Handler):
    """Sends warnings on; they are logged where the worker was started."""

    def __init__(self, out: IO[str]) -> None:
        super().__init__(logging.WARNING)
        self._out = out

    def emit(self, record: logging.LogRecord) -> None:
        """See ``logging.Handler``."""
        send(self._out, {"log": [record.levelno, record.getMessage()]})


def send(out: IO[str], message: dict[str, Any]) -> None:
    """One line of JSON, at once; several threads may."""
    with _one_at_a_time:
        out.write(json.dumps(message) + "\n")
        out.flush()


def serve(source: IO[str], out: IO[str], *, device: str) -> None:
    """Does the tasks of a stream of lines."""
    send(out, {"ready": True})
    for line in iter(source.readline, ""):
        told = json.loads(line)
        task = Task(**{**told, "folder": Path(told["folder"])})
        outcome, why = attempt(task, device=device, progress=Told(out))
        send(out, {"outcome": outcome, "why": why})


def main(device: str) -> int:
    """Serves the process that started this one; returns the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    logging.getLogger().addHandler(Forwarded(out))
    try:
        serve(sys.stdin, out, device=device)
    except (KeyboardInterrupt, BrokenPipeError):
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
