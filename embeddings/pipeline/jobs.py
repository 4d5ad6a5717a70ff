"""One call of ``embed``: a plan, and what it takes to carry it out, in memory or shard by shard on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, Protocol

import pyarrow as pa

from embeddings.errors import CorruptError, PartialError
from embeddings.pipeline import shards
from embeddings.pipeline.batches import Part
from embeddings.pipeline.clock import Clock
from embeddings.pipeline.known import Known
from embeddings.pipeline.locks import locked
from embeddings.pipeline.shards import Plan, Shard
from embeddings.progress import Progress
from embeddings.store import EmbeddingStore


class Maker(Protocol):
    """Makes rows and vectors of records: an ``Embedder``, several devices, or the vectors of the user's own."""

    settings: Mapping[str, Any]  # what of it decides the vectors, as {"precision": "float32"}

    def parts(
        self, tables: Sequence[pa.Table], *, known: Known | None, clock: Clock, told: Callable[[int], None]
    ) -> Iterator[Part]:
        """One part for every table (schema LISTING), in order."""


class Job:
    """A plan, a way to get its maker when there is something to do, and whom to tell."""

    def __init__(self, plan: Plan, maker: Callable[[], Maker], *, progress: Progress, retry: bool = False) -> None:
        """``retry``: try the images again that failed before."""
        self._plan, self._maker, self._progress, self._retry = plan, maker, progress, retry

    def run(self, folder: Path | None, *, wait: bool) -> EmbeddingStore:
        """The store, made or reused; ``wait`` for another process that writes to the folder.

        Raises:
            ForeignFolderError: the folder holds something else, or another process is writing to it.
            PartialError: not one image could be used.
            StorageError: no space or no permission; what is done is kept.
        """
        if folder is None:
            return self._in_memory()
        store = self.reuse(folder)
        if store is None:
            announce = partial(self._progress, "wait", 0, 0) if wait else None
            with locked(folder, announce=announce):
                store = self.reuse(folder) or self._on_disk(folder)  # another process may have made it meanwhile
        return store

    def reuse(self, folder: Path) -> EmbeddingStore | None:
        """The store that already stands in this folder, if it is of this plan and whole; writes nothing."""
        facts = self._plan.require_own(folder)
        if not facts or not self._plan.is_done(facts) or (self._retry and facts["errors"]):
            return None
        if shards.is_claimed(folder):  # by a process that goes on with it, or by one that was killed
            return None
        try:
            return EmbeddingStore.open(folder)
        except CorruptError:
            return None  # mended by embedding what is broken again

    def _in_memory(self) -> EmbeddingStore:
        maker = self._get_maker()
        plan = self._plan.with_settings(maker.settings)
        (part,) = self._parts(maker, [plan.listing.images], None, Clock())
        if not len(part.rows):
            self._fail([part.errors])
        errors = pa.concat_tables([plan.listing.rejected, part.errors]).sort_by("key")
        return EmbeddingStore(spec=plan.spec, rows=part.rows, vectors=part.vectors, errors=errors, facts=plan.facts())

    def _on_disk(self, folder: Path) -> EmbeddingStore:
        """Embeds shard by shard, going on where an earlier run stopped."""
        maker = self._get_maker()
        attempt = (shards.read_facts(folder) or {}).get("attempt", 0) + (self._retry or self._plan.is_untold)
        plan = replace(self._plan.with_settings(maker.settings), attempt=attempt)
        planned, known = plan.shards(folder, retry=self._retry), _known(folder, plan)
        plan.claim(folder)
        standing = {shard: shard.rows_done(folder) for shard in planned}
        todo = [shard for shard, rows in standing.items() if rows is None]
        self._fill(folder, todo, maker, known)
        made = {shard: shard.rows_done(folder) for shard in todo}
        sizes = {shard: rows or 0 for shard, rows in (standing | made).items()}
        if not any(sizes.values()):
            errors = [shard.errors(folder) for shard in planned]
            shards.tidy(folder)
            self._fail(errors)
        plan.finish(folder, sizes)
        return EmbeddingStore.open(folder)

    def _get_maker(self) -> Maker:
        self._progress("embed", 0, len(self._plan.listing.images), f"loading {self._plan.spec.name}")
        return self._maker()

    def _fill(self, folder: Path, todo: Sequence[Shard], maker: Maker, known: Known | None) -> None:
        """Makes the shards that are missing; one is written while the next one is made."""
        clock, writing = Clock(), list[Future[None]]()
        parts = self._parts(maker, [shard.records for shard in todo], known, clock)
        with ThreadPoolExecutor(1) as writer, closing(parts):
            for shard, part in zip(todo, parts, strict=True):
                for earlier in writing:
                    earlier.result()
                writing = [writer.submit(_write, folder, shard, part, clock.lap(part.records))]
            for last in writing:
                last.result()

    def _parts(self, maker: Maker, tables: Sequence[pa.Table], known: Known | None, clock: Clock) -> Generator[Part]:
        total = len(self._plan.listing.images)
        before = total - sum(len(table) for table in tables)

        def told(records: int) -> None:
            clock.records += records
            self._progress("embed", before + clock.records, total, clock.note())

        yield from maker.parts(tables, known=known, clock=clock, told=told)

    def _fail(self, errors: Sequence[pa.Table]) -> NoReturn:
        table = pa.concat_tables([self._plan.listing.rejected, *errors])
        raise PartialError(
            f"None of the {len(table):,} images of {self._plan.source} could be used: {reasons(table)}.",
            hint="Nothing was written. Look at one of the images.",
        )


def reasons(errors: pa.Table) -> str:
    """The most frequent reasons, each with one key."""
    keys = dict(zip(errors["reason"].to_pylist(), errors["key"].to_pylist(), strict=True))
    common = Counter(errors["reason"].to_pylist()).most_common(3)
    return "; ".join(f"{reason} ({count:,}, as {keys[reason]!r})" for reason, count in common)


def _known(folder: Path, plan: Plan) -> Known | None:
    """Rows of the store that stands there, if its vectors are like those to come."""
    try:
        store = EmbeddingStore.open(folder)
        return Known(store, view=plan.view, source=plan.source) if plan.has_settings(store.facts) else None
    except CorruptError:
        return None


def _write(folder: Path, shard: Shard, part: Part, timing: dict[str, Any]) -> None:
    shard.write(folder, part)
    shards.add_timing(folder, timing)
