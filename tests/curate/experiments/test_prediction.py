"""Planted orders of pools: a perfect distance, its opposite, chance; contests read from a study."""

import json

import numpy as np
import pytest
from scipy import stats
from study_examples import cell, drawn, shift_report, write_study

from curate.experiments.matching import Evidence
from curate.experiments.prediction import Contest, calls, contests, prediction, predictors, regret
from curate.experiments.protocol import Protocol
from curate.experiments.tidy import TargetResults


def contest(accuracy, distances, target="a", error=0.001):
    p = len(accuracy)
    return Contest(
        target=target,
        pools=tuple(f"p{i}" for i in range(p)),
        accuracy=np.array(accuracy),
        errors=np.full((p, p), error),
        distances={name: np.array(values, dtype=float) for name, values in distances.items()},
    )


def planted(n_targets, rng, pools=6, error=0.001):
    found = []
    for t in range(n_targets):
        accuracy = 0.5 + 0.05 * rng.permutation(pools)
        distances = {"perfect": -accuracy, "opposite": accuracy, "chance": rng.random(pools), "same": np.zeros(pools)}
        found.append(contest(accuracy, {**distances, "size": rng.random(pools)}, f"t{t}", error))
    return found


def test_a_perfect_distance_its_opposite_and_one_that_says_nothing():
    found = {p.metric: p for p in predictors(planted(6, np.random.default_rng(0)))}
    assert found["perfect"].share.value == 1.0
    assert found["perfect"].share.low == pytest.approx(0.025 ** (1 / 6))  # six targets, all right
    assert found["perfect"].regret.value == 0.0
    assert found["opposite"].share.value == 0.0
    assert found["opposite"].share.high == pytest.approx(1 - 0.025 ** (1 / 6))
    assert found["opposite"].regret.value == pytest.approx(0.25)
    assert (found["same"].share.value, found["random"].share.value) == (0.5, 0.5)
    assert found["random"].regret.value == pytest.approx(0.125)  # the mean of six is half the span below the best
    assert found["perfect"].share.n == (6 * 15, 6)
    assert found["held out"].share.value == 1.0


def test_the_order_is_best_first_then_the_yardsticks():
    found = predictors(planted(4, np.random.default_rng(1)))
    assert found[0].metric == "perfect"
    assert [p.metric for p in found][-3:] == ["held out", "size", "random"]
    assert [p.metric for p in found][-4] == "opposite"


def test_chance_is_half_within_its_interval():
    inside, shares = 0, []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        pools = [contest(0.5 + 0.05 * rng.permutation(6), {"chance": rng.random(6)}, f"t{t}") for t in range(8)]
        found = predictors(pools)[0].share
        inside += found.low <= 0.5 <= found.high
        shares.append(found.value)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)
    assert 0.88 <= inside / 60 <= 0.99


def test_only_pairs_two_standard_errors_apart_are_called():
    found = contest([0.5, 0.515, 0.6], {"d": [3, 2, 1]}, error=0.01)
    assert [(c.pools, c.right) for c in calls(found, "d")] == [(("p0", "p2"), 1.0), (("p1", "p2"), 1.0)]
    nothing = predictors([contest([0.5, 0.5], {"d": [1, 2], "size": [1, 1]})])[0]
    assert nothing.share.value is None
    assert "no two pools" in nothing.sentence


def test_unknown_distances_call_nothing_and_cost_nothing():
    found = contest([0.5, 0.6, 0.7], {"d": [1, np.nan, 2]})
    assert [c.pools for c in calls(found, "d")] == [("p0", "p2")]
    assert regret(found, "d") == pytest.approx(0.2)
    assert np.isnan(regret(contest([0.5, 0.6], {"d": [np.nan, np.nan]}), "d"))


