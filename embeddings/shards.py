"""A store being built on disk: which shards it has, which are done, and the step that makes it a store.

A shard is named by its number and a digest of all that decides its content: the slice of the listing, the encoder's
spec, the precision and the schema. So a shard that is there is right, whatever run wrote it, and a changed source or
encoder never meets the old parts. ``unfinished.json`` says whose folder it is until ``store.json``, written last, does.
Nothing that an existing ``store.json`` refers to is touched before the new one stands.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embeddings import files
from embeddings.batches import Part
from embeddings.errors import CorruptError, ForeignFolderError
from embeddings.sources import LISTING, REJECTED, Listing
from embeddings.store import SCHEMA, EncoderSpec, digest_columns, read_shard, shard_path

SHARD_ROWS = 2048
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
            return len(read_shard(folder, self.name)[0])
        except CorruptError:
            return None

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

    @cached_property
    def digest(self) -> str:
        """sha256 over all that was listed, stamps included: equal digests mean that no image needs to be read."""
        rejected = digest_columns(self.listing.rejected, REJECTED.names)
        return digest_columns(self.listing.images, LISTING.names, salt=rejected)

    def shards(self, precision: str) -> list[Shard]:
        """The shards, in key order."""
        images, salt = self.listing.images, f"{SCHEMA} {self.spec.fingerprint} {precision} "
        slices = [images.slice(start, SHARD_ROWS) for start in range(0, len(images), SHARD_ROWS)]
        digests = [digest_columns(records, LISTING.names, salt=salt)[:12] for records in slices]
        return [Shard(f"{i:05d}-{d}", records) for i, (d, records) in enumerate(zip(digests, slices, strict=True))]

    def claim(self, folder: Path) -> None:
        """Marks the folder as this store's, unfinished."""
        files.write_json(folder / CLAIM, {"schema": SCHEMA, "source": self.source, "encoder": asdict(self.spec)})

    def finish(self, folder: Path, sizes: dict[Shard, int], precision: str) -> None:
        """Makes a store of finished shards and their numbers of rows, then removes what it does not refer to."""
        failed = [shard.errors(folder) for shard in sizes]
        errors = pa.concat_tables([self.listing.rejected, *failed]).sort_by("key")
        files.write_table(folder / ERRORS, errors)
        document = {
            "schema": SCHEMA,
            "source": self.source,
            "listing": self.digest,
            "encoder": asdict(self.spec),
            "precision": precision,
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
    if facts.get("schema") != SCHEMA:
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
    for leftover in folder.glob(".*.part"):
        leftover.unlink(missing_ok=True)
    (folder / CLAIM).unlink(missing_ok=True)
    if not finished:
        (folder / TIMINGS).unlink(missing_ok=True)
        with suppress(OSError):  # something of the user's lies there
            folder.rmdir()


def refresh(folder: Path, *, source: str) -> None:
    """Puts a finished store in order: where its images are now, and nothing left from a run that was interrupted."""
    facts = files.read_json(folder / STORE)
    if facts["source"] != source:
        files.write_json(folder / STORE, {**facts, "source": source})
    if (folder / CLAIM).exists():
        tidy(folder)


def _foreign(folder: Path, found: str, wanted: str) -> ForeignFolderError:
    return ForeignFolderError(f"{folder} holds a store with {found}, wanted {wanted}.", hint="Choose another --out.")
