import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from curate.pretraining.backbones import resolve_backbone, save_backbone
from embeddings.encoders import get_encoder
from embeddings.encoders.checkpoint import load_backbone
from embeddings.encoders.networks import BUILDERS, build_network
from embeddings.encoders.transformers import patch_edge
from embeddings.errors import CorruptError, UnknownNameError, UsageError


@pytest.fixture
def run(tmp_path):
    network = build_network("tiny-resnet", seed=5)
    save_backbone(tmp_path, network, size=40)
    return tmp_path, network


@pytest.mark.parametrize(
    ("name", "init", "size", "wanted"),
    [
        (None, "scratch", None, ("tiny-resnet", 32, "scratch")),
        (None, "public", None, ("lite0", 64, "public")),
        ("lite0", "scratch", 96, ("lite0", 96, "scratch")),
        ("resnet18-small", "scratch", None, ("resnet18-small", 32, "scratch")),
        ("tiny-vit", "scratch", 28, ("tiny-vit", 28, "scratch")),
        ("vit-s", "scratch", None, ("vit-s", 128, "scratch")),
        ("timm:test_vit", "scratch", None, ("timm:test_vit", 160, "scratch")),
        ("torchvision:vit_b_16", "public", None, ("torchvision:vit_b_16", 224, "public")),
    ],
)
def test_what_is_left_open(name, init, size, wanted):
    found = resolve_backbone(name, init=init, size=size)
    assert (found.network, found.size, found.init) == wanted


def test_an_earlier_run_brings_its_network_size_and_weights(run):
    folder, network = run
    found = resolve_backbone(None, init=f"run:{folder}", size=None)
    assert (found.network, found.size, found.init) == ("tiny-resnet", 40, "run")
    assert len(found.weights) == 64
    built = found.build(seed=0).module.state_dict()
    assert all(torch.equal(tensor, built[name]) for name, tensor in network.module.state_dict().items())
    assert found.build(seed=0).module.training


def test_an_earlier_run_of_another_network_is_refused(run):
    with pytest.raises(UsageError, match=r"trained tiny-resnet; the backbone asked for is lite0"):
        resolve_backbone("lite0", init=f"run:{run[0]}", size=None)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="not a finished pretraining run"):
        resolve_backbone(None, init=f"run:{tmp_path}", size=None)


def test_what_was_trained_is_an_encoder_of_its_own_size(run):
    folder, network = run
    encoder = get_encoder(f"run:{folder}")
    assert (encoder.spec.size, encoder.spec.dim) == (40, network.dim)
    rng = np.random.default_rng(0)
    batch = rng.integers(0, 256, (encoder.batch_size, 40, 40, 3), dtype=np.uint8)
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (network.mean, network.std))
    with torch.no_grad():
        wanted = network.module.eval()((torch.from_numpy(batch).permute(0, 3, 1, 2) - mean) / std)
    assert encoder.encode(batch) == pytest.approx(wanted.numpy(), abs=1e-4)


def test_unknown_names():
    with pytest.raises(UnknownNameError, match="tiny-resnet"):
        resolve_backbone("tiny-resent", init="scratch", size=None)
    with pytest.raises(UnknownNameError, match="public"):
        resolve_backbone(None, init="publik", size=None)


@pytest.mark.parametrize(
    ("name", "init", "size", "wanted"),
    [
        ("tiny-resnet", "scratch", 0, "multiple of 4 from 28 to 516; its default is 32"),
        ("tiny-resnet", "scratch", 24, "multiple of 4"),
        ("tiny-resnet", "scratch", 33, "multiple of 4"),
        ("resnet18", "scratch", 520, "multiple of 8 from 32 to 512; its default is 128"),
        ("lite0", "public", 36, "multiple of 8"),
        ("convnext-tiny", "scratch", 48, "multiple of 32 from 32"),
        ("tiny-vit", "scratch", 30, "multiple of 4"),
        ("tiny-vit", "scratch", 60, "multiple of 8"),
        ("vit-s", "scratch", 120, "multiple of 16"),
        ("vit-s", "public", 40, "multiple of 16 from 32"),
        ("timm:test_vit", "scratch", 40, "multiple of 16 from 32 to 512; its default is 160"),
        ("torchvision:resnet18", "scratch", 16, "an edge from 28 to 518; its default is 224"),
        ("torchvision:vit_b_16", "scratch", 64, "default size of torchvision:vit_b_16 is 224 pixels"),
    ],
)
def test_sizes_that_a_network_does_not_take(name, init, size, wanted):
    with pytest.raises(UsageError, match=wanted):
        resolve_backbone(name, init=init, size=size)


