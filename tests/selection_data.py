"""Synthetic stores for the tests of selection: digests that can be made equal, and a small world of pools."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from curate.results import ShiftReport
from curate.scoring import score
from embeddings.store import EmbeddingStore
from embeddings.vectors import ShardedVectors

MODES = np.random.default_rng(7).normal(size=(5, 12)) * 2


def make_store(name, vectors, keys=None, *, sha256=(), pixels=()):
    """A store whose digests are all different, but for those given by key; None makes one missing."""
    keys = [f"{i:04d}" for i in range(len(vectors))] if keys is None else list(keys)
    plain = EmbeddingStore.from_vectors(np.asarray(vectors), keys=keys)
    rows = plain.rows()
    for column, given in (("sha256", dict(sha256)), ("pixels", dict(pixels))):
        values = [given.get(key, f"{column} of {name}/{key}") for key in rows["key"].to_pylist()]
        rows = rows.set_column(rows.schema.get_field_index(column), column, pa.array(values, pa.string()))
    rows = rows.set_column(1, "uri", pa.array([f"{key}.png" for key in rows["key"].to_pylist()]))
    return EmbeddingStore(spec=plain.spec, rows=rows, vectors=plain.vectors(), facts={"source": f"/data/{name}"})


def labeled(store):
    """The store, every image with the nearest mode as its label and one of 40 groups; the first has neither."""
    modes = np.linalg.norm(np.asarray(store.vectors())[:, None] - MODES, axis=2).argmin(axis=1)
    keys = store.column("key")
    label = pa.array([None if key == "0000" else f"mode {mode}" for key, mode in zip(keys, modes, strict=True)])
    group = pa.array([None if key == "0000" else f"group {int(key) % 40}" for key in keys])
    rows = store.rows()
    for name, values in (("label", label), ("group", group)):
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), values)
    return EmbeddingStore(spec=store.spec, rows=rows, vectors=store.vectors(), facts=store.facts)


def near_modes(n, seed, spread=0.6):
    """Vectors [n, 12] float32 around the first four of five modes."""
    rng = np.random.default_rng(seed)
    return (MODES[rng.integers(0, 4, n)] + rng.normal(size=(n, 12)) * spread).astype(np.float32)


@dataclass(frozen=True)
class World:
    """A target, two near pools that share pictures with it and with each other, a far one, and test images."""

    target: EmbeddingStore
    pools: dict[str, EmbeddingStore]
    exclude: tuple[EmbeddingStore, ...]
    report: ShiftReport

    @property
    def excluded(self) -> set[tuple[str, str]]:
        """(source, key) of the candidates that are also test images."""
        return {("target", "0003"), ("target", "0004"), ("web", "0011"), ("open", "0012")}

    def labeled(self) -> "World":
        """The same world, its images with labels and groups."""
        pools = {name: labeled(pool) for name, pool in self.pools.items()}
        target = labeled(self.target)
        return replace(self, target=target, pools=pools, report=score(target, pools, work=None))

    def shuffled(self, seed: int) -> "World":
        """The same world, its rows given in another order, its pools too."""
        rng = np.random.default_rng(seed)
        pools = {name: _shuffled(self.pools[name], rng) for name in reversed(self.pools)}
        return replace(self, target=_shuffled(self.target, rng), pools=pools)

    def sharded(self, shards: int) -> "World":
        """The same world, its vectors in several files."""
        pools = {name: _sharded(pool, shards) for name, pool in self.pools.items()}
        return replace(self, target=_sharded(self.target, shards), pools=pools)


def make_world() -> World:
    """80 target images, 600 of the pools, 6 of them copies, 4 candidates excluded."""
    target = make_store("target", near_modes(80, 0), pixels={"0004": "test b"}, sha256={"0003": "test a"})
    web = make_store("web", near_modes(220, 1), pixels={"0010": "copied", "0011": "test c", "0020": "copied too"})
    shared = {"0012": "pixels of test/0000", "0030": "copied", "0031": "pixels of target/0005", "0032": "copied too"}
    opened = make_store("open", near_modes(180, 2, 0.7), pixels=shared, sha256={"0033": "sha256 of target/0006"})
    rng = np.random.default_rng(3)
    far = make_store(
        "far", (MODES[4] + rng.normal(size=(200, 12))).astype(np.float32), sha256={"0001": "x", "0002": "x"}
    )
    test = make_store("test", near_modes(5, 4), sha256={"0001": "test a"}, pixels={"0002": "test b", "0003": "test c"})
    pools = {"web": web, "open": opened, "far": far}
    return World(target, pools, (test,), score(target, pools, work=None))


def _shuffled(store: EmbeddingStore, rng: np.random.Generator) -> EmbeddingStore:
    """Rebuilt from its rows in another order; stores sort by key."""
    order = rng.permutation(len(store))
    keys = [store.column("key")[i] for i in order]
    digests = {name: dict(zip(store.column("key"), store.column(name), strict=True)) for name in ("sha256", "pixels")}
    again = make_store("again", np.asarray(store.vectors())[order], keys, **digests)
    again = labeled(again) if any(store.column("label")) else again
    return EmbeddingStore(spec=again.spec, rows=again.rows(), vectors=again.vectors(), facts=store.facts)


def _sharded(store: EmbeddingStore, shards: int) -> EmbeddingStore:
    vectors = ShardedVectors(np.array_split(np.asarray(store.vectors()), shards))
    return EmbeddingStore(spec=store.spec, rows=store.rows(), vectors=vectors, facts=store.facts)
