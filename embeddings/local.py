"""Files on this machine's own disks: their status, what lies below a folder, ranges of bytes, and who is writing."""

from __future__ import annotations

import os
import stat
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from embeddings.errors import StorageError


def status(location: str) -> os.stat_result | None:
    """What the system knows of a file or folder; None if there is none."""
    try:
        return os.stat(location)  # noqa: PTH116 - a million times over, where building a Path would cost more
    except (OSError, ValueError):  # a broken or circular link; a NUL character in the name
        return None


def walk(root: str) -> Iterator[tuple[str, os.stat_result | None]]:
    """Files below a folder, each by its path from there, with its status; that of a broken link is None.

    Every folder is entered once, by its own name if that lies below the root, else by one link to it. Hidden files and
    folders, pipes and devices are left out.

    Raises:
        StorageError: a folder that may not be read.
    """
    entered: set[tuple[int, int] | None] = set()
    real, linked = [(root, "", status(root))], list[tuple[str, str, os.stat_result | None]]()
    while real or linked:
        folder, prefix, found = real.pop() if real else linked.pop()
        identity = (found.st_dev, found.st_ino) if found else None
        if identity in entered:
            continue
        entered.add(identity)
        for entry in _scan(folder):
            path, found = prefix + entry.name, status(entry.path)
            if found and stat.S_ISDIR(found.st_mode):
                (linked if entry.is_symlink() else real).append((entry.path, f"{path}/", found))
            elif found is None or stat.S_ISREG(found.st_mode):
                yield path, found


def read_range(path: str, offset: int, size: int) -> bytes:
    """``size`` bytes of a file from ``offset``; fewer at its end. Safe in threads and after a fork.

    Raises:
        OSError: no such file, or one that may not be read.
    """
    now = os.stat(path)  # noqa: PTH116 - as in status
    handle = _handle(path, (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns))
    return os.pread(handle.descriptor, min(size, max(now.st_size - offset, 0)), offset)


@contextmanager
def held(descriptor: int) -> Iterator[None]:
    """Keeps an open file locked until the block ends or the process does, and closes it."""
    with os.fdopen(descriptor) as file:
        if not _locks(file):
            file.close()  # where there are no locks, an open file may not be renamed either
        yield


def is_held(path: Path) -> bool:
    """True while a file is ``held``; always False where there are no locks."""
    try:
        with path.open("rb") as file:
            return _locks(file, shared=True) is False
    except OSError:
        return False


def _locks(file: Any, *, shared: bool = False) -> bool | None:
    """Locks an open file; False if another one holds it, None if it cannot be locked here.

    What is open for reading takes a shared lock: network file systems grant it no other.
    """
    try:
        import fcntl

        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


class _Handle:
    """An open file that closes when the last one who reads it lets go."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self.descriptor)


@lru_cache(maxsize=32)
def _handle(path: str, identity: tuple[int, ...]) -> _Handle:
    """An open handle, kept as long as the file's identity is what it was."""
    return _Handle(path)


def _scan(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise StorageError(f"Cannot read {folder}: {error.strerror or error}.", hint="Check the permissions.") from None
