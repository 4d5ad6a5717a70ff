"""open_clip:ARCH/TAG: OpenCLIP's own transform and image embedding, without its text tower."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
import torch
from encoder_weights import TINY_CLIP, TINY_CLIP_WEIGHTS
from PIL import Image

from embeddings.encoders import encoder_names, get_encoder
from embeddings.encoders.open_clip import describe, open_clip_names, weights_transform
from embeddings.encoders.torchvision_import import import_torchvision
from embeddings.errors import MissingExtraError, UnknownNameError

import_torchvision()  # in a way that works beside a CPU build of torch
open_clip = pytest.importorskip("open_clip")
SHOWN = ("ViT-B-32/openai", "ViT-B-16-SigLIP/webli", "convnext_base_w/laion2b_s13b_b82k")


def test_features_are_the_image_embedding_of_the_whole_model(weights):
    name = weights.open_clip(seed=5)
    encoder = get_encoder(name, device="cpu")
    path = weights.folder / "open_clip" / "tiny" / "made.safetensors"
    model = open_clip.create_model("tiny", pretrained=str(path)).eval()
    x = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    scaled = (x / 255 - np.array(TINY_CLIP_WEIGHTS["mean"])) / np.array(TINY_CLIP_WEIGHTS["std"])
    with torch.no_grad():
        wanted = model.encode_image(torch.from_numpy(scaled).permute(0, 3, 1, 2).float()).numpy()
    np.testing.assert_allclose(encoder.encode(x), wanted, rtol=1e-3, atol=1e-4)
    assert (encoder.spec.dim, encoder.spec.size) == (TINY_CLIP["embed_dim"], 32)
    assert not any("text" in key or "token_embedding" in key for key in encoder.module.state_dict())


@pytest.mark.parametrize("size", [(64, 64), (300, 120), (97, 301)])
@pytest.mark.parametrize("name", SHOWN)
def test_pixels_equal_those_of_its_own_transform(name, size):
    architecture, tag = name.split("/")
    weights = open_clip.pretrained.get_pretrained_cfg(architecture, tag)
    config = open_clip.get_model_config(architecture)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    ours = weights_transform(config, weights)
    theirs = open_clip.transform.image_transform(
        config["vision_cfg"]["image_size"], is_train=False, mean=weights["mean"], std=weights["std"],
        interpolation=weights["interpolation"], resize_mode=weights["resize_mode"],
    )(image)  # fmt: skip
    wanted = theirs.permute(1, 2, 0).numpy() * np.array(ours.std) + np.array(ours.mean)
    np.testing.assert_allclose(ours(image), wanted, atol=2e-3)


def test_the_activation_is_that_of_the_weights_whatever_the_architecture_s_name(weights, monkeypatch):
    """OpenAI's weights under the plain architecture: QuickGELU, where OpenCLIP itself only warns."""
    name = weights.open_clip()
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED["tiny"], "made", {**TINY_CLIP_WEIGHTS, "quick_gelu": True})
    kinds = {type(module).__name__ for module in get_encoder(name, device="cpu").module.modules()}
    assert "QuickGELU" in kinds
    assert "GELU" not in kinds


def test_names_are_listed_searched_and_described():
    assert len(open_clip_names()) > 100
    assert "open_clip:ViT-B-32/openai" in encoder_names("open_clip:*B-32/*")
    assert describe("open_clip:ViT-B-32/openai") == {"size": 224, "dim": 512, "license": "apache-2.0"}
    assert describe("open_clip:ViT-H-14/laion2b_s32b_b79k") == {"size": 224, "dim": 1024, "license": "unknown"}


def test_every_listed_name_can_be_described():
    assert all(describe(name)["dim"] and describe(name)["size"] for name in open_clip_names())


@pytest.mark.parametrize("bad", ["open_clip:ViT-B-32", "open_clip:ViT-B-32/openay", "ViT-B-32"])
def test_unknown_names_show_the_nearest(bad):
    with pytest.raises(UnknownNameError, match="Did you mean open_clip:ViT-B-32/"):
        get_encoder(bad)


def test_without_weights_or_network_the_place_is_named(weights, offline):
    with pytest.raises(MissingExtraError, match="open_clip:ViT-B-32/openai") as caught:
        get_encoder("open_clip:ViT-B-32/openai")
    assert str(weights.folder / "open_clip" / "ViT-B-32" / "openai.safetensors") in caught.value.hint


def test_without_the_package_the_command_that_mends_it_is_named(monkeypatch):
    plain = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("open_clip"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError) as caught:
        get_encoder("open_clip:ViT-B-32/openai")
    assert caught.value.hint == "pip install 'open-clip-torch>=2.30'"
    assert not encoder_names("open_clip:*")
