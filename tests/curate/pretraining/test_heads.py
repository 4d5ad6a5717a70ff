import pytest
import torch
from torch import nn

from curate.pretraining.methods._heads import is_transformer, mlp
from embeddings.encoders.networks import build_network
from embeddings.errors import UsageError


def kinds(head):
    return [type(layer).__name__ for layer in head]


def test_layers_in_order():
    assert kinds(mlp([3, 4, 5, 2], bias=True)) == [*["Linear", "BatchNorm1d", "ReLU"] * 2, "Linear"]
    assert kinds(mlp([3, 4, 2], bias=True, hidden_norm=False, activation=nn.GELU)) == ["Linear", "GELU", "Linear"]
    assert kinds(mlp([3, 2], bias=False, last_norm="plain")) == ["Linear", "BatchNorm1d"]


def test_widths():
    head = mlp([3, 4, 5, 2], bias=True)
    assert [tuple(layer.weight.shape) for layer in head if isinstance(layer, nn.Linear)] == [(4, 3), (5, 4), (2, 5)]
    assert head(torch.ones(6, 3)).shape == (6, 2)


@pytest.mark.parametrize(("bias", "wanted"), [(True, [1, 1]), (False, [0, 0]), ("hidden", [1, 0])])
def test_biases(bias, wanted):
    linear = [layer for layer in mlp([3, 4, 2], bias=bias) if isinstance(layer, nn.Linear)]
    assert [layer.bias is not None for layer in linear] == wanted


def test_the_last_norm_has_weights_or_none():
    torch.manual_seed(0)
    assert mlp([3, 4, 2], bias=False, last_norm="affine")[-1].affine
    plain = mlp([3, 4, 2], bias=False, last_norm="plain")
    assert not plain[-1].affine
    assert plain[1].affine
    out = plain(torch.randn(50, 3, generator=torch.Generator().manual_seed(0))).detach()
    assert out.mean(dim=0).abs().max() < 1e-6
    assert out.var(dim=0, correction=0) == pytest.approx(torch.ones(2), abs=1e-3)


def test_impossible_widths_are_refused():
    with pytest.raises(UsageError, match=r"\(3, 0, 2\)"):
        mlp([3, 0, 2], bias=True)


def test_which_networks_are_transformers():
    assert not is_transformer(build_network("tiny-resnet").module)
    patches = nn.Module()
    patches.patch_embed = nn.Conv2d(3, 4, 4, 4)
    assert is_transformer(patches)
