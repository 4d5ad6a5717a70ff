"""One writer per output folder: a lock of the operating system, which ends with the process that holds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from embeddings import files
from embeddings.errors import ForeignFolderError

LOCK = ".lock"


@contextmanager
def locked(folder: Path, *, announce: Callable[[str], None] | None = None) -> Iterator[None]:
    """Holds the folder, which is made if need be, for this process alone.

    Args:
        folder: The output folder.
        announce: Told that it has to wait for another process; without it, that is refused.

    Raises:
        ForeignFolderError: another process is writing to it.
        StorageError: it cannot be made or written to.
    """
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _acquire(lock, folder, announce)
    except OSError as error:
        raise files.storage_error(folder, error) from error
    try:
        yield
    finally:
        # Whoever waited for this file finds what was made here; two who write the same parts write the same bytes.
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):  # not empty
            folder.rmdir()


def _acquire(lock: FileLock, folder: Path, announce: Callable[[str], None] | None) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if announce is None:
            raise ForeignFolderError(
                f"Another process is writing to {folder}.", hint="Wait until it is done, or choose another --out."
            ) from None
        announce(f"Waiting for another process that writes to {folder}.")
        _wait(lock, folder)
    except NotImplementedError:  # a file system without locks: then nobody is kept out
        return


def _wait(lock: FileLock, folder: Path) -> None:
    while True:
        try:
            lock.acquire()
            return
        except FileNotFoundError:  # the other process has taken its empty folder away
            folder.mkdir(parents=True, exist_ok=True)
