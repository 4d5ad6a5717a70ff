"""From records to rows and vectors: loading, encoding and writing side by side, with bounded queues between them.

    load     read, hash, decode, cut, prepare        several at once, in threads or worker processes
    encode   full batches in the order of the listing  several at once on a CPU, one on an accelerator
    write    the caller's, in a thread of its own

Batches are formed in order at a fixed size, the last one of a table padded, so rows and vectors do not depend on the
number of workers. Time that the coordinating thread spends waiting is booked to the stage it waits for.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from embeddings.encoders import Encoder
from embeddings.errors import CurateError
from embeddings.pipeline.clock import Clock
from embeddings.pipeline.known import Known
from embeddings.pipeline.loading import PROCESSES_FROM, Crew, Item, Loaded, can_travel
from embeddings.sources import REJECTED, Source
from embeddings.store import ROWS

NOT_FINITE = "the encoder gives a value that is not finite in float16"
CHUNK = 16  # records loaded in one go
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Part:
    """What came of consecutive records: a row and a vector for every picture, or an error for a record."""

    rows: pa.Table  # schema ROWS
    vectors: np.ndarray  # [len(rows), d]
    errors: pa.Table  # schema REJECTED
    records: int

    @classmethod
    def of(cls, items: Sequence[Item], *, records: int, dim: int) -> Part:
        """Finished items as tables."""
        good = [item for item in items if not item.reason]
        bad = [{**item.row, "reason": item.reason} for item in items if item.reason]
        return cls(
            rows=pa.Table.from_pylist([item.row for item in good], schema=ROWS),
            vectors=np.array([item.vector for item in good], np.float16).reshape(-1, dim),
            errors=pa.Table.from_pylist(bad, schema=REJECTED),
            records=records,
        )


@dataclass
class _Open:
    """A table whose items are not all encoded yet."""

    records: int
    items: list[Item] = field(default_factory=list)
    waiting: list[Item] = field(default_factory=list)  # for a full batch
    encoding: list[Future[None]] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return all(future.done() for future in self.encoding)


class Embedder:
    """One source under one encoder, embedded by several workers."""

    def __init__(self, source: Source, encoder: Encoder, *, workers: int) -> None:
        self.settings: Mapping[str, Any] = {"precision": encoder.precision}
        self._source, self._encoder, self._workers = source, encoder, workers
        self._lanes = workers if encoder.parallel else 1  # batches encoded at once
        self._tiled = source.address.view.tiles is not None
        self._ahead = workers if self._tiled else 2 * workers  # chunks; one of tiles may hold thousands of pictures

    def parts(
        self, tables: Sequence[pa.Table], *, known: Known | None, clock: Clock, told: Callable[[int], None]
    ) -> Generator[Part]:
        """One part for every table (schema LISTING), in order.

        Args:
            tables: Records to embed.
            known: What need not be embedded again.
            clock: Waits are booked here.
            told: Called with the number of records that were just loaded.
        """
        unfinished: deque[_Open] = deque()
        chunks = _chunks(tables, 1 if self._tiled else CHUNK)
        with ExitStack() as stack:
            encoders = stack.enter_context(one_thread_each(self._lanes))
            stack.callback(_cancel, unfinished)  # else an interrupt would wait for batches that nobody wants
            loaders = stack.enter_context(ThreadPoolExecutor(self._workers))
            crew = stack.enter_context(closing(self._crew(sum(len(table) for table in tables))))
            load = partial(_load, crew=crew, known=known)
            for chunk, loaded in _timed(ordered(loaders, load, chunks, ahead=self._ahead), clock):
                if chunk.first:
                    unfinished.append(_Open(records=len(tables[chunk.table])))
                self._submit(unfinished[-1], loaded, encoders, flush=chunk.last)
                told(len(chunk.records))
                self._catch_up(unfinished, clock)
                while unfinished and unfinished[0].done and (chunk.last or len(unfinished) > 1):
                    yield from self._finished(unfinished.popleft(), clock)
            while unfinished:
                yield from self._finished(unfinished.popleft(), clock)

    def _crew(self, images: int) -> Crew:
        processes = images >= PROCESSES_FROM and can_travel(self._source, self._encoder.prepare)
        return Crew(self._source, self._encoder.prepare, processes=processes)

    def _submit(self, table: _Open, loaded: Loaded, encoders: ThreadPoolExecutor, *, flush: bool) -> None:
        """Adds a chunk's items to their table and sends full batches to be encoded; ``flush`` sends the rest too."""
        items = [item for found in loaded.items for item in found or ()]
        table.items += items
        table.waiting += [item for item in items if item.pixels is not None]
        size = self._encoder.batch_size
        while len(table.waiting) >= size or (flush and table.waiting):
            full, table.waiting = table.waiting[:size], table.waiting[size:]
            table.encoding.append(encoders.submit(self._encode, full, _padded(full, size)))

    def _encode(self, items: list[Item], batch: np.ndarray) -> None:
        """Gives every item its vector, or the reason why it has none."""
        with np.errstate(over="ignore"):
            vectors = np.asarray(self._encoder.encode(batch)).astype(np.float16)
        wanted = (len(batch), self._encoder.spec.dim)
        if vectors.shape != wanted:
            raise CurateError(
                f"The encoder {self._encoder.spec.name} gives an array of shape {list(vectors.shape)}, wanted "
                f"{list(wanted)} by its spec.",
                hint="Mend the encoder, or the dimension in its spec.",
            )
        for item, vector in zip(items, vectors, strict=False):
            item.vector, item.reason = vector, "" if np.isfinite(vector).all() else NOT_FINITE

    def _catch_up(self, unfinished: deque[_Open], clock: Clock) -> None:
        """Waits until no more than two batches a lane are on their way."""
        running = [future for table in unfinished for future in table.encoding if not future.done()]
        since = perf_counter()
        for future in running[: -2 * self._lanes]:
            future.result()
        clock.book(since, encode=1)

    def _finished(self, table: _Open, clock: Clock) -> Iterator[Part]:
        since = perf_counter()
        for future in table.encoding:
            future.result()
        clock.book(since, encode=1)
        part = Part.of(table.items, records=table.records, dim=self._encoder.spec.dim)
        since = perf_counter()
        yield part
        clock.book(since, write=1)


