"""Images to vectors, and what one can say of vectors.

store = embeddings.embed("inspection/", encoder="lite0", out="stores/inspection")
store.vectors()  # [n, d]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embeddings.on_first_use import on_first_use

if TYPE_CHECKING:
    from embeddings.encoders.registry import encoder_names, get_encoder
    from embeddings.pipeline import as_store, embed
    from embeddings.sources import open_source, parse_address
    from embeddings.spec import EncoderSpec
    from embeddings.store import EmbeddingStore

_EXPORTS = {
    "EmbeddingStore": ".store",
    "EncoderSpec": ".spec",
    "as_store": ".pipeline",
    "embed": ".pipeline",
    "encoder_names": ".encoders.registry",
    "get_encoder": ".encoders.registry",
    "open_source": ".sources",
    "parse_address": ".sources",
}
__all__ = [
    "EmbeddingStore",
    "EncoderSpec",
    "as_store",
    "embed",
    "encoder_names",
    "get_encoder",
    "open_source",
    "parse_address",
]
__getattr__, __dir__ = on_first_use(__name__, _EXPORTS)
