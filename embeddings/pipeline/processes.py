"""Worker processes that answer calls, so that a crash or a hang in a decoder costs one worker and not the run.

A worker is a fresh interpreter, not a fork (forks of a process with threads and devices can deadlock) and not
``multiprocessing`` (whose fresh processes import the caller's script again). Calls and answers travel as pickles over
two pipes that nobody else can open. It ends when its caller does, however that ends, and ignores Ctrl-C, which reaches
the whole group, so that the caller alone decides when to stop.
"""

from __future__ import annotations

import importlib
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from embeddings.errors import CurateError, one_line

START_S = 120.0  # imports on a slow disk
_RUN = "from embeddings.pipeline.processes import serve; serve()"


class WorkerDied(Exception):
    """A worker ended, or was ended, before it answered; the text says how."""


class Worker:
    """One process that holds the object ``make(*arguments)`` and calls it.

    Not thread-safe: one caller at a time.
    """

    def __init__(self, make: str, *arguments: Any) -> None:
        """``make``: "module:function", imported and called in the worker.

        Raises:
            CurateError: the worker cannot be started; with what it said.
        """
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _RUN],  # -P: a file in the working folder must not pass for a library
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=environment,
        )
        try:
            self._ask((make, arguments), START_S)
        except WorkerDied as died:
            words = self._last_words()
            self.stop()
            raise CurateError(f"A worker process cannot be started: it {died}.", hint=words) from None
        except BaseException:
            self.stop()
            raise

    def __call__(self, *arguments: Any, patience_s: float) -> Any:
        """The object's answer to these arguments.

        Raises:
            WorkerDied: it crashed, was killed, or did not answer in time; then it is of no use any more.
            Exception: whatever the call itself raised.
        """
        return self._ask(arguments, patience_s)

    def kill(self) -> None:
        """Ends the process, whatever it is doing; whoever waits for an answer learns it. Thread-safe."""
        self._process.kill()

    def stop(self) -> None:
        """Ends the process and gives back what it held."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._said):
            with suppress(OSError):
                _given(pipe).close()

    def _ask(self, question: Any, patience_s: float) -> Any:
        answers = _given(self._process.stdout)
        try:
            _send(_given(self._process.stdin), question)
            ready, _, _ = select.select([answers], [], [], patience_s)
            if not ready:
                self._process.kill()
                raise WorkerDied(f"gave no answer for {patience_s:.0f} s")
            good, answer = pickle.load(answers)  # from our own worker
        except (OSError, EOFError, pickle.UnpicklingError):
            raise WorkerDied(_ending(self._process.wait())) from None
        if good:
            return answer
        raise answer

    def _last_words(self) -> str | None:
        with suppress(OSError, ValueError):
            self._said.seek(0)
            lines = self._said.read().decode(errors="replace").strip().splitlines()
            return lines[-1] if lines else None
        return None


def serve() -> None:
    """The worker's side: makes its object, then answers until the caller is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    make, arguments = pickle.load(questions)  # from our own caller
    work = _tried(lambda: _imported(make)(*arguments), answers, keep=True)
    while work is not None:
        try:
            question = pickle.load(questions)
        except (EOFError, OSError, pickle.UnpicklingError):
            return
        _tried(partial(work, *question), answers, keep=False)


def _tried(work: Callable[[], Any], answers: IO[bytes], *, keep: bool) -> Any:
    """Does the work and sends what came of it; ``keep`` returns it instead of sending it."""
    try:
        made = work()
        answer = (True, None if keep else made)
    except Exception as error:
        made, answer = None, (False, _portable(error))
    _send(answers, answer)
    return made


def _send(pipe: IO[bytes], thing: Any) -> None:
    pickle.dump(thing, pipe, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.flush()


def _portable(error: Exception) -> Exception:
    """The error as one that can be sent: an exception may not survive pickling."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return CurateError(f"{type(error).__name__}: {one_line(error)}")
    return error


def _imported(make: str) -> Callable[..., Any]:
    module, name = make.split(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


def _given(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe
