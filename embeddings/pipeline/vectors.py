"""Vectors of the user's own on their way into a store: taken over as they are, with a digest each."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa

from embeddings import files
from embeddings.pipeline.batches import Part
from embeddings.pipeline.clock import Clock
from embeddings.pipeline.known import Known
from embeddings.pipeline.loading import stamp_of
from embeddings.sources import REJECTED
from embeddings.sources.vectors import VectorSource
from embeddings.store import ROWS


class VectorReader:
    """Makes the rows of a store of vectors; does what an ``Embedder`` does for images."""

    settings: Mapping[str, Any] = {}

    def __init__(self, source: VectorSource) -> None:
        self._source = source

    def parts(
        self, tables: Sequence[pa.Table], *, known: Known | None, clock: Clock, told: Callable[[int], None]
    ) -> Iterator[Part]:
        """One part for every table (schema LISTING, consecutive rows of the listing); ``known`` saves nothing here."""
        del known
        keys = self._source.listing().images["key"].combine_chunks()
        for table in tables:
            since = perf_counter()
            first = bisect_left(range(len(keys)), table["key"][0].as_py(), key=lambda i: keys[i].as_py())
            vectors = self._source.read_rows(np.arange(first, first + len(table)))
            part = Part(_rows(table, vectors), vectors, REJECTED.empty_table(), records=len(table))
            clock.book(since, read=1)
            told(len(table))
            yield part


def _rows(table: pa.Table, vectors: np.ndarray) -> pa.Table:
    """Rows (schema ROWS) of records and their vectors [n, d]."""
    digests = pa.array([files.digest_bytes(vector.tobytes()) for vector in np.ascontiguousarray(vectors)])
    told = {name: table[name] for name in ("key", "uri", "label", "group", "meta")}
    stamps = pa.array([stamp_of(record) for record in table.select(["size", "stamp"]).to_pylist()])
    found = {**told, "stamp": stamps, "sha256": digests, "pixels": digests}
    columns = [found.get(field.name, pa.nulls(len(table), field.type)) for field in ROWS]
    return pa.table(columns, schema=ROWS)
