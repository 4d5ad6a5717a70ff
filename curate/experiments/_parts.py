"""What a file's evaluations test on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curate import evaluation
from curate.config import Config
from embeddings.pipeline import as_store
from embeddings.store import EmbeddingStore


def evaluation_parts(
    config: Config, *, encoder: str, work: Path | None, **embedding: Any
) -> list[str | EmbeddingStore]:
    """The images that a file's evaluations test on, those given and those held out: never to be selected."""
    parts: list[str | EmbeddingStore] = []
    for address in config.labeled_addresses.values():
        train, _, test = address.partition("::")
        if test:
            parts.append(test)
        else:
            store = as_store(train, name="labeled", encoder=encoder, work=work, **embedding)
            parts.append(evaluation.split_store(store)[1])
    return parts
