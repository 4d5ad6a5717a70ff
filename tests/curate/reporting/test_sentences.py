"""The three sentences, by value, in every situation a reader can be in."""

# ruff: noqa: RUF001 - the report prints real minus signs

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_examples import arm_score, eval_report, frozen_scores, pool_score, run_in, selection_of, shift_report

from curate.reporting import headline, summarize
from curate.results import Estimate, PoolScore, ShiftReport

SCALE = "on an index where 0 is the target itself and 50 as far as its own total variance."


def say(**results: Any) -> list[str]:
    return headline(summarize(**results, thumbnails=False))


def pools(*indices: float, **rest: Any) -> list[PoolScore]:
    return [pool_score(f"p{i:.0f}", i, rank=rank, **rest) for rank, i in enumerate(indices, 1)]


def action(scores: list[Any], shift: ShiftReport | None = None) -> str:
    return say(shift=shift, evaluation=eval_report(scores))[1]


def test_the_demo_without_training(demo_shift: ShiftReport) -> None:
    assert say(shift=demo_shift) == [
        "Of 8 pools compared with the target, 4 are near it (twitter 6, fluent 12, openmoji 14 and clipart 16), "
        f"1 is at middle distance (line 33) and 3 are far (garments 38, photos 39 and digits 45), {SCALE}",
        "Use twitter, fluent, openmoji and clipart; keep line for last; leave out garments, photos and digits.",
        "Intervals are 95% and rest on 469 target images, whose two halves read −1 to 2 against each other; "
        "the order of openmoji and clipart is not settled; all distances are one encoder's view (lite0).",
    ]


def test_no_pool_is_near() -> None:
    worth, what, _ = say(shift=shift_report(pools(33, 41)))
    assert (
        worth == f"Of 2 pools compared with the target, 1 is at middle distance (p33 33) and 1 is far (p41 41), {SCALE}"
    )
    assert what == "No pool is near; keep p33 for last; leave out p41."
    assert say(shift=shift_report(pools(38, 41)))[1] == "No pool is near: do not pretrain on these."


def test_near_images_of_far_pools_are_not_advised_against() -> None:
    supply = {"n": [], "distance": [], "knee": None, "words": []}
    rows = [("target", "t", ""), *(("p38", f"{i}", "") for i in range(3))]
    for facts, said in (
        ({"supply": supply}, "No pool is near as a whole: pretrain on the 3 images selected from them, not on all."),
        ({"supply": supply, "past_knee": True}, "No pool is near: do not pretrain on these."),
        ({"supply": None}, "No pool is near: do not pretrain on these."),
    ):
        chosen = selection_of(rows, {"p38": ""}, **facts)
        assert say(shift=shift_report(pools(38, 41)), selections={"s": chosen})[1] == said


def test_every_pool_is_near() -> None:
    assert say(shift=shift_report(pools(3, 9)))[1] == "Use p3 and p9."


def test_a_pool_like_the_target_is_used_first() -> None:
    same = pool_score("twin", 0.4, rank=1, verdict="same")
    worth, what, _ = say(shift=shift_report([same, *pools(40)]))
    assert worth.startswith(
        "Of 2 pools compared with the target, 1 cannot be told from the target (twin 0) and 1 is far"
    )
    assert what == "Use twin; leave out p40."


def test_unclear_pools_and_copies() -> None:
    unclear = pool_score("blurry", 19.0, rank=2, verdict="unclear")
    copied = pool_score("mirror", 2.0, rank=1, verdict="copies")
    worth, what, _ = say(shift=shift_report([copied, unclear]))
    assert "1 is unclear, the interval spanning a limit (blurry 19)" in worth
    assert "1 is mostly copies of target images (mirror 2)" in worth
    assert what == (
        "No pool can be used as it is; add images to blurry before deciding on it; "
        "leave out mirror, which repeats the target."
    )


def test_repairs_and_mixed_pools_are_said() -> None:
    factors = {"factors": {"repairs": True, "step": "convert both to gray"}}
    found = [
        pool_score("scans", 30.0, rank=1, action="repair", findings=factors),
        pool_score("web", 40.0, rank=2, action="use part"),
        pool_score("toys", 60.0, rank=3),
    ]
    assert say(shift=shift_report(found))[1] == (
        "Repair scans first: convert both to gray; select from web and do not take it whole; leave out toys."
    )


