from collections import Counter

import numpy as np
import pytest
from selection_data import make_store, make_world, near_modes

from curate.results import Estimate, PoolScore, ShiftReport
from curate.selection import select
from embeddings.errors import UsageError


@pytest.fixture(scope="module")
def world():
    return make_world()


def pool(name, n, seed=0):
    return make_store(name, near_modes(n, seed))


def judged(target, pools, verdicts):
    """A report with the verdicts one wants, nearest first as given."""
    scores = tuple(
        PoolScore(
            name=name,
            rank=rank,
            verdict=verdict,
            n=len(pools[name]),
            index=Estimate(value=float(rank)),
            metrics={},
            facts={"digest": pools[name].digest},
        )
        for rank, (name, verdict) in enumerate(verdicts.items(), 1)
    )
    return ShiftReport(target={"digest": target.digest}, encoder={}, pools=scores, floor=Estimate(value=0.0))


def keys(selection, source):
    rows = selection.rows().to_pylist()
    return [row["key"] for row in rows if row["source"] == source]


def test_random_takes_every_image_with_the_same_probability():
    target, pools = pool("target", 20), {"a": pool("a", 60, 1), "b": pool("b", 20, 2)}
    times = Counter()
    for seed in range(60):
        chosen = select(target, pools, budget=20, method="random", seed=seed, work=None).rows()
        times.update(zip(chosen["source"].to_pylist(), chosen["key"].to_pylist(), strict=True))
    counts = np.array(list(times.values()))
    assert len(times) == 100
    chi2 = ((counts - 12) ** 2).sum() / (12 * 0.8)  # 60 draws of 20 in 100: mean 12, variance 9.6
    assert 60 < chi2 < 145  # 99.9% of chi-squared with 99 degrees of freedom


def test_random_draws_the_same_images_of_a_pool_whatever_other_pools_there_are():
    target, a, b = pool("target", 20), pool("a", 60, 1), pool("b", 40, 2)
    alone = select(target, {"a": a}, budget=80, method="random", work=None)
    both = select(target, {"a": a, "b": b}, budget=120, method="random", work=None)
    assert keys(alone, "a") == keys(both, "a")


def test_uniform_gives_equal_shares_and_shares_out_what_a_small_pool_lacks():
    target, pools = pool("target", 50), {"big": pool("big", 90, 1), "small": pool("small", 10, 2)}
    assert select(target, pools, budget=30, method="uniform", work=None).counts() == {
        "big": 10,
        "small": 10,
        "target": 10,
    }
    assert select(target, pools, budget=70, method="uniform", work=None).counts() == {
        "big": 30,
        "target": 30,
        "small": 10,
    }
    assert select(target, pools, budget=140, method="uniform", work=None).counts() == {
        "big": 80,
        "target": 50,
        "small": 10,
    }


def test_best_pool_takes_one_pool_and_leaves_the_target_alone():
    target, pools = pool("target", 30), {"a": pool("a", 40, 1), "b": pool("b", 40, 2)}
    report = judged(target, pools, {"b": "near", "a": "far"})
    chosen = select(target, pools, budget=25, method="best-pool", report=report, work=None)
    assert chosen.counts() == {"b": 25}
    assert chosen.facts["parameters"] == {"pool": "b", "verdict": "near"}
    stopped = select(target, pools, budget=60, method="best-pool", report=report, work=None)
    assert stopped.facts["stopped"] == {"reason": "b, the nearest pool, holds 40 images", "at": 40}


def test_best_pool_passes_over_a_pool_of_which_nothing_is_left():
    target, other = pool("target", 30), pool("other", 40, 1)
    pools = {"copy": target, "other": other}
    report = judged(target, pools, {"copy": "copies", "other": "middle"})
    assert select(target, pools, budget=10, method="best-pool", report=report, work=None).counts() == {"other": 10}
    with pytest.raises(UsageError, match="Nothing to select: copy, the nearest pool, holds 0 images"):
        select(
            target,
            {"copy": target},
            budget=10,
            method="best-pool",
            report=judged(target, {"copy": target}, {"copy": "copies"}),
            work=None,
        )


def test_pool_gated_draws_from_the_target_and_the_near_pools_alone():
    target = pool("target", 30)
    pools = {name: pool(name, 40, seed) for seed, name in enumerate(("same", "near", "unclear", "middle", "copies"), 1)}
    report = judged(target, pools, {name: name for name in pools})
    chosen = select(target, pools, budget=100, method="pool-gated", report=report, work=None)
    assert set(chosen.counts()) == {"target", "same", "near"}
    assert chosen.facts["parameters"] == {"near": ["same", "near"]}
    stopped = select(target, pools, budget=120, method="pool-gated", report=report, work=None)
    assert len(stopped) == 110
    assert stopped.facts["stopped"] == {
        "reason": "the target's own images and the near pools (same, near) hold 110 images",
        "at": 110,
    }


def test_pool_gated_stops_at_the_target_if_no_pool_is_near_and_refuses_without_it():
    target, pools = pool("target", 30), {"a": pool("a", 40, 1)}
    report = judged(target, pools, {"a": "far"})
    chosen = select(target, pools, budget=50, method="pool-gated", report=report, work=None)
    assert chosen.counts() == {"target": 30}
    assert chosen.facts["stopped"] == {
        "reason": "no pool is near: do not pretrain on these; the target alone holds 30 images",
        "at": 30,
    }
    with pytest.raises(UsageError, match="no pool is near: do not pretrain on these"):
        select(target, pools, budget=30, method="pool-gated", report=report, include_target=False, work=None)


def test_verdicts_are_those_of_the_score(world):
    chosen = select(world.target, world.pools, budget=300, method="pool-gated", work=None)
    assert chosen.facts["verdicts"] == [[p.name, p.verdict] for p in world.report.pools]
    assert "far" not in chosen.counts()
    assert select(world.target, world.pools, budget=9, method="uniform", work=None).facts["verdicts"] is None


def test_a_report_of_other_images_is_refused(world):
    pools = {**world.pools, "web": world.pools["open"], "open": world.pools["web"]}
    with pytest.raises(UsageError, match="does not tell of 'open': it is of other images"):
        select(world.target, pools, budget=5, method="best-pool", report=world.report, work=None)
    with pytest.raises(UsageError, match=r"does not tell of 'new'.* of far, open, target, web"):
        select(world.target, {"new": world.pools["web"]}, budget=5, method="best-pool", report=world.report, work=None)


def test_a_report_of_more_pools_than_asked_for_serves(world):
    pools = {"far": world.pools["far"]}
    chosen = select(world.target, pools, budget=5, method="best-pool", report=world.report, work=None)
    assert chosen.counts() == {"far": 5}
    assert chosen.facts["verdicts"] == [["far", "far"]]
