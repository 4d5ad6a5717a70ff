"""Shares of groups against counts by hand, and what chance alone makes against every draw there is."""

import json
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from candidates_data import make_candidates
from hypothesis import given
from hypothesis import strategies as st
from selection_data import labeled, make_store, near_modes

from curate.results import Selection
from curate.selection import select
from curate.selection._composition import MOST_GROUPS, ROWS, apart_by_chance, composition
from embeddings.store import EmbeddingStore


def store_of(labels, groups=None):
    """Images with labels and groups."""
    plain = EmbeddingStore.from_vectors(np.zeros((len(labels), 2), np.float32))
    rows = plain.rows()
    for name, values in (("label", labels), ("group", groups or [None] * len(labels))):
        rows = rows.set_column(rows.schema.get_field_index(name), name, pa.array(values, pa.string()))
    return EmbeddingStore(spec=plain.spec, rows=rows, vectors=plain.vectors())


def told(target, pools, chosen, *, weights=None, heeded=True, **more):
    """What is told of candidates of the pools with these labels."""
    pools = {name: store_of(labels) for name, labels in pools.items()}
    candidates = make_candidates(store_of(target), pools, **more)
    return composition(candidates, np.array(chosen, np.int64), weights or {}, heeded=heeded)


def test_shares_are_counted_on_every_side():
    found = told(["a", "a", "a", "b", None], {"p": ["a", "b", "", "x"], "q": ["x", "y", "b", "b"]}, [0, 2, 3, 6, 7])
    assert found == {
        "column": "label",
        "images": 4,
        "without": 1,
        "rows": [
            {"group": "a", "target": 0.75, "pools": round(1 / 7, 6), "selection": 0.25},
            {"group": "b", "target": 0.25, "pools": round(3 / 7, 6), "selection": 0.5},
        ],
        "rest": None,
        "foreign": {"groups": 2, "target": 0, "pools": round(3 / 7, 6), "selection": 0.25},
        "apart": 0.5,
        "pools_apart": round(17 / 28, 6),
        "chance": round(apart_by_chance([0.75, 0.25], 2), 6),  # 1 / 2 = 1 / 4 + 1 / 4
        "weights": {},
        "heeded": True,
        "cap": None,
    }


def test_own_images_are_chosen_ones_but_none_of_the_pools():
    found = told(["a", "b"], {"p": ["a", "b", "b", "b"]}, [0, 1, 2], own=True)
    assert [(row["pools"], row["selection"]) for row in found["rows"]] == [
        (0.25, round(2 / 3, 6)),
        (0.75, round(1 / 3, 6)),
    ]


def test_of_many_groups_the_farthest_are_told_and_the_rest_is_summed():
    names = [f"c{i:02d}" for i in range(ROWS + 4)]
    pool = names + names[:ROWS]
    found = told(names, {"p": pool}, range(len(pool)))
    share, doubled = 1 / len(names), 2 / len(pool)
    assert [row["group"] for row in found["rows"]] == [*names[: ROWS - 4], *names[ROWS:]]  # the last lack most
    assert found["rest"]["groups"] == 4
    for side in ("target", "pools", "selection"):
        whole = sum(row[side] for row in found["rows"]) + found["rest"][side]
        assert whole == pytest.approx(1, abs=1e-5)
    assert found["apart"] == pytest.approx(ROWS * (doubled - share), abs=1e-6)
    assert found["apart"] == found["pools_apart"]


def test_target_images_count_by_weight():
    weights = np.array([3.0, 1.0, 0.0])
    found = told(["a", "b", "c"], {"p": ["a", "b", "c", "c"]}, [0, 1, 2, 3], target_weights=weights)
    assert {row["group"]: row["target"] for row in found["rows"]} == {"a": 0.75, "b": 0.25, "c": 0.0}
    assert "c" not in found["weights"]


def test_groups_are_told_where_there_are_few_and_labels_else():
    labels = ["a", "b"] * 30
    for count, column in ((2, "group"), (MOST_GROUPS, "group"), (MOST_GROUPS + 1, "label"), (1, "label")):
        store = store_of(labels, [f"g{i % count}" for i in range(60)])
        candidates = make_candidates(store, {"p": store})
        assert composition(candidates, np.arange(9), {})["column"] == column


@pytest.mark.parametrize(
    ("target", "pool", "chosen"),
    [
        ([None] * 3, ["a", "b"], [0]),  # nothing known of the target
        (["a", "a"], ["a", "b"], [0]),  # one group
        (["a", "b"], [None, None], [0]),  # nothing known of the pools
        (["a", "b"], ["a", "x"], [0]),  # other names
        (["a", "b"], ["a", "b", None], [2]),  # nothing known of what was chosen
    ],
)
def test_nothing_is_told_where_the_sources_do_not(target, pool, chosen):
    assert told(target, {"p": pool}, chosen) is None


def test_names_that_tell_every_image_apart_are_no_groups(monkeypatch):
    monkeypatch.setattr("curate.selection._composition.MOST_VALUES", 5)
    assert told(["a", "b"], {"p": ["a", "b", "c", "d", "e"]}, [0]) is not None
    assert told(["a", "b"], {"p": ["a", "b", "c", "d", "e", "f"]}, [0]) is None


