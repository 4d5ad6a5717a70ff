"""Verdicts on curves by hand, and on those of real runs of every method on stripes."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from curate.pretraining.health import (
    _change,
    by_heart,
    by_view,
    feature_spread,
    image_share,
    judge,
    rank_me,
    should_stop,
)
from curate.pretraining.methods import METHODS

RECORDED = json.loads(Path(__file__).with_name("recorded_curves.json").read_text())


def rows(losses, spread=0.5, chance=5.0, **more):
    return [
        {"samples_seen": 10 * (i + 1), "step": i + 1, "loss": value, "chance_loss": chance, "feature_spread": spread}
        | {name: values[i] for name, values in more.items() if values[i] is not None}
        for i, value in enumerate(losses)
    ]


def recorded(method, kind):
    """A run of 24 to 100 steps of 16 on 64 stripes of 28 px (all alike: on 64 times the first of them)."""
    columns = dict(RECORDED[method][kind])
    batch, losses = columns.pop("batch"), columns.pop("loss")
    found = [{"step": i + 1, "samples_seen": batch * (i + 1), "loss": loss} for i, loss in enumerate(losses)]
    return [row | {k: v[i] for k, v in columns.items() if v[i] is not None} for i, row in enumerate(found)]


def test_spread_by_hand():
    assert feature_spread(torch.ones(7, 3)) == pytest.approx(0, abs=1e-3)
    assert feature_spread(torch.tensor([[1.0, 0], [-2, 0]])) == 1
    assert feature_spread(torch.eye(2)) == pytest.approx(math.sqrt(0.5))  # mean (1/2, 1/2)
    assert feature_spread(5 * torch.eye(4)) == pytest.approx(math.sqrt(3 / 4))


@pytest.mark.parametrize("shape", [(40, 7), (7, 40), (1, 5)])
def test_rank_me_equals_the_paper_by_singular_values(shape):
    x = np.random.default_rng(0).normal(size=shape)
    s = np.linalg.svd(x, compute_uv=False)
    p = s / s.sum() + 1e-7
    assert rank_me(torch.from_numpy(x)) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-6)


def test_rank_me_counts_directions():
    assert rank_me(torch.eye(6)) == pytest.approx(6, abs=1e-4)
    assert rank_me(torch.ones(9, 4)) == pytest.approx(1, abs=1e-4)
    assert rank_me(torch.zeros(4, 4)) == pytest.approx(1, abs=1e-4)
    assert rank_me(torch.full((3, 3), torch.nan)) == 0
    assert 1 < rank_me(torch.randn(3000, 5, generator=torch.Generator().manual_seed(0))) < 5.001  # of some of them


def test_image_share_by_hand():
    views = torch.eye(4)
    assert image_share(torch.stack([views, views])) == pytest.approx(1)
    assert image_share(torch.stack([views, views.roll(1, 0)])) < 0  # alike are views of other images
    assert image_share(torch.ones(2, 5, 3)) == 0
    assert image_share(views[None]) is None


def test_image_share_of_noise_is_zero_on_average():
    noise = torch.randn(400, 3, 6, 4, generator=torch.Generator().manual_seed(0))
    assert abs(np.mean([image_share(x) for x in noise])) < 0.02


@given(st.integers(2, 9), st.integers(1, 4), st.integers(1, 3))
def test_views_are_found_again_whatever_the_chunks(images, chunks, count):
    from curate.pretraining.gradients import split

    views = torch.arange(count * images * 2.0).reshape(count, images, 2)
    passed = torch.cat([views[:, part].flatten(0, 1) for part in split(images, chunks)])
    assert torch.equal(by_view(passed, images, chunks), views)


@pytest.mark.parametrize(
    ("curve", "verdict", "step"),
    [
        (rows([5.0] * 10 + [3.0] * 10), "healthy", 0),
        (rows([5.0] * 20), "not learning", 1),
        (rows([6.0] * 20), "not learning", 1),  # above chance, as fresh networks can be, and staying there
        (rows([3.0] * 20), "not learning", 1),  # below chance from the first step on, and staying there
        (rows([8.0] * 10 + [6.0] * 10), "too early", 0),  # above chance, but it fell
        (rows([8.0] * 10 + [5.0] * 10), "not learning", 20),  # fell to chance and stuck
        (rows([4.95] * 20), "not learning", 1),
        (rows([3.0] * 20 + [5.0] * 4), "not learning", 1),  # it is the end that counts
        (rows([5.0] * 20, spread=0.001), "collapsed", 1),
        (rows([5.0] * 10 + [2.0] * 10, picture_spread=[None, None, 0.5] + [None] * 7 + [0.01] * 10), "collapsed", 11),
        (rows([5.0] * 30 + [1.0] * 30, image_share=[0.01, -0.01] * 30), "collapsed", 1),
        (rows([5.0] * 30 + [1.0] * 30, image_share=[0.3, -0.3] * 30), "healthy", 0),  # not known well enough
        (rows([3.0, math.nan]), "diverged", 2),
        (rows([3.0, math.inf]), "diverged", 2),
        (rows([3.0, 3.0], gradient_norm=[1.0, math.inf]), "diverged", 2),
        (rows([3.0] * 10 + [30.0] * 10), "diverged", 13),
        (rows([5.0] * 10 + [4.0] * 20, gradient_norm=[1.0] * 5 + [1e-5] * 25), "diverged", 15),
        (rows([5.0] * 10 + [0.1] * 20, gradient_norm=[1.0] * 5 + [1e-5] * 25), "healthy", 0),  # it has arrived
    ],
)
def test_verdicts(curve, verdict, step):
    found = judge(curve)
    assert (found.verdict, found.step) == (verdict, step)
    assert bool(found.remedy) == (verdict != "healthy")


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


def test_a_probe_that_falls_with_a_rising_loss_is_no_overfitting():
    assert judge(probed([0.7, 0.6, 0.5], [2.0, 3.0, 4.0])).verdict != "overfitting"


def looked(unseen, seen, *, noise=0.0, probe=None):
    """A run whose loss falls, looked at in every tenth of C; ``noise`` in each part's own loss, not shared by looks."""
    rng, extra = np.random.default_rng(0), {"probe": probe or [None] * len(unseen)}
    curve = rows(list(np.linspace(5, 2, len(unseen))), **extra, probe_se=[0.02 if p else None for p in extra["probe"]])
    for row, ours, theirs in zip(curve, unseen, seen, strict=True):
        parts = ours + 0.3 * np.linspace(-1, 1, 8) + noise * rng.normal(size=8)
        row |= {"unseen_loss": ours, "unseen_parts": parts.tolist()}
        row |= {"seen_loss": theirs, "seen_parts": (parts - ours + theirs).tolist()}
    return curve


