"""Image sources to stores: embedded once, resumed where it stopped, reused while source and encoder stay the same.

An interrupted run leaves finished shards, and the same call goes on from there. When a source has changed, files that
were not touched are not read again, and of the others only those whose content is new are decoded and encoded. Roles
(``label:``, ``group:``) do not count as a change of source; rows chosen by selectors (``half=A``) and other views
(``tiles:512``) are sources of their own. Vectors of the user's own become a store by the same call.
"""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from embeddings import files
from embeddings.encoders import Encoder
from embeddings.encoders.registry import encoder_spec, get_encoder
from embeddings.errors import CorruptError, EncoderMismatchError, PartialError, SourceError, UsageError
from embeddings.moments_file import is_moments_file
from embeddings.pictures.views import RegionOfInterest
from embeddings.pipeline import shards
from embeddings.pipeline.batches import Embedder, core_count
from embeddings.pipeline.jobs import Job, Maker, reasons
from embeddings.pipeline.loading import can_reopen
from embeddings.pipeline.shards import Plan
from embeddings.pipeline.vectors import VectorReader
from embeddings.progress import Progress, silent
from embeddings.sources import NAMED, Address, Source, View, holds_vectors, open_source, parse_address
from embeddings.sources.vectors import VectorSource
from embeddings.spec import EncoderSpec
from embeddings.store import SCHEMA, EmbeddingStore

Embeddable = EmbeddingStore | str | Path | np.ndarray
MAX_ERRORS = 0.05  # share of the images that may fail


def embed(
    source: str | Path | Address | Source,
    *,
    encoder: str | Encoder = "lite0",
    out: str | Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    max_errors: float = MAX_ERRORS,
    retry_errors: bool = False,
    progress: Progress = silent,
) -> EmbeddingStore:
    """Embeds the images of a source; each becomes a row and a vector, or a row of errors with the reason.

    Args:
        source: Address (``photos/``, ``emoji.parquet#half=A``, ``inspection/#tiles:512``) or an open source; vectors
            (``clips.npy``) are taken over as they are.
        encoder: A name from ``encoder_names``, ``run:DIR``, or an encoder.
        out: Folder of the store; the same call continues or reuses it. None keeps the store in memory.
        device: ``auto`` (every CUDA device, else the CPU), a name that torch knows, or several: ``cuda:0,cuda:1``.
        workers: Readers and decoders; the number of cores by default. Changes the speed, never the result.
        max_errors: Share of the images that may fail.
        retry_errors: Try the images again that failed before.
        progress: Told as images are loaded.

    Returns:
        The store: rows sorted by key, vectors [n, d] float16 (float32 for vectors that were given so).

    Raises:
        SourceError: nothing there, or a selector that does not fit.
        UnknownNameError: no such encoder.
        ForeignFolderError: ``out`` holds something else, or a store of another source or encoder, or is being written.
        PartialError: more than ``max_errors`` of the images failed; the store is kept and usable. Or all of them did.
        StorageError: no space or no permission; what is done is kept.
    """
    _check_limits(workers, max_errors)
    job = _job(_open(source), encoder, device=device, workers=workers, progress=progress, retry=retry_errors)
    store = job.run(Path(out) if out is not None else None, wait=False)
    _check_errors(store, max_errors)
    return store


def _job(
    source: Source | VectorSource,
    encoder: str | Encoder,
    *,
    device: str,
    workers: int | None,
    progress: Progress,
    retry: bool = False,
) -> Job:
    spec = source.spec if isinstance(source, VectorSource) else _spec(encoder)
    roi = source.address.view.roi
    settings = {"region": RegionOfInterest.open(roi).digest} if roi else {}
    plan = Plan(
        source=str(rows_of(source.address)),
        listing=source.listing(),
        spec=spec,
        view=source.address.view,
        settings=settings,
    )
    maker = partial(_maker, source, encoder, device=device, workers=workers or core_count())
    return Job(plan, maker, progress=progress, retry=retry)


def _maker(source: Source | VectorSource, encoder: str | Encoder, *, device: str, workers: int) -> Maker:
    if isinstance(source, VectorSource):
        return VectorReader(source)
    if isinstance(encoder, str):
        from embeddings.pipeline.devices import DeviceTeam, device_names

        devices = device_names(device)
        if len(devices) > 1 and can_reopen(source):
            return DeviceTeam(source.address, encoder, devices, workers=workers)
        encoder = get_encoder(encoder, device=devices[0])
    return Embedder(source, encoder, workers=workers)


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
    folder = Path(files.absolute(address.path))
    _refuse_moments(folder, name)
    if (folder / shards.STORE).is_file():
        _refuse_view(address)
        store = _require_encoder(EmbeddingStore.open(folder), encoder, name)
        store = store.where(address.where) if address.where else store
    else:
        _refuse_unfinished(folder)
        encoder = "lite0" if encoder is None else encoder
        rows = rows_of(address)
        out = None if work is None else Path(work) / "stores" / _folder_name(rows, _spec(encoder))
        _check_limits(workers)
        job = _job(_open(rows), encoder, device=device, workers=workers, progress=_titled(progress, name))
        store = job.run(out, wait=True)
        _check_errors(store)
        for note in [*_failures(store, out), *store.notes()]:
            progress(name, 0, 0, f"{name}: {note}")
    return store.with_roles(label=address.label, group=address.group)


