"""The images of one labeled set under any encoder, in one order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embeddings.errors import CorruptError, SourceError, UsageError
from embeddings.pipeline import Embeddable, as_store
from embeddings.progress import Progress, silent
from embeddings.sources import parse_address
from embeddings.spec import EncoderSpec
from embeddings.store import EmbeddingStore

GROUP = "group"
PARTS = ("training part", "test part")
Labeled = Embeddable | tuple[Embeddable, Embeddable]


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """How images are embedded, whatever the encoder."""

    work: Path | None = None
    device: str = "auto"
    workers: int | None = None
    progress: Progress = silent

    def store(self, thing: Embeddable, name: str, encoder: str) -> EmbeddingStore:
        """The store of a thing under one encoder."""
        settings: dict[str, Any] = vars(self)
        return as_store(thing, name=name, encoder=encoder, **settings)


@dataclass(frozen=True, kw_only=True)
class LabeledImages:
    """One store, or the training and the test store, under the first encoder; their rows carry the labels."""

    name: str
    stores: Sequence[EmbeddingStore]
    grouped_by: str = GROUP  # column that the groups come from

    @classmethod
    def of(
        cls, name: str, thing: Labeled, embedding: Embedding, encoder: str, *, split_by: str | None = None
    ) -> LabeledImages:
        """Embeds SOURCE, ``TRAIN::TEST`` or a pair of sources; ``split_by`` names the column of their groups.

        Raises:
            UsageError: vectors, of which no other encoder can embed the images; ``split_by`` with what has no columns.
            SourceError: a part that cannot be listed, or lacks a column that was named.
        """
        if isinstance(thing, str):
            train, divided, test = thing.partition("::")
            thing = (train, test) if divided else train
        parts: tuple[Embeddable, ...] = thing if isinstance(thing, tuple) else (thing,)
        if split_by is not None:
            parts = tuple(_grouped(part, name, split_by) for part in parts)
        whose = [f"The {which} of the labeled set {name!r}" for which in PARTS]
        titles = whose if len(parts) > 1 else [f"The labeled set {name!r}"]
        stores = [_store(part, title, name, embedding, encoder) for part, title in zip(parts, titles, strict=True)]
        if not all(store.source and store.spec.size for store in stores):
            raise UsageError(
                f"The labeled set {name!r} holds vectors without images; every arm embeds the images itself.",
                hint="Give the images: a folder or a table.",
            )
        return cls(name=name, stores=stores, grouped_by=split_by or GROUP)

    @property
    def rows(self) -> pa.Table:
        """Rows of all parts [n]."""
        return pa.concat_tables([store.rows() for store in self.stores])

    @property
    def n_train(self) -> int | None:
        """How many of the rows are a given training part; None if there is one part."""
        return len(self.stores[0]) if len(self.stores) > 1 else None

    def own_features(self) -> tuple[EncoderSpec, np.ndarray]:
        """The first encoder's spec, and its features [n, d]."""
        return self.stores[0].spec, np.concatenate([store.vectors()[:] for store in self.stores])

    def features(self, embedding: Embedding, encoder: str) -> tuple[EncoderSpec, np.ndarray]:
        """The same of another encoder: its spec, and features [n, d'] of the same images in the same order."""
        same = [embedding.store(store.source, self.name, encoder) for store in self.stores]
        parts = [_aligned(theirs, ours.column("key")) for ours, theirs in zip(self.stores, same, strict=True)]
        return same[0].spec, np.concatenate(parts)


def _store(part: Embeddable, title: str, name: str, embedding: Embedding, encoder: str) -> EmbeddingStore:
    """The store of a part; what is wrong with it is told under its title."""
    try:
        return embedding.store(part, name, encoder)
    except SourceError as error:
        raise SourceError(f"{title}: {error.message}", hint=error.hint) from error


def _grouped(part: Embeddable, name: str, column: str) -> str:
    """The address of a source whose groups are the values of a column."""
    if not isinstance(part, str | Path):
        raise UsageError(
            f"The labeled set {name!r} is a {type(part).__name__}, in which no column {column!r} can be looked up.",
            hint="Give its address instead of the images themselves, or group its rows before.",
        )
    return str(replace(parse_address(str(part)), group=column))


def _aligned(store: EmbeddingStore, keys: list[str]) -> np.ndarray:
    """Vectors [n, d] of these keys."""
    row = {key: i for i, key in enumerate(store.column("key"))}
    missing = [key for key in keys if key not in row]
    if missing:
        raise CorruptError(
            f"{len(missing)} images of {store.source}, as {missing[0]!r}, were there for one encoder, not for another.",
            hint="Run the same command again once the source is at rest.",
        )
    return store.vectors()[np.array([row[key] for key in keys], np.int64)]
