"""A store being built on disk: which shards it has, which are done, and the step that makes it a store.

A shard is named by its number and a digest of all that decides its content: the slice of the listing, the encoder's
spec, the settings and the schema. So a shard that is there is right, whatever run wrote it, and a changed source or
encoder never meets the old parts. Where failed images are tried again, the number of the attempt follows the name.
``unfinished.json`` says whose folder it is until ``store.json``, written last, does. Nothing that an existing
``store.json`` refers to is touched before the new one stands.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embeddings import files
from embeddings.errors import CorruptError, ForeignFolderError
from embeddings.pipeline.batches import Part
from embeddings.sources import LISTING, REJECTED, Listing, View
from embeddings.spec import EncoderSpec
from embeddings.store import SCHEMA, digest_columns, shard_path
from embeddings.vectors import load_array

SHARD_ROWS = 256  # at least; what is lost when a run is killed
MAX_SHARDS = 512  # opening a store looks at every one
KINDS = ("rows", "vectors", "errors")
CLAIM, STORE, ERRORS, TIMINGS = "unfinished.json", "store.json", "errors.parquet", "timings.jsonl"


@dataclass(frozen=True, eq=False)
class Shard:
    """Consecutive records of a listing, and the name under which their results are kept."""

    name: str
    records: pa.Table  # schema LISTING

    def rows_done(self, folder: Path) -> int | None:
        """Number of rows if this shard is finished and reads back, else None."""
        try:
            self.errors(folder)
            rows = len(files.read_table(shard_path(folder, "rows", self.name)))
            vectors = load_array(shard_path(folder, "vectors", self.name))
        except CorruptError:
            return None
        return rows if vectors.ndim == 2 and len(vectors) == rows else None

    def errors(self, folder: Path) -> pa.Table:
        """Errors of this shard, schema REJECTED; it has a file of them only where there are any."""
        path = shard_path(folder, "errors", self.name)
        return files.read_table(path) if path.exists() else REJECTED.empty_table()

    def write(self, folder: Path, part: Part) -> None:
        """Writes the parts of a shard, each atomically, the rows last."""
        with files.atomic_path(shard_path(folder, "vectors", self.name)) as temporary, temporary.open("wb") as file:
            np.save(file, part.vectors)
        if len(part.errors):
            files.write_table(shard_path(folder, "errors", self.name), part.errors)
        else:
            shard_path(folder, "errors", self.name).unlink(missing_ok=True)
        files.write_table(shard_path(folder, "rows", self.name), part.rows)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a store will be made of."""

    source: str  # absolute address without roles
    listing: Listing
    spec: EncoderSpec
    view: View = field(default_factory=View)  # what is seen of the images
    settings: Mapping[str, Any] = field(default_factory=dict)  # what else decides vectors: precision, the mask
    attempt: int = 0  # how often the images have been gone through again

    @cached_property
    def digest(self) -> str:
        """sha256 over all that was listed, stamps included: equal digests mean that no image needs to be read."""
        rejected = digest_columns(self.listing.rejected, REJECTED.names)
        return digest_columns(self.listing.images, LISTING.names, salt=f"{self.view!r} {rejected}")

    def with_settings(self, settings: Mapping[str, Any]) -> Plan:
        """The same plan, with more of what decides its vectors."""
        return replace(self, settings={**self.settings, **settings})

    def has_settings(self, facts: Mapping[str, Any]) -> bool:
        """True if a store with these facts was made in the same way."""
        return all(facts.get(name) == value for name, value in self.settings.items())

    def is_done(self, facts: Mapping[str, Any]) -> bool:
        """True if a store with these facts is what is planned, as far as can be told without reading an image.

        Where it lies counts (two archives unpacked with the same times look alike), and so do files without a stamp.
        """
        same = facts.get("listing") == self.digest and facts["source"] == self.source
        return same and not self.is_untold and self.has_settings(facts)

    @property
    def is_untold(self) -> bool:
        """True if some file has no stamp, so that nothing tells whether it has changed."""
        return _is_untold(self.listing.images)

    def shards(self, folder: Path, *, retry: bool = False) -> list[Shard]:
        """The shards in key order, under the names they have in the folder's store.

        Those that are to be made again get a new name, after the number of the attempt: with ``retry`` where they have
        errors, and of a finished store where no stamp tells whether a file has changed.
        """
        images = self.listing.images
        salt = f"{SCHEMA} {self.spec.fingerprint} {files.digest([self.source, dict(self.settings)])} "
        step = shard_rows(len(images))
        slices = [images.slice(start, step) for start in range(0, len(images), step)]
        bases = [f"{i:05d}-{digest_columns(part, LISTING.names, salt=salt)[:12]}" for i, part in enumerate(slices)]
        there = [shard["name"] for shard in (read_facts(folder) or {}).get("shards", ())]
        standing = {name.partition("~")[0]: name for name in there}
        names = [standing.get(base, base) for base in bases]
        failed = [retry and shard_path(folder, "errors", name).exists() for name in names]
        again = [f or (bool(there) and _is_untold(part)) for f, part in zip(failed, slices, strict=True)]
        names = [f"{b}~{self.attempt}" if a else name for b, a, name in zip(bases, again, names, strict=True)]
        return [Shard(name, records) for name, records in zip(names, slices, strict=True)]

    def claim(self, folder: Path) -> None:
        """Marks the folder as this store's, unfinished."""
        files.write_json(folder / CLAIM, {"schema": SCHEMA, "source": self.source, "encoder": asdict(self.spec)})

    def facts(self) -> dict[str, Any]:
        """What a store says of its making, on disk or in memory."""
        return {"source": self.source, "listing": self.digest, "attempt": self.attempt, **self.settings}

    def finish(self, folder: Path, sizes: dict[Shard, int]) -> None:
        """Makes a store of finished shards and their numbers of rows, then removes what it does not refer to."""
        failed = [shard.errors(folder) for shard in sizes]
        errors = pa.concat_tables([self.listing.rejected, *failed]).sort_by("key")
        files.write_table(folder / ERRORS, errors)
        paths = [shard_path(folder, kind, shard.name) for shard in sizes for kind in ("rows", "vectors")]
        document = {
            "schema": SCHEMA,
            **self.facts(),
            "encoder": asdict(self.spec),
            "dtype": str(load_array(paths[1]).dtype),
            "errors": len(errors),
            "parts": {path.name: path.stat().st_size for path in [*paths, folder / ERRORS]},
            "shards": [{"name": shard.name, "rows": rows} for shard, rows in sizes.items()],
            "versions": {name: version(name) for name in ("numpy", "pillow", "timm", "torch", "torchvision")},
        }
        files.write_json(folder / STORE, document)
        tidy(folder)

    def require_own(self, folder: Path) -> dict[str, Any] | None:
        """The document of the store, finished or not, that stands in this folder; None if nothing does.

        Raises:
            ForeignFolderError: the folder holds something else, or a store of another source or encoder.
        """
        facts = read_facts(folder)
        if facts is None:
            return None
        for name, wanted in asdict(self.spec).items():
            found = facts["encoder"].get(name)
            if found != wanted:
                raise _foreign(folder, f"encoder {name} {found!r}", f"{wanted!r}")
        if facts["source"] != self.source and facts.get("listing") != self.digest:
            raise _foreign(folder, f"source {facts['source']!r}", f"{self.source!r}")
        return facts