def test_two_copies_and_two_unclear_are_plural() -> None:
    found = [pool_score(n, 5.0, rank=i, verdict=v) for i, (n, v) in enumerate([("a", "copies"), ("b", "copies")], 1)]
    found += [pool_score(n, 20.0, rank=i, verdict="unclear") for i, n in enumerate(["c", "d"], 3)]
    what = say(shift=shift_report(found))[1]
    assert what.endswith("add images to c and d before deciding on them; leave out a and b, which repeat the target.")
    assert say(shift=shift_report(found[:2]))[1] == (
        "No pool adds anything new; leave out a and b, which repeat the target."
    )
    far = say(shift=shift_report([*found[:2], pool_score("toys", 60.0, rank=3)]))[1]
    assert far == "No pool is near: do not pretrain on these; leave out a and b, which repeat the target."


def test_a_pool_that_seems_memorized_is_looked_at() -> None:
    odd = pool_score("made", 2.0, rank=1, action="look")
    assert say(shift=shift_report([odd, *pools(40)]))[1] == (
        "No pool can be used as it is; look at the near copies in made before using it; leave out p40."
    )


def test_many_pools_are_counted_beyond_the_nearest() -> None:
    worth, what, _ = say(shift=shift_report(pools(*range(1, 9))))
    assert "8 are near it (p1 1, p2 2, p3 3, p4 4 and 4 more)" in worth
    assert what == "Use p1, p2, p3, p4 and 4 more."


def test_ties_form_chains() -> None:
    ties = {"p10": ("p11",), "p11": ("p10", "p12"), "p12": ("p11",), "p40": ("p41",), "p41": ("p40",)}
    found = [
        pool_score(f"p{i}", i, rank=rank, tied_with=ties.get(f"p{i}", ()))
        for rank, i in enumerate([5, 10, 11, 12, 40, 41], 1)
    ]
    sure = say(shift=shift_report(found))[2]
    assert "; the order of p10, p11 and p12, and of p40 and p41, is not settled; " in sure


def test_few_target_images_and_no_floor() -> None:
    report = shift_report(pools(5), n=45)
    unknown = Estimate(value=None, reason="too few groups")
    report = ShiftReport(target=report.target, encoder=report.encoder, pools=report.pools, floor=unknown)
    assert say(shift=report)[2].startswith("Intervals are 95% and rest on only 45 target images; all distances")


def test_a_profile_without_pools() -> None:
    assert say(shift=shift_report([])) == [
        "No pool was compared: this is a profile of the target alone, 469 images in 3 classes.",
        "Add at least one pool to learn whether anything is worth pretraining on.",
        "469 target images cannot carry: full-dimension Fréchet distance.",
    ]
    unlabeled = shift_report([], classes=None, carries=[{"measure": "ranking", "ok": True, "why": ""}])
    assert say(shift=unlabeled)[0].endswith("the target alone, 469 images.")
    assert say(shift=unlabeled)[2] == "469 target images can carry every measure."


def test_nothing_at_all() -> None:
    assert say() == [
        "No pool was compared with the target here.",
        "Score the pools before you choose among them.",
        "Nothing here has been measured against a target yet.",
    ]


def test_an_evaluation_alone_tells_what_there_is_to_beat() -> None:
    assert say(evaluation=eval_report(frozen_scores()))[::2] == [
        "The frozen public encoder, which costs nothing, reads 75.6% (73.6 to 77.6) on emoji by a linear head: that is "
        "what there is to beat.",
        "Intervals are 95% and rest on 470 test images of emoji.",
    ]
    several = say(evaluation=eval_report([*frozen_scores(), *frozen_scores(0.5, "parts")]))
    assert "on emoji and 50.0% (48.0 to 52.0) on parts" in several[0]
    assert several[2].endswith("470 test images of emoji and 470 test images of parts.")


def test_the_frozen_encoder_wins() -> None:
    arms = [arm_score("near", 0.627, gain=(-0.16, -0.098)), arm_score("random", 0.62, gain=(-0.167, -0.105))]
    assert action([*frozen_scores(), *arms], shift_report(pools(6, 40))) == (
        "Keep the frozen public encoder: pretraining did not beat doing nothing; near reads 62.7% on emoji against "
        "75.6%, −12.9 points (−16.0 to −9.8); of the pools, only p6 is near enough for another try."
    )
    assert action([*frozen_scores(), *arms], shift_report(pools(40))).endswith(
        "; no pool is near: do not pretrain on these."
    )
    assert action([*frozen_scores(), *arms]).endswith("(−16.0 to −9.8).")


def test_a_gain_inside_the_noise_is_called_that() -> None:
    arm = arm_score("near", 0.759, gain=(-0.012, 0.018))
    assert action([*frozen_scores(), arm]) == (
        "Keep the frozen public encoder: pretraining gained nothing beyond the noise over doing nothing; near reads "
        "75.9% on emoji against 75.6%, +0.3 points (−1.2 to +1.8), within the noise."
    )


