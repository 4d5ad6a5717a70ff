"""curves.jsonl: one line per logged step, rewound on restart so that no step stands twice; a tracker sees them too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from curate.pretraining.trackers import Tracker
from embeddings import files

MAX_ROWS = 500


class Curves:
    """The logged steps of a run; about every (steps / 500)th, and always the last."""

    def __init__(self, path: Path | None, *, steps: int, samples_seen: int = 0, tracker: Tracker | None = None) -> None:
        """Opens the file and forgets what came after ``samples_seen``; without a path, keeps nothing.

        Args:
            path: of the file.
            steps: of the whole run.
            samples_seen: so far.
            tracker: is told of each row that is added.
        """
        self._path, self._steps, self._tracker = path, steps, tracker
        self._every = -(-steps // MAX_ROWS)
        self.rows: list[dict[str, Any]] = []
        if path is None:
            return
        self.rows = [row for row in read_curves(path) if row["samples_seen"] <= samples_seen]
        with files.atomic_path(path) as temporary:
            temporary.write_text("".join(map(_line, self.rows)), encoding="utf-8")

    def wants(self, step: int) -> bool:
        """True if this step (from 0) is to be logged."""
        return (step + 1) % self._every == 0 or step + 1 == self._steps

    def append(self, row: dict[str, Any]) -> None:
        """Adds one step; the tracker is told its figures, not its lists of them.

        Raises:
            StorageError: no space.
        """
        if self._path is None:
            return
        self.rows.append(row)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(row))
        except OSError as error:
            raise files.storage_error(self._path, error) from error
        if self._tracker is not None:
            self._tracker.log({name: value for name, value in row.items() if not isinstance(value, list)})

    def close(self) -> None:
        """Tells the tracker that no row follows."""
        if self._tracker is not None:
            self._tracker.close()


def read_curves(path: Path) -> list[dict[str, Any]]:
    """The rows of a curves file, [] if there is none; a last line cut off by a crash is left out."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, sort_keys=True) + "\n"
