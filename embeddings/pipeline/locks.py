"""One writer per output folder: a lock of the operating system, which ends with the process that holds it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from embeddings import files
from embeddings.errors import ForeignFolderError

LOCK = ".lock"


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Holds the folder, which is made if need be, for this process alone.

    Args:
        folder: The output folder.
        wait: Wait until another process is done with it, instead of refusing.

    Raises:
        ForeignFolderError: another process is writing to it.
        StorageError: it cannot be made or written to.
    """
    lock = FileLock(folder / LOCK, timeout=-1 if wait else 0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise ForeignFolderError(
            f"Another process is writing to {folder}.", hint="Wait until it is done, or choose another --out."
        ) from None
    except OSError as error:
        raise files.storage_error(folder, error) from error
    try:
        yield
    finally:
        lock.release()
        # Whoever waited for this file finds what was made here; two who write the same parts write the same bytes.
        (folder / LOCK).unlink(missing_ok=True)
        with suppress(OSError):  # not empty
            folder.rmdir()
