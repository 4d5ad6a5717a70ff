"""Share of a pool's images that are exact copies of target images, by file or by decoded picture.

A pool that holds the target itself has an excellent distance and teaches nothing new: the verdict ``copies``.
"""

from __future__ import annotations

import numpy as np

from curate.distances._samples import Vectors, as_vectors
from curate.results import Estimate
from embeddings.store import EmbeddingStore


def copies(target: Vectors, pool: Vectors) -> Estimate:
    """Share of pool images whose bytes or decoded pixels equal a target image's.

    Returns:
        Estimate in 0..1 without an interval (it is a count); 0 under the null.
    """
    target, pool = as_vectors(target), as_vectors(pool)
    return Estimate(
        value=float(copied(target, pool).mean()),
        n=(len(pool), len(target)),
        unit="share of pool images",
        lower_is_closer=False,
        method="equal file or equal decoded pixels",
        null=0.0,
    )


def copied(target: EmbeddingStore, pool: EmbeddingStore) -> np.ndarray:
    """Whether [m] each pool image is an exact copy of a target image."""
    known = {digest for column in _digests(target) for digest in column if digest}
    return np.array([any(digest in known for digest in row) for row in zip(*_digests(pool), strict=True)], bool)


def _digests(store: EmbeddingStore) -> tuple[list[str | None], ...]:
    """Of the file, the picture (a file or a part of one) and the pixels of every row."""
    return store.file_digests().to_pylist(), store.column("sha256"), store.column("pixels")
