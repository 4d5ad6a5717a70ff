"""A source's rows without its vectors: what can be known of it before anything is embedded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from embeddings import files
from embeddings.encoders import Encoder
from embeddings.moments_file import is_moments_file
from embeddings.pipeline.entry import Embeddable, as_store
from embeddings.pipeline.shards import CLAIM, STORE
from embeddings.sources import holds_vectors, open_source, parse_address
from embeddings.sources.vectors import VectorSource
from embeddings.spec import EncoderSpec
from embeddings.store import ROWS, EmbeddingStore

_NO_ENCODER = EncoderSpec(name="listing", dim=0, size=0, preprocessing="none", weights="")


def listed_store(thing: Embeddable, *, name: str, encoder: str | Encoder | None = None) -> EmbeddingStore:
    """A store with the rows of a source as far as its listing knows them, and vectors of no dimension.

    What is a store already, or an array, is opened as it is.

    Args:
        thing: As in ``as_store``.
        name: What messages call it.
        encoder: That a store must come from, unless None.

    Raises:
        SourceError: nothing there, or a selector that does not fit.
        EncoderMismatchError: a store comes from another encoder.
    """
    if not isinstance(thing, str | Path):
        return as_store(thing, name=name, encoder=encoder)
    address = parse_address(str(thing))
    place = Path(files.absolute(address.path))
    if is_moments_file(place) or any((place / mark).is_file() for mark in (STORE, CLAIM)):
        return as_store(thing, name=name, encoder=encoder)  # or refused, with the reason
    source = VectorSource(address) if holds_vectors(address) else open_source(address)
    images = source.listing().images
    known = {name: images[name] for name in ("key", "uri", "label", "group", "meta")}
    columns = [known.get(field.name, pa.nulls(len(images), field.type)) for field in ROWS]
    rows = pa.table(columns, schema=ROWS)
    return EmbeddingStore(spec=_NO_ENCODER, rows=rows, vectors=np.zeros((len(images), 0), np.float32))