def test_the_held_out_metric_is_chosen_without_the_target_it_is_tried_on():
    """On the others ``d`` is best every time, on the left-out target it is always wrong."""
    one = contest([0.5, 0.6], {"d": [2, 1], "e": [1, 2], "size": [0, 0]}, "a")
    two = contest([0.5, 0.6], {"d": [1, 2], "e": [2, 1], "size": [0, 0]}, "b")
    found = {p.metric: p for p in predictors([one, two])}
    assert found["d"].share.value == found["e"].share.value == 0.5
    assert found["held out"].share.value == 0.0
    assert found["held out"].regret.value == pytest.approx(0.1)


def test_few_targets_are_judged_by_their_pools_and_one_pair_not_at_all():
    (first, *_) = predictors([contest(np.linspace(0.5, 0.7, 6), {"d": [1, 2, 6, 4, 5, 3], "size": range(6)})])
    assert first.share.n == (15, 6)
    assert 0 <= first.share.low < first.share.value < first.share.high <= 1
    assert "pools" in first.share.method
    (pair, *_) = predictors([contest([0.5, 0.7], {"d": [2, 1], "size": [0, 1]})])
    assert (pair.share.value, pair.share.low, pair.regret.low) == (1.0, None, None)


@pytest.mark.parametrize("right", [0.0, 0.5, 1.0])
def test_targets_that_read_alike_leave_as_much_open_as_few_trials_do(right):
    """Three targets of one pair, all called alike: the jackknife shows no spread."""
    distance = {0.0: [1, 2], 0.5: [1, 1], 1.0: [2, 1]}[right]
    found = predictors([contest([0.5, 0.7], {"d": distance, "size": [0, 0]}, t) for t in "abc"])[0]
    x = 3 * right
    wanted = (stats.beta(x, 4 - x).ppf(0.025) if x else 0.0, stats.beta(x + 1, 3 - x).ppf(0.975) if x < 3 else 1.0)
    assert (found.share.value, found.share.se) == (right, 0.0)
    assert (found.share.low, found.share.high) == pytest.approx(wanted)
    assert ("goal 80%: missed" in found.sentence) == (right == 0)
    assert ("goal 80%: not settled" in found.sentence) == (right > 0)


def test_trials_lie_between_targets_and_independent_pairs():
    """Four targets of three pools: two of three pairs right in each; two pairs of each are independent."""
    found = predictors([contest([0.5, 0.6, 0.7], {"d": [3, 1, 2], "size": [0, 0, 0]}, t) for t in "abcd"])[0].share
    trials = 4 + 4 * 4 * (2 / 3) * (1 / 3)
    wanted = stats.beta(2 / 3 * trials, 1 / 3 * trials + 1).ppf(0.025)
    assert (found.value, found.n) == (pytest.approx(2 / 3), (12, 4))
    assert found.low == pytest.approx(wanted)
    again = [contest([0.5, 0.6, 0.7], {"d": [3, 1, 2], "size": [0, 0, 0]}, t) for t in "abcdabcd"]
    assert predictors(again)[0].share.low == pytest.approx(wanted)  # other settings of the same pools are no new pairs


def test_contests_are_read_from_a_study(tmp_path):
    quality = {"near": 0.75, "middle": 0.65, "far": 0.55}
    cells = [cell(f"only-{pool}", seed=s, pools=[pool]) for pool in quality for s in range(3)]
    cells += [cell("all", seed=s, pools=["near", "far"]) for s in range(3)]
    right = drawn(cells, lambda one: quality[one["pools"][0]], noise=0.004)
    score = shift_report({"near": 5, "middle": 20, "far": 40}, sizes={"near": 10, "middle": 20, "far": 30})
    folder = write_study(tmp_path, cells, right, score=score)
    evidence = Evidence(targets=(TargetResults.open("mine", folder, cells),), protocol=Protocol())
    (found,) = contests(evidence)
    assert found.pools == ("near", "middle", "far")
    for pool, accuracy in zip(found.pools, found.accuracy, strict=True):
        wanted = [right[c["name"]].mean() for c in cells if c["pools"] == [pool]]
        assert accuracy == pytest.approx(np.mean(wanted))
    said = prediction(evidence)
    shares = {p["metric"]: p["share"]["value"] for p in said["predictors"]}
    assert shares == {"index": 1, "frechet": 1, "precision": 1, "far_off": 0, "size": 0, "random": 0.5}
    assert said["lines"][0] == (
        "Q3: 1 contest of single pools, 3 pairs more than two standard errors apart. "
        "A distance is right where the nearer of two such pools gives the better accuracy."
    )
    ends = {line.removeprefix("Q3: ").partition(" calls ")[0] for line in said["lines"][1:]}
    assert ends == {"index", "frechet", "precision", "far off", "the number of images", "a coin"}
    json.dumps(said, allow_nan=False)


