"""Verdicts on curves by hand, and on those of real runs of every method on stripes."""

import json
import math
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from hand_curves import rows
from hypothesis import given
from hypothesis import strategies as st

from curate.pretraining.health import (
    OF_METHODS,
    by_view,
    feature_spread,
    image_share,
    judge,
    rank_me,
    share_of_chance,
    should_stop,
    weight_norm,
)
from curate.pretraining.methods import METHODS, default_recipe

RECORDED = json.loads(Path(__file__).with_name("recorded_curves.json").read_text())


def recorded(method, kind):
    """A run in batches of 16 on 64 stripes of 28 px (see test_health_live), and the length of its weights before it."""
    columns = dict(RECORDED[method][kind])
    start, batch, losses = {"weight_norm": columns.pop("begun")}, columns.pop("batch"), columns.pop("loss")
    found = [{"step": i + 1, "samples_seen": batch * (i + 1), "loss": loss} for i, loss in enumerate(losses)]
    return [row | {k: v[i] for k, v in columns.items() if v[i] is not None} for i, row in enumerate(found)], start


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
        (rows([5.0] * 20, every=10), "not learning", 10),
        (rows([6.0] * 20, every=10), "not learning", 10),  # above chance, as fresh networks can be, and staying there
        (rows([3.0] * 20, every=10), "not learning", 10),  # below chance from the first step on, and staying there
        (rows([8.0] * 10 + [6.0] * 10), "too early", 0),  # above chance, but it fell
        (rows([8.0] * 50 + [5.0] * 50, every=2), "not learning", 120),  # fell to chance and stuck
        (rows([4.96] * 20, every=10), "not learning", 10),
        (rows([3.0] * 20 + [5.0] * 4, every=10), "not learning", 10),  # it is the end that counts
        (rows([5.0] * 99), "too early", 0),  # so many steps may be too few to leave it
        (rows([3.0] * 99), "too early", 0),
        (rows([5.0]), "too early", 0),
        (rows([2.0, 8.0] * 10, every=10), "too early", 0),  # too noisy to tell
        (rows([*[5.0] * 3, *[3.0] * 97], every=10), "healthy", 0),  # all of it at once, then no more
        (rows([5.0] * 20, spread=0.001), "collapsed", 1),
        (rows([5.0] * 10 + [2.0] * 10, picture_spread=[None, None, 0.5] + [None] * 7 + [0.01] * 10), "collapsed", 11),
        (rows([5.0] * 30 + [1.0] * 30, image_share=[0.01, -0.01] * 30), "collapsed", 1),
        (rows([5.0] * 30 + [1.0] * 30, image_share=[0.3, -0.3] * 30), "healthy", 0),  # not known well enough
        (rows([3.0, math.nan]), "diverged", 2),
        (rows([3.0, math.inf]), "diverged", 2),
        (rows([3.0, 3.0], gradient_norm=[1.0, math.inf]), "diverged", 2),
        (rows([3.0] * 10 + [30.0] * 10), "diverged", 13),
        (rows([5.0] * 10 + [2.0] * 20, weight_norm=[3.0] * 5 + [301.0] * 25), "diverged", 6),  # however low the loss is
        (rows([5.0] * 10 + [2.0] * 20, weight_norm=[3.0] * 5 + [299.0] * 25), "healthy", 0),
        (rows([5.0] * 10 + [2.0] * 20, weight_norm=[3.0] * 5 + [301.0] * 5 + [4.0] * 20), "healthy", 0),  # it came back
        (rows([5.0] * 5, weight_norm=[3.0] * 5), "not learning", 1),  # the weights stand still
        (rows([5.0, 5.1, 4.9], weight_norm=[3.0, 3.000000001, 2.999999999]), "not learning", 1),
        (rows([5.0, 5.1, 4.9], weight_norm=[3.0, 3.000001, 2.999999]), "too early", 0),  # of less than 0.1%
        (rows([5.0] * 5, weight_norm=[3.0] * 4 + [3.0001]), "too early", 0),
    ],
)
def test_verdicts(curve, verdict, step):
    found = judge(curve, start={"weight_norm": 3.0})
    assert (found.verdict, found.step) == (verdict, step)
    assert bool(found.remedy) == (verdict != "healthy")


