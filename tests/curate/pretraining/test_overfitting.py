"""Overfitting and forgetting, by a probe and by unseen images, on curves by hand."""

import math

import numpy as np
import pytest
from hand_curves import begun, late, looked, rows

from curate.pretraining.health import judge
from curate.pretraining.overfitting import Learned, by_heart, change


def probed(readings, losses=None):
    losses = losses or list(np.linspace(5, 2, len(readings)))
    return rows(losses, probe=readings, probe_se=[None if r is None else 0.02 for r in readings])


@pytest.mark.parametrize(
    ("readings", "start", "verdict", "step"),
    [
        ([0.5, 0.6, 0.7, 0.7, 0.71], 0.4, "healthy", 0),
        ([0.5, 0.6, 0.7, 0.8, 0.9], 0.4, "healthy", 0),  # the last one is the best, however far it rose
        ([0.5, 0.6, 0.7, 0.69, 0.685], 0.4, "healthy", 0),  # within its standard error
        ([0.5, 0.7, None, 0.66, 0.60], 0.4, "overfitting", 2),
        ([0.5, 0.7, 0.7, 0.7, 0.60], 0.4, "overfitting", 2),  # both of the last two count: .65
        ([0.5, 0.7, 0.7, 0.69, 0.68], 0.8, "forgetting", 1),
        ([0.6], 0.9, "healthy", 0),  # one reading says little
    ],
)
def test_the_probe_sees_overfitting_and_forgetting(readings, start, verdict, step):
    curve = rows([5.0] * 5 + [2.0] * 5, probe=[None] * 9 + readings, probe_se=[None] * 9 + [0.02])
    found = judge(curve if len(readings) == 1 else probed(readings), start={"probe": start, "probe_se": 0.02})
    assert (found.verdict, found.step) == (verdict, step)


def test_overfitting_is_not_forgotten_when_the_next_stage_begins():
    falling = probed(np.linspace(0.8, 0.45, 10).tolist())
    after = {**falling[-1], "step": falling[-1]["step"] + 1, "stage": 1}
    staged = [*({**row, "stage": 0} for row in falling), after]
    assert judge(staged).verdict == "overfitting"


def test_a_probe_that_falls_with_a_rising_loss_is_no_overfitting():
    assert judge(probed([0.7, 0.6, 0.5], [2.0, 3.0, 4.0])).verdict != "overfitting"


FALLS = list(np.linspace(3, 1, 10))
RISES = [3.0, 2.5, 2.2, 2.0, 2.1, 2.3, 2.4, 2.5, 2.6, 2.7]


@pytest.mark.parametrize(
    ("curve", "verdict", "step"),
    [
        (looked(RISES, FALLS), "overfitting", 4),  # the noise that all looks share does not count
        (looked(RISES, FALLS, noise=0.02), "overfitting", 4),
        (looked(RISES, FALLS, noise=0.5), "healthy", 0),  # not known well enough
        (looked(FALLS, FALLS), "healthy", 0),
        (looked([*FALLS[:-1], 9.0], FALLS), "healthy", 0),  # one mark says little
        (looked([*FALLS[:-3], 9.0, 9.0, 0.9], FALLS), "healthy", 0),  # it came back
        (looked(RISES, RISES), "healthy", 0),  # what is trained on got worse, too
        (late(looked(RISES, FALLS)), "healthy", 0),  # two looks are too few
        (looked(RISES, FALLS, probe=np.linspace(0.5, 0.9, 10).tolist()), "healthy", 0),  # the probe decides
        (looked(FALLS, FALLS, probe=np.linspace(0.9, 0.5, 10).tolist()), "overfitting", 1),
    ],
)
def test_unseen_images_show_overfitting_where_there_is_no_probe(curve, verdict, step):
    found = judge(curve)
    assert (found.verdict, found.step) == (verdict, step)


def test_the_error_of_a_rise_is_a_jackknife_of_the_difference():
    """For a mean it is the usual standard error of the mean of paired differences."""
    first, second = np.random.default_rng(0).normal(size=(2, 16))
    looks = []
    for values in (first, second):
        without = [np.delete(values, slice(2 * i, 2 * i + 2)).mean() for i in range(8)]
        looks.append({"unseen_loss": values.mean(), "unseen_parts": without})
    value, error = change(*looks, "unseen")
    pairs = (second - first).reshape(8, 2).mean(axis=1)
    assert value == pytest.approx(pairs.mean())
    assert error == pytest.approx(pairs.std(ddof=1) / math.sqrt(8))


SLOWS = [3.0, 2.9, 2.85, 2.8, 2.8, 2.8, 2.79, 2.78, 2.77, 2.76]
STANDS = [3.9, 3.8, 3.7, 3.6, 3.5, 3.4, 3.3, 3.2, 3.2, 3.2]