def late(curve):
    """The same, looked at in the last two rows only."""
    return [{k: v for k, v in row.items() if "seen_" not in k} for row in curve[:-2]] + curve[-2:]


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
    value, error = _change(*looks, "unseen")
    pairs = (second - first).reshape(8, 2).mean(axis=1)
    assert value == pytest.approx(pairs.mean())
    assert error == pytest.approx(pairs.std(ddof=1) / math.sqrt(8))


def begun(unseen=4.0, seen=4.0, share=0.0):
    """A look before the first step."""
    return {k: v for k, v in looked([unseen], [seen])[0].items() if "seen_" in k} | {"seen_share": share}


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
    first, last = begun(), looked(STANDS, FALLS)[-1]
    assert by_heart(first, last) == pytest.approx(1 - 0.8 / 3)
    assert by_heart(first, first) is None
    assert by_heart(last | {"seen_share": 0.0}, first) is None
    assert by_heart(first, begun(unseen=5.0, seen=3.0)) == pytest.approx(2)
    assert "73% of what was learned is learned by heart" in judge(looked(STANDS, FALLS), start=first).detail


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


def test_details_carry_the_figures_and_remedies_the_method():
    assert "from 4.000 to 3.000" in judge(rows([4.0, 3.0])).detail
    assert "chance value is 5.000" in judge(rows([5.0])).detail
    assert "after 20 samples" in judge(rows([3.0, math.nan])).detail
    assert "teacher_temperature" in judge(rows([5.0] * 9), method="dino").remedy
    assert "learning rate" in judge(rows([5.0] * 9), method="simclr").remedy


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("kind", "verdict"),
    [("healthy", "healthy"), ("frozen", "not learning"), ("alike", "collapsed"), ("wild", "diverged")],
)
def test_verdicts_on_runs_of_every_method(method, kind, verdict):
    assert judge(recorded(method, kind), method=method).verdict == verdict


@pytest.mark.parametrize(
    ("curve", "share", "stops"),
    [
        (rows([5.0] * 19), 0.19, False),  # never before a fifth of C
        (rows([5.0] * 20), 0.20, False),  # that long from step 1 to here is 19% of C
        (rows([5.0] * 21), 0.21, True),
        (rows([5.0] * 30 + [math.nan]), 0.31, True),  # at once
        (rows([5.0] * 10 + [3.0] * 50), 0.60, False),
        (rows([5.0] * 10 + [2.0] * 30, picture_spread=[0.5] * 35 + [0.0] * 5), 0.40, False),
        (rows([5.0] * 10 + [2.0] * 30, picture_spread=[0.5] * 28 + [0.0] * 12), 0.40, True),  # a tenth of C
    ],
)
def test_stops_after_shares_of_c(curve, share, stops):
    assert should_stop(judge(curve), curve, samples=1000) is stops
    assert curve[-1]["samples_seen"] == pytest.approx(1000 * share)
