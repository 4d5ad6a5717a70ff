import copy

import pytest
import torch
from torch import nn

from curate.pretraining.depthwise import SmallMapConv2d, speed_up_small_maps
from embeddings.encoders.networks import build_network


def depthwise(kernel, channels=3, *, bias=False):
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=bias).double()


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (4, 4), (1, 3), (2, 9), (9, 9)])
@pytest.mark.parametrize("bias", [False, True])
def test_values_and_gradients_are_those_of_the_convolution(kernel, shape, bias):
    torch.manual_seed(0)
    plain = depthwise(kernel, bias=bias)
    fast = copy.deepcopy(plain)
    speed_up_small_maps(fast)
    assert type(fast) is SmallMapConv2d
    x = torch.randn(4, 3, *shape, dtype=torch.float64, requires_grad=True)
    wanted, found = plain(x), fast(x)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)
    weight = torch.randn_like(wanted)
    slopes = (
        torch.autograd.grad(wanted, (x, *plain.parameters()), weight),
        torch.autograd.grad(found, (x, *fast.parameters()), weight),
    )
    for one, two in zip(*slopes, strict=True):
        torch.testing.assert_close(one, two, atol=1e-12, rtol=0)


def test_only_the_layers_it_is_right_for_change():
    stride = nn.Conv2d(3, 3, 3, 2, padding=1, groups=3, bias=False)
    dense, wide = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.Conv2d(3, 6, 3, padding=1, groups=3, bias=False)
    valid = nn.Conv2d(3, 3, 3, groups=3, bias=False)
    layers = nn.ModuleList([stride, dense, wide, valid, depthwise(5)])
    speed_up_small_maps(layers)
    assert [type(layer) is SmallMapConv2d for layer in layers] == [False] * 4 + [True]


def test_lite0_keeps_its_names_its_values_and_its_gradients():
    plain = build_network("lite0", init="public").module
    fast = copy.deepcopy(plain)
    speed_up_small_maps(fast)
    assert sum(isinstance(layer, SmallMapConv2d) for layer in fast.modules()) >= 8
    assert fast.state_dict().keys() == plain.state_dict().keys()
    x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for network in (plain, fast):
        network.eval()(x).square().mean().backward()
    for (name, one), two in zip(plain.named_parameters(), fast.parameters(), strict=True):
        scale = one.grad.abs().max().item()
        torch.testing.assert_close(two.grad, one.grad, atol=1e-4 * scale, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
