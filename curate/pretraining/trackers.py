"""Where the figures of a run are shown beside curves.jsonl, which is always written.

``tensorboard`` writes event files into the run's folder, below ``tensorboard/``. Others come as entry points of the
group ``curate.trackers``: a function of the run's folder and of the samples seen before this start (0 in a new run; a
tracker forgets what it was told of later ones) that returns a ``Tracker``.

A tracker that fails is told so in the log and gets no more rows: nobody loses a run because a display is away.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Protocol

from embeddings.errors import MissingExtraError, UnknownNameError, install_command, one_line

log = logging.getLogger(__name__)
GROUP = "curate.trackers"
TENSORBOARD = "tensorboard"


class Tracker(Protocol):
    """Shows the rows of a run's curves."""

    def log(self, row: Mapping[str, float]) -> None:
        """Takes one row; ``samples_seen`` is its place."""

    def close(self) -> None:
        """Called once, after the last row or when the run stops."""


Opener = Callable[[Path, int], Tracker]


def find_tracker(name: str) -> Opener:
    """What opens the tracker of this name.

    Raises:
        UnknownNameError: there is none.
        MissingExtraError: it needs a package that is absent.
    """
    plugins = _plugins()
    if name == TENSORBOARD:
        return _tensorboard()
    if name not in plugins:
        raise UnknownNameError("tracker", name, [TENSORBOARD, *plugins])
    found: Opener = plugins[name].load()
    return found


class TensorBoard:
    """Rows as scalars, samples seen along the axis."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def log(self, row: Mapping[str, float]) -> None:
        """Adds every figure but the counts."""
        for name, value in row.items():
            if name not in ("samples_seen", "step"):
                self._writer.add_scalar(name, value, global_step=int(row["samples_seen"]))

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()


class Guarded:
    """A tracker that may fail without harm to the run."""

    def __init__(self, name: str, open_tracker: Callable[[], Tracker]) -> None:
        self._name = name
        self._tracker: Tracker | None = self._tried(open_tracker)

    def log(self, row: Mapping[str, float]) -> None:
        """Passes the row on, unless the tracker has failed."""
        if (tracker := self._tracker) is not None:
            self._tried(lambda: tracker.log(row))

    def close(self) -> None:
        """Closes the tracker, once."""
        if (tracker := self._tracker) is not None:
            self._tried(tracker.close)
            self._tracker = None

    def _tried(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as error:
            log.warning("Tracker %s failed (%s) and gets no more rows; curves.jsonl has all.", self._name, _why(error))
            self._tracker = None
            return None


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"


def _tensorboard() -> Opener:
    try:
        writer = import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError:
        raise MissingExtraError("Tracker tensorboard is not installed.", hint=install_command(TENSORBOARD)) from None

    def open_tracker(folder: Path, samples_seen: int) -> Tracker:
        purge = samples_seen + 1 if samples_seen else None
        return TensorBoard(writer(str(folder / TENSORBOARD), purge_step=purge))

    return open_tracker


def _plugins() -> dict[str, metadata.EntryPoint]:
    if os.environ.get("CURATE_DISABLE_PLUGINS") == "1":
        return {}
    return {point.name: point for point in metadata.entry_points(group=GROUP)}
