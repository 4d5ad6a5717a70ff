"""torchvision:NAME and timm:NAME as networks to train: names, sizes, scaling, public weights, one output."""

from __future__ import annotations

import pytest
import torch

from embeddings.encoders.networks import build_network, default_size, has_public_weights, outline, takes_masks
from embeddings.encoders.torchvision_import import import_timm, import_torchvision
from embeddings.encoders.transformers import patch_edge
from embeddings.errors import CorruptError, MissingExtraError, UnknownNameError, UsageError


@pytest.mark.parametrize(
    ("name", "size", "dim"),
    [
        ("torchvision:resnet18", 224, 512),
        ("torchvision:regnet_y_400mf", 224, 440),
        ("torchvision:convnext_tiny", 224, 768),
        ("torchvision:swin_t", 224, 768),
        ("torchvision:vit_b_16", 224, 768),
        ("torchvision:inception_v3", 299, 2048),
        ("timm:resnet50", 224, 2048),
        ("timm:test_vit", 160, 64),
        ("timm:swin_tiny_patch4_window7_224", 224, 768),
        ("timm:vit_small_patch14_dinov2", 224, 384),  # made for 518
        ("timm:efficientnet_lite1", 224, 1280),  # without weights
    ],
)
def test_default_sizes_and_features(name, size, dim):
    assert default_size(name) == size
    assert outline(name, size=size).dim == dim


@pytest.mark.parametrize("name", ["torchvision:googlenet", "torchvision:inception_v3"])
def test_side_classifiers_are_gone(name):
    """With them, training gives several outputs."""
    with torch.device("meta"):
        network = build_network(name)
        assert network.module.training
        assert network.module(torch.zeros(2, 3, 299, 299)).shape == (2, network.dim)
    assert not [key for key in network.module.state_dict() if key.lower().startswith("aux")]


def test_parameters_keep_their_library_s_names():
    with torch.device("meta"):
        ours = [
            build_network(name).module.state_dict() for name in ("resnet34", "torchvision:resnet34", "timm:test_vit")
        ]
        theirs = import_torchvision().models.resnet34().state_dict()
        transformer = import_timm().create_model("test_vit", num_classes=0).state_dict()
    assert list(ours[0]) == list(ours[1]) == [name for name in theirs if not name.startswith("fc.")]
    assert {k: v.shape for k, v in ours[2].items()} == {k: v.shape for k, v in transformer.items()}


def test_scaling_is_that_of_the_library():
    small, imagenet = outline("timm:test_vit", size=160), outline("timm:resnet18", size=64)
    assert (small.mean, small.std) == ((127.5,) * 3, (127.5,) * 3)
    assert imagenet.mean == pytest.approx((123.675, 116.28, 103.53))


def test_a_transformer_of_timm_takes_any_multiple_of_its_patch():
    network = build_network("timm:test_vit", size=64)
    assert (patch_edge(network.module), network.module.pos_embed.shape[1]) == (16, 1 + 16)
    assert takes_masks("timm:test_vit")
    assert not takes_masks("timm:test_resnet")
    assert not takes_masks("torchvision:vit_b_16")


@pytest.mark.parametrize("name", ["timm:test_vit.r160_in1k", "timm:test_resnet"])
def test_public_weights_of_timm(weights, name):
    tag = weights.timm("test_resnet.r160_in1k" if "resnet" in name else "test_vit.r160_in1k", seed=7)
    network = build_network(name, init="public", size=160, seed=1)
    other = build_network(name, init="public", size=160, seed=2)
    x = torch.randn(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network.module.eval()(x), other.module.eval()(x))
    assert tag.startswith(name)
    untrained = build_network(name, size=160, seed=1).module.eval()
    with torch.no_grad():
        assert not torch.allclose(network.module(x), untrained(x))


def test_public_weights_of_our_transformers_are_timm_s(weights):
    weights.timm("vit_tiny_patch16_224.augreg_in21k_ft_in1k", seed=7)
    network = build_network("vit-ti", init="public", size=64)
    assert (network.name, network.mean, patch_edge(network.module)) == ("vit-ti", (127.5,) * 3, 16)
    assert network.module.pos_embed.shape == (1, 1 + 16, 192)
    scratch = build_network("vit-ti", size=64, patch=16).module.state_dict()
    assert {k: v.shape for k, v in network.module.state_dict().items()} == {k: v.shape for k, v in scratch.items()}


def test_public_weights_of_torchvision(hub_cache):
    hub_cache("mobilenet_v3_small", seed=4)
    first, second = (build_network("torchvision:mobilenet_v3_small", init="public", seed=s).module for s in (0, 1))
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_absent_weights_name_their_place(weights, offline):
    with pytest.raises(MissingExtraError, match=r"timm:vit_small_patch16_224"):
        build_network("vit-s", init="public", size=64)
    with pytest.raises(MissingExtraError, match=r"torchvision:convnext_tiny"):
        build_network("convnext-tiny", init="public")


def test_weights_of_another_network_are_refused(weights):
    weights.timm("test_resnet.r160_in1k")
    folder = weights.folder / "timm"
    (folder / "test_resnet.r160_in1k.safetensors").rename(folder / "test_vit.r160_in1k.safetensors")
    with pytest.raises(CorruptError, match="do not fit"):
        build_network("timm:test_vit", init="public")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("torchvision:resnet5", "torchvision:resnet50"),
        ("timm:resnet5O", "timm:resnet50"),
        ("timm:resnet50.a1_in2k", "timm:resnet50.a1_in1k"),
        ("timm:hf-hub:somebody/something", "Unknown"),
        ("timn:resnet50", "resnet50"),
        ("run:folder", "timm:NAME"),
    ],
)
def test_unknown_names(name, near):
    with pytest.raises(UnknownNameError, match=near):
        build_network(name)


def test_who_gives_out_weights():
    names = ("timm:resnet50", "timm:efficientnet_lite1", "torchvision:vgg11", "vit-b", "tiny-vit")
    assert [has_public_weights(name) for name in names] == [True, False, True, True, False]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("torchvision:vit_b_16", 64),
        ("torchvision:inception_v3", 32),
        ("timm:test_vit", 8),
        ("timm:maxvit_nano_rw_256", 40),
        ("timm:vit_tiny_r_s16_p8_224", 8),  # cannot even be built
    ],
)
def test_sizes_that_a_network_does_not_take(name, size):
    with pytest.raises(UsageError, match=f"{size}x{size}"):
        outline(name, size=size)
