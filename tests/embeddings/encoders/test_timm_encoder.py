"""timm:NAME: timm's own transforms and features, sizes, tags, and weights that must fill the whole network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from embeddings.encoders import encoder_names, get_encoder
from embeddings.encoders.timm import config_transform, describe, timm_names
from embeddings.encoders.torchvision_import import import_timm
from embeddings.errors import CorruptError, MissingExtraError, UnknownNameError, UsageError

TRANSFORMS = (  # every way of resizing that timm's configurations know
    "resnet50.a1_in1k",
    "vit_small_patch14_dinov2.lvd142m",
    "eva02_tiny_patch14_336.mim_in22k_ft_in1k",
    "beit3_base_patch16_224.in22k_ft_in1k",
    "volo_d4_448.sail_in1k",
    "deepseek_vit_412m.deepseek_v4_flash_vision_exp",
)


def configuration(name):
    return import_timm().models.get_pretrained_cfg(name)


def picture(width, height):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def squash_cropped():
    """A configuration that squashes to more than its size and crops."""
    names = import_timm().list_pretrained()
    return next(n for n in names if configuration(n).crop_mode == "squash" and configuration(n).crop_pct < 1)


@pytest.mark.parametrize("size", [(64, 64), (300, 120), (97, 301)])
@pytest.mark.parametrize("name", [*TRANSFORMS, squash_cropped()])
def test_pixels_equal_those_of_timm_s_own_transform(name, size):
    config = configuration(name)
    ours, image = config_transform(config), picture(*size)
    theirs = import_timm().data.create_transform(
        config.input_size, mean=config.mean, std=config.std, interpolation=config.interpolation,
        crop_pct=config.crop_pct, crop_mode=config.crop_mode,
    )(image)  # fmt: skip
    wanted = theirs.permute(1, 2, 0).numpy() * np.array(ours.std) + np.array(ours.mean)
    np.testing.assert_allclose(ours(image), wanted, atol=2e-3)


@pytest.mark.parametrize("name", ["test_resnet.r160_in1k", "test_vit.r160_in1k", "test_convnext.r160_in1k"])
def test_features_are_timm_s_own_without_a_classifier(weights, name):
    encoder = get_encoder(weights.timm(name, seed=3), device="cpu")
    module = import_timm().create_model(name, num_classes=0).eval()
    state = load_file(weights.folder / "timm" / f"{name}.safetensors")
    module.load_state_dict({k: v for k, v in state.items() if k in module.state_dict()})
    pixels = encoder.prepare(picture(200, 170))
    mean, std = (torch.tensor(v)[:, None, None] for v in (configuration(name).mean, configuration(name).std))
    x = (torch.tensor(pixels).permute(2, 0, 1) / 255 - mean) / std
    with torch.no_grad():
        wanted = module(x[None]).numpy()
    found = encoder.encode(np.stack([pixels] * encoder.batch_size))[:1]
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_dinov2_by_its_name_at_a_size_of_its_own(weights):
    """Positions made for 518 px are interpolated; the spec says so, with the license."""
    name = weights.timm("vit_small_patch14_dinov2.lvd142m")
    encoder = get_encoder(f"{name}@56", device="cpu")
    assert (encoder.spec.name, encoder.spec.dim, encoder.spec.size) == (f"{name}@56", 384, 56)
    assert encoder.spec.license == "apache-2.0"
    assert describe(name) == {"size": 518, "dim": None, "license": "apache-2.0"}
    x = np.random.default_rng(0).integers(0, 256, (2, 56, 56, 3), dtype=np.uint8)
    assert encoder.encode(x).shape == (2, 384)


def test_a_name_without_its_tag_means_the_default_one(weights):
    weights.timm("test_resnet.r160_in1k")
    encoder = get_encoder("timm:test_resnet@160", device="cpu")
    assert encoder.spec.name == "timm:test_resnet.r160_in1k"


def test_a_size_that_the_network_does_not_take_is_refused(weights):
    name = weights.timm("test_vit.r160_in1k")
    with pytest.raises(UsageError, match="8x8"):
        get_encoder(f"{name}@8", device="cpu")


def test_a_file_with_a_gap_is_refused(weights):
    """timm itself passes over tensors that are missing when it drops the classifier."""
    name = weights.timm("test_resnet.r160_in1k")
    path = weights.folder / "timm" / "test_resnet.r160_in1k.safetensors"
    state = load_file(path)
    del state["layer1.0.conv1.weight"]
    save_file(state, path)
    with pytest.raises(CorruptError, match="do not fit"):
        get_encoder(name, device="cpu")


@pytest.mark.parametrize("bad", ["resnet5O", "vit_small_patch14_dinov2.lvd142", "test_resnet@", "test_resnet@big"])
def test_unknown_names_show_the_nearest(bad):
    with pytest.raises(UnknownNameError, match="Did you mean timm:"):
        get_encoder(f"timm:{bad}")


def test_without_weights_or_network_the_place_is_named(weights, offline):
    with pytest.raises(MissingExtraError, match=r"timm:resnet50\.a1_in1k") as caught:
        get_encoder("timm:resnet50")
    assert str(weights.folder / "timm" / "resnet50.a1_in1k.safetensors") in caught.value.hint
    assert "timm/resnet50.a1_in1k" in caught.value.hint


def test_names_are_listed_with_their_tags_and_described_without_weights():
    names = timm_names()
    assert len(names) > 1000
    assert "timm:vit_small_patch14_dinov2.lvd142m" in names
    assert encoder_names("timm:resnet10t*") == ["timm:resnet10t.c3_in1k"]
    assert all(describe(name)["size"] and describe(name)["license"] for name in names)
