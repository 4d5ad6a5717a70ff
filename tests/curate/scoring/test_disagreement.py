from dataclasses import replace

import numpy as np
import pytest

from curate.results import Estimate, PoolScore
from curate.scoring import score
from curate.scoring.disagreement import disagreements, remarks
from curate.scoring.verdicts import ACTIONS, action


def pool(name="a", verdict="near", distance=50.0, rank=1, **figures):
    metrics = {"frechet": Estimate(value=distance, low=distance - 5, high=distance + 5, se=2.5)}
    return PoolScore(
        name=name, rank=rank, verdict=verdict, n=100, index=Estimate(value=15.0), metrics=metrics | figures
    )


def coverage(value, null=1.0):
    return Estimate(value=value, low=value - 0.02, high=value + 0.02, null=null, lower_is_closer=False)


def mmd(low, high):
    return Estimate(value=(low + high) / 2, low=low, high=high)


@pytest.mark.parametrize(
    ("scored", "said"),
    [
        (pool(coverage=coverage(0.3)), "only 30% of the target's images"),
        (pool(verdict="far", coverage=coverage(0.5, null=0.55)), "Select from it; do not take it whole"),
        (pool(to_target=Estimate(value=2.0, null=1.0)), "2.0 times as far"),
        (pool(mmd=mmd(-0.1, 0.1)), "degree-2 MMD does not tell it"),
        (pool(mean_gap=Estimate(value=45.0)), "90% of the distance is one offset"),
        (pool(copies=Estimate(value=0.2)), "20% of it are copies"),
    ],
)
def test_each_disagreement_has_its_sentence(scored, said):
    (found,) = remarks(scored)
    assert said in found


@pytest.mark.parametrize(
    "scored",
    [
        pool(coverage=coverage(0.9), mmd=mmd(0.1, 0.2), mean_gap=Estimate(value=10.0), copies=Estimate(value=0.01)),
        pool(verdict="far", coverage=coverage(0.1), mmd=mmd(0.5, 0.6)),
        pool(coverage=Estimate(value=None, reason="moments"), mmd=Estimate(value=None, reason="moments")),
        pool(verdict="same", distance=0.5, mmd=mmd(-0.1, 0.1), mean_gap=Estimate(value=0.4)),
    ],
)
def test_measures_that_agree_or_are_missing_say_nothing(scored):
    assert remarks(scored) == []


def parts(share, *, rest):
    """The finding on a far part, two points to each side of its share."""
    estimates = {
        "share": Estimate(value=share, low=share - 0.02, high=min(share + 0.02, 1.0)),
        "far": Estimate(value=39.0),
        "rest": Estimate(value=rest),
    }
    return {"parts": {name: estimate.to_json() for name, estimate in estimates.items()}}


def test_a_far_part_is_told_with_its_share_and_what_to_do():
    mixed = replace(pool("a", verdict="near"), findings=parts(0.43, rest=5))
    said = remarks(mixed)[0]
    assert said == (
        "About 43% of its images (41% to 45%) are far from the target: as a set of their own they read 39, the others "
        "5. Select from it; do not take it whole."
    )
    small = remarks(replace(mixed, findings=parts(0.14, rest=5)))[0]
    assert small.endswith("they read 39, the others 5.")
    for nothing in (parts(0.03, rest=5), parts(0.43, rest=22), parts(1.0, rest=None)):
        assert not any("as a set of their own" in note for note in remarks(replace(mixed, findings=nothing)))


def test_settled_orders_that_another_measure_turns_round_are_told():
    a = pool("a", distance=50.0, coverage=coverage(0.2))
    b = pool("b", distance=90.0, rank=2, coverage=coverage(0.8))
    (found,) = disagreements([a, b])
    assert found.startswith("By the distance the order is a before b; by coverage it is the other way round")
    assert disagreements([replace(a, tied_with=("b",)), b]) == []  # the distance itself does not settle it


@pytest.mark.parametrize(
    ("verdict", "index", "covered", "findings", "wanted"),
    [
        ("same", (1, -1, 2), 0.9, {}, "use"),
        ("near", (12, 10, 14), 0.1, {}, "use"),
        ("middle", (25, 22, 28), 0.3, {}, "use last"),
        ("far", (45, 40, 50), 0.3, {}, "leave out"),
        ("far", (45, 40, 50), 0.9, {}, "use part"),
        ("unclear", (19, 17, 21), 0.3, {}, "use last"),
        ("unclear", (36, 34, 38), 0.3, {}, "leave out"),
        ("unclear", (19, 5, 30), 0.9, {}, "add images"),
        ("copies", (1, -1, 2), 0.9, {}, "leave out"),
        ("copies", (1, -1, 2), 0.9, {"memorized": {"suspicious": True}}, "leave out"),
        ("near", (12, 10, 14), 0.1, parts(0.43, rest=5), "use part"),
        ("same", (1, -1, 2), 0.9, parts(0.43, rest=0), "use part"),
        ("near", (12, 10, 14), 0.1, parts(0.14, rest=9), "use"),
        ("middle", (25, 22, 28), 0.3, parts(0.75, rest=5), "use part"),
        ("middle", (32, 31, 34), 0.3, parts(0.28, rest=31), "use last"),
        ("far", (45, 44, 46), 0.3, parts(1.0, rest=None), "leave out"),
        ("near", (12, 10, 14), 0.1, {"parts": {"reason": "needs vectors"}}, "use"),
        ("near", (1, -1, 2), 0.9, {"memorized": {"suspicious": True}}, "look"),
    ],
)
def test_every_verdict_leads_to_an_action(verdict, index, covered, findings, wanted):
    value, low, high = index
    estimate = Estimate(value=value, low=low, high=high)
    assert action(verdict, estimate, coverage(covered), findings) == wanted
    assert wanted in ACTIONS


def test_a_large_mixed_pool_is_used_in_part():
    rng = np.random.default_rng(0)
    target = rng.normal(size=(200, 8))
    mixed = np.concatenate([rng.normal(size=(800, 8)), rng.normal(size=(4000, 8)) + 6])
    found = score(target, {"mixed": mixed}, work=None)["mixed"]
    assert (found.verdict, found.action) == ("far", "use part")
    assert any("Select from it" in note for note in found.notes)
