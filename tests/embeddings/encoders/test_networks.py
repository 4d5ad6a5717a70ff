"""Trainable networks: shapes, seeds, public weights, and no trace in the global random state."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from embeddings.encoders.networks import BUILDERS, build_network
from embeddings.errors import MissingExtraError, UnknownNameError, UsageError

TABLE = [
    ("lite0", 64, 1280, 3.37),
    ("resnet18", 64, 512, 11.18),
    ("resnet18-small", 32, 512, 11.17),
    ("resnet34", 64, 512, 21.28),
    ("resnet50", 64, 2048, 23.51),
    ("resnet50-small", 32, 2048, 23.50),
    ("convnext-tiny", 64, 768, 27.82),
    ("tiny-vit", 32, 128, 0.81),
    ("vit-ti", 64, 192, 5.39),
    ("vit-s", 64, 384, 21.39),
    ("vit-b", 64, 768, 85.25),
    ("tiny-resnet", 32, 128, 0.31),
]


@pytest.mark.parametrize(("name", "size", "dim", "millions"), TABLE)
def test_features_are_pooled_and_the_classifier_is_gone(name, size, dim, millions):
    with torch.device("meta"):  # shapes only
        network = build_network(name, size=size)
        assert (network.name, network.dim, network.module.training) == (name, dim, True)
        assert network.module.eval()(torch.zeros(2, 3, size, size)).shape == (2, dim)
    assert sum(p.numel() for p in network.module.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


def test_the_table_above_names_every_network():
    assert set(BUILDERS) == {row[0] for row in TABLE}


@pytest.mark.parametrize("name", ["tiny-resnet", "resnet18-small", "lite0", "tiny-vit"])
def test_a_seed_fixes_the_weights_and_the_global_state_stays(name):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second, other = (build_network(name, seed=seed).module.state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


@pytest.mark.parametrize("name", ["tiny-resnet", "resnet18-small"])
def test_convolutions_start_from_he_s_variance(name):
    """Kaiming normal over the fan out: variance 2 / (channels out * kernel area)."""
    for layer in build_network(name).module.modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 5_000:
            fan_out = layer.out_channels * layer.kernel_size[0] * layer.kernel_size[1]
            assert layer.weight.var().item() == pytest.approx(2 / fan_out, rel=0.1)


def test_small_networks_keep_the_resolution_in_the_stem():
    module = build_network("resnet18-small").module
    x = torch.zeros(1, 3, 32, 32)
    assert module.maxpool(module.conv1(x)).shape[-1] == 32
    assert build_network("tiny-resnet").module[:4].eval()(x).shape[-1] == 32


def test_tiny_resnet_learns():
    torch.manual_seed(0)
    network = build_network("tiny-resnet").module
    head, x = nn.Linear(128, 2), torch.randn(16, 3, 32, 32)
    y = torch.arange(16) % 2
    x[y == 1] += 0.5
    optimizer = torch.optim.SGD([*network.parameters(), *head.parameters()], lr=0.05)
    losses = []
    for _ in range(8):
        loss = nn.functional.cross_entropy(head(network(x)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_unknown_names_show_the_nearest():
    with pytest.raises(UnknownNameError, match="resnet18-small"):
        build_network("resnet18_small")
    with pytest.raises(UnknownNameError, match="scratch"):
        build_network("lite0", init="imagenet")


@pytest.mark.parametrize(
    "name", ["tiny-resnet", "resnet18-small", "resnet50-small", "tiny-vit", "timm:efficientnet_lite1"]
)
def test_networks_without_public_weights_say_so(name):
    with pytest.raises(UsageError, match="no public weights"):
        build_network(name, init="public")


def test_public_resnet_comes_from_the_hub_cache(hub_cache):
    hub_cache("resnet18", seed=9)
    network = build_network("resnet18", init="public")
    with torch.random.fork_rng():
        torch.manual_seed(9)
        from embeddings.encoders.torchvision_import import import_torchvision

        wanted = import_torchvision().models.resnet18()
    assert torch.equal(network.module.layer1[0].conv1.weight, wanted.layer1[0].conv1.weight)


def test_absent_public_weights_name_the_file_and_the_place(hub_cache, offline):
    with pytest.raises(MissingExtraError, match=r"torchvision:resnet50 .* cannot be downloaded") as caught:
        build_network("resnet50", init="public")
    assert re.search(r"weights/torchvision/resnet50-\w+\.pth", caught.value.hint)
