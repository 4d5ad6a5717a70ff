"""In which order the stages of a selection are trained on, counted in samples seen.

stages    the selection's stages one after the other, each for its part of C
reversed  the same, last stage first
mixed     all images together, whatever their stage
ramp      two stages: at a share r of C, a share r of the samples is of the second one

The part of C that a stage gets is that of its images (times their repeats) among all, or what is asked for:
``stages:0.7,0.3``. Each stage is an endless stream of passes of its own; here it is decided which sample of the run
comes from which stream.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embeddings.errors import UnknownNameError, UsageError

ORDERS = ("stages", "reversed", "mixed", "ramp")


@dataclass(frozen=True)
class Order:
    """A name of ORDERS, and the shares of C of the stages in the order they are trained on, if they are given."""

    name: str = "stages"
    shares: tuple[float, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Order:
        """Reads ``NAME`` or ``NAME:SHARE,SHARE,...``.

        Raises:
            UnknownNameError: no such order.
            UsageError: shares that are not positive numbers with a sum of 1, or where they mean nothing.
        """
        name, _, rest = text.partition(":")
        if name not in ORDERS:
            raise UnknownNameError("order of stages", name, ORDERS)
        try:
            shares = tuple(float(share) for share in rest.split(",")) if rest else ()
        except ValueError:
            shares = (0.0,)
        if shares and (name in ("mixed", "ramp") or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6):
            raise UsageError(
                f"{text!r} is not an order of stages.",
                hint="Write stages or reversed, with shares that add up to 1 (stages:0.7,0.3); others take none.",
            )
        return cls(name, shares)

    def __str__(self) -> str:
        return self.name + (":" + ",".join(f"{share:g}" for share in self.shares) if self.shares else "")


class Streams:
    """Which stream each sample of a run comes from, and which sample of that stream it is."""

    def __init__(self, stages: np.ndarray, repeats: np.ndarray, *, samples: int, order: Order) -> None:
        """Lays out C samples over images of ``stages`` (int [N]), each ``repeats`` times in a pass (int64 [N]).

        Raises:
            UsageError: shares for another number of stages, or a ramp without exactly two.
        """
        present = np.unique(stages)
        if order.name == "mixed":
            self.rows = [np.arange(len(stages))]
        else:
            ranked = present[::-1] if order.name == "reversed" else present
            self.rows = [np.flatnonzero(stages == stage) for stage in ranked]
        self._samples, self._ramps = samples, order.name == "ramp"
        if self._ramps and len(present) != 2:
            raise UsageError(
                f"A ramp goes from one stage to another; the selection has {len(present)}.",
                hint="Select with a far share (--budget far=0.3), or leave out the order.",
            )
        if order.shares and len(order.shares) != len(self.rows):
            raise UsageError(f"{len(order.shares)} shares were given for the {len(self.rows)} stages of the selection.")
        mass = np.array(order.shares or [repeats[rows].sum() for rows in self.rows], dtype=float)
        self._edges = np.rint(np.concatenate([[0], np.cumsum(mass) / mass.sum()]) * samples).astype(np.int64)

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Stream number and place in it, each int64 [n], of the run's samples at some positions [n]."""
        if not self._ramps:
            streams = np.searchsorted(self._edges[1:-1], positions, side="right")
            return streams, positions - self._edges[streams]
        second = self._seconds(positions)
        streams = self._seconds(positions + 1) - second
        return streams, np.where(streams == 1, second, positions - second)

    def counts(self) -> np.ndarray:
        """Samples of each stream, int64 [streams]."""
        if not self._ramps:
            return np.diff(self._edges)
        second = int(self._seconds(np.array([self._samples]))[0])
        return np.array([self._samples - second, second])

    def _seconds(self, positions: np.ndarray) -> np.ndarray:
        """How many of the first samples are of the ramp's second stage: the integral of r, rounded down."""
        halves: np.ndarray = positions.astype(np.int64) ** 2 // (2 * self._samples)
        return halves
