"""Finished parts of a selection, kept below the work folder: a run that was killed goes on from the last of them.

A part is one file of arrays. It stands in a folder named by a digest of all that decides it, so another request never
meets it, and is renamed into place when it is whole. The checksums of the file tell damage: a part that was cut or
changed is as good as none. Nothing is unpickled.

One process at a time makes the parts of a piece of work. A piece that is finished keeps its result alone; what a killed
run left of another waits for that run to go on, a week at most.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from embeddings import files
from embeddings.errors import ForeignFolderError, StorageError
from embeddings.pipeline.locks import locked
from embeddings.progress import Progress, silent

VERSION = "curate.selection-parts/2"  # raise it when a part changes

DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile)  # not a zip of arrays
NAMES = "names of the arrays"  # a zip that lost a file still opens
STALE_S = 7 * 86_400.0  # after which nobody is expected to go on
_PIECE = re.compile("[0-9a-f]{32}")

Arrays = dict[str, np.ndarray]


class KeptParts:
    """The parts of one piece of work; without a folder nothing is kept."""

    def __init__(self, work: Path | None, *made_of: object) -> None:
        name = files.digest([VERSION, *made_of])[:32] if work is not None else ""
        self._folder = None if work is None else work / "selections" / name

    def read(self, name: str) -> Arrays | None:
        """A part as it was written; None if it is not there or damaged."""
        if self._folder is None:
            return None
        try:
            with self._path(name).open("rb") as file, np.load(file, allow_pickle=False) as found:
                return {name: found[name] for name in found[NAMES].tolist()}
        except DAMAGE:
            return None

    def write(self, name: str, arrays: Arrays) -> None:
        """Keeps a part in place of the one before.

        Raises:
            StorageError: no space, or no permission.
        """
        if self._folder is None:
            return
        with files.atomic_path(self._path(name)) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **{NAMES: np.array(list(arrays)), **arrays})

    @contextmanager
    def held(self, progress: Progress = silent) -> Iterator[None]:
        """The parts for this process alone; waits for another one that makes the same.

        Raises:
            StorageError: no permission.
        """
        if self._folder is None:
            yield
            return
        with locked(self._folder, announce=lambda _: progress("wait", 0, 0)):
            files.sweep(self._folder)
            yield

    def sweep(self, result: str, *unfinished: str) -> None:
        """Deletes what killed runs left unfinished of other pieces of work, a week or more before this result.

        Ages are by the file system's own clock. What another process is at stays, and so do all results.
        """
        if self._folder is None:
            return
        before = self._path(result).stat().st_mtime - STALE_S
        for folder in self._folder.parent.iterdir():
            if folder != self._folder and _PIECE.fullmatch(folder.name) and _stale(folder, unfinished, before):
                with suppress(ForeignFolderError, StorageError, OSError), locked(folder):  # not ours to delete
                    for path in _stale(folder, unfinished, before):
                        path.unlink(missing_ok=True)

    def drop(self, *names: str) -> None:
        """Deletes parts that later ones make needless."""
        if self._folder is not None:
            for name in names:
                self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{name}.npz"


def _stale(folder: Path, unfinished: tuple[str, ...], before: float) -> list[Path]:
    """What is unfinished in a folder, if none of it was written since."""
    try:
        parts = [path for name in unfinished if (path := folder / f"{name}.npz").exists()]
        found = [*parts, *files.leftovers(folder)]
        is_old = all(path.stat().st_mtime < before for path in found)
    except OSError:  # gone meanwhile, or not ours to read
        return []
    return found if is_old else []


NOTHING = KeptParts(None)
