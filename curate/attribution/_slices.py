"""Slices of the target that no pool serves.

A slice is a label, a group or a cluster of the target. A pool serves a target image if one of its images lies within
the image's own ball, whose radius is the distance to the k-th nearest other target image (``coverage``). Copies and
rows of one group count as one image: the target is represented by one of each (lowest key hash, at most 2,000), and a
pool is worth as many images as it has groups. For a pool of the target's own distribution the expected share

    null = 1 - prod_{i=1..k} (N - i) / (N + M - i)

is the same in every slice, whatever its size and place: which of the N - 1 other target and M pool images are nearest
is a matter of chance. Whole neighborhoods are hit or missed together, so the interval (Wilson) is that of

    B M / (N + M)  images, not B,        B = images of the slice

whose intervals covered the null in 92 to 100% of slices in simulations (N, M from 15 to 2,000, d = 2 to 32).

A slice is ``unserved`` if the union of all pools covers less than half of its null (upper end of the interval), and so
does every pool that is large enough to tell; ``served`` if one of them covers more than half (lower end); ``too few``
below 10 images; else ``unclear``. The intervals are one by one: of forty slices one may be wrong.

Clusters are those of k-means on the leading principal components, as many as sqrt(n / 2), at most 20.

Source: Naeem et al. (ICML 2020) for coverage.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from scipy import linalg
from scipy.cluster.vq import kmeans2

from curate.distances._coverage import MAX_TARGET_ROWS, NEIGHBORS, TargetBalls, expected_coverage, wilson
from curate.distances._samples import Vectors, as_vectors
from curate.diversity import duplicates
from curate.results import Estimate
from embeddings.errors import SourceError, UnknownNameError, UsageError
from embeddings.moments import block_names, connected_rows
from embeddings.neighbors import nearest
from embeddings.store import EmbeddingStore

By = Literal["label", "group", "cluster"]
WAYS: tuple[By, ...] = ("label", "group", "cluster")
MIN_IMAGES = 10
MAX_GROUPS = 50
MAX_CLUSTERS = 20
COMPONENTS = 32
EXAMPLES = 3
HALF = 0.5  # of the null


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One slice of the target and how the pools cover it."""

    name: str
    n: int  # independent images
    verdict: str  # served, unclear, unserved, too few
    coverage: dict[str, Estimate]  # by pool
    union: Estimate  # of all pools together
    best: str | None  # the pool with the largest share of its null; None if all cover nothing
    examples: tuple[str, ...]  # keys of the images nearest to the slice's mean

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        coverage = {name: estimate.to_json() for name, estimate in self.coverage.items()}
        facts = {"name": self.name, "n": self.n, "verdict": self.verdict, "best": self.best}
        return {**facts, "coverage": coverage, "union": self.union.to_json(), "examples": list(self.examples)}


@dataclass(frozen=True, kw_only=True)
class Slices:
    """The target slice by slice, worst covered first."""

    by: By
    k: int
    slices: tuple[Slice, ...]
    notes: tuple[str, ...] = ()

    @property
    def unserved(self) -> tuple[Slice, ...]:
        """Slices that no pool serves, worst first."""
        return tuple(s for s in self.slices if s.verdict == "unserved")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        slices = [s.to_json() for s in self.slices]
        unserved = [s.name for s in self.unserved]
        return {"by": self.by, "k": self.k, "slices": slices, "unserved": unserved, "notes": list(self.notes)}


