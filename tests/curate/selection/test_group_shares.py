"""Shares of groups against counts by hand; weights that turn one share into another."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.results import LEFT_OUT, SELECTION, TARGET, Selection
from curate.selection._group_shares import MOST_WEIGHT, SHARES, group_shares, weight_for, weights_toward
from embeddings.errors import SourceError
from embeddings.pictures.tiles import Box, tile_key
from embeddings.spec import EncoderSpec
from embeddings.store import ROWS, EmbeddingStore

SPEC = EncoderSpec(name="made", dim=2, size=32, preprocessing="none", weights="none")


@pytest.fixture
def source_of(tmp_path, pictures):
    def _source_of(name, lines):
        images = list(pictures(len(lines)).values())
        columns = {"key": [f"{name}{i}" for i in range(len(lines))], "image": images, "line": lines}
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
        return str(tmp_path / f"{name}.parquet")

    return _source_of


def target_of(lines):
    columns = {field.name: pa.nulls(len(lines), field.type) for field in ROWS}
    columns |= {"key": pa.array([f"t{i}" for i in range(len(lines))]), "group": pa.array(lines, pa.string())}
    meta = pa.array([None if line is None else f'{{"line": "{line}"}}' for line in lines], pa.string())
    rows = pa.table(columns | {"meta": meta}, schema=ROWS)
    return EmbeddingStore(spec=SPEC, rows=rows, vectors=np.zeros((len(lines), 2)))


def selection_of(places, sources):
    """Of (source, key, target key)."""
    columns = {field.name: pa.nulls(len(places), field.type) for field in SELECTION}
    for i, name in enumerate(("source", "key", "target_key")):
        columns[name] = pa.array([place[i] for place in places], pa.string())
    table = pa.table(columns, schema=SELECTION)
    return Selection(table=table, left_out=LEFT_OUT.empty_table(), facts={}, sources=sources)


def side(table, name):
    return {row["group"]: (row["n"], pytest.approx(row["share"])) for row in table.to_pylist() if row["side"] == name}


def test_every_side_is_counted(source_of):
    target = target_of(["a", "a", "a", "b", None])
    sources = {TARGET: "", "web": source_of("web", ["a", "b", "b", "c"]), "vectors": ""}
    chosen = [("web", "web0", "t0"), ("web", "web1", "t1"), ("web", "web3", "t3"), (TARGET, "t3", "t3")]
    table = group_shares(selection_of([*chosen, ("vectors", "v0", "t4")], sources), target, "line")
    assert table.schema == SHARES
    assert side(table, TARGET) == {"a": (3, 0.75), "b": (1, 0.25), "c": (0, 0.0)}
    assert side(table, "web") == {"a": (1, 0.25), "b": (2, 0.5), "c": (1, 0.25)}
    assert side(table, "selection") == {"a": (1, 0.25), "b": (2, 0.5), "c": (1, 0.25)}
    assert side(table, "nearest") == {"a": (2, 0.5), "b": (2, 0.5), "c": (0, 0.0)}
    assert side(table, "vectors") == {}


def test_tiles_are_of_the_group_of_their_image(source_of):
    sources = {"web": source_of("web", ["a", "b"]) + "#tiles:8"}
    keys = [tile_key(name, Box(0, 0, 8, 8)) for name in ("web0", "web1", "web1")]
    table = group_shares(selection_of([("web", key, "t0") for key in keys], sources), target_of(["a", "b"]), "line")
    assert side(table, "selection") == {"a": (1, 1 / 3), "b": (2, 2 / 3)}


def test_a_pool_without_the_column_counts_by_its_nearest_images_alone(tmp_path, pictures):
    pq.write_table(pa.table({"key": ["x"], "image": list(pictures(1).values())}), tmp_path / "bare.parquet")
    sources = {"bare": str(tmp_path / "bare.parquet")}
    table = group_shares(selection_of([("bare", "x", "t1")], sources), target_of(["a", "b"]), "group")
    assert side(table, "nearest") == {"a": (0, 0.0), "b": (1, 1.0)}
    assert (side(table, "bare"), side(table, "selection")) == ({}, {})


def test_a_column_that_the_target_lacks_is_refused():
    with pytest.raises(SourceError, match="lime"):
        group_shares(selection_of([], {}), target_of(["a"]), "lime")


def test_weights_go_to_what_is_lacking():
    target = target_of(["a", "a", "b", "b", "c"])
    table = group_shares(selection_of([("x", "x0", "t0"), ("x", "x1", "t1"), ("x", "x2", "t2")], {}), target, "line")
    assert weights_toward(table) == {"b": weight_for(1 / 3, 0.4), "c": MOST_WEIGHT}
    with pytest.raises(SourceError, match="selection"):
        weights_toward(table, side="selection")


@given(st.floats(0.001, 0.999), st.floats(0.001, 0.999))
def test_a_weighted_group_counts_as_wanted(share, wanted):
    factor = weight_for(share, wanted)
    assert 0.01 <= factor <= MOST_WEIGHT
    if 0.011 < wanted * (1 - share) / (share * (1 - wanted)) < 9.9:
        assert factor * share / (factor * share + 1 - share) == pytest.approx(wanted, abs=0.02)


@pytest.mark.parametrize(
    ("share", "wanted", "factor"), [(0.5, 0.5, 1.0), (0.2, 0.5, 4.0), (0.0, 0.1, 10.0), (1, 1, 10.0)]
)
def test_weights_at_the_edges(share, wanted, factor):
    assert weight_for(share, wanted) == factor
