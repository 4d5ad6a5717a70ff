"""Finished parts of a selection, kept below the work folder: a run that was killed goes on from the last of them.

A part is one file of arrays. It stands in a folder named by a digest of all that decides it, so another request never
meets it, and is renamed into place when it is whole. The checksums of the file tell damage: a part that was cut or
changed is as good as none. Nothing is unpickled.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from embeddings import files

VERSION = "curate.selection-parts/2"  # raise it when a part changes

DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile)  # not a zip of arrays
NAMES = "names of the arrays"  # a zip that lost a file still opens

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

    def drop(self, *names: str) -> None:
        """Deletes parts that later ones make needless."""
        if self._folder is not None:
            for name in names:
                self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{name}.npz"


NOTHING = KeptParts(None)