def slices(
    target: Vectors, pools: Mapping[str, Vectors], *, by: By | None = None, k: int = NEIGHBORS, seed: int = 0
) -> Slices:
    """Which slices of the target the pools serve, and which none does.

    Args:
        target: Array [n, d] or store.
        pools: Name -> the same, from the same encoder.
        by: What a slice is; None takes labels if one has 10 images, else 2 to 50 groups, else clusters. Images of a
            group are independent of each other where groups are the slices.
        k: Neighbors that set the radius of a ball; fewer where the target has no more images.
        seed: Of the clusters.

    Returns:
        Slices, worst covered first; coverage in 0..1 with 95% intervals and nulls, higher = closer.

    Raises:
        UsageError: no pool.
        UnknownNameError: ``by`` is none of the three.
        SourceError: the target has no such column, or an array that is not finite.
        TooFewImagesError: fewer than 2 independent target images.
        EncoderMismatchError: different encoders.
    """
    ours, theirs = as_vectors(target), {name: as_vectors(pool) for name, pool in pools.items()}
    if not theirs:
        raise UsageError("No pool to compare the target's slices with.", hint="Name a pool.")
    for name, store in theirs.items():
        ours.spec.require_same(store.spec, ("target", name))
    by, images, names = _cut(ours, by, seed)
    covered = _Covered.of(images, theirs, min(k, max(len(images) - 1, 1)))
    kinds = sorted({*names.tolist()} - {""})
    found = [covered.slice(name, np.flatnonzero(names == name), images) for name in kinds]
    without = int((names == "").sum())
    notes = [f"{without:,} target images have no {by}; they are in no slice."] if without else []
    if covered.k < k:
        notes.append(f"k = {covered.k} instead of {k}: the target has {len(images)} independent images.")
    return Slices(by=by, k=covered.k, slices=tuple(sorted(found, key=_from_worst)), notes=tuple(notes))


@dataclass(frozen=True)
class _Covered:
    """Which of the target's images the pools cover, one by one and together."""

    k: int
    covered: dict[str, np.ndarray]  # [N] bool
    images: dict[str, int]  # independent images of the pool
    in_union: np.ndarray  # [N] bool
    union_images: int

    @classmethod
    def of(cls, images: EmbeddingStore, pools: Mapping[str, EmbeddingStore], k: int) -> _Covered:
        """Of the target's independent images."""
        balls = TargetBalls.of(images, k)
        covered = {
            name: nearest(balls.centers, pool.vectors(), 1)[0][:, 0] <= balls.radii for name, pool in pools.items()
        }
        sizes = {name: len(np.unique(block_names(pool.rows()))) for name, pool in pools.items()}
        return cls(k, covered, sizes, np.any(list(covered.values()), axis=0), _union_size(pools))

    def slice(self, name: str, rows: np.ndarray, images: EmbeddingStore) -> Slice:
        """What the pools cover of some rows."""
        coverage = {pool: self._estimate(hits[rows], self.images[pool]) for pool, hits in self.covered.items()}
        union = self._estimate(self.in_union[rows], self.union_images)
        best = max(coverage, key=lambda pool: (_relative(coverage[pool]), pool))
        keys = images.column("key")
        return Slice(
            name=name,
            n=len(rows),
            verdict="too few" if len(rows) < MIN_IMAGES else self._verdict(len(rows), coverage, union),
            coverage=coverage,
            union=union,
            best=best if coverage[best].value else None,
            examples=tuple(keys[rows[i]] for i in _middle(np.asarray(images.vectors()[rows], np.float64))),
        )

    def _estimate(self, hits: np.ndarray, m: int) -> Estimate:
        share = float(hits.mean())
        low, high = wilson(share, self._worth(len(hits), m))
        return Estimate(
            value=share,
            low=max(low, 0.0),
            high=min(high, 1.0),
            n=(m, len(hits)),
            unit="share of the slice's images",
            lower_is_closer=False,
            method=f"k-NN coverage, k={self.k}",
            null=expected_coverage(len(self.in_union), m, self.k),
        )

    def _worth(self, b: int, m: int) -> float:
        """Independent images that the coverage of b of the N target images by m pool images is worth."""
        return b * m / (len(self.in_union) + m)

    def _verdict(self, b: int, coverage: Mapping[str, Estimate], union: Estimate) -> str:
        if any((e.low or 0) >= HALF * (e.null or 0) for e in (*coverage.values(), union)):
            return "served"
        telling = [e for name, e in coverage.items() if _can_tell(self._worth(b, self.images[name]), e)]
        return "unserved" if all((e.high or 0) < HALF * (e.null or 0) for e in (*telling, union)) else "unclear"


