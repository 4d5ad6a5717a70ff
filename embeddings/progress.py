"""How long work shows that it is alive: one callable; libraries stay silent, the command line decides how it looks."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called now and then from long work; must be cheap and must not raise."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` units of ``stage`` are finished; ``note`` is a figure worth showing (325 img/s)."""


def silent(stage: str, done: int, total: int, note: str = "") -> None:
    """The default: says nothing."""
