"""A method that chose own images of the target is held against a random draw with the same ones."""

from types import SimpleNamespace

import numpy as np
import pytest
from selection_data import MODES, make_store, near_modes

from curate.comparison import Comparison
from curate.selection import METHODS
from curate.selection._candidates import Choice, drawn
from curate.selection._comparison import audited, compare
from curate.selection._select import open_selector
from curate.selection._trial import Trial
from curate.terms import Terms

OWN, FAR = 300, 500


@pytest.fixture(scope="module")
def stores():
    """A target and a pool of one far mode, in which no image is any better than another."""
    far = MODES[4] + np.random.default_rng(1).normal(size=(FAR, 12)) * 0.6
    return SimpleNamespace(
        target=make_store("target", near_modes(OWN, 0)), far=make_store("far", far.astype(np.float32))
    )


def selector_of(stores, budget, pools=None, **options):
    pools = {"far": stores.far} if pools is None else pools
    return open_selector(stores.target, pools, budget=budget, work=None, **options)


def own_first(seed):
    """All own images, then pools' images by a draw of its own: nothing is gained by choosing among these."""

    def choose(candidates, ledger, **_):
        own, pools = np.flatnonzero(candidates.own), np.flatnonzero(~candidates.own)
        ledger.walk(own)
        drawn(candidates, ledger, pools, seed=seed, reason="")
        rows = ledger.taken
        return Choice(rows=rows, scores=np.zeros(len(rows)), reasons=[""] * len(rows))

    return choose


@pytest.fixture
def methods(monkeypatch):
    """Draws after the own images: the one that ``random`` makes, and another one."""
    for name, seed in (("same-draw", 0), ("other-draw", 1)):
        choose = own_first(seed)
        method = SimpleNamespace(
            report_from=lambda _: None, load=lambda choose=choose: choose, near_first=False, weighted=False
        )
        monkeypatch.setitem(METHODS, name, method)


def gain_of(found, method):
    return found[method].readings["vectors"].against_random


def index_of(contender):
    return contender.readings["vectors"].index.value


def test_nothing_is_gained_where_nothing_was_chosen_among_the_pools(stores, methods):
    found = compare(selector_of(stores, 300), ["same-draw", "other-draw"])
    same, other = gain_of(found, "same-draw"), gain_of(found, "other-draw")
    assert (same.value, same.low, same.high) == (0, 0, 0)  # the very same images
    assert abs(other.value) < 1
    assert other.low < 0 < other.high
    for method in ("same-draw", "other-draw"):
        contender = found[method]
        assert index_of(contender) < index_of(found["random"]) - 5  # what a draw from all images would have credited
        assert contender.control.counts == contender.counts
        assert contender.counts["target"] == found.seen
        assert contender.readings["vectors"].verdict == "not settled"
    assert found.best("vectors") is None
    assert Comparison.from_json(found.to_json()) == found


def test_a_choice_among_the_pools_is_credited_with_its_own_gain(stores):
    near = make_store("near", near_modes(150, 5))
    found = compare(selector_of(stores, 250, {"far": stores.far, "near": near}), ["near-first"])
    chosen, control = found["near-first"], found["near-first"].control
    gain = gain_of(found, "near-first")
    assert control.n == chosen.n == 250
    assert control.counts["target"] == chosen.counts["target"] > 0
    assert control.counts["far"] > chosen.counts.get("far", 0)
    assert chosen.readings["vectors"].verdict == "nearer"
    assert gain.value == pytest.approx(index_of(chosen) - index_of(control))
    assert gain.value > index_of(chosen) - index_of(found["random"])  # less than against a draw from all
    words = f"With the same {chosen.own} own images on both sides, near-first is nearer than random (index "
    assert found.words[0].startswith(words)
    assert any("what choosing among the pools' images gained" in note for note in found.notes)


def test_own_images_alone_are_not_compared(stores):
    found = compare(selector_of(stores, 60), ["near-first"])
    assert found["near-first"].counts == {"target": 60}
    assert gain_of(found, "near-first") is None
    assert found["near-first"].readings["vectors"].verdict == ""
    assert found.words == (
        "near-first is not compared with random: half the target has it choose the target's own images alone, so no "
        "choice among the pools' images is judged.",
    )
    assert not any("what choosing among the pools' images gained" in note for note in found.notes)
    assert found.without_gain(found["near-first"]) == "own images alone"
    assert found.without_gain(found["random"]) == "for reference"
    assert Comparison.from_json(found.to_json()) == found


def test_without_own_images_random_is_the_control(stores):
    near = make_store("near", near_modes(150, 5))
    found = compare(selector_of(stores, 100, {"far": stores.far, "near": near}, include_target=False), ["near-first"])
    assert found["near-first"].control is None
    assert found.without_gain(found["random"]) == "the control"
    expected = index_of(found["near-first"]) - index_of(found["random"])
    assert gain_of(found, "near-first").value == pytest.approx(expected)
    assert found.words[0].startswith("near-first is nearer than random (index ")
    assert not any("own" in note for note in found.notes)


def test_without_candidates_of_pools_a_draw_from_the_own_images_is_the_control(stores):
    found = compare(selector_of(stores, 60, terms={"far": Terms(cap=0)}), ["near-first"])
    assert found["near-first"].control is None
    assert gain_of(found, "near-first") is not None


def test_a_control_heeds_caps(stores, methods):
    selector = selector_of(stores, 300, terms={"far": Terms(cap=40)})
    control = compare(selector, ["other-draw"])["other-draw"].control
    assert control.counts["far"] == 40
    assert control.n == 40 + control.counts["target"]


def test_a_control_takes_no_more_images_and_spends_no_more_than_the_budget(stores, methods):
    pools = {"far": stores.far, "near": make_store("near", near_modes(150, 5))}
    terms = {"far": Terms(price="1"), "near": Terms(price="3")}
    found = compare(selector_of(stores, "images=400,money=60", pools, terms=terms), ["other-draw", "near-first"])
    for method in ("other-draw", "near-first"):
        contender = found[method]
        assert contender.control.n <= contender.n
        assert 55 < contender.control.cost <= 60 or contender.control.n == contender.n
        assert contender.control.own == contender.own > 0


def test_half_the_target_is_asked_for_half_the_own_images_and_all_of_the_pools(stores, methods, tmp_path):
    """Else the pools' images would fill the places of own images that judge."""
    selector = selector_of(stores, OWN + 50)
    chosen, found = audited(selector, "other-draw", tmp_path)
    assert chosen.counts() == {"target": OWN, "far": 50}
    assert found["other-draw"].counts == {"target": found.seen, "far": 50}
    assert found["random"].n == found.seen + 50
    assert f"every method took at most {found.seen + 50} images" in found.notes[1]
    assert audited(selector, "other-draw", tmp_path)[1] == found


def test_a_selection_of_own_images_alone_is_not_compared(stores, methods, tmp_path):
    chosen, found = audited(selector_of(stores, OWN), "other-draw", tmp_path)
    assert chosen.counts() == {"target": OWN}
    assert "other-draw is not compared with random" in found.words[0]


def test_a_judge_sees_the_same_own_images_of_both(stores, methods):
    trial = Trial.of(selector_of(stores, 300))
    pick = trial.pick("other-draw")
    sampled = trial.sample(pick.rows, 100)
    matched = trial.matched_sample(sampled, trial.control(pick).rows)
    own = trial.candidates.own
    assert len(matched) == len(sampled) == 100
    assert matched[own[matched]].tolist() == sampled[own[sampled]].tolist()
    assert set(matched[~own[matched]]) <= set(trial.control(pick).rows)
