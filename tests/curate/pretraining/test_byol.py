import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from teacher_loop import FIRST, require_plain_steps
from torch import nn

from curate.pretraining.augment.presets import preset
from curate.pretraining.methods import byol
from curate.pretraining.methods.byol import distance
from curate.pretraining.optimizers import build_optimizer
from curate.pretraining.recipe import Training
from curate.pretraining.sample import Sample, Seen
from embeddings.encoders.networks import Network, build_network
from embeddings.errors import UnknownNameError, UsageError

SGD = Training(optimizer="sgd", learning_rate=0.1, weight_decay=0.0)


def reference(predictions, targets):
    """Squared distance of the normalized vectors, entry by entry."""
    total = 0.0
    for p, z in zip(predictions, targets, strict=True):
        lengths = math.sqrt(sum(v * v for v in p)), math.sqrt(sum(v * v for v in z))
        total += sum((a / lengths[0] - b / lengths[1]) ** 2 for a, b in zip(p, z, strict=True))
    return total / len(predictions)


def pair(batch, dim, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, dim)), rng.normal(size=(batch, dim))


def value(predictions, targets):
    return distance(torch.tensor(predictions), torch.tensor(targets)).item()


def config(**changes):
    return byol.Config(**{"training": SGD, "hidden": 7, "dim": 5} | changes)


def toy(**changes):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Tanh())
    return byol.build(Network("toy", backbone, dim=6, mean=0.0, std=1.0), config(**changes)).double()


def seen(batch=8, seed=0):
    rng = np.random.default_rng(seed)
    pixels = np.zeros((batch, 3, 2, 2), np.uint8)
    sample = Sample(pixels, np.arange(batch, dtype=np.uint64), np.zeros(batch, np.int64))
    return Seen([torch.tensor(rng.normal(size=(batch, 12))) for _ in range(2)], sample, seed=0)


@given(st.integers(1, 9), st.integers(1, 8))
def test_equals_the_loop(batch, dim):
    predictions, targets = pair(batch, dim)
    assert value(predictions, targets) == pytest.approx(reference(predictions, targets), abs=1e-12)


def test_gradient_equals_finite_differences_and_targets_have_none():
    predictions, targets = pair(4, 3)
    p, z = torch.tensor(predictions, requires_grad=True), torch.tensor(targets, requires_grad=True)
    distance(p, z).backward()
    assert z.grad is None
    for i, j in np.ndindex(4, 3):
        up, down = predictions.copy(), predictions.copy()
        up[i, j] += 1e-5
        down[i, j] -= 1e-5
        slope = (reference(up, targets) - reference(down, targets)) / 2e-5
        assert p.grad[i, j].item() == pytest.approx(slope, abs=1e-8)


def test_directions_are_added_not_averaged():
    first, second, one, two = (torch.tensor(x) for x in (*pair(6, 5), *pair(6, 5, seed=1)))
    learner = toy()
    found = learner.loss((first, second, one, two), share=0.5).item()
    added = reference(first.numpy(), two.numpy()) + reference(second.numpy(), one.numpy())
    assert found == pytest.approx(added, abs=1e-12)
    assert learner.loss((second, first, two, one), share=0.5).item() == pytest.approx(found, abs=1e-12)
    assert learner.loss((first, second, two, one), share=0.5).item() != pytest.approx(found, abs=1e-3)


def test_closed_forms():
    same, across = torch.ones(3, 4), torch.tensor([[1.0, -1, 1, -1]] * 3)
    learner = toy()
    assert learner.loss([same] * 4, share=0.5).item() == pytest.approx(0, abs=1e-6)  # collapsed: the least there is
    assert learner.loss([same, same, across, across], share=0.5).item() == pytest.approx(4, abs=1e-6)
    assert learner.loss([same, same, -same, -same], share=0.5).item() == pytest.approx(8, abs=1e-6)
    assert byol.chance_loss(config(), 64) == 4


def test_untrained_predictions_start_near_the_chance_loss():
    torch.manual_seed(0)
    learner = byol.build(build_network("tiny-resnet"), byol.Config(training=SGD, hidden=512))
    views = [torch.randn(16, 3, 32, 32) for _ in range(2)]
    assert learner.loss(
        learner.project(learner.encode(Seen(views, None, seed=0)).parts), share=0.0
    ).item() == pytest.approx(4, abs=0.3)


def test_does_not_change_under_what_should_not_matter():
    predictions, targets = pair(6, 4)
    found = value(predictions, targets)
    order = np.random.default_rng(1).permutation(6)
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(4, 4)))[0]
    assert value(predictions[order], targets[order]) == pytest.approx(found, abs=1e-12)
    assert value(predictions @ rotation, targets @ rotation) == pytest.approx(found, abs=1e-12)
    assert value(7 * predictions, targets / 3) == pytest.approx(found, abs=1e-12)
    assert value(predictions, targets[order]) != pytest.approx(found, abs=1e-3)


def test_heads():
    learner = byol.build(build_network("tiny-resnet"), config())
    wanted = [(7,), (7,), (7,), (5, 7)]  # bias, batch norm, last weights without bias
    assert [tuple(p.shape) for p in learner.projector.parameters()] == [(7, 128), *wanted]
    assert [tuple(p.shape) for p in learner.predictor.parameters()] == [(7, 5), *wanted]


def test_views_are_drawn_from_two_kinds():
    first, second = byol.views(config())
    assert (first, second) == (preset("natural-first"), preset("natural-second"))
    assert (first.blur, second.blur, first.solarize, second.solarize) == (1.0, 0.1, 0.0, 0.2)


def test_biases_and_norms_neither_decay_nor_adapt_in_the_papers_recipe():
    learner = byol.build(build_network("tiny-resnet"), config(training=byol.RECIPES["paper"].training))
    weights, vectors = build_optimizer(learner, byol.RECIPES["paper"].training).param_groups
    assert (weights["weight_decay"], weights["adapts"]) == (1.5e-6, True)
    assert (vectors["weight_decay"], vectors["adapts"]) == (0.0, False)
    assert {p.ndim for p in vectors["params"]} == {1}
    assert len(weights["params"]) + len(vectors["params"]) == sum(1 for p in learner.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("paper", (0.2, 0.996, 1.5e-6)), ("paper-300", (0.3, 0.99, 1e-6)), ("paper-100", (0.45, 0.99, 1e-6))],
)
def test_published_recipes_by_length(name, wanted):
    recipe = byol.RECIPES[name]
    assert (recipe.training.learning_rate, recipe.teacher_momentum, recipe.training.weight_decay) == wanted
    assert (recipe.training.optimizer, recipe.training.batch, recipe.training.peak(4096)) == (
        "lars",
        4096,
        pytest.approx(16 * wanted[0]),
    )


def test_twenty_steps_are_those_of_a_plain_loop():
    def loss(p1, p2, z1, z2):
        cosines = nn.functional.cosine_similarity(p1, z2) + nn.functional.cosine_similarity(p2, z1)
        return (4 - 2 * cosines).mean()

    require_plain_steps(toy(teacher_momentum=FIRST).train(), seen, loss)


def test_impossible_configs_are_refused():
    for wrong in ({"dim": 0}, {"hidden": 0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            config(**wrong)
    with pytest.raises(UnknownNameError):
        config(augmentation=("none",))
