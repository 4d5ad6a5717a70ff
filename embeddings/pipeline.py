"""Image sources to stores: embedded once, resumed where it stopped, reused while source and encoder stay the same.

An interrupted run leaves finished shards, and the same call goes on from there. When a source has changed, every image
is read and hashed again, but only those whose key or content is new are decoded and encoded. Roles (``label:``,
``group:``) do not count as a change of source; rows chosen by selectors (``half=A``) are a source of their own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict
from itertools import groupby
from operator import itemgetter
from pathlib import Path, PurePosixPath
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa

from embeddings import files, shards
from embeddings.batches import Embedder, Known, Part, core_count
from embeddings.encoders import Encoder
from embeddings.encoders.registry import encoder_spec, get_encoder
from embeddings.errors import CorruptError, EncoderMismatchError, PartialError, UsageError
from embeddings.progress import Progress, silent
from embeddings.shards import Plan
from embeddings.sources import Address, Source, open_source, parse_address
from embeddings.store import EmbeddingStore, EncoderSpec

Embeddable = EmbeddingStore | str | Path | np.ndarray


def embed(
    source: str | Path | Address | Source,
    *,
    encoder: str | Encoder = "lite0",
    out: str | Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    max_errors: float = 0.05,
    progress: Progress = silent,
) -> EmbeddingStore:
    """Embeds the images of a source; each becomes a row and a vector, or a row of errors with the reason.

    Args:
        source: Address (``photos/``, ``emoji.parquet#half=A``) or an open source.
        encoder: A name from ``encoder_names``, ``run:DIR``, or an encoder.
        out: Folder of the store; the same call continues or reuses it. None keeps the store in memory.
        device: ``auto`` (CUDA, else the CPU), or a name that torch knows.
        workers: Threads; the number of cores by default. Changes the speed, never the result.
        max_errors: Share of the images that may fail.
        progress: Told after every batch.

    Returns:
        The store: rows sorted by key, vectors [n, d] float16.

    Raises:
        SourceError: nothing there, or a selector that does not fit.
        UnknownNameError: no such encoder.
        ForeignFolderError: ``out`` holds something else, or a store of another source or encoder.
        PartialError: more than ``max_errors`` of the images failed; the store is kept and usable. Or all of them did.
        StorageError: no space or no permission; what is done is kept.
    """
    workers = _check_limits(workers, max_errors)
    opened = _open(source)
    plan = Plan(source=str(_rows_of(opened.address)), listing=opened.listing(), spec=_spec(encoder))
    job = _Job(plan, opened, workers=workers, progress=progress)
    store = job.reuse(Path(out)) if out is not None else None
    if store is None:
        built = get_encoder(encoder, device=device) if isinstance(encoder, str) else encoder
        store = job.in_memory(built) if out is None else job.on_disk(built, Path(out))
    _check_errors(store, max_errors)
    return store


def as_store(
    thing: Embeddable,
    *,
    name: str,
    encoder: str | Encoder | None = "lite0",
    work: str | Path | None = Path(".curate"),
    device: str = "auto",
    workers: int | None = None,
    progress: Progress = silent,
) -> EmbeddingStore:
    """A store, whatever was given: a store, the folder of one, a source to embed, or an array.

    A source is embedded once below ``work/stores`` and reused from there; its roles are applied to what was embedded
    without them. Selectors and roles work on the folder of a store too (``stores/emoji#half=A,label:subgroup``).

    Args:
        thing: Store, folder of a store, address of a source, or vectors [n, d].
        name: What messages call it.
        encoder: Embeds a source; a store must come from it, unless None.
        work: Folder for stores of sources; None keeps them in memory.
        device: As in ``embed``.
        workers: As in ``embed``.
        progress: As in ``embed``.

    Raises:
        EncoderMismatchError: a store comes from another encoder.
        PartialError: too many images of a source failed, as in ``embed``.
    """
    if isinstance(thing, EmbeddingStore):
        return _require_encoder(thing, encoder, name)
    if not isinstance(thing, str | Path):
        return EmbeddingStore.from_vectors(np.asarray(thing))
    address = parse_address(str(thing))
    if (Path(address.path) / shards.STORE).is_file():
        store = _require_encoder(EmbeddingStore.open(address.path), encoder, name)
        store = store.where(address.where) if address.where else store
    else:
        _refuse_unfinished(Path(address.path))
        encoder = "lite0" if encoder is None else encoder
        rows = _rows_of(address)
        out = None if work is None else Path(work) / "stores" / _folder_name(rows, _spec(encoder))
        report = _titled(progress, name)
        store = embed(rows, encoder=encoder, out=out, device=device, workers=workers, progress=report)
    return store.with_roles(label=address.label, group=address.group)


def preview(source: str | Path | Address | Source) -> dict[str, Any]:
    """What ``embed`` would read, without reading an image: address, images, and how many were refused while listing.

    Raises:
        SourceError: nothing there, or a selector that does not fit.
    """
    opened = _open(source)
    listing = opened.listing()
    return {"source": str(opened.address), "images": len(listing.images), "rejected": len(listing.rejected)}


class _Job:
    """One call of ``embed``: a plan, and what it takes to carry it out."""

    def __init__(self, plan: Plan, source: Source, *, workers: int, progress: Progress) -> None:
        self._plan, self._source, self._workers, self._progress = plan, source, workers, progress

    def reuse(self, folder: Path) -> EmbeddingStore | None:
        """The store that already stands in this folder, if it is of this plan and whole."""
        facts = self._plan.require_own(folder)
        if not facts or facts.get("listing") != self._plan.digest:
            return None
        try:
            shards.refresh(folder, source=self._plan.source)
            return EmbeddingStore.open(folder)
        except CorruptError:
            return None  # mended by embedding what is broken again

    def in_memory(self, encoder: Encoder) -> EmbeddingStore:
        """Embeds everything at once."""
        embedder = Embedder(self._source, encoder, workers=self._workers)
        parts = [part for _, part, _ in self._run(embedder, [self._plan.listing.images], done=0)]
        if not sum(len(part.rows) for part in parts):
            raise self._nothing_decoded([part.errors for part in parts])
        whole = Part.join(parts)
        return EmbeddingStore(
            spec=encoder.spec,
            rows=whole.rows,
            vectors=whole.vectors,
            errors=pa.concat_tables([self._plan.listing.rejected, whole.errors]).sort_by("key"),
            facts={"source": self._plan.source, "listing": self._plan.digest, "precision": encoder.precision},
        )

    def on_disk(self, encoder: Encoder, folder: Path) -> EmbeddingStore:
        """Embeds shard by shard, going on where an earlier run stopped."""
        known = _known(folder, encoder.precision)
        self._plan.claim(folder)
        planned = self._plan.shards(encoder.precision)
        todo = [shard for shard in planned if shard.rows_done(folder) is None]
        done = sum(len(shard.records) for shard in planned) - sum(len(shard.records) for shard in todo)
        embedder = Embedder(self._source, encoder, workers=self._workers, known=known)
        with closing(self._run(embedder, [shard.records for shard in todo], done=done)) as results:
            for number, part, timing in results:
                todo[number].write(folder, part)
                shards.add_timing(folder, timing)
        sizes = {shard: shard.rows_done(folder) or 0 for shard in planned}
        if not any(sizes.values()):
            errors = [shard.errors(folder) for shard in planned]
            shards.tidy(folder)
            raise self._nothing_decoded(errors)
        self._plan.finish(folder, sizes, encoder.precision)
        return EmbeddingStore.open(folder)

    def _run(
        self, embedder: Embedder, tables: list[pa.Table], *, done: int
    ) -> Generator[tuple[int, Part, dict[str, float]]]:
        """(number of the table, what came of it, its timing), while telling the progress."""
        total, fresh = len(self._plan.listing.images), 0
        begun = started = perf_counter()
        for number, batches in groupby(embedder.parts(tables), key=itemgetter(0)):
            parts = []
            for _, part in batches:
                parts.append(part)
                fresh += len(part)
                self._progress("embed", done + fresh, total, f"{fresh / (perf_counter() - begun):,.0f} images/s")
            whole = Part.join(parts)
            yield number, whole, whole.timing(perf_counter() - started, embedder.lanes)
            started = perf_counter()

    def _nothing_decoded(self, errors: list[pa.Table]) -> PartialError:
        table = pa.concat_tables([self._plan.listing.rejected, *errors])
        return PartialError(
            f"None of the {len(table):,} images of {self._plan.source} could be used: {_reasons(table)}.",
            hint="Nothing was written. Look at one of the images.",
        )


def _open(source: str | Path | Address | Source) -> Source:
    if isinstance(source, str | Path):
        return open_source(str(source))
    return open_source(source) if isinstance(source, Address) else source


def _known(folder: Path, precision: str) -> Known | None:
    """Rows of the store that stands there, if its vectors are like those to come."""
    try:
        store = EmbeddingStore.open(folder)
    except CorruptError:
        return None
    return Known(store) if store.facts["precision"] == precision else None


def _spec(encoder: str | Encoder) -> EncoderSpec:
    return encoder_spec(encoder) if isinstance(encoder, str) else encoder.spec


def _rows_of(address: Address) -> Address:
    """What decides which images are meant: an absolute path and selectors, without roles."""
    where = tuple(sorted((column, tuple(sorted(set(values)))) for column, values in address.where))
    return Address(path=files.absolute(address.path), where=where)


def _folder_name(rows: Address, spec: EncoderSpec) -> str:
    """A name to recognize the source by, and a digest of source and encoder."""
    values = [value for _, allowed in rows.where for value in allowed]
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", "-".join([PurePosixPath(rows.path).stem, *values]))
    return f"{readable[:48].strip('-.')}-{files.digest([str(rows), spec.fingerprint])[:12]}"


def _titled(progress: Progress, name: str) -> Progress:
    def report(stage: str, done: int, total: int, note: str = "") -> None:
        progress(f"{stage} {name}", done, total, note)

    return report


def _require_encoder(store: EmbeddingStore, encoder: str | Encoder | None, name: str) -> EmbeddingStore:
    """The store, if it comes from this encoder; vectors without an encoder pass."""
    if encoder is None or not store.spec.size:
        return store
    wanted = asdict(_spec(encoder))
    field = next((k for k, found in asdict(store.spec).items() if found != wanted[k]), None)
    if field:
        raise EncoderMismatchError(
            f"{name} was embedded by {store.spec.name}, the encoder asked for is {wanted['name']} "
            f"({field}: {getattr(store.spec, field)!r} against {wanted[field]!r}).",
            hint="Ask for the store's encoder, or give the images to embed them again.",
        )
    return store


def _refuse_unfinished(folder: Path) -> None:
    if (folder / shards.CLAIM).is_file():
        raise CorruptError(
            f"{folder} is an unfinished store.", hint="Run the `curate embed` that was making it again; it continues."
        )


def _check_limits(workers: int | None, max_errors: float) -> int:
    if workers is not None and workers < 1:
        raise UsageError(f"workers is {workers}, wanted 1 or more.", hint="Leave it out: all cores are used.")
    if not 0 <= max_errors <= 1:
        raise UsageError(f"max_errors is {max_errors}, wanted a share from 0 to 1.", hint="0.05 lets one in 20 fail.")
    return workers or core_count()


def _check_errors(store: EmbeddingStore, max_errors: float) -> None:
    failed, total = len(store.errors), len(store) + len(store.errors)
    if failed > max_errors * total:
        place = f"the store at {store.path} is usable as it is" if store.path else "nothing was kept"
        raise PartialError(
            f"{failed:,} of {total:,} images failed, allowed were {max_errors:.1%}: {_reasons(store.errors)}.",
            hint="Mend the images, or allow more with `curate embed SOURCE --out STORE --max-errors SHARE` and use the "
            f"store in place of the source; {place}.",
        )


def _reasons(errors: pa.Table) -> str:
    """The most frequent reasons, each with one key."""
    keys = dict(zip(errors["reason"].to_pylist(), errors["key"].to_pylist(), strict=True))
    common = Counter(errors["reason"].to_pylist()).most_common(3)
    return "; ".join(f"{reason} ({count:,}, as {keys[reason]!r})" for reason, count in common)
