"""Files that only a local disk can map into memory, wherever they lie."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from embeddings import files

BLOCK_BYTES = 1 << 20


@contextmanager
def local_path(uri: str) -> Iterator[str]:
    """Path of a local file; of a remote one, that of a temporary copy.

    The copy's name is gone after the block, but what was opened or mapped in it stays readable until it is closed.

    Raises:
        StorageError: no space for the copy.
        OSError: no such file, or one that may not be read.
    """
    if not files.is_remote(uri):
        yield files.absolute(uri)
        return
    with tempfile.NamedTemporaryFile() as copy:
        with files.open_binary(uri) as remote:
            copy_to_disk(remote, copy)
        yield copy.name


def copy_to_disk(source: IO[bytes], temporary: IO[bytes]) -> None:
    """All that is left in ``source``, in pieces.

    Raises:
        StorageError: no space.
        OSError: the source cannot be read.
    """
    while block := source.read(BLOCK_BYTES):
        write(temporary, block)


def write(temporary: IO[bytes], data: Any) -> None:
    """Writes bytes, or anything that lies in memory like them, to a temporary file, past Python's own buffer.

    Raises:
        StorageError: no space.
    """
    try:
        temporary.write(data)
        temporary.flush()
    except OSError as error:
        raise files.storage_error(Path(tempfile.gettempdir()), error) from error