def test_what_would_even_out_is_proposed_only_beyond_chance():
    target, pool = ["a"] * 50 + ["b"] * 50, ["a"] * 100 + ["b"] * 100
    chosen = [*range(44), *range(100, 156)]  # 44 for 50: 0.6 standard errors
    assert told(target, {"p": pool}, chosen)["weights"] == {}
    chosen = [*range(20), *range(100, 180)]  # 20 to 80
    found = told(target, {"p": pool}, chosen)
    assert found["weights"] == {"a": 4.0, "b": 0.25}
    assert found["cap"] == 50
    said = {"label:a": 2.0, "b": 0.5}
    assert told(target, {"p": pool}, chosen, weights=said)["weights"] == {"label:a": 8.0, "b": 0.12}


@given(st.lists(st.integers(0, 4), min_size=2, max_size=4).filter(any), st.integers(1, 5))
def test_what_chance_makes_is_the_mean_over_all_draws(parts, n):
    shares = [part / sum(parts) for part in parts]
    mean = 0.0
    for draw in product(range(len(shares)), repeat=n):
        counts = Counter(draw)
        likely = np.prod([shares[group] for group in draw])
        mean += likely * sum(abs(counts[group] / n - share) for group, share in enumerate(shares)) / 2
    assert apart_by_chance(shares, n) == pytest.approx(mean, abs=1e-12)


def test_two_samples_of_one_kind_are_as_far_apart_as_told():
    rng, shares = np.random.default_rng(0), [0.5, 0.3, 0.2]
    a, b = (rng.multinomial(n, shares, 20_000) / n for n in (60, 90))
    assert apart_by_chance(shares, 36) == pytest.approx(np.abs(a - b).sum(axis=1).mean() / 2, rel=0.03)


@pytest.mark.parametrize(("m", "n"), [(100, 50), (100, 90), (100, 150), (40, 41)])
def test_a_selection_that_has_the_targets_own_images_is_as_far_apart_as_told(m, n):
    rng, shares = np.random.default_rng(0), [0.5, 0.3, 0.2]
    own = min(m, n)
    drawn = []
    for _ in range(3000):
        target = rng.choice(3, m, p=shares)
        chosen = np.concatenate([target[:own], rng.choice(3, n - own, p=shares)])
        drawn.append(np.abs(np.bincount(target, minlength=3) / m - np.bincount(chosen, minlength=3) / n).sum() / 2)
    names = np.repeat([*"abc"], [round(m * share) for share in shares]).tolist()
    found = told(names, {"p": names + names}, range(n), own=True)
    assert found["chance"] == pytest.approx(np.mean(drawn), rel=0.08 if n - own != 1 else 0.3)


def test_the_targets_own_images_alone_are_not_apart_by_chance():
    target = ["a", "b", "b", "b", "c"] * 9
    found = told(target, {"p": target}, range(45), own=True)
    assert (found["apart"], found["chance"], found["weights"], found["cap"]) == (0, 0, {}, None)


def test_of_own_images_and_twelve_of_one_group_more_is_proposed_than_of_as_many_others():
    target, pool = ["a", "b"] * 30, ["a", "b"] * 30 + ["a"] * 12
    own, others = (
        told(target, {"p": pool}, rows, own=True) for rows in ([*range(60), *range(120, 132)], range(60, 132))
    )
    assert own["apart"] == others["apart"] == round(42 / 72 - 1 / 2, 6)
    assert (others["weights"], others["cap"]) == ({}, None)
    assert (own["weights"].keys(), own["cap"]) == ({"a", "b"}, 36)


def test_own_images_count_by_the_weight_they_have_and_only_if_they_were_selected_for():
    """Of weights 3, 3 and 1 the 3s were chosen; then the first is none to select for. A fourth image has no label."""
    target, pool = ["a", "b", "a", None], ["a", "b"] * 4
    weights = np.array([3.0, 3.0, 1.0, 3.0])
    candidates = make_candidates(store_of(target), {"p": store_of(pool)}, own=True, target_weights=weights)
    chosen = np.array([0, 1, 3, *range(4, 10)])
    n = round(1 / (1 / 8 + 19 / 49 - 2 * (6 / 7) / 8))
    assert composition(candidates, chosen, {})["chance"] == round(apart_by_chance([4 / 7, 3 / 7], n), 6)
    few = replace(candidates, queries=np.array([1, 2, 3]), target_weights=weights[1:])
    n = round(1 / (1 / 8 + 10 / 16 - 2 * (3 / 4) / 8))
    assert composition(few, chosen, {})["chance"] == round(apart_by_chance([1 / 4, 3 / 4], n), 6)


def test_weights_make_the_target_a_smaller_sample():
    target, pool = ["a", "b"] * 20, {"p": ["a", "b"] * 20}
    weighted = np.array([1.0, 1.0] * 10 + [0.0, 0.0] * 10)
    found = [told(target, pool, range(40), target_weights=w)["chance"] for w in (None, weighted)]
    assert found == [round(apart_by_chance([0.5, 0.5], n), 6) for n in (20, 13)]  # of 40 and 40, 40 and 20
    assert told(target, pool, range(40), target_weights=0 * weighted + 2.0)["chance"] == found[0]


def test_a_selection_tells_its_shares_and_reads_back(tmp_path):
    target, pool = make_store("t", near_modes(30, 0)), make_store("p", near_modes(60, 1))
    settings = {"budget": 60, "method": "random", "work": None, "near_duplicates": False}
    chosen = select(labeled(target), {"p": labeled(pool)}, out=tmp_path / "s", **settings)
    shares = chosen.facts["shares"]
    assert (shares["column"], shares["heeded"]) == ("group", False)  # random heeds no weights
    assert json.loads(json.dumps(shares)) == shares == Selection.open(tmp_path / "s").facts["shares"]
    assert select(target, {"p": pool}, **settings).facts["shares"] is None
