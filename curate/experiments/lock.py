"""One holder of a folder at a time, among processes and machines that share it.

A lock is a file ``lock.N`` that was created exclusively; the one with the highest N counts. Whoever finds its holder
gone tries to create ``lock.N+1``, which one process alone can do: a lock is never taken over twice. The holder is gone
if it said so, if its process is dead and was on this machine, or if the file was not touched for ``STALE_S``. A holder
that was taken for dead learns it from ``lock.N+1``, or from its own file being gone: the other has finished by then.
Ages are read from the file system's own clock, so that machines need not agree on the time.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from embeddings import files

STALE_S, BEAT_S = 300.0, 20.0
FREE: dict[str, Any] = {"host": "", "pid": 0}


class Lock:
    """A folder held, inside a ``with`` block; a thread of its own keeps the file fresh meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = False  # another process took it for dead, say because this machine slept
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        taken = self._is_taken()
        self.lost = self.lost or (taken and kind is None)  # a stop that somebody asked for stays one
        if not taken:
            files.write_json(self.path, FREE)

    def _beat(self) -> None:
        """Touches the file now and then; interrupts the main thread once the folder is another's."""
        while not self._over.wait(BEAT_S):
            with suppress(OSError):
                os.utime(self.path)
            if self._is_taken():
                self.lost = True
                _interrupt_main()
                return

    def _is_taken(self) -> bool:
        return not self.path.exists() or _path(self.path.parent, _number(self.path) + 1).exists()


def acquire(folder: Path) -> Lock | None:
    """The lock of an existing folder, or None while somebody else holds it."""
    last = max((_number(path) for path in folder.glob("lock.*")), default=0)
    if last and not is_stale(_path(folder, last)):
        return None
    path = _path(folder, last + 1)
    try:
        with path.open("x", encoding="utf-8") as file:
            json.dump(_owner(), file)
    except FileExistsError:
        return None
    except OSError as error:
        raise files.storage_error(path, error) from error
    return Lock(path)


def is_stale(path: Path) -> bool:
    """True if the holder of this lock file is gone."""
    try:
        owner, touched = path.read_text(encoding="utf-8"), path.stat().st_mtime
    except FileNotFoundError:
        return True
    with suppress(ValueError):  # just created, not yet written: its age decides
        found = json.loads(owner)
        if found == FREE or (found["host"] == _owner()["host"] and not _lives(found["pid"])):
            return True
    return _now(path.parent) - touched > STALE_S


def clear(folder: Path) -> None:
    """Deletes the lock files of a folder in which nothing is left to be done."""
    for path in folder.glob("lock.*"):
        path.unlink(missing_ok=True)


def _interrupt_main() -> None:
    """Sends the main thread SIGTERM, if the process has said what to do then, and does not just end."""
    number = threading.main_thread().ident
    if number is not None and signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        signal.pthread_kill(number, signal.SIGTERM)


def _path(folder: Path, number: int) -> Path:
    return folder / f"lock.{number}"


def _number(path: Path) -> int:
    end = path.name.removeprefix("lock.")
    return int(end) if end.isdecimal() else 0


def _owner() -> dict[str, Any]:
    """Who this is; process numbers mean something within one machine and container only."""
    space = Path("/proc/self/ns/pid")
    inside = space.stat().st_ino if space.exists() else ""
    return {"host": f"{platform.node()} {inside}".strip(), "pid": os.getpid()}


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _now(folder: Path) -> float:
    """The time by the clock of the folder's file system."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime
