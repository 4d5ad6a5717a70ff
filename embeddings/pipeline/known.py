"""Rows of an earlier store of the same encoder, found by key and content, so that only new images are encoded."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embeddings.pictures.tiles import Box, split_key, split_uri, tile_uri
from embeddings.pictures.views import group_of
from embeddings.pipeline.loading import Fingerprint, Item, stamp_of
from embeddings.sources import View
from embeddings.store import EmbeddingStore


class Known:
    """What a store holds of each image; rows of an image stand together, sorted by its key. Thread-safe."""

    def __init__(self, store: EmbeddingStore, *, view: View, source: str) -> None:
        """``view``: of the images, as when the store was made; ``source``: where they are now."""
        self.recipe = (store.path, view, source)
        self._same_place = store.source == source  # elsewhere equal stamps may be of other files
        self._in_parts = bool(view.tiles or view.roi)  # else a fragment in a uri is part of a name
        self._rows = store.rows().combine_chunks()
        self._vectors = store.vectors()
        # An image of which a part failed is not known: the rows that are there are not all of it.
        self._failed = {split_key(key) for key in store.errors["key"].to_pylist()} if self._in_parts else set()
        self._keys: pa.Array = pc.coalesce(self._rows["parent"], self._rows["key"]).combine_chunks()

    @classmethod
    def open(cls, folder: Path, view: View, source: str) -> Known:
        """The same in another process, by its recipe.

        Raises:
            CorruptError: the store does not open.
        """
        return cls(EmbeddingStore.open(folder), view=view, source=source)

    def untouched(self, record: dict[str, Any]) -> list[Item] | None:
        """The items of this record if its file was not touched since, else None."""
        rows = self._range(record["key"]) if self._same_place else None
        known = rows and record["stamp"] and self._rows["stamp"][rows.start].as_py() == stamp_of(record)
        return self.items(record) if known else None

    def fingerprint(self, record: dict[str, Any]) -> Fingerprint | None:
        """How to recognize the content of this record's image, if there was one."""
        rows = self._range(record["key"])
        if not rows:
            return None
        uri, sha256 = (self._rows[name][rows.start].as_py() for name in ("uri", "sha256"))
        return Fingerprint(sha256, self._box(uri))

    def items(self, record: dict[str, Any]) -> list[Item]:
        """What is held of this record, with the label, group and columns that it has now."""
        rows = self._range(record["key"])
        held = self._rows.slice(rows.start, len(rows)).to_pylist()
        told = (_told(record, row, self._box(row["uri"])) for row in held)
        return [Item({**row, **now}, vector=self._vectors[i]) for i, row, now in zip(rows, held, told, strict=True)]

    def _box(self, uri: str) -> Box | None:
        return split_uri(uri)[1] if self._in_parts else None

    def _range(self, key: str) -> range:
        """Row numbers of the image with this key; none if a part of it failed."""
        if key in self._failed:
            return range(0)
        places = range(len(self._keys))
        first = bisect_left(places, key, key=lambda i: self._keys[i].as_py())
        return range(first, bisect_right(places, key, lo=first, key=lambda i: self._keys[i].as_py()))


def _told(record: dict[str, Any], row: dict[str, Any], box: Box | None) -> dict[str, Any]:
    """What the listing says of a row now, whatever it said when the image was embedded."""
    return {
        "uri": tile_uri(record["uri"], box) if box else record["uri"],
        "label": record["label"],
        "group": group_of(record, tiled=row["parent"] is not None),
        "meta": record["meta"],
        "stamp": stamp_of(record),
    }
