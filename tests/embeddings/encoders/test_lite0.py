"""lite0 against an independent implementation, against ImageNet, and against itself as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from embeddings.encoders import encoder_spec, get_encoder
from embeddings.encoders.lite0_weights import load_weights, timm_name, weights_path
from embeddings.encoders.networks import build_network
from embeddings.encoders.torchvision_import import import_timm
from embeddings.errors import UnknownNameError, UsageError
from embeddings.pictures.decode import decode

SIZES = (64, 96, 128, 160, 224)
GOLDEN_NORM = 14.132085
GOLDEN = {897: 4.60205, 71: 4.38515, 997: 3.33821, 423: 3.12345, 1157: 2.80802, 400: 0.28553, 900: 0.10296, 0: 0.0}


def encode(encoder, images):
    batch = np.zeros((encoder.batch_size, encoder.spec.size, encoder.spec.size, 3), np.uint8)
    batch[: len(images)] = [encoder.prepare(image) for image in images]
    return encoder.encode(batch)[: len(images)]


def generated_picture():
    y, x = np.mgrid[0:90, 0:120]
    return Image.fromarray(np.stack([x * 2, y * 2, (x * y) // 42], axis=-1).astype(np.uint8))


@pytest.fixture(scope="module")
def reference():
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(weights_path(), weights_only=True))
    return network.eval()


def reference_features(reference, pixels):
    x = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 127) / 128
    with torch.no_grad():
        return reference.extract_features(x).mean(dim=(2, 3)).numpy()


@pytest.mark.parametrize("size", SIZES)
def test_features_equal_those_of_another_implementation(size, reference):
    pixels = np.random.default_rng(size).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    pixels[1] = generated_picture().resize((size, size))
    wanted = reference_features(reference, pixels)
    network = build_network("lite0", init="public").module.eval()
    with torch.no_grad():
        plain = network((torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 127) / 128).numpy()
    np.testing.assert_allclose(plain, wanted, atol=1e-5)
    folded = encode(get_encoder(f"lite0@{size}"), [Image.fromarray(p) for p in pixels])
    np.testing.assert_allclose(folded, wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("size", [128, 224])
@pytest.mark.parametrize(("name", "classes"), [("chelsea", {281, 282, 285}), ("coffee", {967})])
def test_imagenet_classes_of_known_photographs(name, classes, size):
    skimage = pytest.importorskip("skimage")
    photograph = decode((Path(skimage.__file__).parent / "data" / f"{name}.png").read_bytes())
    weights = load_weights(classifier=True)
    features = encode(get_encoder(f"lite0@{size}"), [photograph])[0]
    scores = weights["classifier.weight"].numpy() @ features + weights["classifier.bias"].numpy()
    assert int(scores.argmax()) in classes


def test_features_are_what_they_were():
    """Guards against a silent change of weights, padding, resampling or scaling."""
    features = encode(get_encoder("lite0"), [generated_picture()])[0]
    assert pytest.approx(float(np.linalg.norm(features)), rel=1e-4) == GOLDEN_NORM
    np.testing.assert_allclose(features[list(GOLDEN)], list(GOLDEN.values()), rtol=1e-3, atol=1e-4)


def test_every_key_of_the_package_has_its_place_in_timm_s_network():
    original = torch.load(weights_path(), weights_only=True)
    theirs = import_timm().create_model("tf_efficientnet_lite0").state_dict()
    renamed = {timm_name(key): tensor.shape for key, tensor in original.items()}
    assert renamed == {key: tensor.shape for key, tensor in theirs.items()}


def test_the_spec_is_complete_and_needs_no_network_to_be_built():
    spec = encoder_spec("lite0")
    assert spec == get_encoder("lite0").spec
    assert (spec.name, spec.dim, spec.size, spec.license) == ("lite0", 1280, 128, "Apache-2.0")
    assert "squash to 128x128, Pillow bicubic; (x - 127) / 128" in spec.preprocessing
    assert spec.weights.startswith("57934424")  # the digest that the file's own name promises
    assert encoder_spec("lite0@128") == spec
    assert encoder_spec("lite0@224").name == "lite0@224"


def test_the_untrained_twin_shares_all_but_the_weights():
    twin, public = get_encoder("lite0:untrained"), get_encoder("lite0")
    assert twin.spec.preprocessing == public.spec.preprocessing
    assert twin.spec.weights != public.spec.weights
    assert get_encoder("lite0:untrained@64").spec.name == "lite0:untrained@64"
    assert not np.allclose(encode(twin, [generated_picture()]), encode(public, [generated_picture()]), atol=0.1)


@pytest.mark.parametrize("name", ["lite0@100", "lite0@16", "lite0@0"])
def test_an_edge_that_is_no_multiple_of_32_is_refused(name):
    with pytest.raises(UsageError, match="multiple of 32"):
        get_encoder(name)


@pytest.mark.parametrize("name", ["lite0:trained", "lite0@", "lite0@big", "lite0@128:untrained"])
def test_unknown_variants_show_the_known_ones(name):
    with pytest.raises(UnknownNameError, match="lite0"):
        get_encoder(name)
