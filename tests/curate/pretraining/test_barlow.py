import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from curate.pretraining.methods import barlow
from curate.pretraining.methods.barlow import barlow_twins
from curate.pretraining.recipe import Training
from curate.pretraining.sample import Seen
from embeddings.encoders.networks import Network
from embeddings.errors import UnknownNameError, UsageError

EPSILON = 1e-5  # of batch norm: perfect twins miss the identity by this share of their variance


def reference(first, second, weight=0.0051):
    """The paper's double loop in numpy: biased variance, and every pair of features on its own."""
    (batch, dim), total = first.shape, 0.0
    one, two = ((z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + EPSILON) for z in (first, second))
    for i, j in np.ndindex(dim, dim):
        correlation = sum(one[b, i] * two[b, j] for b in range(batch)) / batch
        total += (1 - correlation) ** 2 if i == j else weight * correlation**2
    return total


def draw(batch, dim, seed=0):
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(batch, dim))
    return first, first + 0.5 * rng.normal(size=(batch, dim))


def loss(first, second, weight=0.0051):
    return barlow_twins(torch.tensor(first), torch.tensor(second), off_diagonal=weight).item()


def config(**knobs):
    return barlow.Config(training=Training(optimizer="sgd", learning_rate=0.1, weight_decay=0.0), **knobs)


@given(st.integers(2, 9), st.integers(1, 7), st.sampled_from([0.0, 0.0051, 0.3, 1.0]))
def test_equals_the_double_loop(batch, dim, weight):
    first, second = draw(batch, dim)
    assert loss(first, second, weight) == pytest.approx(reference(first, second, weight), rel=1e-10)


def test_gradient_equals_finite_differences_of_the_double_loop():
    first, second = draw(5, 3)
    pair = [torch.tensor(z, requires_grad=True) for z in (first, second)]
    barlow_twins(*pair, off_diagonal=0.3).backward()
    step = 1e-5
    for view, i, j in np.ndindex(2, 5, 3):
        moved = [[first.copy(), second.copy()] for _ in range(2)]
        moved[0][view][i, j] += step
        moved[1][view][i, j] -= step
        slope = (reference(*moved[0], 0.3) - reference(*moved[1], 0.3)) / (2 * step)
        assert pair[view].grad[i, j].item() == pytest.approx(slope, abs=1e-8)


def test_perfect_twins_with_independent_features_give_zero():
    z = 1e3 * np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])  # the biased variance is what makes the diagonal 1
    assert loss(z, z) == pytest.approx(0, abs=1e-20)
    half = loss(z, np.ones_like(z) * z[:, :1], 0.5)  # the second feature is a copy of the first
    assert half == pytest.approx(1 + 0.5, rel=1e-9)


@pytest.mark.parametrize(("batch", "dim", "scale"), [(2, 3, 1.0), (64, 17, 0.1)])
def test_collapsed_projections_give_the_chance_loss(batch, dim, scale):
    same = np.full((batch, dim), 3.0)
    chance = barlow.chance_loss(config(width=dim, scale=scale), batch)
    assert chance == scale * dim
    assert scale * loss(same, same) == pytest.approx(chance, abs=1e-12)


def test_projections_that_tell_nothing_give_their_closed_form():
    """The mean over all ways to pair two sets of views, by enumeration."""
    first, second = (50 * z for z in draw(5, 3))
    found = np.mean([loss(first, second[list(order)], 0.2) for order in itertools.permutations(range(5))])
    assert found == pytest.approx(3 * 5 / 4 + 0.2 * 3 * 2 / 4, rel=1e-6)


def test_does_not_change_under_what_should_not_matter():
    first, second = (100 * z for z in draw(8, 4))
    value, rng = loss(first, second), np.random.default_rng(1)
    order, features = rng.permutation(8), rng.permutation(4)
    assert loss(first[order], second[order]) == pytest.approx(value, rel=1e-12)
    assert loss(first[:, features], second[:, features]) == pytest.approx(value, rel=1e-12)
    assert loss(second, first) == pytest.approx(value, rel=1e-12)
    assert loss(first * rng.uniform(2, 9, 4) + 5, second * 3 - rng.normal(size=4)) == pytest.approx(value, rel=1e-6)
    assert loss(-first, -second) == pytest.approx(value, rel=1e-12)
    assert loss(first, second[order]) != pytest.approx(value, rel=1e-2)
    assert loss(-first, second) != pytest.approx(value, rel=1e-2)


def test_learner_passes_each_view_on_its_own_and_scales_its_loss():
    torch.manual_seed(0)
    network = Network("toy", nn.Sequential(nn.Flatten(), nn.Linear(12, 6)), dim=6, mean=0.0, std=1.0)
    learner = barlow.build(network, config(width=5, scale=0.1))
    pair = [torch.randn(8, 3, 2, 2) for _ in range(2)]
    encoded = learner.encode(Seen(pair, None, seed=0))
    assert torch.equal(encoded.features, torch.cat([network.module(view) for view in pair]))
    parts = learner.project(encoded.parts)
    for part, view in zip(parts, pair, strict=True):
        assert torch.equal(part, learner.projector(network.module(view)))  # whose batch norms see this view alone
    wanted = 0.1 * barlow_twins(*parts, off_diagonal=0.0051)
    assert learner.loss(parts, share=0.5).item() == pytest.approx(wanted.item())
    kinds = [type(layer) for layer in learner.projector]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert all(layer.bias is None and layer.out_features == 5 for layer in learner.projector[::3])


def test_published_recipes():
    paper, code, small = (barlow.RECIPES[name] for name in ("paper", "code", "small-batch"))
    assert paper.width == 8192
    assert [preset.solarize for preset in barlow.views(paper)] == [0, 0.2]
    training = paper.training
    assert training.peak(2048) == pytest.approx(1.6)
    assert training.peak(2048) * training.bias_rate == pytest.approx(0.0048 * 8)
    assert (training.weight_decay, code.training.weight_decay) == (1.5e-6, 1e-6)
    assert small.training.peak(256) == 0.4


@pytest.mark.parametrize("wrong", [{"width": 0}, {"off_diagonal": -1.0}, {"scale": 0.0}])
def test_impossible_configs_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        config(**wrong)
    with pytest.raises(UnknownNameError):
        config(augmentation=("none",))
