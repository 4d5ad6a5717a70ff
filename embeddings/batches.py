"""From records of a listing to rows and vectors: read, decode, prepare and encode, one batch per worker at a time.

Batches run side by side in threads, each with one torch thread: Pillow, hashing and torch release the interpreter, and
whole batches scale better over cores than threads inside small convolutions do. On an accelerator one thread encodes
while the others decode. Results come back in the order of the listing and do not depend on the number of workers.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import BoundedSemaphore
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from PIL import Image

from embeddings import files
from embeddings.decode import decode
from embeddings.encoders import Encoder
from embeddings.errors import ImageError
from embeddings.sources import REJECTED, Source
from embeddings.store import ROWS, EmbeddingStore

NOT_FINITE = "the encoder gives a value that is not finite in float16"
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Part:
    """What came of consecutive records: a row and a vector each, or an error each."""

    rows: pa.Table  # schema ROWS
    vectors: np.ndarray  # [len(rows), d] float16
    errors: pa.Table  # schema REJECTED
    input_s: float = 0.0  # spent reading and decoding, summed over workers
    encode_s: float = 0.0

    def __len__(self) -> int:
        return len(self.rows) + len(self.errors)

    def timing(self, seconds: float, lanes: int) -> dict[str, float]:
        """Speed over some seconds, and the share of them that encoders, ``lanes`` at a time, stood idle."""
        return {
            "images": len(self),
            "seconds": round(seconds, 3),
            "images_per_second": round(len(self) / seconds, 1),
            "waiting_for_input": round(max(0.0, 1 - self.encode_s / (seconds * lanes)), 3),
        }

    @classmethod
    def join(cls, parts: list[Part]) -> Part:
        """Several parts as one, in their order."""
        return cls(
            rows=pa.concat_tables([p.rows for p in parts]),
            vectors=np.concatenate([p.vectors for p in parts]),
            errors=pa.concat_tables([p.errors for p in parts]),
            input_s=sum(p.input_s for p in parts),
            encode_s=sum(p.encode_s for p in parts),
        )


class Known:
    """Rows of an earlier store of the same encoder, found by key and content, so that only new images are encoded."""

    def __init__(self, store: EmbeddingStore) -> None:
        self._number = {key: i for i, key in enumerate(store.column("key"))}
        self._sha256 = store.column("sha256")
        self._facts = store.rows().select(["pixels", "width", "height", "gray"])
        self._vectors = store.vectors()

    def find(self, key: str, sha256: str) -> tuple[dict[str, Any], np.ndarray] | None:
        """Facts and vector [d] of this image, or None if it is new or has changed."""
        number = self._number.get(key)
        if number is None or self._sha256[number] != sha256:
            return None
        return self._facts.slice(number, 1).to_pylist()[0], self._vectors[number]


@dataclass
class _Item:
    row: dict[str, Any]
    pixels: np.ndarray = field(default_factory=lambda: np.empty(0))  # empty: nothing to encode
    vector: np.ndarray = field(default_factory=lambda: np.empty(0))
    reason: str = ""


class Embedder:
    """One source under one encoder, embedded by several workers."""

    def __init__(self, source: Source, encoder: Encoder, *, workers: int, known: Known | None = None) -> None:
        self.lanes = workers if encoder.parallel else 1  # batches encoded at once
        self._source, self._encoder, self._workers, self._known = source, encoder, workers, known
        self._turn = BoundedSemaphore(self.lanes)

    def parts(self, tables: Sequence[pa.Table]) -> Iterator[tuple[int, Part]]:
        """(number of the table, part) for every batch of every table (schema LISTING), in order."""
        size = self._encoder.batch_size
        batches = (
            (number, table.slice(start, size))
            for number, table in enumerate(tables)
            for start in range(0, len(table), size)
        )
        with one_thread_each(self._workers) as pool:
            yield from ordered(pool, lambda batch: (batch[0], self.embed(batch[1])), batches, ahead=2 * self._workers)

    def embed(self, records: pa.Table) -> Part:
        """Rows, vectors and errors of at most ``batch_size`` records (schema LISTING)."""
        started = perf_counter()
        items = [self._load(record) for record in records.to_pylist()]
        input_s = perf_counter() - started
        encode_s = self._encode([item for item in items if item.pixels.size])
        good = [item for item in items if not item.reason]
        bad = [{**item.row, "reason": item.reason} for item in items if item.reason]
        return Part(
            rows=pa.Table.from_pylist([item.row for item in good], schema=ROWS),
            vectors=np.array([item.vector for item in good], np.float16).reshape(-1, self._encoder.spec.dim),
            errors=pa.Table.from_pylist(bad, schema=REJECTED),
            input_s=input_s,
            encode_s=encode_s,
        )

    def _load(self, record: dict[str, Any]) -> _Item:
        try:
            data = self._source.read(record["uri"])
            row = {**record, "sha256": files.digest_bytes(data), "bytes": len(data)}
            known = self._known.find(record["key"], row["sha256"]) if self._known else None
            if known:
                return _Item({**row, **known[0]}, vector=known[1])
            image = decode(data)
            return _Item({**row, **image_facts(image)}, pixels=self._encoder.prepare(image))
        except ImageError as error:
            return _Item(record, reason=error.message)

    def _encode(self, items: list[_Item]) -> float:
        """Gives every item its vector, or the reason why it has none; returns the seconds that took."""
        if not items:
            return 0.0
        batch = np.zeros((self._encoder.batch_size, *items[0].pixels.shape), np.uint8)
        batch[: len(items)] = [item.pixels for item in items]
        with self._turn, np.errstate(over="ignore"):
            started = perf_counter()
            vectors = self._encoder.encode(batch).astype(np.float16)
            seconds = perf_counter() - started
        for item, vector in zip(items, vectors, strict=False):
            item.vector, item.reason = vector, "" if np.isfinite(vector).all() else NOT_FINITE
        return seconds


def image_facts(image: Image.Image) -> dict[str, Any]:
    """Size, digest of the pixels, and whether red = green = blue everywhere, of an RGB image."""
    pixels = hashlib.sha256(f"{image.width}x{image.height} ".encode())
    pixels.update(image.tobytes())
    red, green, blue = (band.tobytes() for band in image.split())
    return {"width": image.width, "height": image.height, "pixels": pixels.hexdigest(), "gray": red == green == blue}


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
