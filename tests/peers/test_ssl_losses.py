"""Losses and optimizers of pretraining against lightly's, in float64; the command is in CONTRIBUTING.md."""

import numpy as np
import pytest
import torch

from curate.pretraining.methods import byol, dino
from curate.pretraining.methods.barlow import barlow_twins
from curate.pretraining.methods.distill import one_minus_cosine
from curate.pretraining.methods.simclr import nt_xent
from curate.pretraining.methods.vicreg import vicreg
from curate.pretraining.optimizers import build_optimizer
from curate.pretraining.recipe import Training
from embeddings.encoders.torchvision_import import import_torchvision

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]
SIZES = [(2, 3), (5, 4), (16, 32), (33, 7)]


def peer(name):
    """Something of lightly's, or a skipped test; it only wants torchvision to be there."""
    import_torchvision()
    module, _, member = name.rpartition(".")
    return getattr(pytest.importorskip(module, reason="pip install --no-deps lightly==1.6.0"), member)


def pair(batch, dim, kind="related"):
    """Two views [batch, dim]; with ``duplicates`` every image is there twice."""
    rng = np.random.default_rng([batch, dim])
    first = rng.normal(size=(batch, dim))
    if kind == "duplicates":
        first[1::2] = first[: batch // 2 * 2 : 2]
    return [torch.tensor(z) for z in (first, first + 0.4 * rng.normal(size=(batch, dim)))]


def both(loss, views):
    """Value and gradients of a loss."""
    views = [view.clone().requires_grad_() for view in views]
    value = loss(*views)
    value.backward()
    return value.item(), torch.cat([view.grad for view in views])


def assert_ratio(ours, theirs, views, *, ratio=1.0):
    """Ours is theirs times the ratio, value and gradient."""
    mine, other = both(ours, views), both(theirs, views)
    assert mine[0] == pytest.approx(ratio * other[0], rel=1e-10)
    torch.testing.assert_close(mine[1], ratio * other[1], rtol=0, atol=1e-10 * float(other[1].abs().max()))


@pytest.mark.parametrize("kind", ["related", "duplicates"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_nt_xent(size, kind, temperature):
    theirs = peer("lightly.loss.NTXentLoss")(temperature=temperature)
    assert_ratio(lambda *z: nt_xent(*z, temperature=temperature), theirs, pair(*size, kind))


@pytest.mark.parametrize("kind", ["related", "duplicates"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("weight", [0.0051, 0.5])
def test_barlow_twins(size, kind, weight):
    theirs = peer("lightly.loss.BarlowTwinsLoss")(lambda_param=weight)
    assert_ratio(lambda *z: barlow_twins(*z, off_diagonal=weight), theirs, pair(*size, kind))


def test_an_unbiased_deviation_would_make_another_loss():
    """As one library has it: 1.9 times the loss at 16 images, and a gradient of another direction."""
    views = pair(16, 32)

    def unbiased(one, two):
        one, two = ((z - z.mean(0)) / z.std(0) for z in (one, two))
        c = one.mT @ two / 16
        return 0.0051 * c.square().sum() + (c.diagonal() - 1).square().sum() - 0.0051 * c.diagonal().square().sum()

    mine, other = both(lambda *z: barlow_twins(*z, off_diagonal=0.0051), views), both(unbiased, views)
    assert other[0] / mine[0] > 1.05
    cosine = torch.nn.functional.cosine_similarity(mine[1].flatten(), other[1].flatten(), dim=0)
    assert cosine < 0.999


@pytest.mark.parametrize("kind", ["related", "duplicates"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (10.0, 5.0, 3.0)])
def test_vicreg(size, kind, weights):
    theirs = peer("lightly.loss.VICRegLoss")(*weights)
    named = dict(zip(("invariance", "variance", "covariance"), weights, strict=True))
    assert_ratio(lambda *z: vicreg(*z, **named), theirs, pair(*size, kind))


@pytest.mark.parametrize("size", SIZES)
def test_cosine(size):
    theirs = peer("lightly.loss.NegativeCosineSimilarity")()
    assert_ratio(one_minus_cosine, lambda *z: 1 + theirs(*z), pair(*size))


@pytest.mark.parametrize("size", SIZES)
def test_byol_is_twice_two_and_two_cosines(size):
    theirs = peer("lightly.loss.NegativeCosineSimilarity")()
    prediction, target = pair(*size)
    assert_ratio(lambda p: byol.distance(p, target), lambda p: 2 + 2 * theirs(p, target), [prediction])


def one_step(optimizer, decay):
    """What a first step takes from a weight, whose gradient is always the same."""
    rng = np.random.default_rng(0)
    weight = torch.nn.Parameter(torch.tensor(rng.normal(size=(6, 5))))
    weight.grad = torch.tensor(0.1 * rng.normal(size=(6, 5)))
    before = weight.detach().clone()
    optimizer(weight, decay).step()
    return before - weight.detach(), before, weight.grad


def ours(weight, decay):
    module = torch.nn.Module()
    module.weight = weight
    return build_optimizer(module, Training(optimizer="lars", learning_rate=0.5, weight_decay=decay))


def theirs(weight, decay):
    return peer("lightly.utils.lars.LARS")([weight], lr=0.5, momentum=0.9, weight_decay=decay)


@pytest.mark.parametrize("decay", [1e-6, 0.1])
def test_lars_differs_by_the_norm_that_is_trusted(decay):
    """Theirs divides by |g| + decay |w|, the published by |g + decay w|: all but the same while decay is small."""
    mine, weight, gradient = one_step(ours, decay)
    other = one_step(theirs, decay)[0]
    ratio = (gradient + decay * weight).norm() / (gradient.norm() + decay * weight.norm())
    torch.testing.assert_close(other, ratio * mine, rtol=1e-6, atol=0)
    assert (ratio > 0.9999) == (decay < 1e-3)


def test_lars_of_theirs_is_plain_momentum_without_decay():
    mine, weight, gradient = one_step(ours, 0.0)
    other = one_step(theirs, 0.0)[0]
    torch.testing.assert_close(other, 0.5 * gradient, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(mine, 0.5e-3 * weight.norm() / gradient.norm() * gradient, rtol=1e-9, atol=1e-14)


def test_twenty_steps_of_lightly_parts_end_where_ours_do():
    """Loss, LARS and weight decay together; decay so small that the two kinds of trust agree."""
    rng = np.random.default_rng(0)
    images = torch.tensor(rng.normal(size=(20, 16, 8)))
    loss, ends = peer("lightly.loss.BarlowTwinsLoss")(lambda_param=0.0051), []
    for optimizer, criterion in (
        (ours, lambda *z: barlow_twins(*z, off_diagonal=0.0051)),
        (theirs, loss),
    ):
        weight = torch.nn.Parameter(torch.tensor(np.random.default_rng(1).normal(size=(5, 8))))
        steps = optimizer(weight, 1e-9)
        for batch in images:
            steps.zero_grad()
            criterion(batch @ weight.mT, (batch + 0.1 * batch.roll(1, 0)) @ weight.mT).backward()
            steps.step()
        ends.append(weight.detach())
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("local_views", [0, 2])
def test_dino(local_views):
    rng = np.random.default_rng(local_views)
    student, teacher = (torch.tensor(rng.normal(size=(6, v, 10))) for v in (2 + local_views, 2))
    center = torch.tensor(rng.normal(size=10))
    # theirs holds the temperature in float32: one that is exact there
    theirs = peer("lightly.loss.DINOLoss")(output_dim=10, teacher_temp=0.0625, student_temp=0.1).double()

    def by_theirs(outputs):
        theirs.center = center.reshape(1, 1, 10).clone()
        return theirs(list(teacher.unbind(1)), list(outputs.unbind(1)))

    targets = dino.distribution(teacher - center, temperature=0.0625)
    assert_ratio(lambda outputs: dino.cross_entropy(outputs, targets, temperature=0.1), by_theirs, [student])
    wanted = 0.9 * center + 0.1 * teacher.mean(dim=(0, 1))
    torch.testing.assert_close(theirs.center.flatten(), wanted, rtol=1e-12, atol=0)