def shard_rows(n: int) -> int:
    """Records in a shard of a source of n: doubled until MAX_SHARDS hold them all, so that growth rarely moves it."""
    rows = SHARD_ROWS
    while n > rows * MAX_SHARDS:
        rows *= 2
    return rows


def read_facts(folder: Path) -> dict[str, Any] | None:
    """``store.json``, else ``unfinished.json``; None where there is no folder, or nothing in it.

    Raises:
        ForeignFolderError: there is something, but nothing of ours.
    """
    try:
        names = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise ForeignFolderError(f"{folder} is a file.", hint="Choose another folder.") from None
    if not names:
        return None
    kept = next((folder / name for name in (STORE, CLAIM) if name in names), None)
    facts = files.read_json(kept) if kept else {}
    schema = str(facts.get("schema"))
    if schema != SCHEMA and schema.startswith(f"{SCHEMA.partition('/')[0]}/"):
        raise ForeignFolderError(
            f"{folder} holds a store of another version ({schema}, wanted {SCHEMA}).",
            hint="Delete it and embed again, or choose another folder.",
        )
    if schema != SCHEMA:
        raise ForeignFolderError(
            f"{folder} is no store of ours: it holds {', '.join(names[:3])}.", hint="Choose another folder."
        )
    return dict(facts)


def add_timing(folder: Path, entry: dict[str, Any]) -> None:
    """Appends one line to the log of speeds."""
    with (folder / TIMINGS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def tidy(folder: Path) -> None:
    """Removes shards that ``store.json`` does not refer to, and the claim; without a store, all that is ours."""
    finished = (folder / STORE).exists()
    shards = files.read_json(folder / STORE)["shards"] if finished else []
    kept = {shard_path(folder, kind, shard["name"]) for shard in shards for kind in KINDS}
    for kind in KINDS:
        for path in set(folder.glob(f"{kind}-*")) - kept:
            path.unlink(missing_ok=True)
    files.sweep(folder)
    (folder / CLAIM).unlink(missing_ok=True)
    if not finished:
        (folder / TIMINGS).unlink(missing_ok=True)
        with suppress(OSError):  # something of the user's lies there
            folder.rmdir()


def _is_untold(images: pa.Table) -> bool:
    return bool(pc.any(pc.equal(images["stamp"], "")).as_py())


def is_claimed(folder: Path) -> bool:
    """True while a store is being made there, or after that was interrupted."""
    return (folder / CLAIM).exists()


def _foreign(folder: Path, found: str, wanted: str) -> ForeignFolderError:
    return ForeignFolderError(f"{folder} holds a store with {found}, wanted {wanted}.", hint="Choose another --out.")
