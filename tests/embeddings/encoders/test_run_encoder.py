"""run:DIR: the backbone of a pretraining run as an encoder."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from embeddings.encoders import build_network, encoder_spec, get_encoder
from embeddings.errors import CorruptError, UsageError

FACTS = {
    "schema": "curate.backbone/1",
    "network": "tiny-resnet",
    "dim": 128,
    "size": 32,
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
}


def write_run(folder, *, seed=5, **facts):
    folder.mkdir()
    save_file(build_network("tiny-resnet", seed=seed).module.state_dict(), folder / "backbone.safetensors")
    (folder / "backbone.json").write_text(json.dumps({**FACTS, **facts}))
    return f"run:{folder}"


def test_features_are_those_of_the_trained_network(tmp_path):
    encoder = get_encoder(write_run(tmp_path / "run"))
    pixels = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    x = torch.from_numpy((pixels - np.array(FACTS["mean"])) / np.array(FACTS["std"])).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        wanted = build_network("tiny-resnet", seed=5).module.eval()(x).numpy()
    np.testing.assert_allclose(encoder.encode(pixels), wanted, rtol=1e-4, atol=1e-5)


def test_the_spec_follows_the_weights_not_the_folder(tmp_path):
    first, copy, other = (write_run(tmp_path / n, seed=s) for n, s in (("a", 1), ("b", 1), ("c", 2)))
    assert get_encoder(first).spec == get_encoder(copy).spec
    assert get_encoder(first).spec.weights != get_encoder(other).spec.weights
    assert get_encoder(first).spec.name == "run:tiny-resnet@32"
    assert str(tmp_path) not in str(get_encoder(first).spec)


def test_a_run_that_was_repeated_is_read_again(tmp_path):
    name = write_run(tmp_path / "run", seed=1)
    before = get_encoder(name).spec
    assert encoder_spec(name) == before
    save_file(build_network("tiny-resnet", seed=2).module.state_dict(), tmp_path / "run" / "backbone.safetensors")
    assert get_encoder(name).spec != before
    assert encoder_spec(name) == get_encoder(name).spec


def test_a_run_that_stands_is_built_once(tmp_path):
    name = write_run(tmp_path / "run")
    assert get_encoder(name) is get_encoder(name)


@pytest.mark.parametrize("make", [lambda folder: None, lambda folder: folder.mkdir()])
def test_a_folder_that_is_no_run_is_refused(tmp_path, make):
    make(tmp_path / "run")
    with pytest.raises(UsageError, match="is not a finished pretraining run"):
        get_encoder(f"run:{tmp_path / 'run'}")


def test_a_run_that_does_not_read_back_is_refused(tmp_path):
    name = write_run(tmp_path / "run")
    (tmp_path / "run" / "backbone.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CorruptError, match="does not read back"):
        get_encoder(name)
    with pytest.raises(CorruptError, match="does not read back"):
        get_encoder(write_run(tmp_path / "wrong", network="resnet18-small"))
    with pytest.raises(CorruptError, match="backbone schema"):
        get_encoder(write_run(tmp_path / "old", schema="curate.backbone/0"))
