import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from curate.pretraining.methods import METHODS, default_recipe, find_recipe, load_method, simclr
from curate.pretraining.methods.simclr import nt_xent
from curate.pretraining.recipe import Training
from curate.pretraining.sample import Seen
from embeddings.encoders.networks import Network
from embeddings.errors import UnknownNameError, UsageError


def reference(first, second, temperature):
    """The paper's double loop in numpy: mean over 2B anchors, only the anchor itself left out of the denominator."""
    z = np.concatenate([first, second])
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    total, count = 0.0, len(z)
    for i in range(count):
        partner = (i + count // 2) % count
        denominator = sum(math.exp(z[i] @ z[j] / temperature) for j in range(count) if j != i)
        total -= math.log(math.exp(z[i] @ z[partner] / temperature) / denominator)
    return total / count


def views(batch, dim, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, dim)), rng.normal(size=(batch, dim))


def loss(first, second, temperature=0.2):
    return nt_xent(torch.tensor(first), torch.tensor(second), temperature=temperature).item()


@given(st.integers(1, 9), st.integers(1, 8), st.sampled_from([0.07, 0.2, 0.5, 1.0]))
def test_equals_the_double_loop(batch, dim, temperature):
    first, second = views(batch, dim)
    assert loss(first, second, temperature) == pytest.approx(reference(first, second, temperature), abs=1e-10)


def test_gradient_equals_finite_differences_of_the_double_loop():
    first, second = views(3, 4)
    z = torch.tensor(first, requires_grad=True)
    nt_xent(z, torch.tensor(second), temperature=0.3).backward()
    step = 1e-5
    for i, j in np.ndindex(3, 4):
        up, down = first.copy(), first.copy()
        up[i, j] += step
        down[i, j] -= step
        slope = (reference(up, second, 0.3) - reference(down, second, 0.3)) / (2 * step)
        assert z.grad[i, j].item() == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_collapsed_views_give_the_chance_loss(batch):
    same = np.ones((batch, 5))
    assert loss(same, same) == pytest.approx(math.log(2 * batch - 1), abs=1e-12)
    assert simclr.chance_loss(simclr.RECIPES["scratch"], batch) == math.log(2 * batch - 1)


def test_perfect_pairs_at_right_angles_by_hand():
    eye = np.eye(4)
    wanted = math.log(1 + 6 * math.exp(-1 / 0.5))  # six other views at cosine 0
    assert loss(eye, eye, 0.5) == pytest.approx(wanted, abs=1e-12)


def test_does_not_change_under_what_should_not_matter():
    first, second = views(6, 4)
    value = loss(first, second)
    order = np.random.default_rng(1).permutation(6)
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(4, 4)))[0]
    assert loss(first[order], second[order]) == pytest.approx(value, abs=1e-12)
    assert loss(second, first) == pytest.approx(value, abs=1e-12)
    assert loss(first @ rotation, second @ rotation) == pytest.approx(value, abs=1e-12)
    assert loss(7 * first, second / 3) == pytest.approx(value, abs=1e-12)
    assert loss(first, second[order]) != pytest.approx(value, abs=1e-3)


def test_partner_stays_in_the_denominator():
    first, second = views(1, 3)
    assert loss(first, second) == 0  # the partner is all there is


def test_learner_gives_the_loss_of_its_own_projections():
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    network = Network("toy", backbone, dim=6, mean=0.0, std=1.0)
    learner = simclr.build(network, simclr.Config(training=simclr.RECIPES["scratch"].training, dim=5))
    pair = [torch.randn(8, 3, 2, 2) for _ in range(2)]
    output = learner.encode(Seen(pair, None, seed=0))
    first, second = learner.head(backbone(torch.cat(pair))).chunk(2)
    found = learner.loss(learner.project(output.parts), share=0.5)
    assert found.item() == pytest.approx(nt_xent(first, second, temperature=0.2).item())
    assert torch.equal(output.features, backbone(torch.cat(pair)))
    assert learner.backbone is backbone


def test_unknown_method_and_recipes():
    with pytest.raises(UnknownNameError, match="simcrl"):
        load_method("simcrl")
    for name in METHODS:
        method = load_method(name)
        for init in ("scratch", "public", "run"):
            assert len(method.views(default_recipe(name, init))) >= 1
    with pytest.raises(UnknownNameError, match="papper"):
        find_recipe("simclr", "papper")


@pytest.mark.parametrize(
    "wrong", [{"batch": 1}, {"learning_rate": 0}, {"weight_decay": -1}, {"warmup": 1.0}, {"momentum": 1.0}]
)
def test_impossible_recipes_are_refused(wrong):
    good = {"optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 0.0}
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Training(**good | wrong)


def test_impossible_configs_are_refused():
    training = Training(optimizer="adamw", learning_rate=0.1, weight_decay=0.0)
    with pytest.raises(UsageError):
        simclr.Config(training=training, temperature=0)
    with pytest.raises(UnknownNameError):
        simclr.Config(training=training, augmentation=("none",))
    with pytest.raises(UsageError, match="width"):
        simclr.Config(training=training, width=0)
    with pytest.raises(UnknownNameError):
        Training(optimizer="adam", learning_rate=0.1, weight_decay=0.0)


def test_head_is_as_wide_as_the_features_unless_told():
    network = Network("toy", nn.Linear(12, 6), dim=6, mean=0.0, std=1.0)
    for name, width in (("scratch", 6), ("paper", 2048)):
        head = simclr.build(network, simclr.RECIPES[name]).head
        assert [type(layer) for layer in head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d]
        assert (head[0].out_features, head[3].out_features) == (width, 128)
        assert head[0].bias is None
        assert head[3].bias is None


def test_published_recipes():
    paper, root, code, small = (simclr.RECIPES[name] for name in ("paper", "paper-sqrt", "code", "small-batch"))
    for batch in (256, 1024, 4096):
        assert paper.training.peak(batch) == pytest.approx(0.3 * batch / 256)
        assert root.training.peak(batch) == pytest.approx(0.075 * math.sqrt(batch))
    assert paper.training.peak(4096) == pytest.approx(4.8)
    assert root.training.peak(4096) == pytest.approx(4.8)
    assert (paper.temperature, paper.training.weight_decay, paper.scale) == (0.1, 1e-6, 1)
    assert (code.training.weight_decay, code.scale) == (1e-4, 2)
    assert simclr.chance_loss(code, 100) == 2 * math.log(199)
    assert (small.temperature, small.training.peak(512), small.training.weight_decay) == (0.5, 2.0, 1e-4)
    assert [preset.blur for preset in simclr.views(small)] == [0, 0]
