"""From opened stores to candidates: exact duplicates and excluded images out, whatever the method.

Two images are the same picture if their files or their decoded pixels are equal, or if both equal a third one. Of every
picture one candidate stays: the target's own before a pool's, pools by name, then by key; so a picture counts for the
same source whatever the order of the arguments and whether or not the pools were scored. A picture that also occurs in
an excluded source goes in every copy, and is not searched for either if it is the target's; so does every part of an
image of which a part is excluded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curate.results import LEFT_OUT
from curate.selection._candidates import Candidates
from embeddings.moments import connected_rows
from embeddings.store import EmbeddingStore


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """The candidates, and what was left out on the way."""

    candidates: Candidates
    left_out: pa.Table  # schema LEFT_OUT
    duplicates: int
    excluded: int


def gather(
    stores: Mapping[str, EmbeddingStore],
    excluded: Sequence[tuple[str, EmbeddingStore]],
    *,
    include_target: bool,
) -> Gathered:
    """Candidates of all stores, each picture once, no excluded one.

    Args:
        stores: by source name; the target first, then the pools by name.
        excluded: (name, store) of the images never to be chosen.
        include_target: whether the target's own images are candidates.
    """
    everything = [*stores.items(), *excluded]
    images = pa.concat_tables([_images(name, store) for name, store in everything])
    origin = np.repeat(np.arange(len(everything)), [len(store) for _, store in everything])
    place = np.concatenate([np.arange(len(store)) for _, store in everything])
    picture, rows = connected_rows(images["sha256"], images["pixels"]), np.arange(len(images))

    is_excluded = origin >= len(stores)
    banned_by = _first_row(picture, is_excluded)
    banned_by = np.where(banned_by < 0, _first_row(connected_rows(images["file"]), is_excluded), banned_by)
    allowed = (origin < len(stores)) & (banned_by < 0)
    is_candidate = (origin < len(stores)) & ((origin > 0) | include_target)
    first = _first_row(picture, is_candidate & allowed)
    stays, banned = first == rows, is_candidate & ~allowed
    is_copy = is_candidate & allowed & ~stays
    is_query = _first_row(picture, (origin == 0) & allowed) == rows

    candidates = Candidates(
        stores=stores,
        source=origin[stays],
        place=place[stays],
        copies=np.bincount(picture[is_candidate], minlength=len(images))[picture[stays]],
        queries=place[is_query],
    )
    lost = [_left_out(images, is_copy, "duplicate of", first), _left_out(images, banned, "also in excluded", banned_by)]
    return Gathered(
        candidates=candidates,
        left_out=pa.concat_tables(lost).sort_by([("source", "ascending"), ("key", "ascending")]),
        duplicates=int(is_copy.sum()),
        excluded=int(banned.sum()),
    )


def _images(source: str, store: EmbeddingStore) -> pa.Table:
    """source, key, digests of picture, pixels and file of every image of a store."""
    names = pa.repeat(pa.scalar(source, pa.string()), len(store))
    rows = store.rows().select(["key", "sha256", "pixels"]).append_column("source", names)
    return rows.append_column("file", store.file_digests())


def _first_row(picture: np.ndarray, among: np.ndarray) -> np.ndarray:
    """For every row [n] the first row among some that shows the same picture, or -1."""
    first = np.full(len(picture), -1)
    rows = np.flatnonzero(among)[::-1]
    first[picture[rows]] = rows  # of several values for one place the last, the lowest row, stays
    per_row: np.ndarray = first[picture]
    return per_row


def _left_out(images: pa.Table, lost: np.ndarray, why: str, because_of: np.ndarray) -> pa.Table:
    """Rows of LEFT_OUT for lost images, each with the image that it was left out for."""
    other = images.take(because_of[lost])
    pairs = zip(other["source"].to_pylist(), other["key"].to_pylist(), strict=True)
    reasons = pa.array([f"{why} {source}/{key}" for source, key in pairs], pa.string())
    return images.select(["source", "key"]).filter(pa.array(lost)).append_column("reason", reasons).cast(LEFT_OUT)
