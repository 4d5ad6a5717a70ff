"""Exact duplicates inside one set: rows with the same bytes or the same decoded picture."""

from __future__ import annotations

import numpy as np

from embeddings.moments import connected_rows
from embeddings.store import EmbeddingStore


def duplicates(store: EmbeddingStore) -> np.ndarray:
    """Duplicate group [n] int64 of every row, numbered from 0 in row order; rows of one group are the same picture.

    ``len(store) - (group.max() + 1)`` images are redundant.
    """
    if not len(store):
        return np.zeros(0, np.int64)
    component = connected_rows(store.rows()["sha256"], store.rows()["pixels"])
    _, first, group = np.unique(component, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first, kind="stable"), kind="stable")[group]
