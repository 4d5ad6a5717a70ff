"""What a distance accepts: an array, a store or moments."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from embeddings.moments import Moments, fold_of, store_moments
from embeddings.store import EmbeddingStore

Vectors = np.ndarray | EmbeddingStore
Sample = Vectors | Moments


def as_moments(sample: Sample, *, seed: int = 0) -> Moments:
    """Moments of any sample; seed 0 uses the store's own folds, another seed draws other ones."""
    if isinstance(sample, Moments):
        return sample
    store = as_vectors(sample)
    if seed == 0:
        return store_moments(store)
    folds = fold_of(store.rows(), salt=str(seed))
    return Moments.from_vectors(store.vectors(), folds, encoder=store.spec.fingerprint)


def as_vectors(sample: Vectors) -> EmbeddingStore:
    """The sample as a store."""
    return sample if isinstance(sample, EmbeddingStore) else EmbeddingStore.from_vectors(sample)


def joint_folds(target: EmbeddingStore, pool: EmbeddingStore, *, salt: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Folds [n] and [m] uint8 of two stores in which copies and groups stay together across both."""
    folds = fold_of(pa.concat_tables([target.rows(), pool.rows()], promote_options="default"), salt=salt)
    return folds[: len(target)], folds[len(target) :]


def in_given_order(values: np.ndarray, sample: Vectors, store: EmbeddingStore) -> np.ndarray:
    """Values [n] by row of a store as values by row of what it was made of (the store of an array is sorted by key)."""
    if isinstance(sample, EmbeddingStore):
        return values
    out = np.empty_like(values)
    out[np.array(store.column("key"), dtype=np.int64)] = values
    return out
