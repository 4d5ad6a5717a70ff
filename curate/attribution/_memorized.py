"""Copies of target images that no digest finds: a generator that memorized the target has an excellent distance.

With d1 the distance of a pool image to its nearest target image t, d2 to the nearest target image beside t, and r(t)
the distance of t to its own nearest other target image:

    share   of pool images with d1 <= r(t): 1 - authenticity
    near    of pool images with d1 <= d2 / 2: twice as near to one target image as to any other

``share`` alone proves nothing: images of the target's own distribution read .3 to .5. Both nulls are therefore
measured: every target image in turn is left out and taken for a pool image. Copies and rows of one group count as one
image, in the target (d2, r and the images left out are of other blocks) and in the intervals (Wilson). Exact copies are
counted apart, and in nothing else. A pool is ``suspicious`` if the interval of near - null (Newcombe) is above 0.

Why a ratio: distances of re-encoded copies are no small part of the target's spacing (its median r). Under Lite0, JPEG
90 puts copies at .5 spacings for emoji and at .8 for digits of 28 pixels, where honest images of the same distribution
begin at .4. The ratio d1 / d2 does better, since what moves a copy moves it from its neighbors, too. Share of copies
with d1 <= d2 / 2, and of held-out images of the same distribution (with the null in brackets):

              JPEG 90  twice as large  3/4 as large  mirrored  brighter  5% cropped   held out
    emoji         .50            1.00           .82       .82       .93         .86   .025 (.028)
    clip art      .72             .99           .85       .66       .84         .79   .013 (.031)
    photos       1.00            1.00           .97       .96       .95         .95   .000 (.000)
    digits        .01             .89           .00       .07       .96        1.00   .000 (.000)

(Emoji of other designs: .000 to .001.) A target that holds an image twice, in different files and under no common
group, hides copies of it.

Source: Alaa et al., How faithful is your synthetic data? (ICML 2022) for authenticity; Lowe (2004) for the ratio;
Newcombe (1998) for the difference of two shares.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from curate.distances._block_neighbors import independent_images, nearest_blocks
from curate.distances._copies import copied, copies
from curate.distances._coverage import wilson
from curate.distances._samples import Vectors, as_vectors
from curate.diversity._unique import NEAR_BITS
from curate.results import Estimate
from embeddings.moments import block_names
from embeddings.store import EmbeddingStore

RATIO = 0.5
MAX_PAIRS = 100


@dataclass(frozen=True, kw_only=True)
class NearCopy:
    """A pool image and the target image it seems to be a copy of."""

    pool: str  # key
    target: str  # key
    distance: float
    ratio: float  # to the distance of the next target image
    bits: int | None  # of 64 in which the perceptual hashes differ; None where there are none

    @property
    def seen_by_hash(self) -> bool:
        """Whether the perceptual hashes say the same."""
        return self.bits is not None and self.bits <= NEAR_BITS


@dataclass(frozen=True, kw_only=True)
class Memorized:
    """How much of a pool seems copied from the target."""

    suspicious: bool  # ``near`` is above its null by more than the errors of both
    near: Estimate  # share of near copies
    near_null_high: float  # upper end of the 95% interval of its null
    share: Estimate  # of pool images nearer to a target image than that is to its own neighbor
    exact: Estimate  # share of exact copies
    spacing: float  # median distance between target images that are neighbors
    count: int  # near copies
    seen_by_hash: int  # those whose perceptual hashes are near, too
    pairs: tuple[NearCopy, ...]  # near copies, closest first, at most 100

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        figures = {name: getattr(self, name).to_json() for name in ("near", "share", "exact")}
        return {**asdict(self), **figures, "pairs": [asdict(pair) for pair in self.pairs]}


def memorized(target: Vectors, pool: Vectors) -> Memorized:
    """Whether a pool holds copies of target images that are not exact.

    Args:
        target: Array [n, d] or store with 3 independent images at least; all of it is compared.
        pool: Array [m, d] or store from the same encoder, read in blocks.

    Returns:
        Memorized; shares are of the pool images that are no exact copies, with 95% intervals and nulls.

    Raises:
        TooFewImagesError: fewer than 3 independent target images.
        EncoderMismatchError: different encoders.
        SourceError: an array that is not finite.
    """
    ours, theirs = as_vectors(target), as_vectors(pool)
    ours.spec.require_same(theirs.spec, ("target", "pool"))
    _, block = np.unique(block_names(ours.rows()), return_inverse=True)
    own = _Nearest.of(ours, ours, block, own=block)
    found = _Nearest.of(theirs, ours, block)
    kept = ~copied(ours, theirs)
    near = found.near_copy() & kept
    rows = np.flatnonzero(near)
    pairs = _pairs(found, rows[np.argsort(found.distance[rows], kind="stable")], ours, theirs)
    facts = _Shares(block_names(theirs.rows()), kept, (len(theirs), len(ours)))
    null = float(own.near_copy().mean())
    near_share = facts.estimate(near, null, f"at most {RATIO:g} of the distance to the next target image")
    high = wilson(null, independent_images(block))[1]
    authentic = facts.estimate(found.distance <= own.distance[found.row], own.share_left_out(block), "1 - authenticity")
    return Memorized(
        suspicious=_is_above(near_share, null, high),
        near=near_share,
        near_null_high=high,
        share=authentic,
        exact=copies(ours, theirs),
        spacing=float(np.median(own.distance)),
        count=len(rows),
        seen_by_hash=sum(pair.seen_by_hash for pair in pairs),
        pairs=tuple(pairs[:MAX_PAIRS]),
    )


@dataclass(frozen=True)
class _Nearest:
    """The nearest target image of each row [m], and the nearest one beside it."""

    row: np.ndarray
    distance: np.ndarray
    next_row: np.ndarray
    next_distance: np.ndarray

    @classmethod
    def of(
        cls, queries: EmbeddingStore, base: EmbeddingStore, block: np.ndarray, *, own: np.ndarray | None = None
    ) -> _Nearest:
        """Of every query among base rows, which come in blocks; ``own`` names those that are left out."""
        squared, rows = nearest_blocks(queries.vectors(), base.vectors(), block, 2, own=own)
        distances = np.sqrt(squared)
        return cls(rows[:, 0], distances[:, 0], rows[:, 1], distances[:, 1])

    def near_copy(self) -> np.ndarray:
        """Whether [m] each row is a near copy of its nearest target image."""
        return np.asarray(self.distance <= RATIO * self.next_distance)

    def share_left_out(self, block: np.ndarray) -> float:
        """What ``share`` reads for target images that are left out one after the other."""
        through = block[self.row[self.row]] == block  # the neighbor's own neighbor is what was left out
        spacing = np.where(through, self.next_distance[self.row], self.distance[self.row])
        return float((self.distance <= spacing).mean())


@dataclass(frozen=True)
class _Shares:
    """Shares of a pool's images that are no exact copies."""

    group: np.ndarray  # [m] block of every pool row
    kept: np.ndarray  # [m] bool
    n: tuple[int, int]

    def estimate(self, hits: np.ndarray, null: float, method: str) -> Estimate:
        """The share of some images [m] bool."""
        facts = Estimate(value=None, n=self.n, unit="share of pool images", method=method, null=null)
        if not self.kept.any():
            return replace(facts, reason="every pool image is an exact copy of a target image")
        value = float(hits[self.kept].mean())
        low, high = wilson(value, independent_images(self.group[self.kept]))
        return replace(facts, value=value, low=max(low, 0.0), high=min(high, 1.0))


def _is_above(share: Estimate, null: float, null_high: float) -> bool:
    """Whether the 95% interval of the difference of a share and its null is above zero."""
    if share.value is None or share.low is None:
        return False
    return bool(share.value - null > np.hypot(share.value - share.low, null_high - null))


def _pairs(found: _Nearest, rows: np.ndarray, target: EmbeddingStore, pool: EmbeddingStore) -> list[NearCopy]:
    keys, hashes = zip(*((store.column("key"), store.column("phash")) for store in (target, pool)), strict=True)
    return [
        NearCopy(
            pool=keys[1][p],
            target=keys[0][t],
            distance=float(found.distance[p]),
            ratio=float(found.distance[p] / found.next_distance[p]) if found.next_distance[p] else 0.0,
            bits=_bits(hashes[0][t], hashes[1][p]),
        )
        for p, t in zip(rows.tolist(), found.row[rows].tolist(), strict=True)
    ]


def _bits(a: str | None, b: str | None) -> int | None:
    """Bits in which two hashes in hex differ."""
    return (int(a, 16) ^ int(b, 16)).bit_count() if a and b else None
