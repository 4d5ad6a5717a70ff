"""A frozen batch norm inside the convolution before it changes nothing but the rounding."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from curate.pretraining.adaptation import Adaptation
from curate.pretraining.depthwise import speed_up_small_maps
from curate.pretraining.frozen_norms import fold_frozen_norms
from embeddings.encoders.networks import build_network


def used(name, size):
    """A network whose norms are not what they were at the start, in float64."""
    module = build_network(name, seed=1, size=size).module.double()
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1, generator=generator)
            layer.running_var.uniform_(0.5, 1.5, generator=generator)
            nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(layer.bias, 0, 0.1, generator=generator)
    return module


def folded_count(module):
    return sum(type(layer).__name__ == "FoldedNorm" for layer in module.modules())


def gradients(module, x):
    module.zero_grad()
    features = module(x)
    features.square().mean().backward()
    return features, {name: p.grad.clone() for name, p in module.named_parameters()}


@pytest.mark.parametrize(("name", "size"), [("lite0", 64), ("tiny-resnet", 32), ("resnet18", 64)])
def test_features_and_gradients_are_those_of_the_plain_network(name, size):
    plain = used(name, size)
    folded = copy.deepcopy(plain)
    speed_up_small_maps(folded)
    fold_frozen_norms(folded, size)
    fold_frozen_norms(folded, size)  # a second time changes nothing
    assert folded_count(folded) == sum(isinstance(layer, nn.BatchNorm2d) for layer in plain.modules())
    assert folded.state_dict().keys() == plain.state_dict().keys()
    x = torch.randn(3, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (wanted, slopes), (found, again) = gradients(plain.eval(), x), gradients(folded.eval(), x)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    for key, slope in slopes.items():
        torch.testing.assert_close(again[key], slope, rtol=1e-7, atol=1e-10, msg=lambda m, k=key: f"{k}: {m}")


def test_norms_that_take_their_statistics_from_the_batch_do_so_as_before():
    plain = used("tiny-resnet", 32).train()
    folded = copy.deepcopy(plain)
    fold_frozen_norms(folded, 32)
    assert folded.training
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(folded(x), plain(x), rtol=0, atol=0)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(folded.state_dict()[name], value, rtol=0, atol=0)


def test_a_step_of_the_optimizer_reaches_the_parameters_and_a_copy_is_a_network_of_its_own():
    folded = used("tiny-resnet", 32).eval()
    fold_frozen_norms(folded, 32)
    twin = copy.deepcopy(folded)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    before = folded(x)
    optimizer = torch.optim.SGD(folded.parameters(), lr=0.1)
    gradients(folded, x)
    optimizer.step()
    assert not torch.equal(folded(x), before)
    torch.testing.assert_close(twin(x), before, rtol=0, atol=0)


class Backwards(nn.Module):
    """Holds its layers in another order than it calls them."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Flatten()
        nn.init.constant_(self.norm.bias, 2.0)

    def forward(self, x):
        return self.last(self.conv(self.norm(x)))


def test_a_network_that_calls_its_layers_in_another_order_is_left_alone():
    module = Backwards()
    fold_frozen_norms(module, 8)
    assert folded_count(module) == 0
    assert module.training


def test_a_network_without_such_pairs_is_left_alone():
    module = nn.Flatten()
    fold_frozen_norms(module, 8)
    assert type(module) is nn.Flatten


def test_convolutions_with_a_low_rank_change_keep_their_norms():
    module = used("tiny-resnet", 32)
    Adaptation("lora", 2).apply(module, seed=0)
    fold_frozen_norms(module, 32)
    assert folded_count(module) == 0
