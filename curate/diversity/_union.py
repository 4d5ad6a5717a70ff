"""One set or several seen as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import pyarrow as pa

from curate.distances._samples import Vectors, as_vectors
from embeddings.errors import UsageError
from embeddings.store import EmbeddingStore
from embeddings.vectors import ShardedVectors

Union = Vectors | Sequence[Vectors]


def as_union(sample: Union) -> EmbeddingStore:
    """The sample, or several one after another, as one store.

    Keys may repeat between the parts; rows of one key, group or picture then share a fold, which is on the safe side.

    Raises:
        UsageError: no part.
        EncoderMismatchError: parts from different encoders.
        SourceError: an array that is not finite.
    """
    if isinstance(sample, np.ndarray | EmbeddingStore):
        return as_vectors(sample)
    stores = [as_vectors(part) for part in sample]
    if not stores:
        raise UsageError("The union of no sets was asked for.", hint="Pass at least one array or store.")
    for number, store in enumerate(stores[1:], 2):
        stores[0].spec.require_same(store.spec, ("part 1", f"part {number}"))
    vectors = [store.vectors() for store in stores]
    if len({v.dtype for v in vectors}) > 1:
        wide = np.result_type(*(v.dtype for v in vectors))
        vectors = [np.asarray(v, dtype=wide) for v in vectors]
    rows = pa.concat_tables([store.rows() for store in stores])
    # The vectors of a store are indexed like one of its shards.
    return EmbeddingStore(spec=stores[0].spec, rows=rows, vectors=ShardedVectors(cast("list[np.ndarray]", vectors)))
