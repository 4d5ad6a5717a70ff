"""Twenty steps end where a loop ends that is written out plainly: whole batches, one formula, one update rule."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from curate.pretraining.gradients import Step, backward
from curate.pretraining.methods import load_method
from curate.pretraining.optimizers import build_optimizer, set_rates
from curate.pretraining.recipe import Training
from curate.pretraining.sample import Sample, Seen
from embeddings.encoders.networks import Network

STEPS, BATCH, EDGE, WARMUP, RATE, DECAY, MOMENTUM = 20, 8, 4, 0.1, 0.02, 0.01, 0.9
KNOBS = {
    "barlow": {"width": 6, "off_diagonal": 0.1, "scale": 0.5},
    "distill": {},
    "simclr": {"dim": 6, "temperature": 0.5},
    "vicreg": {"width": 6},
}


def build(name):
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * EDGE * EDGE, 9), nn.Tanh(), nn.Linear(9, 5))
    training = Training(
        optimizer="sgd", learning_rate=RATE, weight_decay=DECAY, momentum=MOMENTUM, warmup=WARMUP, scaling=0.0
    )
    method = load_method(name)
    learner = method.build(
        Network("toy", layers, dim=5, mean=0.0, std=1.0), method.Config(training=training, **KNOBS[name])
    )
    return learner.double().train(), training


def batches(views):
    rng = np.random.default_rng(0)
    sample = Sample(np.zeros((BATCH, 3, EDGE, EDGE), np.uint8), np.arange(BATCH, dtype=np.uint64), np.zeros(BATCH, int))
    for _ in range(STEPS):
        image = rng.normal(size=(BATCH, 3, EDGE, EDGE))
        drawn = [torch.from_numpy(image + 0.3 * rng.normal(size=image.shape)) for _ in range(views)]
        yield Seen(drawn, sample, seed=0)


def barlow(learner, first, second):
    total = 0.0
    one, two = (learner.projector(learner.backbone(view)) for view in (first, second))
    one, two = ((z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt() for z in (one, two))
    for i, j in np.ndindex(6, 6):
        c = (one[:, i] * two[:, j]).mean()
        total = total + ((1 - c) ** 2 if i == j else 0.1 * c**2)
    return 0.5 * total


def vicreg(learner, first, second):
    one, two = (learner.expander(learner.backbone(view)) for view in (first, second))
    total = 25 * ((one - two) ** 2).mean()
    for z in (one, two):
        moments = torch.cov(z.T)
        total = total + 12.5 * (1 - (moments.diagonal() + 1e-4).sqrt()).clamp(min=0).mean()
        total = total + (moments**2).sum() / 6 - (moments.diagonal() ** 2).sum() / 6
    return total


def simclr(learner, first, second):
    z = learner.head(learner.backbone(torch.cat([first, second])))
    z = z / z.norm(dim=1, keepdim=True)
    total, similar = 0.0, (z @ z.T / 0.5).exp()
    for i in range(2 * BATCH):
        total = total - (similar[i, (i + BATCH) % (2 * BATCH)] / (similar[i].sum() - similar[i, i])).log()
    return total / (2 * BATCH)


class Distill:
    """Keeps all that the teacher ever said."""

    def __init__(self):
        self.said = []

    def __call__(self, learner, view):
        known = learner.teacher(view)
        target = known
        if self.said:
            earlier = torch.cat(self.said)
            variance = earlier.var(dim=0, correction=0)
            target = (known - earlier.mean(dim=0)) / (variance + 1e-4 * variance.mean()).sqrt()
        self.said.append(known)
        guess = learner.head(learner.backbone(view))
        return (1 - (guess * target).sum(1) / (guess.norm(dim=1) * target.norm(dim=1))).mean()


def rate(share):
    return RATE * share / WARMUP if share < WARMUP else RATE * (1 + math.cos(math.pi * (share - 0.1) / 0.9)) / 2


def train_plainly(learner, seen_batches, loss):
    """Momentum SGD by hand, decay on matrices only; returns the losses."""
    weights = [p for p in learner.parameters() if p.requires_grad]
    moved, losses = [torch.zeros_like(p) for p in weights], []
    for k, seen in enumerate(seen_batches):
        value = loss(learner, *seen.views)
        losses.append(value.item())
        gradients = torch.autograd.grad(value, weights)
        with torch.no_grad():
            for weight, gradient, m in zip(weights, gradients, moved, strict=True):
                m.mul_(MOMENTUM).add_(gradient + (DECAY * weight if weight.ndim > 1 else 0))
                weight.sub_(rate((k + 0.5) / STEPS) * m)
    return losses


def train(learner, seen_batches, training):
    """As the trainer does, each batch in three unequal chunks; returns the losses."""
    optimizer, losses = build_optimizer(learner, training), []
    for k, seen in enumerate(seen_batches):
        share = (k + 0.5) / STEPS
        set_rates(optimizer, training, share=share, batch=BATCH)
        optimizer.zero_grad()
        losses.append(backward(learner, seen, Step(share=share, images=BATCH, chunks=3)).loss.item())
        optimizer.step()
        getattr(learner, "after_step", lambda share: None)(share)
    return losses


@pytest.mark.usefixtures("tiny_teacher")
@pytest.mark.parametrize(
    ("name", "loss"), [("barlow", barlow), ("distill", Distill()), ("simclr", simclr), ("vicreg", vicreg)]
)
def test_twenty_steps_end_where_a_plain_loop_ends(name, loss):
    learner, training = build(name)
    plain, start = copy.deepcopy(learner), copy.deepcopy(learner.state_dict())
    views = 1 if name == "distill" else 2
    wanted = train_plainly(plain, batches(views), loss)
    found = train(learner, batches(views), training)
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    for key, weight in learner.named_parameters():
        torch.testing.assert_close(weight, plain.get_parameter(key), rtol=1e-9, atol=1e-11, msg=key)
    assert found[-1] != pytest.approx(found[0], rel=1e-3)
    assert not torch.equal(learner.backbone[1].weight, start["backbone.1.weight"])


@pytest.mark.usefixtures("tiny_teacher")
@pytest.mark.parametrize("name", KNOBS)
def test_the_same_steps_twice_are_the_same(name):
    ends = []
    for _ in range(2):
        learner, training = build(name)
        train(learner, batches(1 if name == "distill" else 2), training)
        ends.append(learner.state_dict())
    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())
