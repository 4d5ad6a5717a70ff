from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from candidates_data import capped, images, make_candidates
from hypothesis import given
from hypothesis import strategies as st

from curate.selection._label_aware import NEIGHBORS, assign, choose, take_in_turns
from curate.selection._ledger import Ledger
from embeddings.errors import UsageError

D = 6


def classes(*counts, seed=0, spread=1.0):
    """So many vectors of each class, about far points, and their labels."""
    rng = np.random.default_rng(seed)
    vectors = [rng.normal(size=(n, D)) * spread + 12 * np.eye(D)[c] for c, n in enumerate(counts)]
    return np.concatenate(vectors), [f"c{c}" for c, n in enumerate(counts) for _ in range(n)]


def taken_for(chosen):
    """How many were taken for each class."""
    return Counter(reason.split()[2].rstrip(",") for reason in chosen.reasons)


def chosen_from(candidates, most, seed=0):
    return choose(candidates, images(candidates, most), seed=seed)


@pytest.fixture
def rare():
    """97% of the target and of the pool are of one class, 3% of another."""
    target, labels = classes(194, 6)
    return make_candidates(target, {"pool": classes(1940, 60, seed=1)[0]}, labels=labels)


def by_definition(point, labeled, codes, votes):
    distances = ((labeled - point) ** 2).sum(axis=1).round(6)
    near = np.lexsort((np.arange(len(labeled)), distances))[:NEIGHBORS]
    tally = {c: sum(votes[i] for i in near if codes[i] == c) for c in set(codes[near])}
    best = max(tally.values())
    first = next(i for i in near if tally[codes[i]] >= best - 1e-12)
    return codes[first], first, distances[first]


@given(st.integers(0, 10_000), st.integers(1, 25), st.integers(1, 4))
def test_votes_are_those_of_the_definition(seed, count, n_classes):
    rng = np.random.default_rng(seed)
    labeled, points = rng.integers(-2, 3, (count, 2)).astype(float), rng.integers(-2, 3, (8, 2)).astype(float)
    codes = rng.integers(0, n_classes, count)
    votes = 1 / np.bincount(codes)[codes]
    found = assign(points, labeled, codes, votes)
    expected = [by_definition(point, labeled, codes, votes) for point in points]
    assert list(zip(found.classes, found.nearest, found.distances, strict=True)) == expected


def test_the_rare_class_gets_its_share(rare):
    chosen = chosen_from(rare, 100)
    assert taken_for(chosen) == {"c0": 50, "c1": 50}
    truly_rare = rare.vectors(chosen.rows)[:, 1] > 6
    assert truly_rare.sum() == 50
    assert [c in reason for reason, c in zip(chosen.reasons, np.where(truly_rare, "c1", "c0"), strict=True)] == [
        True
    ] * 100
    assert chosen.parameters["chosen"] == {"c0": 50, "c1": 50}


def test_what_a_class_cannot_take_goes_to_the_others(rare):
    chosen = chosen_from(rare, 400)
    assert taken_for(chosen) == {"c0": 340, "c1": 60}
    assert not chosen.stopped


def test_within_a_class_the_nearest_come_first(rare):
    chosen = chosen_from(rare, 200)
    for name in ("c0", "c1"):
        scores = [s for s, reason in zip(chosen.scores, chosen.reasons, strict=True) if f"for {name}," in reason]
        assert scores == sorted(scores)
    assert len(scores) == 60  # all there are of it


def test_a_class_of_more_weight_has_more_turns():
    target, labels = classes(40, 20, 10)
    weights = np.repeat([1.0, 3.0, 1.0], [40, 20, 10])
    candidates = make_candidates(
        target, {"pool": classes(500, 500, 500, seed=1)[0]}, labels=labels, target_weights=weights
    )
    assert taken_for(chosen_from(candidates, 100)) == {"c0": 20, "c1": 60, "c2": 20}
    silent = make_candidates(
        target, {"pool": classes(500, 500, 500, seed=1)[0]}, labels=labels, target_weights=weights * (weights > 1)
    )
    assert taken_for(chosen_from(silent, 100)) == {"c1": 100}


