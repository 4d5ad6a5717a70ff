"""torchvision:NAME: pooled features of every family, own transforms, weights from the cache."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from embeddings.encoders import get_encoder, torchvision
from embeddings.encoders.torch_encoder import feature_count
from embeddings.encoders.torchvision import drop_classifier
from embeddings.encoders.torchvision_import import import_torchvision
from embeddings.errors import MissingExtraError, UnknownNameError, UsageError


@pytest.mark.parametrize(
    ("name", "dim"),
    [
        ("resnet18", 512),
        ("resnet50", 2048),
        ("wide_resnet50_2", 2048),
        ("regnet_y_400mf", 440),
        ("densenet121", 1024),
        ("efficientnet_b0", 1280),
        ("efficientnet_v2_s", 1280),
        ("mobilenet_v2", 1280),
        ("mobilenet_v3_small", 1024),
        ("convnext_tiny", 768),
        ("vit_b_16", 768),
        ("swin_t", 768),
        ("shufflenet_v2_x1_0", 1024),
        ("vgg11", 4096),
    ],
)
def test_features_enter_the_last_linear_layer(name, dim):
    with torch.device("cpu" if name.startswith("regnet") else "meta"):  # meta: shapes only
        module = drop_classifier(import_torchvision().models.get_model(name, weights=None))
        assert feature_count(module, 224) == dim


def test_a_network_without_a_last_linear_layer_is_refused():
    with torch.device("meta"):
        module = import_torchvision().models.squeezenet1_0(weights=None)
    with pytest.raises(UsageError, match="does not end in a linear layer"):
        drop_classifier(module)


def test_features_are_those_of_the_weights_in_the_cache(hub_cache):
    """Against torchvision's own feature extraction, on its own transform of the same picture."""
    from PIL import Image

    path = hub_cache("resnet18", seed=4)
    encoder = get_encoder("torchvision:resnet18")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8))
    batch = np.stack([encoder.prepare(image)] * encoder.batch_size)
    models = import_torchvision().models
    network = models.resnet18(weights=None)
    network.load_state_dict(torch.load(path, weights_only=True))
    feature_extraction = importlib.import_module("torchvision.models.feature_extraction")
    extract = feature_extraction.create_feature_extractor(network.eval(), {"flatten": "features"})
    with torch.no_grad():
        wanted = extract(models.ResNet18_Weights.DEFAULT.transforms()(image)[None])["features"].numpy()
    np.testing.assert_allclose(encoder.encode(batch)[:1], wanted, rtol=1e-3, atol=1e-4)


def test_a_size_of_its_own_is_part_of_the_name(hub_cache):
    hub_cache("mobilenet_v3_small")
    small, default = get_encoder("torchvision:mobilenet_v3_small@96"), get_encoder("torchvision:mobilenet_v3_small@224")
    assert (small.spec.name, small.spec.size) == ("torchvision:mobilenet_v3_small@96", 96)
    assert default.spec == get_encoder("torchvision:mobilenet_v3_small").spec
    assert small.spec.weights == default.spec.weights


def test_fixed_positions_refuse_another_size():
    transformer = import_torchvision().models.vision_transformer.VisionTransformer(
        image_size=32, patch_size=16, num_layers=1, num_heads=1, hidden_dim=8, mlp_dim=8
    )
    assert feature_count(drop_classifier(transformer), 32) == 8
    with pytest.raises(UsageError, match="does not take images of 64x64"):
        feature_count(transformer, 64)


@pytest.mark.parametrize(
    ("name", "near"), [("resnet5", "resnet50"), ("vit_b16", "vit_b_16"), ("resnet18@big", "resnet18")]
)
def test_unknown_names_show_the_nearest(name, near):
    with pytest.raises(UnknownNameError, match=f"torchvision:{near}"):
        get_encoder(f"torchvision:{name}")


def test_without_weights_or_network_the_file_is_named(hub_cache, offline):
    with pytest.raises(MissingExtraError, match="torchvision:convnext_tiny") as caught:
        get_encoder("torchvision:convnext_tiny")
    assert re.search(r"weights/torchvision/convnext_tiny-\w+\.pth", caught.value.hint)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "vit_b_16", "vit_h_14", "maxvit_t", "resnet50"])
def test_networks_are_built_as_torchvision_does_for_its_weights(name, monkeypatch):
    """The same shapes and settings, though torchvision is not asked to load the weights."""
    models = import_torchvision().models
    weights = models.get_model_weights(name).DEFAULT
    monkeypatch.setattr(type(weights), "get_state_dict", lambda self, **options: {})
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda self, state, **options: None)
    monkeypatch.setattr(torchvision, "find_weights", lambda encoder, place, origin: Path(place))
    monkeypatch.setattr(torchvision, "read_tensors", lambda path: {})
    with torch.device("meta"):
        theirs = models.get_model(name, weights=weights)
        ours = torchvision.load_public(name)
    shapes = [{k: v.shape for k, v in module.state_dict().items()} for module in (theirs, ours)]
    assert shapes[0] == shapes[1]
    for setting in ("transform_input", "image_size"):
        assert getattr(theirs, setting, None) == getattr(ours, setting, None)


def test_densenet_s_old_names_are_renamed():
    """Its public file says norm.1 where the network says norm1."""
    old = "features.denseblock1.denselayer2.norm.1.running_mean"
    assert torchvision._current_name(old) == "features.denseblock1.denselayer2.norm1.running_mean"
    with torch.device("meta"):
        names = list(import_torchvision().models.densenet121().state_dict())
    assert [torchvision._current_name(name) for name in names] == names
