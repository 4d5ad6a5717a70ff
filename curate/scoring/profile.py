"""What one knows of a set of images without comparing it to another: counts, sizes, classes, and what it can carry."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from curate.distances._coverage import NEIGHBORS
from curate.distances._frechet import DIRECTIONS, MIN_IMAGES, PER_DIRECTION
from curate.diversity import duplicates, effective_rank
from embeddings.moments import Moments
from embeddings.store import EmbeddingStore


def describe(store: EmbeddingStore) -> dict[str, Any]:
    """Counts, sizes, color, duplicates and class balance of a store's images."""
    gray = [g for g in store.column("gray") if g is not None]
    labels = Counter(label for label in store.column("label") if label is not None)
    groups = {group for group in store.column("group") if group is not None}
    return {
        "source": store.source,
        "digest": store.digest,
        "n": len(store),
        "errors": len(store.errors),
        "sizes": {side: _quartiles(store.column(side)) for side in ("width", "height")},
        "gray_share": float(np.mean(gray)) if gray else None,
        "duplicates": len(store) - int(duplicates(store).max() + 1),
        "classes": dict(sorted(labels.items(), key=lambda kv: (-kv[1], kv[0]))) or None,
        "groups": len(groups) or None,
    }


def describe_moments(path: str, digest: str, moments: Moments) -> dict[str, Any]:
    """The same of a file of moments, which knows but its count."""
    unknown = dict.fromkeys(("gray_share", "duplicates", "classes", "groups"))
    sizes = {"width": None, "height": None}
    return {"source": path, "digest": digest, "n": len(moments), "errors": 0, "sizes": sizes, **unknown}


def profile(facts: dict[str, Any], moments: Moments) -> dict[str, Any]:
    """The facts of a target with its effective rank, its total variance, and which measures its size can carry."""
    n, several = facts["n"], facts["n"] > 1
    return {
        **facts,
        "effective_rank": effective_rank(moments) if several and moments.rank is None else None,
        "total_variance": float(np.trace(moments.pooled()[2])) if several else None,
        "carries": _carries(n, moments.dim, sum((facts["classes"] or {}).values())),
    }


def _carries(n: int, d: int, labeled: int) -> list[dict[str, Any]]:
    """Which measures n target images of d dimensions can carry, and why not."""
    wanted = [
        ("ranking of pools", n >= MIN_IMAGES, f"needs {MIN_IMAGES} images"),
        (
            f"headline distance at full resolution (k = {DIRECTIONS})",
            n >= PER_DIRECTION * DIRECTIONS,
            f"needs {PER_DIRECTION * DIRECTIONS} images",
        ),
        ("k-NN coverage", n > NEIGHBORS, f"needs {NEIGHBORS + 1} images"),
        ("full-dimension Fréchet distance, comparable across sizes", n >= 2 * d, f"needs {2 * d:,} images (2 d)"),
        ("labeled evaluation", labeled >= 50, "needs about 50 labeled images"),
    ]
    return [{"measure": name, "ok": ok, "why": why} for name, ok, why in wanted]


def _quartiles(values: list[int | None]) -> list[float] | None:
    known = [v for v in values if v is not None]
    return [float(q) for q in np.quantile(known, [0, 0.5, 1])] if known else None
