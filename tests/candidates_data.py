"""Candidates without the path that leads to them: what one selection method sees, for tests of that method alone."""

import numpy as np
import pyarrow as pa

from curate.selection._candidates import Candidates
from curate.selection._ledger import IMAGES, Ledger, Limit, Quota
from embeddings.store import EmbeddingStore


def make_candidates(target, pools, *, own=False, labels=None, **more):
    """Candidates of arrays or stores; every target image is one to select for, and a candidate only if ``own``."""
    stores = {"target": _store(target)} | {name: _store(pools[name]) for name in sorted(pools)}
    if labels is not None:
        rows = stores["target"].rows()
        rows = rows.set_column(rows.schema.get_field_index("label"), "label", pa.array(labels, pa.string()))
        store = stores["target"]
        stores["target"] = EmbeddingStore(spec=store.spec, rows=rows, vectors=store.vectors())
    sizes = [len(store) if own or name != "target" else 0 for name, store in stores.items()]
    return Candidates(
        stores=stores,
        source=np.repeat(np.arange(len(stores)), sizes),
        place=np.concatenate([np.arange(size) for size in sizes]),
        copies=np.ones(sum(sizes), np.int64),
        queries=np.arange(len(stores["target"])),
        **more,
    )


def images(candidates, most):
    """A ledger of so many images."""
    return Ledger.of_images(len(candidates), most)


def capped(candidates, most, caps):
    """The same with a cap on every source, in the order of the sources."""
    none = np.zeros(len(caps), np.int64)
    quota = Quota(
        name="source", names=candidates.names, member=candidates.source, caps=np.array(caps, np.int64), floors=none
    )
    return Ledger(len(candidates), [Limit(name=IMAGES, most=most, amounts=np.ones(len(candidates)))], [quota])


def _store(vectors):
    if isinstance(vectors, EmbeddingStore):
        return vectors
    keys = [f"{i:05d}" for i in range(len(vectors))]
    return EmbeddingStore.from_vectors(np.asarray(vectors, np.float32), keys=keys)
