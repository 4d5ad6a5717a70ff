"""What a distance accepts: an array, a store or moments."""

from __future__ import annotations

import numpy as np

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