@pytest.mark.parametrize("name", ["tiny-resnet", "tiny-vit", "timm:efficientnet_lite1"])
def test_no_public_weights(name):
    with pytest.raises(UsageError, match="no public weights"):
        resolve_backbone(name, init="public", size=None)


def encoded(encoder, batch):
    """What an encoder makes of pixels, and what its network should."""
    return encoder.encode(np.concatenate([batch] * (encoder.batch_size // len(batch) + 1))[: encoder.batch_size])[
        : len(batch)
    ]


@pytest.mark.parametrize(
    ("name", "size", "features"),
    [
        ("tiny-vit", 32, "class token"),
        ("tiny-vit", 64, "class token"),
        ("resnet50-small", 28, "pooled features"),
        ("timm:test_vit", 64, "class token"),
        ("timm:test_convnext", 64, "pooled features"),
        ("torchvision:mobilenet_v3_small", 64, "pooled features"),
    ],
)
def test_every_kind_of_network_comes_back_as_an_encoder(tmp_path, name, size, features):
    network = build_network(name, seed=5, size=size)
    save_backbone(tmp_path, network, size=size)
    encoder = get_encoder(f"run:{tmp_path}")
    batch = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (network.mean, network.std))
    with torch.no_grad():
        wanted = network.module.eval()((torch.from_numpy(batch).permute(0, 3, 1, 2) - mean) / std)
    np.testing.assert_allclose(encoded(encoder, batch), wanted.numpy(), rtol=1e-3, atol=1e-4)
    assert encoder.spec.name == f"run:{name}@{size}"
    assert encoder.spec.preprocessing.endswith(features)


def test_scaling_comes_from_the_run(tmp_path):
    """Public weights of a transformer were made for other means than those that are trained from scratch."""
    network = replace(build_network("tiny-vit", seed=5), mean=(127.5,) * 3, std=(127.5,) * 3)
    save_backbone(tmp_path, network, size=32)
    found, size = load_backbone(tmp_path)
    assert (found.mean, found.std, size) == ((127.5,) * 3, (127.5,) * 3, 32)


def test_a_transformer_goes_on_at_another_size_with_its_patches(tmp_path):
    network = build_network("tiny-vit", seed=5, size=32)
    save_backbone(tmp_path, network, size=32)
    chosen = resolve_backbone(None, init=f"run:{tmp_path}", size=64)
    built = chosen.build(seed=0)
    assert (patch_edge(built.module), built.module.pos_embed.shape[1]) == (4, 257)
    save_backbone(tmp_path / "next", built, size=64)
    found, size = load_backbone(tmp_path / "next")
    assert size == 64
    assert torch.equal(found.module.pos_embed, built.module.pos_embed)
    with pytest.raises(UsageError, match="multiple of 4"):
        resolve_backbone(None, init=f"run:{tmp_path}", size=54)


@pytest.mark.parametrize(
    "facts", [{"patch": 8}, {"patch": "4"}, {"size": 64}, {"size": None}, {"mean": "red"}, {"std": None}]
)
def test_facts_that_do_not_fit_the_weights_are_refused(tmp_path, facts):
    save_backbone(tmp_path, build_network("tiny-vit", seed=5), size=32)
    path = tmp_path / "backbone.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))
    with pytest.raises(CorruptError, match="does not read back"):
        load_backbone(tmp_path)


@pytest.mark.parametrize("name", BUILDERS)
def test_every_network_takes_its_default_size(name):
    size = resolve_backbone(name, init="scratch", size=None).size
    with torch.device("meta"):
        network = build_network(name, size=size)
        assert network.module(torch.zeros(2, 3, size, size)).shape == (2, BUILDERS[name].dim)
