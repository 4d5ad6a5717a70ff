"""EmbeddingStore: the vectors of one source under one encoder, with a row of facts per image.

On disk (rows in Parquet, vectors memory-mapped, because vectors in Parquet read 5 to 150 times slower):

    store.json            schema, encoder spec, digests, shards; written last, so a folder without it is unfinished
    rows-SHARD.parquet    ROWS, sorted by key within and over shards
    vectors-SHARD.npy     [n, d] float16
    errors.parquet        key, uri, reason of every image that gave no vector; errors-SHARD.parquet: those of a shard
    timings.jsonl         images/s per shard, and what the time was spent waiting for

SHARD is a number and a digest of what went in (``00000-6f1d02a9c3b4``), so parts of different makes never mix. Opening
compares the sizes of the parts with ``store.json``; they are read when they are asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embeddings import files
from embeddings.cards import store_card
from embeddings.errors import CorruptError, SourceError
from embeddings.sources import REJECTED
from embeddings.spec import EncoderSpec
from embeddings.vectors import AGAIN, MappedShard, ShardedVectors, Vectors

SCHEMA = "curate.store/2"
DARK = 63  # of 255: 14 bits of 16
MUCH_SHRUNK = 4.0  # times; beyond it a person is told
ROWS = pa.schema(
    [
        ("key", pa.string()),
        ("uri", pa.string()),
        ("label", pa.string()),
        ("group", pa.string()),
        ("meta", pa.string()),  # JSON object of strings
        ("parent", pa.string()),  # key of the image that a tile was cut from; null for whole images
        ("stamp", pa.string()),  # size and mtime or etag of the file: unchanged files are not read again
        ("sha256", pa.string()),  # of the encoded bytes; for a part of an image with its box
        ("file", pa.string()),  # of the encoded bytes of the image that a part was cut from; null for whole images
        ("pixels", pa.string()),  # sha256 of the decoded RGB pixels and their size: equal pictures in any container
        ("phash", pa.string()),  # 64-bit perceptual hash in hex: near pictures differ in few bits
        ("bytes", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("gray", pa.bool_()),  # red = green = blue everywhere
        ("peak", pa.int32()),  # brightest value, 0 to 255, of an image with 16 bits a pixel
    ]
)


class EmbeddingStore:
    """Vectors [n, d], their rows and their encoder, on disk or in memory. Rows are sorted by key."""

    def __init__(
        self,
        *,
        spec: EncoderSpec,
        rows: pa.Table | None = None,
        vectors: Vectors,
        errors: pa.Table | None = None,
        facts: dict[str, Any] | None = None,
        path: Path | None = None,
    ) -> None:
        self.spec = spec
        self.path = path  # folder of the whole store; None in memory and for parts of a store
        self.facts = facts or {}
        self._rows, self._errors, self._vectors = rows, errors, vectors

    @classmethod
    def open(cls, path: Path | str) -> EmbeddingStore:
        """Opens a finished store; reads no row and no vector.

        Raises:
            CorruptError: unfinished, of an unknown schema, or a part is missing or of another size.
        """
        folder = Path(path)
        facts = files.read_json(folder / "store.json")
        if facts.get("schema") != SCHEMA:
            raise CorruptError(f"{folder} has schema {facts.get('schema')!r}, wanted {SCHEMA!r}.", hint=AGAIN)
        for name, size in facts["parts"].items():
            require_size(folder / name, size)
        spec, dtype = EncoderSpec(**facts["encoder"]), np.dtype(facts["dtype"])
        paths = [(shard_path(folder, "vectors", shard["name"]), shard["rows"]) for shard in facts["shards"]]
        vectors = ShardedVectors([MappedShard(path, (rows, spec.dim), dtype) for path, rows in paths])
        return cls(spec=spec, vectors=vectors, path=folder, facts=facts)

    @classmethod
    def from_vectors(
        cls, vectors: np.ndarray, *, name: str = "vectors", keys: list[str] | None = None
    ) -> EmbeddingStore:
        """A store in memory around an array [n, d]; keys default to the row number.

        Raises:
            SourceError: not two-dimensional, empty, not finite, or keys that do not fit or repeat.
        """
        array = np.asarray(vectors)
        keys = [str(i) for i in range(len(array))] if keys is None else keys
        _check_vectors(array, keys)
        order = np.argsort(np.array(keys, dtype=object), kind="stable")
        columns = {field.name: pa.nulls(len(keys), field.type) for field in ROWS}
        columns["key"] = pa.array([keys[i] for i in order])
        columns["sha256"] = pa.array([files.digest_bytes(np.ascontiguousarray(array[i]).tobytes()) for i in order])
        columns["pixels"] = columns["sha256"]
        spec = EncoderSpec(name=name, dim=array.shape[1], size=0, preprocessing="none", weights="")
        return cls(spec=spec, rows=pa.table(columns, schema=ROWS), vectors=array[order])

    def __len__(self) -> int:
        return len(self._vectors)

    def __repr__(self) -> str:
        return store_card(self).text()

    def _repr_html_(self) -> str:
        return store_card(self).html()

    @property
    def source(self) -> str:
        """Absolute address of the source, or "" for arrays."""
        return str(self.facts.get("source", ""))

    @cached_property
    def digest(self) -> str:
        """sha256 over the sorted (key, content sha256) pairs and the encoder: what these vectors are of."""
        return digest_columns(self.rows(), ("key", "sha256"), salt=self.spec.fingerprint)

    @property
    def shrinkage(self) -> float:
        """Median of the pictures' shorter side over the encoder's edge; above 1 pixels are lost. 0 without pictures."""
        if not self.spec.size or self.rows()["width"].null_count:
            return 0.0
        shorter = np.minimum(self.rows()["width"].to_numpy(), self.rows()["height"].to_numpy())
        return float(np.median(shorter)) / self.spec.size

    def notes(self) -> list[str]:
        """What a person should know before using it."""
        found = []
        peaks = self.rows()["peak"].drop_null()
        if len(peaks) and pc.max(peaks).as_py() <= DARK:
            found.append(
                f"{len(peaks):,} images of 16 bits use no more than {(pc.max(peaks).as_py() + 1) * 257:,} of 65,536 "
                "values and are seen nearly black. Say in the address what is white: #white:4095 for a 12-bit camera."
            )
        if self.shrinkage <= MUCH_SHRUNK:
            return found
        return [
            *found,
            f"{self.spec.name} sees the images shrunk {self.shrinkage:.1f} times (to {self.spec.size} pixels): what is "
            "small vanishes. Cut them into tiles (#tiles:PX in the address), or take an encoder with a larger edge (a "
            "run: --set size=PX).",
        ]

    def vectors(self) -> Vectors:
        """[n, d] float16 or float32, in row order; memory-mapped when the store is on disk."""
        return self._vectors

    def rows(self) -> pa.Table:
        """One row per vector, schema ROWS, sorted by key (tiles: by the key of their image, then from top to bottom).

        Raises:
            CorruptError: a part on disk does not read back.
        """
        if self._rows is None:
            assert self.path is not None
            tables = [read_rows(self.path, shard["name"], shard["rows"]) for shard in self.facts["shards"]]
            self._rows = pa.concat_tables(tables)
        return self._rows

    def file_digests(self) -> pa.ChunkedArray:
        """sha256 of the file that each row [n] comes from, whole or in part."""
        return pc.coalesce(self.rows()["file"], self.rows()["sha256"])

    @property
    def errors(self) -> pa.Table:
        """Key, uri and reason of every image that gave no vector; schema REJECTED, sorted by key.

        Raises:
            CorruptError: the table on disk does not read back.
        """
        if self._errors is None:
            self._errors = files.read_table(self.path / "errors.parquet") if self.path else REJECTED.empty_table()
        return self._errors

    def column(self, name: str) -> list[Any]:
        """One column of the rows as a Python list; a name outside ROWS is looked up in ``meta``.

        Raises:
            SourceError: no row has such a column.
        """
        rows = self.rows()
        if name in rows.column_names:
            found: list[Any] = rows[name].to_pylist()
            return found
        values = [json.loads(meta).get(name) if meta else None for meta in rows["meta"].to_pylist()]
        if all(v is None for v in values):
            raise SourceError(f"No column {name!r} in this source.", hint=f"Columns: {', '.join(self.column_names)}.")
        return values

    @property
    def column_names(self) -> list[str]:
        """Columns of ROWS that users name, and those kept in ``meta``."""
        meta = self.rows()["meta"].drop_null()
        kept = sorted(json.loads(meta[0].as_py())) if len(meta) else []
        return list(dict.fromkeys(["key", "label", "group", *kept]))

    def take(self, rows: np.ndarray) -> EmbeddingStore:
        """The store restricted to some row numbers (ascending), in memory."""
        return EmbeddingStore(
            spec=self.spec,
            rows=self.rows().take(pa.array(rows)),
            vectors=self._vectors[np.asarray(rows)],
            facts=self.facts,
        )

    def where(self, conditions: Sequence[tuple[str, Sequence[str]]]) -> EmbeddingStore:
        """The rows whose columns hold one of the allowed values each, in memory; "" stands for an empty cell.

        Raises:
            SourceError: no such column, or no row is left.
        """
        keep = np.ones(len(self), bool)
        for column, allowed in conditions:
            keep &= np.array([("" if v is None else str(v)) in allowed for v in self.column(column)])
        if not keep.any():
            wanted = " and ".join(f"{column} = {' or '.join(allowed)}" for column, allowed in conditions)
            raise SourceError(f"No row has {wanted}.", hint="Check the spelling of the value.")
        return self.take(np.flatnonzero(keep))

    def with_roles(self, *, label: str | None = None, group: str | None = None) -> EmbeddingStore:
        """The same store with other columns as label and group; an empty text is none."""
        if all(column in (None, role) for role, column in (("label", label), ("group", group))):
            return self
        rows = self.rows()
        for role, column in (("label", label), ("group", group)):
            if column and column != role:
                values = pa.array([None if v in (None, "") else str(v) for v in self.column(column)], pa.string())
                if role == "group":  # tiles of an image without a group are one
                    values = pc.coalesce(values, rows["parent"].combine_chunks())
                rows = rows.set_column(rows.schema.get_field_index(role), role, values)
        return EmbeddingStore(
            spec=self.spec, rows=rows, vectors=self._vectors, errors=self.errors, facts=self.facts, path=self.path
        )


def shard_path(folder: Path, kind: str, name: str) -> Path:
    """Path of one part of a store on disk: ``rows``, ``vectors``, or ``errors`` where a shard has any."""
    return folder / f"{kind}-{name}.{'npy' if kind == 'vectors' else 'parquet'}"


def read_rows(folder: Path, name: str, count: int) -> pa.Table:
    """Rows of one shard.

    Raises:
        CorruptError: they are missing, do not read back, or are of another number.
    """
    path = shard_path(folder, "rows", name)
    try:
        rows = files.read_table(path)
    except CorruptError as error:
        raise CorruptError(error.message, hint=AGAIN) from None
    if len(rows) != count:
        raise CorruptError(f"{path} has {len(rows)} rows, wanted {count}.", hint=AGAIN)
    return rows


def require_size(path: Path, size: int) -> None:
    """Notices a part that vanished or was cut without reading it.

    Raises:
        CorruptError: the file is missing or has another number of bytes.
    """
    try:
        found = path.stat().st_size
    except OSError as error:
        raise CorruptError(f"{path} does not read back ({error.strerror}).", hint=AGAIN) from None
    if found != size:
        raise CorruptError(f"{path} has {found:,} bytes, wanted {size:,}.", hint=AGAIN)


def digest_columns(table: pa.Table, names: Sequence[str], *, salt: str = "") -> str:
    """sha256 over some columns, block by block: the same for any chunking, in little memory, 1 s per million rows."""
    state = hashlib.sha256(salt.encode())
    for start in range(0, len(table), 65_536):
        block = table.slice(start, 65_536)
        state.update(json.dumps([block[name].to_pylist() for name in names]).encode())
    return state.hexdigest()


def _check_vectors(array: np.ndarray, keys: list[str]) -> None:
    if array.ndim != 2 or not len(array):
        raise SourceError(
            f"Vectors have shape {array.shape}; wanted [n, d] with n >= 1.", hint="Stack one row per item."
        )
    if len(keys) != len(array) or len(set(keys)) != len(keys):
        raise SourceError(
            f"{len(array)} vectors with {len(keys)} keys, {len(set(keys))} distinct.",
            hint="Give every row its own key.",
        )
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        raise SourceError(
            f"Vector {keys[bad[0]]!r} is not finite ({len(bad)} such rows).", hint="Remove or recompute these rows."
        )