@pytest.mark.parametrize(("gain", "real"), [((0.0, 0.06), False), ((0.001, 0.06), True), ((-0.06, 0.0), False)])
def test_only_an_interval_clear_of_zero_is_a_gain(gain: tuple[float, float], real: bool) -> None:
    said = action([*frozen_scores(), arm_score("near", 0.786, gain=gain)])
    assert said.startswith("Pretrain: it beat doing nothing") == real


def test_a_real_gain_is_told_in_labels() -> None:
    labels = Estimate(value=1140.0, low=900, high=1500)
    arm = arm_score("near", 0.787, gain=(0.012, 0.05), label_equivalents=labels)
    assert action([*frozen_scores(), arm], shift_report(pools(6, 40))) == (
        "Pretrain: it beat doing nothing, the frozen public encoder; near reads 78.7% on emoji against 75.6%, "
        "+3.1 points (+1.2 to +5.0), for which the frozen one would need about 1,140 labels; use p6; leave out p40."
    )
    beyond = Estimate(value=None, low=900.0, reason="more than 1,500")
    arm = arm_score("near", 0.787, gain=(0.012, 0.05), label_equivalents=beyond)
    assert "would need more than 1,500 labels;" in action([*frozen_scores(), arm])


def test_gains_on_some_labeled_sets_only() -> None:
    scores = [*frozen_scores(), arm_score("near", 0.787, gain=(0.012, 0.05))]
    scores += [*frozen_scores(0.5, "parts"), arm_score("near", 0.4, gain=(-0.12, -0.08), labeled="parts")]
    assert action(scores) == (
        "Pretrain where it paid: it beat doing nothing, the frozen public encoder; near reads 78.7% on emoji against "
        "75.6%, +3.1 points (+1.2 to +5.0); not so on parts."
    )


def test_noise_on_one_set_and_a_loss_on_another_is_no_gain() -> None:
    scores = [*frozen_scores(), arm_score("near", 0.756, gain=(-0.02, 0.02))]
    scores += [*frozen_scores(0.5, "parts"), arm_score("near", 0.4, gain=(-0.12, -0.08), labeled="parts")]
    said = action(scores)
    assert said.startswith("Keep the frozen public encoder: pretraining did not beat doing nothing; ")
    assert "(−2.0 to +2.0), within the noise and near reads 40.0% on parts" in said


def test_an_evaluation_without_runs_or_intervals_leaves_it_open() -> None:
    assert action(frozen_scores()) == (
        "Whether pretraining pays is open, no run was evaluated on emoji; score the pools before you choose among them."
    )
    said = action([*frozen_scores(), arm_score("near", 0.8)], shift_report(pools(6)))
    assert said == (
        "Whether pretraining pays is open, near reads 80.0% on emoji against 75.6%, a difference without an interval; "
        "use p6."
    )
    assert action([arm_score("near", 0.8)]).startswith("Whether pretraining pays is open, nothing stands beside")


def test_how_sure_of_the_arms(tmp_path: Path) -> None:
    arms = [arm_score("near", 0.79, gain=(0.01, 0.05)), arm_score("random", 0.78, gain=(0.0, 0.04))]
    runs = {"near": run_in(tmp_path / "a"), "random": run_in(tmp_path / "b", verdict="not learning")}
    sure = say(runs=runs, evaluation=eval_report([*frozen_scores(), *arms]))[2]
    assert sure == (
        "Intervals are 95% and rest on 470 test images of emoji; the run random (not learning) did not train properly "
        "and says little; the runs' own intervals overlap, so "
        "none is the winner among them; the best run was picked on these same test images, which flatters it; "
        "each run was trained once."
    )


def test_a_run_that_is_too_short_to_judge_is_not_called_ill(tmp_path: Path) -> None:
    runs = {"near": run_in(tmp_path / "a", verdict="too early")}
    sure = say(runs=runs, evaluation=eval_report([*frozen_scores(), arm_score("near", 0.79, gain=(0.01, 0.05))]))[2]
    assert "the run near was too short to tell whether training works" in sure
    assert "properly" not in sure


def test_arms_that_differ_and_unequal_compute_are_said() -> None:
    arms = [
        arm_score("near", 0.79, gain=(0.01, 0.05)),
        arm_score("random", 0.6, gain=(-0.2, -0.1), facts={"samples_seen": 10}),
    ]
    sure = say(evaluation=eval_report([*frozen_scores(), *arms]))[2]
    assert "; the arms saw unequal numbers of samples" in sure
    assert "overlap" not in sure
