"""Folding batch norms changes nothing but the rounding."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from embeddings.encoders.folding import count_batch_norms, fold_batch_norms, fold_if_equal
from embeddings.encoders.networks import build_network
from embeddings.encoders.torchvision_import import import_torchvision


@pytest.mark.parametrize(
    ("name", "size"), [("lite0", 64), ("tiny-resnet", 32), ("resnet18", 64), ("resnet18-small", 32), ("resnet50", 64)]
)
def test_same_function_without_batch_norms(name, size):
    module = build_network(name, seed=1).module
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):  # as after training
            layer.running_mean.normal_(0, 0.1, generator=generator)
            layer.running_var.uniform_(0.5, 1.5, generator=generator)
            nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(layer.bias, 0, 0.1, generator=generator)
    x = torch.randn(3, 3, size, size, generator=generator)
    with torch.no_grad():
        wanted = copy.deepcopy(module).eval()(x)
        folded = fold_batch_norms(module)
        found = folded(x)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    assert not any(p.dtype != torch.float32 for p in folded.parameters())
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


def test_a_batch_norm_before_its_convolution_is_left_alone():
    module = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4))
    assert [type(layer) for layer in fold_batch_norms(module)] == [nn.BatchNorm2d, nn.Conv2d, nn.ReLU, nn.BatchNorm2d]


class Backwards(nn.Module):
    """Holds its layers in another order than it calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Flatten()
        nn.init.constant_(self.norm.bias, 2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.conv(self.norm(x)))


def test_a_network_of_others_is_folded_only_if_that_changes_nothing():
    backwards, residual = Backwards(), import_torchvision().models.resnet18()
    assert fold_if_equal(backwards, 8) is backwards
    assert count_batch_norms(backwards) == 1
    folded = fold_if_equal(residual, 64)
    assert (count_batch_norms(residual), count_batch_norms(folded)) == (20, 0)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), residual(x), rtol=1e-4, atol=1e-4)


def test_a_network_without_batch_norms_is_not_even_copied():
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten())
    assert fold_if_equal(plain, 8) is plain
