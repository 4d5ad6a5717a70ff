"""Verdicts on curves by hand, and on those of real runs of every method on stripes."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from curate.pretraining.health import by_view, feature_spread, image_share, judge, rank_me, should_stop
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


def test_it_says_when_overfitting_could_not_have_shown():
    assert "overfitting would not show" in judge(rows([5.0] * 10 + [3.0] * 10)).detail
    assert "overfitting" not in judge(probed([0.5, 0.6, 0.7])).detail


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