def independent_rows(store: EmbeddingStore, blocks: np.ndarray, limit: int | None = None) -> np.ndarray:
    """Row numbers, ascending, of one image of each block [n]: the one with the lowest key hash."""
    hashes = np.array([hashlib.sha256(key.encode()).hexdigest() for key in store.column("key")])
    order = np.argsort(hashes, kind="stable")
    _, first = np.unique(blocks[order], return_index=True)
    return np.sort(order[np.sort(first)[:limit]])


def _cut(store: EmbeddingStore, by: By | None, seed: int) -> tuple[By, EmbeddingStore, np.ndarray]:
    """How the target is cut, its independent images, and the slice's name of each [N]; "" is in no slice."""
    if by not in (None, *WAYS):
        raise UnknownNameError("way to slice", str(by), WAYS)
    images = store.take(independent_rows(store, block_names(store.rows()), MAX_TARGET_ROWS))
    by = by or _best_cut(images)
    if by == "cluster":
        return by, images, _clusters(np.asarray(images.vectors()[:], np.float64), seed)
    if by == "group":
        images = store.take(independent_rows(store, duplicates(store), MAX_TARGET_ROWS))
    names = np.array([name or "" for name in images.column(by)])
    if not (names != "").any():
        raise SourceError(f"The target has no {by}s.", hint="Slice it by cluster, or say which column holds them.")
    return by, images, names


def _best_cut(images: EmbeddingStore) -> By:
    labels = Counter(label for label in images.column("label") if label)
    if len(labels) > 1 and max(labels.values()) >= MIN_IMAGES:
        return "label"
    groups = {group for group in images.column("group") if group}
    return "group" if 2 <= len(groups) <= MAX_GROUPS else "cluster"


def _clusters(x: np.ndarray, seed: int) -> np.ndarray:
    """Names [n] of the clusters of vectors [n, d]: cluster 1 is the largest."""
    left, scale, _ = linalg.svd(x - x.mean(axis=0), full_matrices=False)
    scores = left[:, :COMPONENTS] * scale[:COMPONENTS]
    different = len(np.unique(scores.round(6), axis=0))
    count = min(max(round(np.sqrt(len(x) / 2)), 1), MAX_CLUSTERS, different)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a cluster that loses all its images is none
        _, code = kmeans2(scores, count, iter=50, minit="++", seed=np.random.default_rng(seed))
    _, code, size = np.unique(code, return_inverse=True, return_counts=True)
    place = np.argsort(np.argsort(-size, kind="stable"), kind="stable")
    return np.array([f"cluster {place[c] + 1}" for c in code])


def _union_size(pools: Mapping[str, EmbeddingStore]) -> int:
    """Independent images of all pools together: what they share counts once."""
    names = [[f"{name}/{block}" for block in block_names(pool.rows())] for name, pool in pools.items()]
    rows = pa.concat_tables([pool.rows().select(["sha256", "pixels"]) for pool in pools.values()])
    return len(np.unique(connected_rows(pa.chunked_array(names, pa.string()), rows["sha256"], rows["pixels"])))


def _middle(x: np.ndarray) -> Sequence[int]:
    """Row numbers of the vectors [n, d] nearest to their mean."""
    distance = ((x - x.mean(axis=0)) ** 2).sum(axis=1)
    order: list[int] = np.argsort(distance.round(6), kind="stable")[:EXAMPLES].tolist()
    return order


def _can_tell(worth: float, estimate: Estimate) -> bool:
    """Whether a pool that covers nothing would be below half of its null."""
    return wilson(0.0, worth)[1] < HALF * (estimate.null or 0)


def _relative(estimate: Estimate) -> float:
    """Coverage over its null."""
    return (estimate.value or 0) / (estimate.null or 1)


def _from_worst(found: Slice) -> tuple[bool, float, int, str]:
    """Sorts slices that can be told first, the worst of them at the top."""
    return found.verdict == "too few", _relative(found.union), -found.n, found.name