@dataclass(frozen=True)
class _Chunk:
    """Some records of a table, to be loaded in one go."""

    table: int
    records: pa.Table
    first: bool
    last: bool


def _chunks(tables: Sequence[pa.Table], size: int) -> Iterator[_Chunk]:
    for number, table in enumerate(tables):
        for start in range(0, len(table), size):
            yield _Chunk(number, table.slice(start, size), first=not start, last=start + size >= len(table))


def _padded(items: list[Item], size: int) -> np.ndarray:
    """The pixels of at most ``size`` items as one batch [size, ...], zeros at its end; the items let go of theirs."""
    pixels = [item.pixels for item in items if item.pixels is not None]
    batch = np.zeros((size, *pixels[0].shape), pixels[0].dtype)
    for place, item in zip(batch, items, strict=False):
        place[...], item.pixels = item.pixels, None
    return batch


def _cancel(unfinished: Iterable[_Open]) -> None:
    for future in [future for table in unfinished for future in table.encoding]:
        future.cancel()


def _load(chunk: _Chunk, *, crew: Crew, known: Known | None) -> tuple[_Chunk, Loaded]:
    """Loads a chunk, but for what is known and was not touched."""
    records = chunk.records.to_pylist()
    if known is None:
        return chunk, crew.load(records, [None] * len(records))
    carried = [known.untouched(record) for record in records]
    rest = [record for record, items in zip(records, carried, strict=True) if items is None]
    loaded = crew.load(rest, [known.fingerprint(record) for record in rest]) if rest else Loaded()
    fresh = (known.items(r) if items is None else items for r, items in zip(rest, loaded.items, strict=True))
    return chunk, Loaded([items or next(fresh) for items in carried], loaded.read_s, loaded.decode_s)


def _timed(chunks: Iterator[tuple[_Chunk, Loaded]], clock: Clock) -> Iterator[tuple[_Chunk, Loaded]]:
    """The same, with the time that passes until each is there booked to reading and decoding."""
    since = perf_counter()
    for chunk, loaded in chunks:
        clock.book(since, read=loaded.read_s, decode=loaded.decode_s)
        yield chunk, loaded
        since = perf_counter()


def ordered(pool: ThreadPoolExecutor, task: Callable[[T], R], items: Iterable[T], *, ahead: int) -> Iterator[R]:
    """``map(task, items)`` in the pool, in order, ``ahead`` of what is taken; on the way out the rest is canceled."""
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(task, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


@contextmanager
def one_thread_each(workers: int) -> Iterator[ThreadPoolExecutor]:
    """A pool whose threads run torch on one core each; torch's own setting is put back afterwards."""
    import torch

    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


def core_count() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