def test_images_without_a_label_are_not_searched_for():
    target, labels = classes(20, 20, 20)
    labels = [None if label == "c1" else label for label in labels]
    candidates = make_candidates(target, {"pool": classes(300, 300, 300, seed=1)[0]}, labels=labels)
    chosen = chosen_from(candidates, 200)
    assert taken_for(chosen) == {"c0": 100, "c2": 100}
    assert chosen.parameters["labeled_images"] == 40
    assert not (candidates.vectors(chosen.rows)[:, 1] > 6).any()


def test_without_labels_it_says_how_to_give_them():
    candidates = make_candidates(classes(20)[0], {"pool": classes(50, seed=1)[0]})
    with pytest.raises(UsageError, match="none of its images has one") as caught:
        chosen_from(candidates, 10)
    assert "label:COLUMN" in caught.value.hint


def test_reasons_name_the_class_and_its_nearest_image(rare):
    chosen = chosen_from(rare, 20)
    keys, target = rare.target_keys, rare.target_vectors
    for row, reason in zip(chosen.rows, chosen.reasons, strict=True):
        label, key = reason.removeprefix("label-aware: for ").split(", near ")
        near = int(np.flatnonzero(keys == key)[0])
        assert rare.stores["target"].column("label")[near] == label
        distance = ((rare.vectors(np.array([row]))[0] - target) ** 2).sum(axis=1)
        assert distance[near] < np.median(distance[:194] if label == "c0" else distance[194:])


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=5),
    st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=5, max_size=5),
    st.integers(1, 40),
    st.data(),
)
def test_turns_go_to_the_class_that_lags_most(sizes, shares, most, data):
    starts = np.cumsum([0, *sizes])
    lists = [np.arange(a, b) for a, b in pairwise(starts)]
    order = np.array(data.draw(st.permutations(range(len(sizes)))))
    n, shares = int(starts[-1]), np.array(shares)
    if not n:
        return
    had, expected = [0] * len(sizes), []
    while len(expected) < min(most, n):
        waiting = [c for c in order if had[c] < sizes[c]]
        best = min(waiting, key=lambda c: ((had[c] + 1) / shares[c], list(order).index(c)))
        expected.append(int(lists[best][had[best]]))
        had[best] += 1
    assert take_in_turns(Ledger.of_images(n, most), lists, shares, order).tolist() == expected


def test_caps_hold_and_shares_stay():
    target, labels = classes(30, 30)
    pools = {"a": classes(300, 300, seed=1)[0], "b": classes(300, 300, seed=2)[0]}
    candidates = make_candidates(target, pools, labels=labels)
    chosen = choose(candidates, capped(candidates, 90, [0, 8, 1000]), seed=0)
    assert np.bincount(candidates.source[chosen.rows]).tolist() == [0, 8, 82]
    assert taken_for(chosen) == {"c0": 45, "c1": 45}


def test_nested_and_the_seed_says_who_is_first():
    target, labels = classes(30, 30, 30)
    candidates = make_candidates(target, {"a": classes(90, 90, 90, seed=1)[0]}, own=True, labels=labels)
    large, small = (chosen_from(candidates, n, seed=3) for n in (80, 25))
    assert np.array_equal(large.rows[:25], small.rows)
    first = {chosen_from(candidates, 1, seed=seed).reasons[0].split()[2] for seed in range(10)}
    assert len(first) > 1


@pytest.mark.parametrize("pool", [np.zeros((1, D)), np.ones((40, D)), classes(30, 30)[0]])
@pytest.mark.parametrize("target", [classes(1), (np.ones((3, D)), ["a", "b", "b"])])
def test_small_and_constant_sets(target, pool):
    candidates = make_candidates(target[0], {"pool": pool}, labels=target[1], own=True)
    chosen = chosen_from(candidates, 10_000)
    assert sorted(chosen.rows) == list(range(len(candidates)))
    assert np.isfinite(chosen.scores).all()
