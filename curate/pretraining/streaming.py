"""The selected images without a decoded copy: each is read and decoded anew at every visit, by several threads.

The pixels are those that ``images`` would keep, so a run is the same bit for bit either way. Threads, not processes:
Pillow decodes and shrinks without the interpreter's lock (four fifths of the time for a JPEG of 300 pixels, more for
larger ones), and pixels need not travel. What a process holds does not grow with the number of images, but for their
addresses in the selection and 40 bytes each.

An image that cannot be read when its turn comes, or has changed since it was selected, has a stand-in: the next image
of its stage, in the order of their hashes, that can be read. So C, the sizes of the batches and what each stage gets
stay exact, and a step depends on nothing but itself and what the sources hold: a restart, or another number of threads
or processes, finds the same stand-ins. (A batch smaller by one would change C, the number of negatives and the share
of each process.) The views of a stand-in are drawn as those of the image it stands for, so that they are new ones even
where it has a turn of its own in the same pass, or stands in the same batch. Each visit tries anew; an image that comes
back is used again.

Every image that ever failed is listed with its first reason, and is not counted in N, even if it was seen before.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa

from curate.exports.originals import ERRORS
from curate.pretraining import ranks
from curate.pretraining.images import images_of, in_order, square
from embeddings import files
from embeddings.errors import TrainingError
from embeddings.pipeline.batches import core_count
from embeddings.sources import Source

log = logging.getLogger(__name__)
PATIENCE = 32  # images in a row that may fail; with more the source is taken for gone, not the images for bad


class ImageStream:
    """N images that are decoded when they are asked for."""

    def __init__(
        self, table: pa.Table, sources: Mapping[str, Source], folder: Path, *, edge: int, workers: int | None = None
    ) -> None:
        """Opens no image.

        Args:
            table: schema SELECTION.
            sources: by name, to read from.
            folder: where the processes of the run, and later ones that go on with it, keep what failed.
            edge: S, of the squares in pixels.
            workers: threads; default one per core.
        """
        self.edge, self._rows = edge, in_order(table)
        self.facts = images_of(self._rows)
        self._sources, self._threads = sources, workers or _own_cores()
        self._failures = Failures(folder)
        self._ring = np.lexsort((self.facts.hashes, self.facts.stages))  # ties go to the lower row
        self._place = np.argsort(self._ring)
        self._stages, self._starts = np.unique(self.facts.stages[self._ring], return_index=True)

    def __len__(self) -> int:
        return len(self.facts)

    @property
    def errors(self) -> pa.Table:
        """Schema ERRORS: the images that failed so far, in this process and the others of the run."""
        return self._failures.table()

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 [n, 3, S, S] of some rows, or of their stand-ins.

        Raises:
            TrainingError: an image, and the 32 after it that could stand in, cannot be read; none of them is listed.
        """
        pixels = np.empty((len(rows), 3 * self.edge * self.edge), np.uint8)
        columns = self._rows.select(["source", "uri", "sha256"]).take(pa.array(rows)).to_pydict().values()
        with ThreadPoolExecutor(self._threads) as pool:
            reasons = list(pool.map(self._decode, pixels, *columns))
        failed = {int(row): reason for row, reason in zip(rows, reasons, strict=True) if reason}
        for place, row in enumerate(rows):
            if reasons[place]:
                failed |= self._stand_in(pixels[place], int(row), reasons[place] or "")
        self._list(failed)
        return pixels.reshape(-1, 3, self.edge, self.edge)

    def _decode(self, out: np.ndarray, source: str, uri: str, sha256: str | None) -> str | None:
        """Writes the pixels of an image, or returns why there are none."""
        found = square(self._sources[source], uri, sha256, edge=self.edge)
        if isinstance(found, str):
            return found
        out[:] = found
        return None

    def _stand_in(self, out: np.ndarray, row: int, reason: str) -> dict[int, str]:
        """Writes the pixels of the next readable image; returns which ones before it failed, and why."""
        failed = {row: reason}
        for other in self._after(row):
            image = self._rows.slice(other, 1).to_pylist()[0]
            found = self._decode(out, image["source"], image["uri"], image["sha256"])
            if found is None:
                return failed
            failed[other] = found
        first = self._rows.slice(row, 1).to_pylist()[0]
        raise TrainingError(
            f"{len(failed)} images in a row cannot be read; the first, {first['source']}/{first['key']}: {reason}.",
            hint="Put the source back and run the same command again; it goes on from the last checkpoint.",
        )

    def _after(self, row: int) -> Iterator[int]:
        """The rows that may stand in for one, in turn: those of its stage with the next higher hashes, all around."""
        stage = int(np.searchsorted(self._stages, self.facts.stages[row]))
        start = int(self._starts[stage])
        end = int(self._starts[stage + 1]) if stage + 1 < len(self._starts) else len(self)
        place, n = int(self._place[row]) - start, end - start
        for step in range(1, min(PATIENCE + 1, n)):
            yield int(self._ring[start + (place + step) % n])

    def _list(self, failed: Mapping[int, str]) -> None:
        if not failed:
            return
        names = self._rows.select(ERRORS.names[:3]).take(pa.array(sorted(failed))).to_pylist()
        self._failures.add([{**row, "reason": failed[i]} for i, row in zip(sorted(failed), names, strict=True)])


class Failures:
    """Images that could not be read, on disk as they are met: one file per process, one line per image."""

    def __init__(self, folder: Path) -> None:
        """Takes up what earlier processes of the run left; a last line cut off by a crash is dropped."""
        self._folder, self._path = folder, folder / f"failed-{ranks.rank()}.jsonl"
        mine = _lines(self._path)
        self._known = {(row["source"], row["key"]) for row in mine}
        if mine:
            with files.atomic_path(self._path) as temporary:
                temporary.write_text("".join(map(_line, mine)), encoding="utf-8")

    def add(self, rows: list[dict[str, str]]) -> None:
        """Lists images, each with its first reason.

        Raises:
            StorageError: no space.
        """
        fresh = [row for row in rows if (row["source"], row["key"]) not in self._known]
        if not fresh:
            return
        if not self._known:
            log.warning("%s/%s cannot be read (%s); others stand in.", *map(fresh[0].get, ("source", "key", "reason")))
        self._known |= {(row["source"], row["key"]) for row in fresh}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write("".join(map(_line, fresh)))
        except OSError as error:
            raise files.storage_error(self._path, error) from error

    def table(self) -> pa.Table:
        """Schema ERRORS: those of all processes, by (source, key)."""
        rows = [row for path in sorted(self._folder.glob("failed-*.jsonl")) for row in _lines(path)]
        first = {(row["source"], row["key"]): row for row in reversed(rows)}
        return pa.Table.from_pylist([first[name] for name in sorted(first)], schema=ERRORS)


def _own_cores() -> int:
    """Cores of this process where torchrun started several on one machine."""
    return max(1, core_count() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _lines(path: Path) -> list[dict[str, str]]:
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def _line(row: dict[str, str]) -> str:
    return json.dumps(row, sort_keys=True) + "\n"