def test_a_pool_that_had_fewer_images_to_give_is_told(tmp_path):
    cells = [cell(f"only-{p}", seed=s, pools=[p], realized=n) for p, n in (("near", 500), ("far", 300)) for s in (0, 1)]
    folder = write_study(tmp_path, cells, drawn(cells, lambda one: 0.7), score=shift_report({"near": 5, "far": 40}))
    said = prediction(Evidence(targets=(TargetResults.open("mine", folder, cells),), protocol=Protocol()))
    note = "near and far: their selections hold 500 and 300 images"
    assert said["contests"][0]["notes"] == [note]
    assert said["lines"][1] == f"Q3: 1 pair of pools differs in more than the pool: on mine, {note}."


def test_with_one_seed_no_pair_is_called_and_this_is_told(tmp_path):
    quality = {"near": 0.9, "middle": 0.6, "far": 0.3}
    cells = [cell(f"only-{pool}", pools=[pool]) for pool in quality]
    score = shift_report({"near": 5, "middle": 20, "far": 40})
    folder = write_study(tmp_path, cells, drawn(cells, lambda one: quality[one["pools"][0]]), score=score)
    said = prediction(Evidence(targets=(TargetResults.open("mine", folder, cells),), protocol=Protocol()))
    (head, why) = said["lines"]
    assert head == "Q3: 1 contest of single pools, 0 pairs more than two standard errors apart."
    assert why.startswith("Q3: 3 pairs of pools cannot be called: on mine, near and middle: one draw; ")
    assert len(said["contests"][0]["unknown"]) == 3


def test_runs_without_a_seed_in_common_are_not_called(tmp_path):
    cells = [cell(f"only-{p}", seed=s, pools=[p]) for p, seeds in (("near", (0, 1)), ("far", (2, 3))) for s in seeds]
    right = drawn(cells, lambda one: 0.9 if one["pools"] == ["near"] else 0.3)
    folder = write_study(tmp_path, cells, right, score=shift_report({"near": 5, "far": 40}))
    said = prediction(Evidence(targets=(TargetResults.open("mine", folder, cells),), protocol=Protocol()))
    why = "Q3: 1 pair of pools cannot be called: on mine, near and far: they have no runs of one seed."
    assert said["lines"][1] == why


def test_pools_that_are_not_told_apart_are_not_called(tmp_path):
    cells = [cell(f"only-{pool}", seed=s, pools=[pool]) for pool in ("near", "far") for s in range(3)]
    folder = write_study(tmp_path, cells, drawn(cells, lambda one: 0.7), score=shift_report({"near": 5, "far": 40}))
    evidence = Evidence(targets=(TargetResults.open("mine", folder, cells),), protocol=Protocol())
    (line,) = prediction(evidence)["lines"]
    assert line == "Q3: 1 contest of single pools, 0 pairs more than two standard errors apart."


def test_without_single_pools_or_a_score_nothing_is_said(tmp_path):
    cells = [cell(f"only-{pool}", pools=[pool]) for pool in ("near", "far")]
    right = drawn(cells, lambda one: 0.7)
    for folder, score in ((tmp_path / "a", None), (tmp_path / "b", shift_report({"near": 1.0}))):
        write_study(folder, cells, right, score=score)
        evidence = Evidence(targets=(TargetResults.open("mine", folder, cells),), protocol=Protocol())
        assert prediction(evidence) == {}
