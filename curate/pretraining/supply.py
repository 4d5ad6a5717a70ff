"""How a run comes by its images: decoded once and kept, or decoded at every visit.

They are kept (``images``) while N x 3 x S x S bytes fit into the knob ``cache``, in GB of disk below the run's folder,
20 unless told: a million squares of 80 pixels (views of 64), 85,000 of 280 (views of 224). Else they are streamed
(``streaming``); ``cache=0`` always streams. The pixels are the same, so the run is.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa

from curate.pretraining.execution import Execution
from curate.pretraining.images import load_images, square_bytes
from curate.pretraining.schedule import Images
from curate.pretraining.streaming import ImageStream
from embeddings import files
from embeddings.errors import ForeignFolderError
from embeddings.progress import Progress
from embeddings.sources import Source

FOLDER, FACTS = "images", "facts.json"
T = TypeVar("T")


class TrainingImages(Protocol):
    """The images of a run."""

    @property
    def facts(self) -> Images:
        """What the schedule must know of those that are scheduled."""

    @property
    def errors(self) -> pa.Table:
        """Schema ERRORS: the selected images that could not be read, so far."""

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 [n, 3, S, S] of some scheduled rows."""


@dataclass(frozen=True)
class Footprint:
    """What the decoded images of a run take, and whether that is kept."""

    bytes: int
    cache: float  # GB

    @classmethod
    def of(cls, n: int, *, edge: int, execution: Execution) -> Footprint:
        """Of n images that are decoded to squares of ``edge`` pixels."""
        return cls(n * square_bytes(edge), execution.cache)

    @property
    def streamed(self) -> bool:
        """True if the images are decoded at each visit."""
        return self.bytes > self.cache * 1e9

    def __str__(self) -> str:
        power = max(0, min(3, (len(str(self.bytes)) - 1) // 3))
        size = f"{self.bytes / 1000**power:.1f} {('bytes', 'kB', 'MB', 'GB')[power]}"
        if self.streamed:
            return f"images decoded at each visit ({size} in all, more than cache={self.cache:g})"
        return f"{size} of decoded images on disk meanwhile"


def open_images(
    table: pa.Table,
    sources: Mapping[str, Source],
    folder: Path,
    *,
    edge: int,
    execution: Execution,
    progress: Progress,
) -> TrainingImages:
    """The images of a selection, for the run in ``folder``.

    Args:
        table: schema SELECTION.
        sources: by name, to read from.
        folder: the run's.
        edge: S, of the squares in pixels.
        execution: its ``cache`` decides.
        progress: told of each shard that is decoded.

    Raises:
        ForeignFolderError: the run was begun with other images, as when its ``cache`` was another one.
        TrainingError: not one image could be read.
        StorageError: no space.
    """
    home = folder / FOLDER
    images: TrainingImages
    if Footprint.of(len(table), edge=edge, execution=execution).streamed:
        images = ImageStream(table, sources, home, edge=edge, workers=execution.workers)
    else:
        images = load_images(table, sources, home, edge=edge, progress=progress)
    _require_same(home / FACTS, images.facts, begun=is_begun(folder))
    return images


def is_begun(folder: Path) -> bool:
    """True if the run has a state to go on from."""
    return any((folder / "checkpoints").glob("step-*.json"))


def _require_same(path: Path, facts: Images, *, begun: bool) -> None:
    """Refuses to go on with other images than those that the first steps were scheduled over."""
    found = {"images": len(facts), "digest": files.digest_bytes(facts.hashes.tobytes())}
    known = files.read_json(path) if path.exists() else found
    if begun and known != found:
        raise ForeignFolderError(
            f"The run in {path.parent.parent} was begun on {known['images']:,} images, some of them others than the "
            f"{found['images']:,} that it finds now.",
            hint="Give the cache it was begun with, or choose a new folder for --out.",
        )
    files.write_json(path, found)


class Waiting:
    """Which share of the time a loop waits for what it iterates over, once the first pass over the images is done.

    The first pass is left out because it finds the files not yet in memory; a run that ends within it counts whole.
    """

    def __init__(self, *, after: int) -> None:
        """``after``: the items, from 0, from which on time counts; those before count only as long as it is alone."""
        self._after = after
        self._waited = self._total = 0.0

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """The items, with the time until each is there booked as waiting."""
        iterator, number = iter(items), 0
        start = time.perf_counter()
        for item in iterator:
            there = time.perf_counter()
            yield item
            end = time.perf_counter()
            if number == self._after:
                self._waited = self._total = 0.0
            self._waited, self._total = self._waited + there - start, self._total + end - start
            start, number = end, number + 1

    @property
    def share(self) -> float | None:
        """Seconds waited / seconds in all; None before the first item."""
        return round(self._waited / self._total, 4) if self._total else None
