"""Figures of a pair of sets, kept below the work folder: what was measured once is not measured again.

One file per pair, named by the digests of both sets and the version of the measures. Measures are kept one by one, so
asking for more of them adds to the file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from embeddings import files
from embeddings.errors import CorruptError

VERSION = "curate.metrics/4"  # raise it when a figure changes
Entry = dict[str, Any]


class Kept:
    """What is known of one pair; without a folder nothing is kept."""

    def __init__(self, work: Path | None, *digests: str) -> None:
        self._path = None if work is None else work / "scores" / f"{files.digest([VERSION, *digests])[:32]}.json"
        self._entries = _read(self._path) if self._path is not None else {}

    def get(self, name: str, make: Callable[[], Entry]) -> Entry:
        """The entry of this name as plain JSON, made and kept if it is not there.

        An entry in which anything says why it is not there (``reason``) is not kept: the reason may go away.
        """
        if name in self._entries:
            return self._entries[name]
        entry = make()
        if self._path is not None and not _lacks_something(entry):
            self._entries[name] = entry
            files.write_json(self._path, {"schema": VERSION, "entries": self._entries})
        return entry


def _read(path: Path) -> dict[str, Entry]:
    """What was kept; a damaged file is as good as none, it only saves time."""
    try:
        document = files.read_json(path) if path.exists() else {}
        entries = document.get("entries", {}) if isinstance(document, dict) else {}
    except CorruptError:
        return {}
    return entries if isinstance(entries, dict) else {}


def _lacks_something(entry: Entry) -> bool:
    return bool(entry.get("reason")) or any(isinstance(v, dict) and v.get("reason") for v in entry.values())
