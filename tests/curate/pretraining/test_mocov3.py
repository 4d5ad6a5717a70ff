import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from teacher_loop import FIRST, require_plain_steps
from torch import nn

from curate.pretraining.methods import mocov3
from curate.pretraining.methods.mocov3 import info_nce
from curate.pretraining.recipe import Training
from curate.pretraining.sample import Sample, Seen
from embeddings.encoders.networks import Network, build_network
from embeddings.errors import UnknownNameError, UsageError

SGD = Training(optimizer="sgd", learning_rate=0.1, weight_decay=0.0)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def reference(queries, keys, temperature):
    """The paper's formula as a double loop: 2 T times the mean of -log softmax at one's own key."""
    q, k = unit(queries), unit(keys)
    total = 0.0
    for i in range(len(q)):
        weights = [math.exp(q[i] @ k[j] / temperature) for j in range(len(k))]
        total -= math.log(weights[i] / sum(weights))
    return 2 * temperature * total / len(q)


def pair(batch, dim, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, dim)), rng.normal(size=(batch, dim))


def value(queries, keys, temperature=0.2):
    return info_nce(torch.tensor(queries), torch.tensor(keys), temperature=temperature).item()


def config(**changes):
    return mocov3.Config(**{"training": SGD, "hidden": 7, "dim": 5, "augmentation": ("natural",)} | changes)


def toy(**changes):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Tanh())
    return mocov3.build(Network("toy", backbone, dim=6, mean=0.0, std=1.0), config(**changes)).double()


def seen(batch=8, seed=0):
    rng = np.random.default_rng(seed)
    pixels = np.zeros((batch, 3, 2, 2), np.uint8)
    sample = Sample(pixels, np.arange(batch, dtype=np.uint64), np.zeros(batch, np.int64))
    return Seen([torch.tensor(rng.normal(size=(batch, 12))) for _ in range(2)], sample, seed=0)


class Patches(nn.Module):
    """The least a transformer is known by."""

    def __init__(self):
        super().__init__()
        self.patch_embed, self.norm = nn.Linear(12, 6), nn.LayerNorm(6)

    def forward(self, x):
        return self.norm(self.patch_embed(x.flatten(1)))


@given(st.integers(1, 9), st.integers(1, 8), st.sampled_from([0.07, 0.2, 1.0]))
def test_equals_the_double_loop(batch, dim, temperature):
    queries, keys = pair(batch, dim)
    assert value(queries, keys, temperature) == pytest.approx(reference(queries, keys, temperature), abs=1e-10)


def test_gradient_equals_finite_differences_and_keys_have_none():
    queries, keys = pair(4, 3)
    q, k = torch.tensor(queries, requires_grad=True), torch.tensor(keys, requires_grad=True)
    info_nce(q, k, temperature=0.3).backward()
    assert k.grad is None
    for i, j in np.ndindex(4, 3):
        up, down = queries.copy(), queries.copy()
        up[i, j] += 1e-5
        down[i, j] -= 1e-5
        slope = (reference(up, keys, 0.3) - reference(down, keys, 0.3)) / 2e-5
        assert q.grad[i, j].item() == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize("batch", [1, 2, 100])
@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_images_that_are_all_alike_give_the_chance_loss(batch, temperature):
    same = torch.ones(batch, 5, dtype=torch.float64)
    found = toy(temperature=temperature).loss([same] * 4, share=0.5).item()
    assert found == pytest.approx(4 * temperature * math.log(batch), abs=1e-12)
    assert mocov3.chance_loss(config(temperature=temperature), batch) == pytest.approx(found, abs=1e-12)


def test_perfect_predictions_at_right_angles_by_hand():
    assert value(np.eye(4), np.eye(4), 0.5) == pytest.approx(math.log(1 + 3 * math.exp(-2)), abs=1e-12)


def test_does_not_change_under_what_should_not_matter():
    queries, keys = pair(6, 4)
    found = value(queries, keys)
    order = np.random.default_rng(1).permutation(6)
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(4, 4)))[0]
    assert value(queries[order], keys[order]) == pytest.approx(found, abs=1e-12)
    assert value(queries @ rotation, keys @ rotation) == pytest.approx(found, abs=1e-12)
    assert value(7 * queries, keys / 3) == pytest.approx(found, abs=1e-12)
    assert value(queries, keys[order]) != pytest.approx(found, abs=1e-3)


def test_both_directions_are_added_and_views_may_be_swapped():
    first, second, one, two = (torch.tensor(x) for x in (*pair(6, 5), *pair(6, 5, seed=1)))
    learner = toy()
    found = learner.loss((first, second, one, two), share=0.5).item()
    directions = reference(first.numpy(), two.numpy(), 0.2) + reference(second.numpy(), one.numpy(), 0.2)
    assert found == pytest.approx(directions, abs=1e-12)
    assert learner.loss((second, first, two, one), share=0.5).item() == pytest.approx(found, abs=1e-12)
    assert learner.loss((first, second, two, one), share=0.5).item() != pytest.approx(found, abs=1e-3)


def test_heads_of_a_convolutional_network():
    learner = mocov3.build(build_network("tiny-resnet"), config())
    shapes = [tuple(p.shape) for p in learner.projector.parameters()]
    assert shapes == [(7, 128), (7,), (7,), (5, 7)]  # no bias; the last batch norm has no weights
    assert isinstance(learner.projector[-1], nn.BatchNorm1d)
    assert [tuple(p.shape) for p in learner.predictor.parameters()] == [(7, 5), (7,), (7,), (5, 7)]
    assert isinstance(learner.predictor[-1], nn.Linear)


def test_heads_of_a_transformer_and_its_frozen_patches():
    learner = mocov3.build(Network("toy", Patches(), dim=6, mean=0.0, std=1.0), config())
    shapes = [tuple(p.shape) for p in learner.projector.parameters()]
    assert shapes == [(7, 6), (7,), (7,), (7, 7), (7,), (7,), (5, 7)]
    assert [type(head[-1]) for head in (learner.projector, learner.predictor)] == [nn.BatchNorm1d] * 2
    assert not any(p.requires_grad for p in learner.backbone.patch_embed.parameters())
    assert all(p.requires_grad for p in learner.backbone.norm.parameters())


def test_each_view_has_its_own_batch_statistics():
    learner, (first, second) = toy().train(), seen().views

    def outputs(*views):
        return learner.project(learner.encode(Seen(views, None, seed=0)).parts)

    assert torch.equal(outputs(first, second + 100)[0], outputs(first, first)[0])
    assert torch.equal(outputs(first, second + 100)[2], outputs(first, first)[2])


def test_twenty_steps_are_those_of_a_plain_loop():
    def loss(*projections):
        q1, q2, k1, k2 = (nn.functional.normalize(z) for z in projections)
        logits = [q1 @ k2.T / 0.2, q2 @ k1.T / 0.2]
        return sum(0.4 * (found.logsumexp(1) - found.diag()).mean() for found in logits)

    require_plain_steps(toy(teacher_momentum=FIRST).train(), seen, loss)


def test_impossible_configs_are_refused():
    for wrong in ({"temperature": 0}, {"dim": 0}, {"hidden": 0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            config(**wrong)
    with pytest.raises(UnknownNameError):
        config(augmentation=("none",))
    with pytest.raises(UsageError, match="3 augmentation presets"):
        config(augmentation=("natural",) * 3)
