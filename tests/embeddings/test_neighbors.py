"""Nearest neighbors against brute force in float64, whatever the engine and the blocks."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.neighbors import NearestNeighbors

from embeddings import neighbors
from embeddings.errors import TooFewImagesError, UsageError
from embeddings.neighbors import Engine, nearest
from embeddings.vectors import ShardedVectors

faiss_installed = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="faiss is an extra")
ENGINES = [
    pytest.param(Engine(faiss=False), id="torch"),
    pytest.param(Engine(faiss=False, query_rows=7, base_rows=13), id="torch-small-blocks"),
    pytest.param(Engine(faiss=True), id="faiss", marks=faiss_installed),
    pytest.param(Engine(faiss=True, query_rows=64, base_rows=50), id="faiss-small-blocks", marks=faiss_installed),
]
every_engine = pytest.mark.parametrize("engine", ENGINES)


def brute_force(queries, base, k, exclude_self=False):
    """All distances in float64 by difference; ties by row number."""
    x, y = np.asarray(queries, np.float64), np.asarray(base, np.float64)
    distances = np.stack([np.square(y - row).sum(axis=1) for row in x]).round(6)
    if exclude_self:
        np.fill_diagonal(distances, np.inf)
    rows = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, rows, axis=1), rows


def assert_exact(queries, base, k, engine, exclude_self=False):
    distances, rows = nearest(queries, base, k, exclude_self=exclude_self, engine=engine)
    wanted_distances, wanted_rows = brute_force(queries, base, k, exclude_self)
    np.testing.assert_array_equal(rows, wanted_rows)
    np.testing.assert_array_equal(distances, wanted_distances)
    assert distances.dtype == np.float64
    assert rows.dtype == np.int64


@every_engine
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_equals_brute_force(engine, dtype):
    rng = np.random.default_rng(0)
    base, queries = (rng.standard_normal((n, 40)).astype(dtype) for n in (300, 90))
    assert_exact(queries, base, 5, engine)
    assert_exact(base, base, 9, engine, exclude_self=True)


@every_engine
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [100.0, 10_000.0])
def test_a_common_offset_costs_no_digit(engine, offset, dtype):
    """|x|^2 + |y|^2 - 2xy alone is off by more than the distances here."""
    base = (offset + np.random.default_rng(1).standard_normal((200, 64))).astype(dtype)
    assert_exact(base, base, 10, engine, exclude_self=True)


@every_engine
def test_clusters_far_apart_need_the_second_look(engine):
    """No one offset helps: inside each cluster float32 cannot see the distances."""
    rng = np.random.default_rng(2)
    centers = 1e4 * rng.standard_normal((3, 16))
    base = centers[rng.integers(3, size=150)] + 1e-2 * rng.standard_normal((150, 16))
    assert_exact(base, base, 5, engine, exclude_self=True)


@every_engine
def test_copies_beyond_the_margin_come_in_row_order(engine):
    rng = np.random.default_rng(3)
    base = rng.standard_normal((200, 8)).astype(np.float16)
    base[rng.permutation(200)[:120]] = base[0]
    assert_exact(base, base, 6, engine)
    assert_exact(base, base, 6, engine, exclude_self=True)


@every_engine
def test_a_base_of_one_picture(engine):
    base = np.full((60, 5), 3.0, np.float16)
    distances, rows = nearest(base[:4], base, 3, exclude_self=True, engine=engine)
    assert (distances == 0).all()
    assert rows.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]


@given(
    base=arrays(np.int64, st.tuples(st.integers(2, 30), st.just(2)), elements=st.integers(-2, 2)),
    k=st.integers(1, 3),
    exclude_self=st.booleans(),
    query_rows=st.integers(1, 9),
    base_rows=st.integers(1, 9),
)
def test_lattices_full_of_ties(base, k, exclude_self, query_rows, base_rows):
    k = min(k, len(base) - exclude_self)
    engine = Engine(faiss=False, query_rows=query_rows, base_rows=base_rows)
    assert_exact(base, base, k, engine, exclude_self)


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 12), st.integers(1, 20))
def test_any_size(seed, n, d, m):
    rng = np.random.default_rng(seed)
    base, queries = rng.standard_normal((n, d)).astype(np.float16), rng.standard_normal((m, d)).astype(np.float16)
    assert_exact(queries, base, int(rng.integers(1, n + 1)), Engine(faiss=False, query_rows=8, base_rows=16))


@faiss_installed
@pytest.mark.parametrize("k", [1, 30])
def test_faiss_changes_nothing(k):
    base = np.random.default_rng(4).standard_normal((500, 96)).astype(np.float16)
    base[100:140] = base[7]
    with_faiss, without = (nearest(base, base, k, engine=Engine(faiss=f)) for f in (True, False))
    for a, b in zip(with_faiss, without, strict=True):
        np.testing.assert_array_equal(a, b)


@every_engine
def test_sharded_vectors_are_one_array(engine):
    whole = np.random.default_rng(5).standard_normal((70, 12)).astype(np.float16)
    sharded = ShardedVectors([whole[:20], whole[20:21], whole[21:]])
    for queries, base in ((sharded, sharded), (whole, sharded), (sharded, whole)):
        for a, b in zip(nearest(queries, base, 4, engine=engine), brute_force(whole, whole, 4), strict=True):
            np.testing.assert_array_equal(a, b)


def test_equals_scikit_learn():
    rng = np.random.default_rng(6)
    base, queries = rng.standard_normal((150, 20)), rng.standard_normal((40, 20))
    distances, rows = nearest(queries, base, 7)
    theirs, their_rows = NearestNeighbors(n_neighbors=7, algorithm="brute").fit(base).kneighbors(queries)
    np.testing.assert_array_equal(rows, their_rows)
    np.testing.assert_allclose(distances, theirs**2, atol=1e-6)


def test_one_vector():
    distances, rows = nearest(np.array([[1.0, 2.0]]), np.array([[4.0, 6.0]]), 1)
    assert (distances.tolist(), rows.tolist()) == ([[25.0]], [[0]])


def test_no_query():
    distances, rows = nearest(np.zeros((0, 3)), np.zeros((5, 3)), 2)
    assert distances.shape == rows.shape == (0, 2)


@pytest.mark.parametrize(("n", "k", "exclude_self"), [(3, 4, False), (3, 3, True), (1, 1, True)])
def test_more_neighbors_than_images(n, k, exclude_self):
    x = np.zeros((n, 2), np.float32)
    with pytest.raises(TooFewImagesError, match=f"{k} neighbors were asked for among {n - exclude_self}"):
        nearest(x, x, k, exclude_self=exclude_self)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e20])
def test_values_that_no_distance_can_carry(value):
    x = np.zeros((4, 2))
    x[2, 1] = value
    with pytest.raises(UsageError, match="not finite"):
        nearest(np.zeros((1, 2)), x, 2)


def test_what_cannot_be_asked():
    with pytest.raises(UsageError, match="wanted k >= 1"):
        nearest(np.zeros((2, 2)), np.zeros((2, 2)), 0)
    with pytest.raises(UsageError, match=r"\[2, 3\] in \[2, 2\]"):
        nearest(np.zeros((2, 3)), np.zeros((2, 2)), 1)


def test_no_matrix_is_larger_than_the_blocks(monkeypatch):
    sizes = []
    plain = neighbors._approximate

    def watched(query, block):
        sizes.append(len(query) * len(block))
        return plain(query, block)

    monkeypatch.setattr(neighbors, "_approximate", watched)
    base = np.random.default_rng(7).standard_normal((400, 4)).astype(np.float32)
    base[::2] = 0
    nearest(base, base, 3, engine=Engine(faiss=False, query_rows=80, base_rows=50))
    assert max(sizes) <= 80 * 50
    assert sum(sizes) >= 400 * 400


def test_an_engine_without_faiss_is_chosen_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not Engine().uses_faiss(1280)
    assert Engine(faiss=True).uses_faiss(1280)


def test_short_vectors_are_searched_by_products_where_faiss_is_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert [Engine().uses_faiss(d) for d in (64, 256, 257, 1280)] == [False, False, True, True]
    assert Engine(faiss=True).uses_faiss(64)
    assert not Engine(faiss=False).uses_faiss(1280)
    assert Engine().block_rows(1280) > Engine().block_rows(64)
