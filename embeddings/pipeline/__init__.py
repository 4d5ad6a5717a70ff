"""Sources to stores: ``embed`` and what it is made of.

entry      embed, as_store: what was given, as a store
jobs       a plan carried out in memory or shard by shard; shards, known and locks: what stands on disk already
batches    loading, encoding and writing side by side; clock: what each waits for
loading    records to pixels, in threads or worker processes; devices: the same job on several of them
vectors    vectors of the user's own take the same way; estimate: what a job would take
listing    what is known of a source before it is embedded
"""

from embeddings.pipeline.entry import Embeddable, as_store, embed, is_complete, preview
from embeddings.pipeline.listing import listed_store

__all__ = ["Embeddable", "as_store", "embed", "is_complete", "listed_store", "preview"]
