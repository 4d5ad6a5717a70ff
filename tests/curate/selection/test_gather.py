import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from selection_data import make_store

from curate.selection import _gather
from curate.selection._inputs import Inputs
from curate.terms import Terms


def store(name, n=3, **digests):
    return make_store(name, np.arange(2.0 * n).reshape(n, 2), [f"k{i}" for i in range(n)], **digests)


def gather(stores, excluded, *, include_target, terms=None, licenses=()):
    terms = dict(terms or {}) | ({} if include_target else {"target": Terms(cap=0)})
    return _gather.gather(Inputs(stores=stores, excluded=excluded), terms=terms, licenses=licenses, near=False)


def kept(gathered):
    c = gathered.candidates
    return [(c.names[s], key) for s, key in zip(c.source, c.keys, strict=True)]


def left_out(gathered):
    return [(row["source"], row["key"], row["reason"]) for row in gathered.left_out.to_pylist()]


def test_a_picture_stays_with_the_target_then_with_the_first_pool_by_name():
    stores = {
        "target": store("target", pixels={"k2": "p"}),
        "a": store("a", pixels={"k0": "p", "k1": "q"}),
        "b": store("b", pixels={"k0": "q"}),
    }
    gathered = gather(stores, [], include_target=True)
    assert [k for k in kept(gathered) if k[0] != "target"] == [("a", "k1"), ("a", "k2"), ("b", "k1"), ("b", "k2")]
    assert left_out(gathered) == [("a", "k0", "duplicate of target/k2"), ("b", "k0", "duplicate of a/k1")]
    assert gathered.candidates.copies.tolist() == [1, 1, 2, 2, 1, 1, 1]
    assert (gathered.dropped()["duplicate"], gathered.dropped()["excluded"]) == (2, 0)


def test_without_the_targets_images_a_pools_copy_of_one_is_a_candidate():
    stores = {"target": store("target", pixels={"k2": "p"}), "a": store("a", pixels={"k0": "p"})}
    gathered = gather(stores, [], include_target=False)
    assert kept(gathered) == [("a", "k0"), ("a", "k1"), ("a", "k2")]
    assert gathered.candidates.copies.tolist() == [1, 1, 1]
    assert gathered.candidates.target_keys.tolist() == ["k0", "k1", "k2"]


def test_copies_chain_over_files_and_pixels():
    a = store("a", 4, sha256={"k0": "s", "k1": "s"}, pixels={"k1": "p", "k2": "p"})
    gathered = gather({"target": store("target"), "a": a}, [], include_target=False)
    assert kept(gathered) == [("a", "k0"), ("a", "k3")]
    assert gathered.candidates.copies.tolist() == [3, 1]


def test_an_excluded_picture_goes_in_every_copy_and_is_no_query():
    stores = {
        "target": store("target", pixels={"k0": "p"}),
        "a": store("a", pixels={"k1": "p"}, sha256={"k1": "s", "k2": "s"}),
    }
    gathered = gather(stores, [("test", store("test", pixels={"k1": "p"}))], include_target=True)
    assert kept(gathered) == [("target", "k1"), ("target", "k2"), ("a", "k0")]
    assert {row[2] for row in left_out(gathered)} == {"also in excluded test/k1"}
    assert gathered.dropped()["excluded"] == 3
    assert gathered.candidates.target_keys.tolist() == ["k1", "k2"]


def test_a_picture_twice_in_the_target_asks_once():
    target = store("target", pixels={"k0": "p", "k1": "p"})
    for include in (True, False):
        gathered = gather({"target": target, "a": store("a")}, [], include_target=include)
        assert gathered.candidates.target_keys.tolist() == ["k0", "k2"]


def test_missing_digests_are_no_copies_of_each_other():
    a = store("a", pixels={f"k{i}": None for i in range(3)}, sha256={f"k{i}": None for i in range(3)})
    assert len(gather({"target": store("target"), "a": a}, [], include_target=True).candidates) == 6


names = st.lists(st.sampled_from("uvwxyz"), min_size=1, max_size=8)


@given(target=names, a=names, b=names, test=names)
def test_what_is_left_is_unique_clean_and_accounted_for(target, a, b, test):
    def named(name, pixels):
        return store(name, len(pixels), pixels={f"k{i}": p for i, p in enumerate(pixels)})

    stores = {"target": named("target", target), "a": named("a", a), "b": named("b", b)}
    gathered = gather(stores, [("test", named("test", test))], include_target=True)
    pixels = [
        stores[name].column("pixels")[place]
        for name, place in zip(
            np.array(list(stores))[gathered.candidates.source], gathered.candidates.place, strict=True
        )
    ]
    assert sorted(pixels) == sorted(set(target + a + b) - set(test))
    assert gathered.candidates.copies.tolist() == [(target + a + b).count(p) for p in pixels]
    assert gathered.dropped()["excluded"] == sum(p in test for p in target + a + b)
    assert len(pixels) + gathered.dropped()["excluded"] + gathered.dropped()["duplicate"] == len(target + a + b)
    assert len(gathered.left_out) == gathered.dropped()["excluded"] + gathered.dropped()["duplicate"]
