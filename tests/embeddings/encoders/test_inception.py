"""inception against the network of pytorch-fid, with the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from embeddings.encoders import get_encoder
from embeddings.encoders.folding import count_batch_norms
from embeddings.encoders.inception import build_inception
from embeddings.encoders.torchvision_import import import_torchvision
from embeddings.errors import MissingExtraError, UnknownNameError

import_torchvision()  # in a way that works beside a CPU build of torch
theirs = pytest.importorskip("pytorch_fid.inception")


@pytest.fixture(scope="module")
def trained():
    """Our network with seeded weights whose batch norms are as after training."""
    torch.manual_seed(0)
    module = build_inception()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.8, 1.6)
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    return module.eval()


@pytest.fixture(scope="module")
def reference(trained):
    with pytest.MonkeyPatch.context() as monkeypatch:
        state = trained.state_dict()
        monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda url, progress: state)
        return theirs.InceptionV3(resize_input=False, normalize_input=False).eval()


def test_features_equal_those_of_the_published_network(trained, reference, weights):
    weights.inception()
    torch.save(trained.state_dict(), next(weights.folder.rglob("*.pth")))
    encoder = get_encoder("inception", device="cpu")
    encoder.lot = 2
    pixels = np.random.default_rng(0).integers(0, 256, (2, 299, 299, 3), dtype=np.uint8)
    pixels[1] = np.linspace(0, 255, 299, dtype=np.uint8)[:, None, None]
    with torch.no_grad():
        x = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 128) / 128
        wanted = reference(x)[0].flatten(1).numpy()
    found = encoder.encode(pixels)
    assert found.shape == (2, 2048)
    assert wanted.std() > 0
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
    assert count_batch_norms(trained) == 94
    assert count_batch_norms(encoder.module) == 0


def test_tensors_are_named_as_in_the_public_file(monkeypatch):
    """The published network loads that file strictly, so its names are the file's."""
    monkeypatch.setattr(nn.Module, "load_state_dict", lambda self, state: None)
    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda url, progress: {})
    published = theirs.fid_inception_v3().state_dict()
    ours = build_inception().state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in published.items()}


def test_files_older_than_the_counters_of_batch_norms_load(weights):
    """The public file was written before batch norms counted their batches."""
    name = weights.inception()
    path = next(weights.folder.rglob("*.pth"))
    state = torch.load(path, weights_only=True)
    torch.save({key: tensor for key, tensor in state.items() if "num_batches" not in key}, path)
    assert get_encoder(name, device="cpu").spec.dim == 2048


def test_images_are_squashed_by_the_bicubic_filter(weights):
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (500, 400, 3), dtype=np.uint8))
    encoder = get_encoder(weights.inception(), device="cpu")
    wanted = np.asarray(image.resize((299, 299), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(encoder.prepare(image), wanted)
    assert "(x - 128) / 128" in encoder.spec.preprocessing
    assert encoder.spec.license == "Apache-2.0"


def test_without_weights_or_network_the_place_is_named(tmp_path, monkeypatch, offline):
    monkeypatch.setenv("CURATE_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(MissingExtraError, match="inception") as caught:
        get_encoder("inception")
    place = tmp_path / "weights" / "inception" / "pt_inception-2015-12-05-6726825d.pth"
    assert str(place) in caught.value.hint


def test_there_is_one_size_only():
    with pytest.raises(UnknownNameError, match="inception"):
        get_encoder("inception@128")
