"""Figures of a pair of sets, kept below the work folder: what was measured once is not measured again.

One file per pair, named by the digests of both sets and the version of the measures. Measures are kept one by one, so
asking for more of them adds to the file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from embeddings import files

VERSION = "curate.metrics/3"  # raise it when a figure changes
Entry = dict[str, Any]


class Kept:
    """What is known of one pair; without a folder nothing is kept."""

    def __init__(self, work: Path | None, *digests: str) -> None:
        self._path = None if work is None else work / "scores" / f"{files.digest([VERSION, *digests])[:32]}.json"
        exists = self._path is not None and self._path.exists()
        self._entries: dict[str, Entry] = files.read_json(self._path)["entries"] if self._path and exists else {}

    def get(self, name: str, make: Callable[[], Entry]) -> Entry:
        """The entry of this name as plain JSON, made and kept if it is not there.

        An entry that says why there is nothing (``reason``) is not kept: the reason may go away.
        """
        if name in self._entries:
            return self._entries[name]
        entry = make()
        if self._path is not None and not entry.get("reason"):
            self._entries[name] = entry
            files.write_json(self._path, {"schema": VERSION, "entries": self._entries})
        return entry
