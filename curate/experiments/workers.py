"""Tasks shared out among worker processes, one for each device; see ``curate.experiments.worker``.

Each worker has its share of the cores. They are told of a stop by this process alone, so that Ctrl-C in a terminal
reaches them once and they can keep what they have. A worker that dies takes only its task with it: that one counts as
failed, and another worker takes its place.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any

from curate.experiments.board import Board
from curate.experiments.task import POLL_S, Task, keep_error
from embeddings.errors import CurateError, UsageError
from embeddings.pipeline.batches import core_count

log = logging.getLogger(__name__)
Events = queue.SimpleQueue[tuple["Worker", dict[str, Any] | None]]


def do_in_workers(tasks: Sequence[Task], devices: Sequence[str], board: Board) -> None:
    """Does every task that nobody else does; raises as ``queue.run_all``."""
    events: Events = queue.SimpleQueue()
    threads = max(1, core_count() // len(devices))
    crew = [Worker(slot, devices[slot], threads, events) for slot in range(min(len(devices), len(tasks)))]
    try:
        _share_out(list(tasks), crew, events, board)
    finally:
        _dismiss(crew)


class Worker:
    """One process and the task it is at."""

    def __init__(self, slot: int, device: str, threads: int, events: Events) -> None:
        self.slot = slot
        self.task: Task | None = None
        self.ready = False
        self._device, self._environment = _placed(device, threads)
        self._events = events
        self._process: subprocess.Popen[str] | None = None

    def begin(self, task: Task) -> None:
        """Gives it a task; starts the process if there is none."""
        process = self._process or self._start()
        self.task = task
        document = {**vars(task), "folder": str(task.folder), "arguments": dict(task.arguments)}
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it has died; the listener says so
            process.stdin.write(json.dumps(document) + "\n")
            process.stdin.flush()

    def bury(self) -> CurateError:
        """Why it died.

        Raises:
            CurateError: it did not even start.
        """
        assert self._process is not None
        code, last, ready = self._process.wait(), self._last_words(), self.ready
        self.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if not ready:
            raise CurateError(f"A worker process for {self._device} does not start ({how}): {last}")
        hint = "Memory may have run out: use fewer devices at once, or smaller batches." if code == -9 else None
        return CurateError(f"Its process ended with {how}{f': {last}' if last else ''}.", hint=hint)

    def leave(self) -> None:
        """Lets it go once it has no more to do; a task that it is at is stopped."""
        if self._process is not None and self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
            if self.task is not None:
                self._process.terminate()

    def kill(self) -> None:
        """Ends it at once."""
        if self._process is not None:
            self._process.kill()

    def wait(self) -> None:
        """Returns when it is gone."""
        if self._process is None:
            return
        self._process.wait()
        self._listener.join()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with suppress(BrokenPipeError):
                stream.close()  # type: ignore[union-attr]
        self._process, self.ready = None, False

    def _start(self) -> subprocess.Popen[str]:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "curate.experiments.worker", self._device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=self._environment,
            start_new_session=True,
            encoding="utf-8",
        )
        self._listener = threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True)
        self._listener.start()
        return self._process

    def _listen(self, lines: IO[str]) -> None:
        for line in lines:
            self._events.put((self, json.loads(line)))
        self._events.put((self, None))

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else ""


def _share_out(tasks: list[Task], crew: list[Worker], events: Events, board: Board) -> None:
    """Keeps every worker busy until all tasks are done or failed; looks again at those that others are at."""
    elsewhere: list[Task] = []
    look_again = 0.0
    while tasks or elsewhere or any(worker.task for worker in crew):
        if not tasks and time.monotonic() >= look_again:
            tasks, elsewhere, look_again = elsewhere, [], time.monotonic() + POLL_S
        for worker in crew:
            if tasks and worker.task is None:
                board.begin(tasks[0], worker.slot)
                worker.begin(tasks.pop(0))
        with suppress(queue.Empty):
            worker, message = events.get(timeout=POLL_S)
            elsewhere += _heard(worker, message, board)


def _heard(worker: Worker, message: dict[str, Any] | None, board: Board) -> list[Task]:
    """Acts on what a worker said, or on its death; returns the task if somebody else is at it."""
    task = worker.task
    if message is None:
        _mourn(worker, board)
    elif "ready" in message:
        worker.ready = True
    elif task is not None and "progress" in message:
        board.listener(task, worker.slot)(*message["progress"])
    elif "log" in message:
        log.log(*message["log"])
    elif task is not None:
        worker.task = None
        board.note(task, message["outcome"], message["why"], worker.slot)
        return [task] if message["outcome"] == "busy" else []
    return []


def _mourn(worker: Worker, board: Board) -> None:
    """The task of a worker that died has failed; the next one gets a new process."""
    error, task = worker.bury(), worker.task
    worker.task = None
    if task is not None:
        board.note(task, "failed", keep_error(task, error), worker.slot)


def _dismiss(crew: list[Worker]) -> None:
    """Ends all workers: one that is at a task keeps what it has; a second interrupt kills them."""
    try:
        for worker in crew:
            worker.leave()
        for worker in crew:
            worker.wait()
    except KeyboardInterrupt:
        for worker in crew:
            worker.kill()
        raise


def _placed(device: str, threads: int) -> tuple[str, dict[str, str]]:
    """What a worker calls its device, and its environment: it sees no other GPU, and imports what this one can.

    Raises:
        UsageError: no such GPU among those this process may see.
    """
    paths = [path or os.getcwd() for path in sys.path]  # noqa: PTH109 - a text
    added = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(threads)}
    kind, _, number = device.partition(":")
    if kind != "cuda" or not number.isdecimal():
        return device, {**os.environ, **added}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = visible.split(",") if visible else [str(i) for i in range(int(number) + 1)]
    if int(number) >= len(names):
        raise UsageError(f"No device {device!r}: CUDA_VISIBLE_DEVICES is {visible!r}.", hint="Name fewer devices.")
    return kind, {**os.environ, **added, "CUDA_VISIBLE_DEVICES": names[int(number)]}