@pytest.mark.parametrize(
    ("curve", "start", "verdict", "step"),
    [
        (looked(STANDS, FALLS), begun(), "overfitting", 1),  # .8 of 3
        (looked(FALLS, FALLS), begun(), "healthy", 0),
        (looked([x + 1 for x in FALLS], FALLS), begun(unseen=5.0), "healthy", 0),  # the level does not matter
        (looked(SLOWS, FALLS), begun(), "overfitting", 5),  # there, 1.2 of 1.89
        (looked([*STANDS[:-1], 1.9], FALLS), begun(), "healthy", 0),  # 2.1 of 3 at the end
        (looked(STANDS, FALLS, noise=0.5), begun(), "healthy", 0),  # not known well enough
        (looked([4.0] * 10, [4.0] * 10), begun(), "healthy", 0),  # nothing fell
        (looked(STANDS, FALLS), None, "healthy", 0),  # a run of earlier days, without that look
        (looked(STANDS, FALLS, probe=np.linspace(0.5, 0.9, 10).tolist()), begun(), "healthy", 0),
    ],
)
def test_what_is_learned_by_heart_is_overfitting(curve, start, verdict, step):
    found = judge(curve, start=start)
    assert (found.verdict, found.step) == (verdict, step)


def test_training_images_that_are_all_looked_at_are_no_sample():
    looks = looked(STANDS, FALLS)
    for row in looks:  # the training images differ much
        row["seen_parts"] = (np.array(row["seen_parts"]) + row["step"] * np.linspace(-1, 1, 8)).tolist()
    verdicts = [judge(looks, start=begun(share=share)).verdict for share in (0.1, 1.0)]
    assert verdicts == ["healthy", "overfitting"]


def test_the_share_learned_by_heart():
    first, curve = begun(), looked(STANDS, FALLS)
    assert by_heart(curve, first) == pytest.approx(1 - 0.8 / 3)
    assert by_heart(looked([4.0], [4.0]), first) is None
    assert by_heart(looked([5.0], [3.0]), first) == pytest.approx(2)
    assert by_heart(looked([4.0], [3.97]), begun(share=1.0)) is None  # hardly anything
    assert by_heart(curve, {}) is by_heart(rows([5.0, 4.0]), first) is None
    assert "73% of what was learned is learned by heart" in judge(curve, start=first).detail


def test_the_way_down_to_chance_is_not_learned():
    """From 4 to 1, unseen ones to 1.5; chance, 5 in training, is 2 in such a look: .5 of 1 instead of .5 of 3."""
    curve = looked([3.5, 2.5, 1.5], [3.0, 2.0, 1.0])
    assert by_heart(curve, begun()) == pytest.approx(0.5 / 3)
    assert by_heart(curve, begun() | {"look_chance": 0.4}) == pytest.approx(0.5)
    assert by_heart(curve[:2], begun() | {"look_chance": 0.4}) is None  # at chance
    assert by_heart(curve, begun() | {"look_chance": 1.0}) == by_heart(curve, begun())  # it began below


def test_the_errors_of_the_share_by_hand():
    found = Learned(seen=2.0, seen_error=0.1, unseen=1.0, unseen_error=0.2)
    assert found.share == 0.5
    assert found.error == pytest.approx(math.hypot(0.2 / 2, 1.0 * 0.1 / 4))
    assert not found.is_by_heart()  # 1/3 is missing, known to .21
    assert Learned(2.0, 0.1, 0.9, 0.2).is_by_heart()
    assert Learned(2.0, 0.7, -9.0, 0.0).share is None  # it may be noise


def test_what_is_too_uncertain_is_told():
    curve = looked(STANDS, FALLS, noise=0.5)
    found = judge(curve, start=begun(share=1.0))
    assert found.verdict == "healthy"
    assert "73% of what was learned may be learned by heart (standard error" in found.detail
    assert "by heart" not in judge(looked(FALLS, FALLS), start=begun()).detail


def test_overfitting_on_unseen_images_is_told_in_figures():
    found = judge(looked(RISES, FALLS))
    assert "rose by 0.700 (standard error 0.000) to 2.700" in found.detail
    assert "fell from 2.333 to 1.000" in found.detail
    assert "fewer samples" in found.remedy


def test_it_says_when_overfitting_could_not_have_shown():
    assert "overfitting would not show" in judge(rows([5.0] * 10 + [3.0] * 10)).detail
    assert "overfitting would not show" in judge(late(looked(FALLS, FALLS))).detail
    assert "overfitting" not in judge(probed([0.5, 0.6, 0.7])).detail
    assert "overfitting" not in judge(looked(FALLS, FALLS)).detail