def _failures(store: EmbeddingStore, out: Path | None) -> list[str]:
    """How many images gave no vector, in words."""
    failed, where = len(store.errors), f"; the reasons stand in {out / 'errors.parquet'}" if out else ""
    return [f"{failed:,} of {failed + len(store):,} images could not be read or decoded{where}."] if failed else []


def is_complete(source: str | Path | Address, *, encoder: str, out: str | Path) -> bool:
    """True if the store of this source under this encoder stands in ``out``, so that ``embed`` would do nothing.

    Raises:
        SourceError: nothing there, or a selector that does not fit.
        ForeignFolderError: ``out`` holds something else, or a store of another source or encoder.
    """
    job = _job(_open(source), encoder, device="auto", workers=None, progress=silent)
    return job.reuse(Path(out)) is not None


def preview(source: str | Path | Address | Source) -> dict[str, Any]:
    """What ``embed`` would read, without reading an image: address, images, and how many were refused while listing.

    Raises:
        SourceError: nothing there, or a selector that does not fit.
    """
    if isinstance(source, str | Path):
        address = parse_address(str(source))
        if (Path(files.absolute(address.path)) / shards.STORE).is_file():
            store = as_store(source, name="store", encoder=None)
            return {"source": str(source), "images": len(store), "rejected": len(store.errors)}
    opened = _open(source)
    listing = opened.listing()
    return {"source": str(opened.address), "images": len(listing.images), "rejected": len(listing.rejected)}


def _open(source: str | Path | Address | Source) -> Source | VectorSource:
    if isinstance(source, str | Path):
        source = parse_address(str(source))
    if not isinstance(source, Address):
        return source
    if not holds_vectors(source):
        return open_source(source)
    _refuse_view(source)
    return VectorSource(source)


def _refuse_view(address: Address) -> None:
    if address.view != View():
        raise SourceError(
            f"{address} asks for a view of images, but holds vectors.", hint="Say it of the images, and embed them."
        )


def _refuse_moments(path: Path, name: str) -> None:
    if is_moments_file(path):
        raise SourceError(
            f"{name}, {path}, is a file of moments: it holds no image and no embedding.",
            hint="Only `curate score` can use it; give the images or a store.",
        )


def _spec(encoder: str | Encoder) -> EncoderSpec:
    return encoder_spec(encoder) if isinstance(encoder, str) else encoder.spec


def rows_of(address: Address) -> Address:
    """What decides which pictures are meant: an absolute path, selectors and view, without roles."""
    where = tuple(sorted((column, tuple(sorted(set(values)))) for column, values in address.where))
    path = address.path if address.path.partition(":")[0] in NAMED else files.absolute(address.path)
    view = replace(address.view, roi=address.view.roi and files.absolute(address.view.roi))
    return replace(address, path=path, where=where, view=view, label=None, group=None)


def _folder_name(rows: Address, spec: EncoderSpec) -> str:
    """A name to recognize the source by, and a digest of source and encoder."""
    values = [value for _, allowed in rows.where for value in allowed]
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", "-".join([PurePosixPath(rows.path).stem, *values]))
    return f"{readable[:48].strip('-.')}-{files.digest([SCHEMA, str(rows), spec.fingerprint])[:12]}"


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
            f"{name} was embedded by {store.spec.name}, the encoder here is {wanted['name']} "
            f"({field}: {getattr(store.spec, field)!r} against {wanted[field]!r}).",
            hint=f"Say --encoder {store.spec.name}, or give the images to embed them again.",
        )
    return store


def _refuse_unfinished(folder: Path) -> None:
    if (folder / shards.CLAIM).is_file():
        raise CorruptError(
            f"{folder} is an unfinished store.", hint="Run the `curate embed` that was making it again; it continues."
        )


def _check_limits(workers: int | None, max_errors: float = MAX_ERRORS) -> None:
    if workers is not None and workers < 1:
        raise UsageError(f"workers is {workers}, wanted 1 or more.", hint="Leave it out: all cores are used.")
    if not 0 <= max_errors <= 1:
        raise UsageError(f"max_errors is {max_errors}, wanted a share from 0 to 1.", hint="0.05 lets one in 20 fail.")


def _check_errors(store: EmbeddingStore, max_errors: float = MAX_ERRORS) -> None:
    failed, total = len(store.errors), len(store) + len(store.errors)
    if failed > max_errors * total:
        place = f"The store {store.path} holds the others and is usable: give it in place of the source; its "
        again = f"`curate embed '{store.source}' --out DIR --max-errors {failed / total + 0.01:.2f}`"
        why = f"errors.parquet says why each failed. {again} allows it."
        raise PartialError(
            f"{failed:,} of {total:,} images failed, allowed were {max_errors:.1%}: {reasons(store.errors)}.",
            hint=place + why if store.path else "Mend the images, or allow more with max_errors.",
        )
