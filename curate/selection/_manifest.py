"""The manifest: one row per chosen image, with its nearest target image and the reason why it was taken."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from curate.results import SELECTION
from curate.selection._candidates import BLOCK_ROWS, Candidates, Choice
from embeddings.neighbors import nearest

DECIMALS = 6


def build_manifest(candidates: Candidates, choice: Choice, method: str, stages: np.ndarray) -> pa.Table:
    """Table of schema SELECTION, in the order of the choice; ``stages`` [r] tells when each image is trained on."""
    rows, n = choice.rows, len(choice.rows)
    source, keys = candidates.source[rows], candidates.keys[rows]
    near, cosine = nearest_target(candidates, rows)
    names = np.array(candidates.names, dtype=object)
    columns = {
        "source": names[source],
        "key": keys,
        "uri": candidates.column("uri", rows),
        **{name: candidates.column(name, rows) for name in ("sha256", "pixels")},
        "stage": stages.astype(np.int32),
        "rank": np.arange(n),
        "score": choice.scores.round(DECIMALS),
        "target_key": candidates.target_keys[near],
        "similarity": cosine,
        "duplicates": candidates.copies[rows],
        "duplicate_group": np.where(candidates.copies[rows] > 1, names[source] + "/" + keys, ""),
        "cost": np.zeros(n) if candidates.prices is None else candidates.prices[rows],
        "repeats": np.ones(n, np.int32),
        "code": np.array(choice.codes or [method] * n, dtype=object),
        "reason": np.array(choice.reasons, dtype=object),
    }
    return pa.table(columns, schema=SELECTION)


def nearest_target(candidates: Candidates, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest target image of some candidates [r], and the cosine between them, both seen from the pools' mean.

    Centering takes out what all images have in common, which else makes every cosine nearly 1. An image at the very
    mean has no direction: its cosine is 0.

    Returns:
        Numbers [r] among the target images, and cosines float64 [r] rounded to 1e-6; higher = closer.
    """
    center = candidates.pool_center
    target = _unit(candidates.target_vectors - center)
    near, cosine = np.empty(len(rows), np.int64), np.empty(len(rows))
    for start in range(0, len(rows), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        image = _unit(candidates.vectors(rows[part]) - center)
        near[part] = nearest(image, target, 1)[1][:, 0]
        cosine[part] = (image * target[near[part]]).sum(axis=1).round(DECIMALS)
    return near, cosine + 0.0  # no -0.0 in the file


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1.0)
