"""Chunks give the gradient of the whole batch, whatever the loss compares."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from curate.pretraining.gradients import Step, backward, split
from curate.pretraining.methods import Encoded, load_method
from curate.pretraining.methods.barlow import barlow_twins
from curate.pretraining.methods.distill import one_minus_cosine
from curate.pretraining.methods.simclr import nt_xent
from curate.pretraining.methods.vicreg import vicreg
from curate.pretraining.sample import Sample, Seen
from embeddings.encoders.networks import Network

LOSSES = {  # name: (coupled, loss)
    "barlow": (True, lambda one, two: barlow_twins(one, two, off_diagonal=0.1)),
    "vicreg": (True, lambda one, two: vicreg(one, two, invariance=25.0, variance=25.0, covariance=1.0)),
    "nt-xent": (True, lambda one, two: nt_xent(one, two, temperature=0.2)),
    "cosine": (False, one_minus_cosine),
    "cosine, as if coupled": (True, one_minus_cosine),
}
METHODS = ("barlow", "distill", "simclr", "vicreg")


class Pair(nn.Module):
    """Encodes two views with a network without batch norm and compares them."""

    def __init__(self, coupled, loss):
        super().__init__()
        self.coupled, self._loss = coupled, loss
        self.backbone = toy().module

    def encode(self, seen):
        first, second = (self.backbone(view) for view in seen.views)
        return Encoded((first, second), torch.cat([first, second]))

    def project(self, parts):
        return parts

    def loss(self, parts, *, share):
        return self._loss(*parts)


def toy(edge=4):
    layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * edge * edge, 7), nn.Tanh(), nn.Linear(7, 5))
    return Network("toy", layers, dim=5, mean=127.0, std=60.0)


def batch(n, dtype, views=2, edge=4):
    rng = np.random.default_rng(0)
    sample = Sample(np.zeros((n, 3, edge, edge), np.uint8), np.arange(n, dtype=np.uint64), np.zeros(n, np.int64))
    drawn = [torch.from_numpy(rng.normal(size=(n, 3, edge, edge))).to(dtype) for _ in range(views)]
    return Seen(drawn, sample, seed=0)


def gradients(learner, seen, chunks):
    learner = copy.deepcopy(learner)
    result = backward(learner, seen, Step(share=0.5, images=len(seen), chunks=chunks))
    found = {name: p.grad for name, p in learner.named_parameters() if p.grad is not None}
    return result, found


def assert_same(found, wanted, *, tolerance):
    """Equal losses, and gradients that differ by a share of the largest entry of all at most."""
    scale = max(float(gradient.abs().max()) for gradient in wanted[1].values())
    assert found[0].loss.item() == pytest.approx(wanted[0].loss.item(), rel=tolerance)
    assert found[1].keys() == wanted[1].keys()
    for name, gradient in wanted[1].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("chunks", [2, 3, 4, 10])
@pytest.mark.parametrize("name", LOSSES)
def test_chunks_give_the_gradient_of_the_whole_batch(name, chunks):
    torch.manual_seed(0)
    learner = Pair(*LOSSES[name]).double()
    seen = batch(10, torch.float64)
    assert_same(gradients(learner, seen, chunks), gradients(learner, seen, 1), tolerance=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_float32_adds_rounding_only(name):
    torch.manual_seed(0)
    learner = Pair(*LOSSES[name])
    exact = copy.deepcopy(learner).double()
    found = gradients(learner, batch(64, torch.float32), 4)
    wanted = gradients(exact, batch(64, torch.float64), 1)
    for gradient in found[1].values():
        assert gradient.dtype == torch.float32
    assert_same((found[0], {k: g.double() for k, g in found[1].items()}), wanted, tolerance=1e-5)


@pytest.mark.parametrize("name", ["barlow", "vicreg", "nt-xent"])
def test_adding_up_the_chunks_own_losses_would_not_do(name):
    torch.manual_seed(0)
    learner = Pair(*LOSSES[name]).double()
    seen = batch(10, torch.float64)
    naive = copy.deepcopy(learner)
    naive.coupled = False
    whole, added = gradients(learner, seen, 1)[1], gradients(naive, seen, 2)[1]
    weight = "backbone.1.weight"
    assert (whole[weight] - added[weight]).norm() > 0.01 * whole[weight].norm()


@pytest.mark.usefixtures("tiny_teacher")
@pytest.mark.parametrize("name", METHODS)
def test_methods_give_the_same_in_unequal_chunks(name):
    """With heads as they train: their batch norms see the whole batch, however it was encoded."""
    method = load_method(name)
    recipe = method.RECIPES["scratch"]
    torch.manual_seed(0)
    learner = method.build(toy(), recipe).double().train()
    seen = batch(10, torch.float64, views=len(method.views(recipe)))
    whole = gradients(learner, seen, 1)
    assert any(name.startswith("backbone") for name in whole[1])
    assert any(not name.startswith("backbone") for name in whole[1])
    assert_same(gradients(learner, seen, 3), whole, tolerance=1e-10)


def test_features_come_back_in_the_order_of_the_chunks():
    torch.manual_seed(0)
    learner, seen = Pair(*LOSSES["barlow"]), batch(5, torch.float32)
    result, _ = gradients(learner, seen, 2)
    wanted = [learner.encode(seen.part(where)).features for where in (slice(0, 2), slice(2, 5))]
    assert torch.equal(result.features, torch.cat(wanted))
    assert not result.features.requires_grad


@pytest.mark.parametrize(("n", "chunks", "sizes"), [(10, 3, [3, 3, 4]), (8, 4, [2] * 4), (3, 5, [1] * 3), (7, 1, [7])])
def test_split(n, chunks, sizes):
    found = split(n, chunks)
    assert [where.stop - where.start for where in found] == sizes
    assert [i for where in found for i in range(n)[where]] == list(range(n))
