"""Stores: digests, roles, selections, and what does not read back."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from embeddings import files
from embeddings.errors import CorruptError, EncoderMismatchError, SourceError
from embeddings.sources import REJECTED
from embeddings.spec import EncoderSpec
from embeddings.store import (
    ROWS,
    SCHEMA,
    EmbeddingStore,
    digest_columns,
    shard_path,
)

SPEC = EncoderSpec(name="e", dim=3, size=8, preprocessing="p", weights="w")


def rows(n, **columns):
    table = {field.name: pa.nulls(n, field.type) for field in ROWS}
    table["key"] = pa.array([f"k{i:03d}" for i in range(n)])
    table["sha256"] = pa.array([f"s{i}" for i in range(n)])
    return pa.table({**table, **columns}, schema=ROWS)


def store_of(n=10, **columns):
    return EmbeddingStore(spec=SPEC, rows=rows(n, **columns), vectors=np.eye(n, 3, dtype=np.float16))


def write_store(folder, sizes=(4, 6)):
    table, start = rows(sum(sizes)), 0
    for i, size in enumerate(sizes):
        files.write_table(shard_path(folder, "rows", f"{i}"), table.slice(start, size))
        np.save(shard_path(folder, "vectors", f"{i}"), np.full((size, 3), i, np.float16))
        start += size
    files.write_table(folder / "errors.parquet", REJECTED.empty_table())
    parts = {path.name: path.stat().st_size for path in folder.iterdir()}
    described = [{"name": f"{i}", "rows": size} for i, size in enumerate(sizes)]
    document = {"schema": SCHEMA, "source": "", "encoder": SPEC.__dict__, "dtype": "float16", "parts": parts}
    files.write_json(folder / "store.json", {**document, "shards": described})
    return folder


def test_the_digest_is_of_keys_contents_and_encoder():
    store = store_of()
    assert store.digest == store_of().digest
    assert (
        store.digest != EmbeddingStore(spec=replace(SPEC, weights="v"), rows=rows(10), vectors=store.vectors()).digest
    )
    assert store.digest != store_of(sha256=pa.array(["x"] * 10)).digest
    assert store.digest != store_of(key=pa.array([f"j{i}" for i in range(10)])).digest
    assert store.digest == store_of(label=pa.array(["cat"] * 10)).digest  # of the images, not of what they are called


def test_digests_do_not_depend_on_chunks_and_cannot_be_confused():
    table = rows(10)
    chunked = pa.concat_tables([table.slice(0, 3), table.slice(3)])
    assert digest_columns(table, ("key", "label")) == digest_columns(chunked, ("key", "label"))
    first, second = pa.table({"a": ["x,y"], "b": ["z"]}), pa.table({"a": ["x"], "b": ["y,z"]})
    assert digest_columns(first, ("a", "b")) != digest_columns(second, ("a", "b"))
    assert digest_columns(first, ("a",), salt="1") != digest_columns(first, ("a",), salt="2")


def test_the_digest_of_many_rows_is_taken_block_by_block():
    keys = [str(i) for i in range(70_000)]
    state = hashlib.sha256(b"salt")
    for block in (keys[:65_536], keys[65_536:]):
        state.update(json.dumps([block]).encode())
    assert digest_columns(pa.table({"key": keys}), ("key",), salt="salt") == state.hexdigest()


def test_from_vectors_sorts_by_key_and_keeps_the_pairing():
    array = np.arange(24, dtype=np.float32).reshape(12, 2)
    store = EmbeddingStore.from_vectors(array)
    assert store.column("key") == sorted(str(i) for i in range(12))
    np.testing.assert_array_equal(store.vectors(), array[[int(k) for k in store.column("key")]])
    order = np.random.default_rng(0).permutation(12)
    shuffled = EmbeddingStore.from_vectors(array[order], keys=[str(i) for i in order])
    assert shuffled.digest == store.digest
    np.testing.assert_array_equal(shuffled.vectors(), store.vectors())


@pytest.mark.parametrize(
    ("vectors", "keys", "message"),
    [
        (np.zeros(3), None, "shape"),
        (np.zeros((0, 3)), None, "shape"),
        (np.zeros((2, 3)), ["a"], "2 vectors with 1 keys"),
        (np.zeros((2, 3)), ["a", "a"], "1 distinct"),
        (np.array([[0.0, np.nan], [0, 0]]), ["a", "b"], "'a' is not finite"),
    ],
)
def test_vectors_that_do_not_hold_up_are_refused(vectors, keys, message):
    with pytest.raises(SourceError, match=message):
        EmbeddingStore.from_vectors(vectors, keys=keys)


def test_roles_take_any_column_and_leave_the_rest():
    meta = pa.array([json.dumps({"lot": str(i % 3)}) for i in range(10)])
    store = store_of(label=pa.array(["cat", "dog"] * 5), meta=meta)
    other = store.with_roles(label="lot", group="label")
    assert other.column("label")[:4] == ["0", "1", "2", "0"]
    assert other.column("group")[:2] == ["cat", "dog"]  # as the column stood before
    assert store.column("label")[0] == "cat"
    assert store.with_roles().rows() == store.rows()
    empty = store_of(meta=pa.array([json.dumps({"lot": "a" * (i % 2)}) for i in range(10)])).with_roles(label="lot")
    assert empty.column("label")[:3] == [None, "a", None]
    assert store.column_names == ["key", "label", "group", "lot"]
    with pytest.raises(SourceError, match="No column 'color'"):
        store.with_roles(label="color")


def test_where_keeps_rows_by_any_column():
    meta = pa.array([json.dumps({"lot": str(i % 3)}) for i in range(10)])
    store = store_of(label=pa.array(["cat", None] * 5), meta=meta)
    assert store.where([("lot", ("0", "1")), ("label", ("cat",))]).column("key") == ["k000", "k004", "k006"]
    assert len(store.where([("label", ("",))])) == 5
    with pytest.raises(SourceError, match="No row has lot = 7 and label = cat"):
        store.where([("lot", ("7",)), ("label", ("cat",))])


def test_take_keeps_rows_and_vectors_together():
    part = store_of().take(np.array([1, 2, 7]))
    assert part.column("key") == ["k001", "k002", "k007"]
    np.testing.assert_array_equal(part.vectors(), np.eye(10, 3)[[1, 2, 7]])
    assert part.path is None


def test_specs_that_differ_are_named_with_the_field():
    SPEC.require_same(replace(SPEC), ("a", "b"))
    with pytest.raises(
        EncoderMismatchError, match=r"target was embedded by e and web by e \(weights: 'w' against 'v'\)"
    ):
        SPEC.require_same(replace(SPEC, weights="v"), ("target", "web"))
    assert SPEC.fingerprint != replace(SPEC, size=9).fingerprint


def test_a_store_reads_back(tmp_path):
    store = EmbeddingStore.open(write_store(tmp_path))
    assert (len(store), store.spec, store.path, len(store.errors)) == (10, SPEC, tmp_path, 0)
    np.testing.assert_array_equal(store.vectors()[3:5], [[0, 0, 0], [1, 1, 1]])
    assert store.column("key")[-1] == "k009"


def damage_rows(folder):
    shard_path(folder, "rows", "1").write_bytes(b"PAR1 no more")


def cut_vectors(folder):
    path = shard_path(folder, "vectors", "0")
    path.write_bytes(path.read_bytes()[:-8])


def swap_vectors(folder):
    np.save(shard_path(folder, "vectors", "0"), np.zeros((5, 3), np.float16))


def lose_rows(folder):
    facts = files.read_json(folder / "store.json")
    files.write_json(folder / "store.json", {**facts, "shards": [{"name": "0", "rows": 5}, {"name": "1", "rows": 6}]})


def future_schema(folder):
    files.write_json(folder / "store.json", {"schema": "curate.store/9"})


@pytest.mark.parametrize(
    "spoil",
    [
        damage_rows,
        cut_vectors,
        swap_vectors,
        future_schema,
        lambda folder: (folder / "store.json").unlink(),
        lambda folder: (folder / "store.json").write_text("{"),
        lambda folder: shard_path(folder, "vectors", "1").unlink(),
        lambda folder: (folder / "errors.parquet").unlink(),
    ],
)
def test_what_does_not_read_back_is_said(tmp_path, spoil):
    spoil(write_store(tmp_path))
    with pytest.raises(CorruptError):
        EmbeddingStore.open(tmp_path)


def damage_within(folder):
    path = shard_path(folder, "rows", "1")
    path.write_bytes(path.read_bytes()[:40] + b"????" + path.read_bytes()[44:])


@pytest.mark.parametrize("spoil", [damage_within, lose_rows])
def test_what_opening_cannot_see_is_said_when_it_is_read(tmp_path, spoil):
    spoil(write_store(tmp_path))
    store = EmbeddingStore.open(tmp_path)
    with pytest.raises(CorruptError):
        _ = store.rows(), store.vectors()[:]


def test_opening_reads_no_part(tmp_path, monkeypatch):
    write_store(tmp_path)
    monkeypatch.setattr("embeddings.files.read_table", lambda *_: pytest.fail("a table was read"))
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("an array was read"))
    assert (len(EmbeddingStore.open(tmp_path)), EmbeddingStore.open(tmp_path).vectors().shape) == (10, (10, 3))


def test_shrinkage_is_the_median_shorter_side_over_the_encoder_s_edge():
    sizes = {"width": pa.array([80, 8, 16], pa.int32()), "height": pa.array([40, 90, 20], pa.int32())}
    assert store_of(3, **sizes).shrinkage == 2.0
    assert EmbeddingStore.from_vectors(np.eye(3)).shrinkage == 0.0
