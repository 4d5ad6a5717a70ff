"""From records of a listing to pictures ready for the encoder: read, hash, decode, cut, prepare. Imports no torch.

Small sources are loaded in threads, which start at once. Larger ones are loaded in worker processes: no two decoders
wait for one interpreter, and one that crashes or hangs takes its image with it and not the run. A worker that dies is
replaced, and its records are tried again in halves until the one that kills workers stands alone, which becomes an
error like any other.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from time import perf_counter
from typing import Any

import numpy as np
from PIL import Image

from embeddings import files
from embeddings.errors import CurateError, ImageError
from embeddings.pictures.decode import decode_scaled
from embeddings.pictures.tiles import Box
from embeddings.pictures.views import RegionOfInterest, cut, part_sha256
from embeddings.pipeline.processes import Worker, WorkerDied
from embeddings.sources import Address, Source, open_source

Prepare = Callable[[Image.Image], np.ndarray]
PROCESSES_FROM = 2_000  # images; fewer are done before workers have started
PATIENCE_S = 300.0  # for one call; a picture takes milliseconds, a slow network with its retries minutes
KILLER = "its decoding ended the worker process: it {}"


@dataclass
class Item:
    """One picture on its way: its row, and then its pixels, its vector, or the reason why it has none."""

    row: dict[str, Any]
    pixels: np.ndarray | None = None
    vector: np.ndarray | None = None
    reason: str = ""


@dataclass(frozen=True)
class Fingerprint:
    """How an image that was embedded before is recognized."""

    sha256: str  # of its first row
    box: Box | None  # the part of the image that this row is of; None: all of it

    def matches(self, sha256: str) -> bool:
        """True if a file with this digest gives the same rows."""
        return self.sha256 == part_sha256(sha256, self.box)


@dataclass
class Loaded:
    """What came of consecutive records: the items of each, or None where it is as it was when it was embedded."""

    items: list[list[Item] | None] = field(default_factory=list)
    read_s: float = 0.0
    decode_s: float = 0.0

    def extend(self, other: Loaded) -> None:
        """Appends what came of the records that follow."""
        self.items += other.items
        self.read_s += other.read_s
        self.decode_s += other.decode_s


class Loader:
    """Loads records of one source for one encoder; thread-safe."""

    def __init__(self, source: Source | Address, prepare: Prepare) -> None:
        self._source = open_source(source) if isinstance(source, Address) else source
        self._prepare = prepare
        self._view = self._source.address.view
        self._region = RegionOfInterest.open(self._view.roi) if self._view.roi else None
        whole = self._view.decode == "exact" or self._view.tiles or self._view.roi
        self._edge = None if whole else getattr(prepare, "edge", None)

    def __call__(self, records: list[dict[str, Any]], known: list[Fingerprint | None]) -> Loaded:
        """Loads consecutive records (schema LISTING); ``known`` says what is held of each already.

        Raises:
            StorageError: no space for the temporary copy that an unsorted table may need.
        """
        loaded = Loaded()
        for record, fingerprint in zip(records, known, strict=True):
            started = perf_counter()
            read = started
            try:
                data = self._source.read(record["uri"])
                sha256 = files.digest_bytes(data)
                read = perf_counter()
                unchanged = fingerprint is not None and fingerprint.matches(sha256)
                loaded.items.append(None if unchanged else self._pictures(record, data, sha256))
            except ImageError as error:
                loaded.items.append([Item(record, reason=error.message)])
            except MemoryError:
                loaded.items.append([Item(record, reason="it does not fit into memory")])
            loaded.read_s += read - started
            loaded.decode_s += perf_counter() - read
        return loaded

    def _pictures(self, record: dict[str, Any], data: bytes, sha256: str) -> list[Item]:
        decoded = decode_scaled(data, edge=self._edge, white=self._view.white)
        facts = {"stamp": stamp_of(record), "bytes": len(data)}
        return [
            Item({**record, **facts, **picture.row(sha256)}, pixels=self._prepare(picture.image))
            for picture in cut(decoded, record, view=self._view, region=self._region)
        ]


def stamp_of(record: dict[str, Any]) -> str:
    """Size and stamp of a record's file in one: equal where the file was not touched."""
    return f"{record['size']} {record['stamp']}"


class Crew:
    """Loaders that work side by side, one for every thread that calls ``load`` at once."""

    def __init__(self, source: Source, prepare: Prepare, *, processes: bool) -> None:
        self._make = (source.address, prepare)
        self._lock = Lock()
        self._idle: list[Worker] = []
        self._all: list[Worker] = []
        self._stopped = False
        self._inside = None if processes and self._start() else Loader(source, prepare)

    def load(self, records: list[dict[str, Any]], known: list[Fingerprint | None]) -> Loaded:
        """As ``Loader``; an image that ends its worker is an error.

        Raises:
            CurateError: a worker cannot be started.
        """
        if self._inside:
            return self._inside(records, known)
        worker = self._hire()
        try:
            loaded: Loaded = worker(records, known, patience_s=PATIENCE_S)
        except WorkerDied as died:
            worker.stop()
            return self._once_more(records, known, died)
        except BaseException:
            worker.stop()
            raise
        with self._lock:
            if not self._stopped:
                self._idle.append(worker)
                return loaded
        worker.stop()
        return loaded

    def close(self) -> None:
        """Ends all workers, idle or not."""
        with self._lock:
            self._stopped = True
            for worker in self._all:
                worker.kill()  # those that are busy are put away by the threads that wait for them
            for worker in self._idle:
                worker.stop()

    def _hire(self) -> Worker:
        with self._lock:
            if self._stopped:
                raise CurateError("Loading was stopped.")
            if self._idle:
                return self._idle.pop()
        worker = Worker("embeddings.pipeline.loading:Loader", *self._make)
        with self._lock:
            self._all.append(worker)
        return worker

    def _start(self) -> bool:
        """Starts the first worker; False if none can be had, as where it cannot import the preparation."""
        try:
            self._idle.append(self._hire())
        except (CurateError, ImportError, AttributeError):
            return False
        return True

    def _once_more(self, records: list[dict[str, Any]], known: list[Fingerprint | None], died: WorkerDied) -> Loaded:
        """In halves, until the record that ends workers is alone; it is blamed only if it ends a second one."""
        if len(records) == 1:
            worker = self._hire()
            try:
                loaded: Loaded = worker(records, known, patience_s=PATIENCE_S)
            except WorkerDied:
                return Loaded([[Item(records[0], reason=KILLER.format(died))]])
            finally:
                worker.stop()
            return loaded
        middle = len(records) // 2
        loaded = self.load(records[:middle], known[:middle])
        loaded.extend(self.load(records[middle:], known[middle:]))
        return loaded


def can_reopen(source: Source) -> bool:
    """True if its address leads to the same source; not so for objects of the user's own kind."""
    return type(source).__module__.startswith("embeddings.sources.")


def can_travel(source: Source, prepare: Prepare) -> bool:
    """True if a worker process could rebuild the source and the preparation."""
    if os.name == "nt" or not can_reopen(source):
        return False
    try:
        return b"__main__" not in pickle.dumps(prepare)  # a worker has another main module
    except Exception:  # closures, locks: pickle raises nearly anything
        return False
