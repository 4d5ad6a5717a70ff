"""What every encoder must do, one table for all families."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict

import numpy as np
import pytest
from encoder_weights import Weights
from PIL import Image

from embeddings.encoders import get_encoder, registry, torch_encoder
from embeddings.encoders.transform import Transform
from embeddings.spec import EncoderSpec

MAKE = {  # how the weights come about, and the name to ask for
    "lite0": lambda weights: "lite0",
    "lite0@64": lambda weights: "lite0@64",
    "lite0:untrained": lambda weights: "lite0:untrained",
    "random": lambda weights: "random:7",
    "color-texture": lambda weights: "color-texture",
    "torchvision": lambda weights: weights.torchvision("resnet18") + "@64",
    "timm convnet": lambda weights: weights.timm("test_resnet.r160_in1k") + "@64",
    "timm transformer": lambda weights: weights.timm("test_vit.r160_in1k"),
    "open_clip": lambda weights: weights.open_clip(),
    "inception": lambda weights: weights.inception(),
    "run": lambda weights: weights.run(),
    "user's function": lambda weights: "encoder_weights:pooled",
}
LICENSES = {
    "lite0": "Apache-2.0",
    "lite0@64": "Apache-2.0",
    "torchvision": "BSD-3-Clause",
    "timm convnet": "apache-2.0",
    "timm transformer": "apache-2.0",
    "open_clip": "unknown",
    "inception": "Apache-2.0",
    "user's function": "unknown",
}


@pytest.fixture(scope="module", params=MAKE)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def name(family, tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        if family == "inception":
            monkeypatch.setattr(torch_encoder, "CPU_BATCH", 3)  # 16 take seconds
        yield MAKE[family](Weights(tmp_path_factory.mktemp("weights"), monkeypatch))


@pytest.fixture(scope="module")
def encoder(name):
    return registry._build(name, "cpu", "auto", False)


@pytest.fixture(scope="module")
def pixels(encoder):
    """One batch and a bit, prepared."""
    return [encoder.prepare(image) for image in images(encoder.batch_size + 2)]


@pytest.fixture(scope="module")
def whole(encoder, pixels):
    return encode(encoder, pixels)


def images(n, seed=0):
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (40 + i, 60, 3), dtype=np.uint8)) for i in range(n)]


def encode(encoder, pixels):
    """Vectors of any number of prepared images, in padded batches."""
    found = []
    for start in range(0, len(pixels), encoder.batch_size):
        chunk = pixels[start : start + encoder.batch_size]
        batch = np.zeros((encoder.batch_size, *chunk[0].shape), np.uint8)
        batch[: len(chunk)] = chunk
        found.append(encoder.encode(batch)[: len(chunk)])
    return np.concatenate(found)


def test_shapes_and_types(encoder, pixels):
    spec = encoder.spec
    assert (pixels[0].shape, pixels[0].dtype) == ((spec.size, spec.size, 3), np.uint8)
    vectors = encoder.encode(np.stack(pixels[: encoder.batch_size]))
    assert (vectors.shape, vectors.dtype) == ((encoder.batch_size, spec.dim), np.float32)
    assert np.isfinite(vectors.astype(np.float16)).all()


def test_the_spec_is_filled_in(encoder, family):
    spec = encoder.spec
    assert isinstance(spec, EncoderSpec)
    assert len(spec.weights) == (0 if family == "color-texture" else 64)
    assert f"{spec.size}x{spec.size}" in spec.preprocessing
    assert "(x - " in spec.preprocessing
    assert (encoder.precision, encoder.parallel) == ("float32", True)
    assert spec.license == LICENSES.get(family, spec.license)


def test_the_spec_survives_json_with_its_fingerprint(encoder):
    again = EncoderSpec(**json.loads(json.dumps(asdict(encoder.spec))))
    assert again == encoder.spec
    assert again.fingerprint == encoder.spec.fingerprint


def test_the_spec_s_name_is_the_encoder_s(encoder, family):
    if family != "run":  # its folder stays out of the spec
        assert get_encoder(encoder.spec.name, device="cpu").spec == encoder.spec


def test_preparation_can_be_sent_to_another_process(encoder, pixels):
    sent = pickle.loads(pickle.dumps(encoder.prepare))
    np.testing.assert_array_equal(sent(images(1)[0]), pixels[0])
    assert isinstance(sent, Transform)
    assert sent.edge >= encoder.spec.size


def test_eval_mode_without_gradients(encoder, pixels, family):
    if family == "color-texture":
        return
    assert not any(module.training for module in encoder.module.modules())
    assert not any(p.requires_grad for p in encoder.module.parameters())
    before = {k: v.clone() for k, v in encoder.module.state_dict().items()}
    encode(encoder, pixels[:2])
    assert all(bool((before[k] == v).all()) for k, v in encoder.module.state_dict().items())


def test_an_image_s_vector_does_not_depend_on_its_batch(encoder, pixels, whole):
    """Any order, any number, the last batch padded: the same bits."""
    order = np.random.default_rng(1).permutation(len(pixels))
    np.testing.assert_array_equal(encode(encoder, [pixels[i] for i in order]), whole[order])
    for n in (1, encoder.batch_size - 1):
        np.testing.assert_array_equal(encode(encoder, pixels[:n]), whole[:n])


def test_different_images_get_different_vectors_and_copies_the_same(encoder, pixels, whole):
    again = encode(encoder, [pixels[0], pixels[1], pixels[0].copy()])
    assert not np.allclose(again[0], again[1], rtol=1e-3)
    np.testing.assert_array_equal(again[0], again[2])
    np.testing.assert_array_equal(again[0], whole[0])


def test_a_rebuilt_encoder_is_the_same(encoder, name, pixels, whole):
    again = registry._build(name, "cpu", "auto", False)
    assert again is not encoder
    assert again.spec == encoder.spec
    np.testing.assert_array_equal(encode(again, pixels[:3]), whole[:3])


def test_bfloat16_stays_close():
    """What a GPU does by default: the vectors keep their direction."""
    exact, rough = (get_encoder("lite0@64", device="cpu", precision=p) for p in ("float32", "bfloat16"))
    pixels = [exact.prepare(image) for image in images(4)]
    x, y = encode(exact, pixels), encode(rough, pixels)
    assert rough.spec == exact.spec
    assert rough.precision == "bfloat16"
    cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    assert cosine.min() > 0.99
    assert not np.array_equal(x, y)
