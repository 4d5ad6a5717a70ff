"""What every encoder must do, one table for all."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from embeddings.encoders import build_network, get_encoder, registry
from embeddings.store import EncoderSpec

NAMES = ("lite0", "lite0@64", "lite0:untrained", "random:7", "torchvision:resnet18@64", "run")


@pytest.fixture(scope="module", params=NAMES)
def name(request, module_hub_cache, tmp_path_factory):
    if request.param.startswith("torchvision"):
        module_hub_cache("resnet18")
    if request.param != "run":
        return request.param
    folder, network = tmp_path_factory.mktemp("run"), build_network("tiny-resnet", seed=1)
    save_file(network.module.state_dict(), folder / "backbone.safetensors")
    facts = {"schema": "curate.backbone/1", "network": network.name, "dim": network.dim, "size": 32}
    (folder / "backbone.json").write_text(json.dumps({**facts, "mean": network.mean, "std": network.std}))
    return f"run:{folder}"


@pytest.fixture(scope="module")
def encoder(name):
    return get_encoder(name, device="cpu")


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


def test_shapes_and_types(encoder):
    spec = encoder.spec
    pixels = encoder.prepare(images(1)[0])
    assert (pixels.shape, pixels.dtype) == ((spec.size, spec.size, 3), np.uint8)
    vectors = encoder.encode(np.stack([pixels] * encoder.batch_size))
    assert (vectors.shape, vectors.dtype) == ((encoder.batch_size, spec.dim), np.float32)
    assert np.isfinite(vectors.astype(np.float16)).all()


def test_the_spec_is_filled_in(encoder):
    spec = encoder.spec
    assert isinstance(spec, EncoderSpec)
    assert len(spec.weights) == 64
    assert f"{spec.size}x{spec.size}" in spec.preprocessing
    assert "(x - " in spec.preprocessing
    assert (encoder.precision, encoder.parallel) == ("float32", True)


def test_eval_mode_without_gradients(encoder):
    assert not any(module.training for module in encoder.module.modules())
    assert not any(p.requires_grad for p in encoder.module.parameters())
    before = {k: v.clone() for k, v in encoder.module.state_dict().items()}
    encode(encoder, [encoder.prepare(i) for i in images(2)])
    assert all(bool((before[k] == v).all()) for k, v in encoder.module.state_dict().items())


def test_an_image_s_vector_does_not_depend_on_its_batch(encoder):
    """Sets of 7, 16 and 20 images, any order, the last batch padded: the same bits."""
    pixels = [encoder.prepare(image) for image in images(20)]
    whole = encode(encoder, pixels)
    order = np.random.default_rng(1).permutation(20)
    np.testing.assert_array_equal(encode(encoder, [pixels[i] for i in order]), whole[order])
    for n in (1, 7, 16):
        np.testing.assert_array_equal(encode(encoder, pixels[:n]), whole[:n])


def test_different_images_get_different_vectors_and_copies_the_same(encoder):
    first, second = images(2)
    vectors = encode(encoder, [encoder.prepare(i) for i in (first, second, first.copy())])
    assert not np.allclose(vectors[0], vectors[1], rtol=1e-3)
    np.testing.assert_array_equal(vectors[0], vectors[2])


def test_a_rebuilt_encoder_is_the_same(encoder, name):
    pixels = [encoder.prepare(i) for i in images(2)]
    again = registry._build(name, "cpu", "auto")
    assert again is not encoder
    assert again.spec == encoder.spec
    np.testing.assert_array_equal(encode(again, pixels), encode(encoder, pixels))


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
