import numpy as np
import pytest

from embeddings.approximate import IndexSearch
from embeddings.errors import UsageError
from embeddings.neighbors import nearest

pytest.importorskip("faiss")


def vectors(n, d=16, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(40, d))[rng.integers(0, 40, n)] * 3 + rng.normal(size=(n, d))).astype(np.float32)


@pytest.mark.parametrize("name", ["IVF16,Flat", "IVF16,SQ8"])
def test_every_list_probed_is_an_exact_search_and_its_recall_is_one(name):
    queries, base = vectors(30, seed=1), vectors(2_000).astype(np.float16)
    search = IndexSearch(name=name, probes=16)
    distances, rows = search(queries, base, 10)
    exact_distances, exact_rows = nearest(queries, base, 10)
    assert np.array_equal(distances, exact_distances)
    assert np.array_equal(rows, exact_rows)
    assert search.recalls == [1.0]


def test_few_lists_probed_miss_some_and_the_recall_says_how_many():
    queries, base = vectors(50, seed=1), np.random.default_rng(2).normal(size=(4_000, 16)).astype(np.float32)
    search = IndexSearch(name="IVF32,Flat", probes=1)
    distances, rows = search(queries, base, 10)
    exact = nearest(queries, base, 10)[1]
    hits = sum(len(set(a) & set(b)) for a, b in zip(rows.tolist(), exact.tolist(), strict=True))
    assert search.recalls == [hits / 500]
    assert search.recalls[0] < 1
    gaps = queries[:, None].astype(float) - base[rows]
    assert np.allclose(distances, np.square(gaps).sum(axis=2), atol=1e-6, rtol=0)


def test_a_base_that_does_not_fill_the_lists_is_searched_exactly():
    queries, base = vectors(5, seed=1), vectors(200)
    search = IndexSearch(name="IVF16,Flat")
    assert np.array_equal(search(queries, base, 3)[1], nearest(queries, base, 3)[1])
    assert search.recalls == []


@pytest.mark.parametrize("text", ["Flat", "HNSW32", "IVF16,Flat,probes=many"])
def test_what_is_no_inverted_file_is_refused(text):
    with pytest.raises(UsageError, match="wanted an inverted file"):
        IndexSearch.of(text)


def test_an_index_that_faiss_does_not_know_is_refused():
    with pytest.raises(UsageError, match="FAISS cannot build 'IVF16,Nonsense'"):
        IndexSearch(name="IVF16,Nonsense")(vectors(3), vectors(2_000), 2)


def test_the_number_of_probes_stands_behind_the_name():
    found = IndexSearch.of("IVF64,SQ8,probes=8")
    assert (found.name, found.probes) == ("IVF64,SQ8", 8)
