import numpy as np
import pytest
import torch

from curate.pretraining.backbones import SIZES, resolve_backbone, save_backbone
from embeddings.encoders import get_encoder
from embeddings.encoders.networks import BUILDERS, build_network
from embeddings.errors import UnknownNameError, UsageError


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


@pytest.mark.parametrize("size", [0, 24, 33, 256])
def test_sizes_out_of_range(size):
    with pytest.raises(UsageError, match="multiple of 8"):
        resolve_backbone(None, init="scratch", size=size or 8)


def test_every_network_has_a_size():
    assert SIZES.keys() == BUILDERS.keys()
