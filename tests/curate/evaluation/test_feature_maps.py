"""Which layers of a network are looked at, and that their maps are what the network computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from curate.evaluation.examinations._feature_maps import FeatureMaps, _as_map, middle_blocks, middle_stages
from embeddings.encoders import build_network, get_encoder
from embeddings.encoders.torch_encoder import Placement, TorchEncoder
from embeddings.encoders.transform import Transform
from embeddings.spec import EncoderSpec


def encoder_of(name, size):
    network = build_network(name, size=size)
    spec = EncoderSpec(name=name, dim=network.dim, size=size, preprocessing="", weights="")
    transform = Transform(size=size, mean=network.mean, std=network.std)
    return TorchEncoder(network.module, spec=spec, transform=transform, placement=Placement.choose("cpu"))


@pytest.mark.parametrize(
    ("name", "size", "layers", "edges"),
    [
        ("lite0", 64, ["blocks.2", "blocks.4"], (8, 4)),
        ("tiny-resnet", 32, ["4", "5"], (16, 8)),
        ("resnet18-small", 32, ["layer2", "layer3"], (16, 8)),
        ("resnet18", 64, ["layer2", "layer3"], (8, 4)),
        ("convnext-tiny", 64, ["features.3", "features.5"], (8, 4)),
        ("tiny-vit", 32, ["blocks.1", "blocks.2"], (8, 8)),
    ],
)
def test_layers_in_the_middle(name, size, layers, edges):
    maps = FeatureMaps.of(encoder_of(name, size))
    assert maps.layers == layers
    found = maps(np.random.default_rng(0).integers(0, 256, (3, size, size, 3)).astype(np.uint8))
    assert tuple(m.shape[2] for m in found) == tuple(m.shape[3] for m in found) == edges
    assert all(len(m) == 3 and m.dtype == torch.float32 for m in found)


def test_maps_are_those_of_the_network_itself():
    encoder, size = encoder_of("tiny-resnet", 32), 32
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype(np.uint8)
    mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in (encoder.prepare.mean, encoder.prepare.std))
    x = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - mean) / std
    with torch.inference_mode():
        wanted = [encoder.module[:5](x), encoder.module[:6](x)]
    for found, expected in zip(FeatureMaps.of(encoder)(pixels), wanted, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_tokens_lie_row_by_row_without_the_class_token():
    tokens = torch.tensor([[[-1.0], [-2], [0], [1], [2], [3]]])  # two others, then a 2 x 2 grid
    assert _as_map(tokens).tolist() == [[[[0, 1], [2, 3]]]]
    encoder = encoder_of("tiny-vit", 32)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)
    seen = []
    hook = encoder.module.blocks[1].register_forward_hook(lambda *args: seen.append(args[-1].clone()))
    first, _ = FeatureMaps.of(encoder)(pixels)
    hook.remove()
    assert first[0, :, 2, 5].tolist() == seen[-1][0, 1 + 2 * 8 + 5].tolist()


def test_channels_last_come_first():
    assert _as_map(torch.zeros(2, 4, 4, 7)).shape == _as_map(torch.zeros(2, 7, 4, 4)).shape == (2, 7, 4, 4)


def test_batches_that_did_not_fit_leave_nothing_behind(monkeypatch):
    encoder = encoder_of("tiny-resnet", 32)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)
    maps = FeatureMaps.of(encoder)
    wanted, last = maps(pixels), encoder.module[6]
    tight = last.register_forward_pre_hook(lambda _, inputs: None if len(inputs[0]) <= 4 else _no_memory())
    found = maps(pixels)
    tight.remove()
    assert encoder.lot == 4
    for after, before in zip(found, wanted, strict=True):
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def _no_memory():
    raise torch.OutOfMemoryError


def test_hooks_are_gone_afterwards():
    encoder = encoder_of("tiny-resnet", 32)
    FeatureMaps.of(encoder)(np.zeros((1, 32, 32, 3), np.uint8))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in encoder.module.modules())


def test_what_has_no_maps():
    assert FeatureMaps.of(get_encoder("color-texture")) is None
    assert middle_stages({"": (2, 8), "a": (2, 4, 1, 1), "b": (2, 4, 6, 6)}) == []
    assert middle_blocks({"": (2, 8), "0": (2, 3, 8), "1": (6, 16, 8)}) == []


def test_the_outermost_of_the_last_layers_of_a_resolution():
    shapes = {
        "stem": (2, 4, 16, 16), "a.0": (2, 4, 8, 8), "a.1.x": (2, 9, 8, 8), "a.1": (2, 4, 8, 8),
        "b.0.wide": (2, 20, 8, 8),
        "b.0": (2, 8, 4, 4), "b": (2, 8, 4, 4), "c.0": (2, 8, 2, 2), "pool": (2, 8, 1, 1), "": (2, 8),
    }  # fmt: skip
    assert middle_stages(shapes) == ["a.1", "b"]
