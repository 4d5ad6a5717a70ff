"""Stopping where near images run out: the cut, what is never cut, and what is said."""

import re

import numpy as np
import pytest
from selection_data import MODES, make_store, make_world, near_modes

from curate.selection import select
from curate.terms import Budget, Terms
from embeddings.errors import UsageError

NEAR = 217 + 177 + 78  # candidates that lie where the target does


@pytest.fixture(scope="module")
def world():
    return make_world()


def pick(world, budget, **options):
    options = {"exclude": world.exclude, "report": world.report, "work": None, **options}
    return select(world.target, options.pop("pools", world.pools), budget=budget, **options)


@pytest.fixture(scope="module")
def stopped(world):
    """All of the candidates asked for, by near-first."""
    return pick(world, 671)


@pytest.mark.parametrize("method", ["near-first", "knn-quota"])
def test_a_selection_stops_where_near_images_run_out(world, stopped, method):
    chosen = stopped if method == "near-first" else pick(world, 671, method=method)
    knee = chosen.facts["supply"]["knee"]
    assert len(chosen) == knee["n"] == chosen.facts["stopped"]["at"]
    assert NEAR * 0.8 < knee["n"] < NEAR * 1.1
    assert knee["low"] <= knee["n"] <= knee["high"] < 671
    assert chosen.facts["stopped"]["reason"].startswith(f"Near images run out at about N = {knee['n']:,}")
    assert chosen.facts["spent"]["images"]["used"] == knee["n"]


def test_it_is_the_beginning_of_what_past_knee_takes(world, stopped):
    all_of_it = pick(world, 671, past_knee=True)
    assert len(all_of_it) == 671
    assert all_of_it.facts["stopped"] is None
    assert all_of_it.facts["supply"] == stopped.facts["supply"]
    assert stopped.rows().equals(all_of_it.truncate(len(stopped)).rows())


def test_within_the_supply_there_is_no_knee(world):
    chosen = pick(world, 300)
    assert len(chosen) == 300
    assert chosen.facts["supply"]["knee"] is None
    assert chosen.facts["supply"]["words"][0].startswith("Near images did not run out within 300")


def test_controls_do_not_stop(world):
    chosen = pick(world, 671, method="random")
    assert len(chosen) == 671
    assert chosen.facts["supply"] is None


def test_a_far_part_that_was_asked_for_is_kept(world):
    chosen = pick(world, Budget(images=671, far=0.1))
    codes = np.array(chosen.rows()["code"].to_pylist())
    assert np.count_nonzero(codes != "far") == chosen.facts["supply"]["knee"]["n"] < 604
    assert np.mean(codes == "far") == pytest.approx(0.1, abs=0.002)
    assert chosen.facts["stopped"]["at"] == len(chosen)


def test_a_floor_is_kept_beyond_the_knee(world):
    chosen = pick(world, 671, terms={"far": Terms(floor=150)})
    assert chosen.counts()["far"] >= 150
    assert len(chosen) == 671


def test_where_nothing_is_near_nothing_is_chosen_unless_told(world):
    far = {"far": world.pools["far"]}
    with pytest.raises(UsageError, match="Nothing to select: No pool has images near the target") as caught:
        pick(world, 150, pools=far, include_target=False)
    assert "--past-knee" in caught.value.hint
    assert len(pick(world, 150, pools=far, include_target=False, past_knee=True)) == 150
    alone = pick(world, 200, pools=far)
    assert alone.counts() == {"target": 78}


def test_too_few_images_to_tell_are_taken_as_they_are(world):
    chosen = pick(world, 15, include_target=False)
    assert len(chosen) == 15
    assert chosen.facts["supply"] is None


def test_the_knee_of_a_whole_delivery_is_foretold_from_a_sample():
    target = make_store("target", near_modes(120, 1))

    def chosen_of(images, budget, **terms):
        far = MODES[4] + np.random.default_rng(images).normal(size=(images, 12)) * 0.6
        pools = {"offer": make_store("offer", np.vstack([near_modes(images, 2), far]).astype(np.float32))}
        return select(target, pools, budget=budget, terms=terms, method="knn-quota", work=None).facts["supply"]

    foretold = chosen_of(400, 920, offer=Terms(of=4_000))["words"][1]
    assert foretold.startswith("With the whole of offer, near images would last to about N = ")
    _, low, high = map(int, re.findall(r"\d+", foretold.split("N = ")[1]))
    whole = chosen_of(2_000, 4_120)["knee"]["n"] - 120  # without the target's own
    assert low < whole < high
