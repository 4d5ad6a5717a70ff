import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from curate.pretraining.methods import vicreg as method
from curate.pretraining.methods.vicreg import vicreg
from curate.pretraining.recipe import Training
from curate.pretraining.sample import Seen
from embeddings.encoders.networks import Network
from embeddings.errors import UnknownNameError, UsageError

WEIGHTS = {"invariance": 25.0, "variance": 25.0, "covariance": 1.0}


def reference(first, second, *, invariance=25.0, variance=25.0, covariance=1.0):
    """The paper's three terms in numpy loops; variance and covariance over B - 1, the hinges of both views averaged."""
    batch, dim = first.shape
    agree = sum((first[b, j] - second[b, j]) ** 2 for b, j in np.ndindex(batch, dim)) / (batch * dim)
    hinge = apart = 0.0
    for z in (first, second):
        centered = z - z.mean(axis=0)
        for i, j in np.ndindex(dim, dim):
            moment = sum(centered[b, i] * centered[b, j] for b in range(batch)) / (batch - 1)
            hinge += max(0.0, 1 - math.sqrt(moment + 1e-4)) / (2 * dim) if i == j else 0.0
            apart += 0.0 if i == j else moment**2 / dim
    return invariance * agree + variance * hinge + covariance * apart


def draw(batch, dim, seed=0, scale=0.8):
    rng = np.random.default_rng(seed)
    first = scale * rng.normal(size=(batch, dim))
    return first, first + 0.3 * rng.normal(size=(batch, dim))


def loss(first, second, **weights):
    return vicreg(torch.tensor(first), torch.tensor(second), **WEIGHTS | weights).item()


def config(**knobs):
    return method.Config(training=Training(optimizer="sgd", learning_rate=0.1, weight_decay=0.0), **knobs)


@given(st.integers(2, 9), st.integers(1, 7), st.floats(0.01, 3.0))
def test_equals_the_loops(batch, dim, scale):
    first, second = draw(batch, dim, scale=scale)
    assert loss(first, second) == pytest.approx(reference(first, second), rel=1e-10)
    for term in WEIGHTS:
        only = dict.fromkeys(WEIGHTS, 0.0) | {term: 2.0}
        assert loss(first, second, **only) == pytest.approx(reference(first, second, **only), rel=1e-10, abs=1e-14)


def test_gradient_equals_finite_differences_of_the_loops():
    first, second = draw(5, 3)
    pair = [torch.tensor(z, requires_grad=True) for z in (first, second)]
    vicreg(*pair, **WEIGHTS).backward()
    step = 1e-5
    for view, i, j in np.ndindex(2, 5, 3):
        moved = [[first.copy(), second.copy()] for _ in range(2)]
        moved[0][view][i, j] += step
        moved[1][view][i, j] -= step
        slope = (reference(*moved[0]) - reference(*moved[1])) / (2 * step)
        assert pair[view].grad[i, j].item() == pytest.approx(slope, abs=1e-7)


@pytest.mark.parametrize("batch", [2, 64])
def test_collapsed_features_give_their_closed_form(batch):
    same = np.full((batch, 7), -2.0)
    assert loss(same, same) == pytest.approx(24.75, abs=1e-12)
    assert loss(same, same, variance=10.0) == pytest.approx(9.9, abs=1e-12)


@pytest.mark.parametrize(
    ("weights", "chance"),
    [
        ({}, 25 - 25 / 8 - 0.005),  # deviation 1/4
        ({"variance": 10.0}, 10 - 1 - 50e-4 + 0.5),  # 1/10: 10 (1 - 1/10) + 50 / 100 - 50e-4
        ({"invariance": 1.0}, 2 - 2e-4),  # 1, where the hinge ends: 2 (1 - 1e-4)
        ({"invariance": 1e4}, 24.75),  # 0: better constant
        ({"invariance": 0.0}, 0.0),  # views need not agree
    ],
)
def test_chance_is_the_least_that_features_which_tell_nothing_can_reach(weights, chance):
    assert method.chance_loss(config(**weights), 64) == pytest.approx(chance, abs=1e-12)
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(2, 400_000, 2))
    found = [loss(s * one, s * two, **weights) for s in np.linspace(0, 1.2, 61)]
    assert min(found) == pytest.approx(chance, abs=0.02)


def test_perfect_features_give_zero():
    z = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1.0]])  # unbiased variance 4/3, no covariance
    assert loss(z, z) == 0
    edge = np.sqrt(3) / 2 * z  # unbiased variance 1: the hinge starts here
    assert loss(edge, edge) == pytest.approx(0, abs=1e-30)
    smaller = 0.8 * np.sqrt(3) / 2 * z
    assert loss(smaller, smaller) == pytest.approx(25 * (1 - math.sqrt(0.64 + 1e-4)), rel=1e-12)


def test_does_not_change_under_what_should_not_matter():
    first, second = draw(8, 4)
    value, rng = loss(first, second), np.random.default_rng(1)
    order, features, moved = rng.permutation(8), rng.permutation(4), rng.normal(size=4)
    rotation = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    assert loss(first[order], second[order]) == pytest.approx(value, rel=1e-12)
    assert loss(first[:, features], second[:, features]) == pytest.approx(value, rel=1e-12)
    assert loss(second, first) == pytest.approx(value, rel=1e-12)
    assert loss(first + moved, second + moved) == pytest.approx(value, rel=1e-12)
    only = {"variance": 0.0, "covariance": 0.0}
    assert loss(first @ rotation, second @ rotation, **only) == pytest.approx(loss(first, second, **only), rel=1e-12)
    assert loss(first @ rotation, second @ rotation) != pytest.approx(value, rel=1e-3)
    assert loss(first, second[order]) != pytest.approx(value, rel=1e-2)


def test_learner_passes_each_view_on_its_own():
    torch.manual_seed(0)
    network = Network("toy", nn.Sequential(nn.Flatten(), nn.Linear(12, 6)), dim=6, mean=0.0, std=1.0)
    learner = method.build(network, config(width=5, covariance=3.0))
    pair = [torch.randn(8, 3, 2, 2) for _ in range(2)]
    encoded = learner.encode(Seen(pair, None, seed=0))
    assert torch.equal(encoded.features, torch.cat([network.module(view) for view in pair]))
    parts = learner.project(encoded.parts)
    for part, view in zip(parts, pair, strict=True):
        assert torch.equal(part, learner.expander(network.module(view)))  # whose batch norms see this view alone
    wanted = vicreg(*parts, **WEIGHTS | {"covariance": 3.0})
    assert learner.loss(parts, share=0.5).item() == pytest.approx(wanted.item())
    kinds = [type(layer) for layer in learner.expander]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert [layer.bias is None for layer in learner.expander[::3]] == [False, False, True]


def test_published_recipes():
    paper, code, small = (method.RECIPES[name] for name in ("paper", "code", "small-batch"))
    assert (paper.width, paper.invariance, paper.variance, paper.covariance) == (8192, 25, 25, 1)
    assert paper.training.peak(2048) == pytest.approx(1.6)
    assert paper.training.peak(2048) * paper.training.floor == pytest.approx(0.002)
    assert code.training.floor == 1e-3
    assert small.training.peak(512) == pytest.approx(0.6)
    assert [preset.blur for preset in method.views(code)] == [1.0, 0.1]


@pytest.mark.parametrize("wrong", [{"width": 0}, {"invariance": -1.0}, {"variance": -1.0}, {"covariance": -1.0}])
def test_impossible_configs_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        config(**wrong)
    with pytest.raises(UnknownNameError):
        config(augmentation=("none",))