def test_the_loss_counts_from_chance_down_to_what_the_teacher_allows():
    assert share_of_chance({"loss": 3.0, "chance_loss": 4.0}) == 0.75
    assert share_of_chance({"loss": 5.4, "chance_loss": 5.5, "teacher_entropy": 5.0}) == pytest.approx(0.8)
    assert share_of_chance({"loss": 5.2, "chance_loss": 5.5, "teacher_entropy": 5.499}) == 1  # a uniform teacher


def test_a_teacher_of_few_bits_can_be_followed_all_the_same():
    losses = np.linspace(5.02, 4.96, 20)  # all within 1% of chance
    curve = rows(list(losses), every=10, teacher_entropy=[4.9] * 20)
    assert judge(curve).verdict == "healthy"
    assert judge(rows(list(losses), every=10)).verdict == "not learning"


def test_losses_compare_within_a_stage_only():
    losses = [*np.linspace(4.9, 4.0, 16), *np.linspace(5.2, 4.6, 16)]  # the second one is harder
    curve = rows(losses, every=10)
    assert judge(curve).verdict == "not learning"
    assert judge([row | {"stage": i // 16} for i, row in enumerate(curve)]).verdict == "healthy"
    stuck = rows([*losses[:16], *[5.0] * 16], every=10)
    found = judge([row | {"stage": i // 16} for i, row in enumerate(stuck)])
    assert (found.verdict, found.step) == ("not learning", 170)
    short = judge([row | {"stage": i // 16} for i, row in enumerate(stuck[:25])])
    assert "90 steps may be too few" in short.detail


def test_only_weights_that_are_trained_have_a_length():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0, 2.0], [4.0, 2.0]]))
    module[2].requires_grad_(False)
    assert weight_norm(module) == pytest.approx(5)


def test_details_carry_the_figures_and_remedies_the_method():
    assert "from 4.000 to 3.000" in judge(rows([4.0, 3.0])).detail
    assert "chance value is 5.000" in judge(rows([5.0])).detail
    assert "after 20 samples" in judge(rows([3.0, math.nan])).detail
    assert "teacher_temperature" in judge(rows([5.0] * 9, every=20), method="dino").remedy
    assert "learning rate" in judge(rows([5.0] * 9, every=20), method="simclr").remedy


@pytest.mark.parametrize(("method", "remedy"), [(method, text) for (method, _), text in OF_METHODS.items()])
def test_remedies_name_knobs_that_there_are(method, remedy):
    recipe = default_recipe(method, "scratch")
    assert set(re.findall(r"\((\w+)\)", remedy)) <= {
        field.name for part in (recipe, recipe.training) for field in fields(part)
    }


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("kind", "verdict"),
    [("healthy", "healthy"), ("frozen", "not learning"), ("alike", "collapsed"), ("wild", "diverged")],
)
def test_verdicts_on_runs_of_every_method(method, kind, verdict):
    curve, start = recorded(method, kind)
    assert judge(curve, method=method, start=start).verdict == verdict


@pytest.mark.parametrize(
    ("curve", "share", "stops"),
    [
        (rows([5.0] * 19, every=10), 0.19, False),  # never before a fifth of C
        (rows([5.0] * 20, every=10), 0.20, False),  # that long from step 1 to here is 19% of C
        (rows([5.0] * 21, every=10), 0.21, True),
        (rows([5.0] * 60), 0.60, False),  # too few steps to tell
        (rows([5.0] * 30 + [math.nan]), 0.31, True),  # at once
        (rows([5.0] * 10 + [3.0] * 50), 0.60, False),
        (rows([5.0] * 10 + [2.0] * 30, picture_spread=[0.5] * 35 + [0.0] * 5), 0.40, False),
        (rows([5.0] * 10 + [2.0] * 30, picture_spread=[0.5] * 28 + [0.0] * 12), 0.40, True),  # a tenth of C
    ],
)
def test_stops_after_shares_of_c(curve, share, stops):
    assert should_stop(judge(curve), curve, samples=1000) is stops
    assert curve[-1]["samples_seen"] == pytest.approx(1000 * share)
