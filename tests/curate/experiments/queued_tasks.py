"""Tasks for the tests of the queue; each leaves a line per completed effect, so that a second one would show."""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path

from embeddings.errors import TrainingError


def note(folder: Path, *, device: str, progress, value: int = 0, seconds: float = 0.0) -> None:
    """Takes its time, then leaves a line."""
    progress("working", 1, 2)
    progress("", 0, 0, f"announced {value}")
    time.sleep(seconds)
    leave(folder, value)


def fail_once(folder: Path, *, device: str, progress, how: str, value: int = 0) -> None:
    """Fails, or dies, at the first attempt."""
    begun = folder / "begun"
    if not begun.exists():
        begun.touch()
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "refuse":
            raise TrainingError("The loss is not finite.", hint="Lower the rate.")
        raise ZeroDivisionError("1/0")
    leave(folder, value)


def wait_for_stop(folder: Path, *, device: str, progress, value: int = 0) -> None:
    """The first time it waits until it is stopped, and keeps what it has."""
    if not (folder / "kept").exists():
        try:
            (folder / "begun").touch()
            time.sleep(60)
        except KeyboardInterrupt:
            (folder / "kept").touch()
            raise
    leave(folder, value)


def warn(folder: Path, *, device: str, progress, value: int = 0, share: float = 1.0) -> None:
    """Warns as a training does."""
    logging.getLogger("curate.pretraining").warning("The batch is %d, %.0f%% of it.", value, 100 * share)
    logging.getLogger("curate.pretraining").info("not for everybody")


def threads(folder: Path, *, device: str, progress) -> None:
    """Says which device and how many threads it was given; prints, which must disturb nothing."""
    print("a library prints")  # noqa: T201
    (folder / "place").write_text(f"{device} {os.environ['OMP_NUM_THREADS']}")


def leave(folder: Path, value: int) -> None:
    """One line more, in one step."""
    with (folder / "effect").open("a") as file:
        file.write(f"{value} {os.getpid()}\n")
