"""Weights files that are not what they should be: an error in words, and nothing in them is run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from embeddings.encoders import get_encoder
from embeddings.encoders.tensors import load_tensors, read_tensors
from embeddings.errors import CorruptError

FORMATS = {"net.safetensors": save_file, "net.pth": torch.save}


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", FORMATS)
def test_both_formats_read_back(tmp_path, name):
    FORMATS[name]({"a": torch.arange(3.0)}, tmp_path / name)
    assert torch.equal(read_tensors(tmp_path / name)["a"], torch.arange(3.0))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_files_are_refused(tmp_path, name, share):
    path = tmp_path / name
    FORMATS[name]({"a": torch.arange(3000.0)}, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(CorruptError, match="no readable weights file") as caught:
        read_tensors(path)
    assert str(path) in caught.value.hint


@pytest.mark.parametrize("name", FORMATS)
def test_another_kind_of_file_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"<html>sign in</html>")
    with pytest.raises(CorruptError, match="no readable weights file"):
        read_tensors(tmp_path / name)


def test_code_in_a_pickle_is_not_run(tmp_path):
    torch.save({"a": Bomb(tmp_path / "ran")}, tmp_path / "net.pth")
    with pytest.raises(CorruptError, match="nothing in it was run"):
        read_tensors(tmp_path / "net.pth")
    assert not (tmp_path / "ran").exists()


def test_a_lone_tensor_is_no_state(tmp_path):
    torch.save(torch.ones(2), tmp_path / "net.pth")
    with pytest.raises(CorruptError, match="holds a Tensor"):
        read_tensors(tmp_path / "net.pth")


@pytest.mark.parametrize("state", [{}, {"weight": torch.ones(3, 2)}, {"weight": torch.ones(2, 2), "x": torch.ones(1)}])
def test_gaps_other_shapes_and_leftovers_are_refused(state, tmp_path):
    with pytest.raises(CorruptError, match="do not fit the network"):
        load_tensors(nn.Linear(2, 2, bias=False), state, tmp_path / "net.pth")


FAMILIES = {
    "torchvision": lambda weights: weights.torchvision("mobilenet_v3_small"),
    "timm": lambda weights: weights.timm("test_resnet.r160_in1k"),
    "open_clip": lambda weights: weights.open_clip(),
    "inception": lambda weights: weights.inception(),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_refuses_files_of_another_network_and_broken_ones(family, weights, tmp_path):
    name = FAMILIES[family](weights)
    path = next(path for path in weights.folder.rglob("*") if path.suffix in (".safetensors", ".pth"))
    write = save_file if path.suffix == ".safetensors" else torch.save
    write({"visual.conv1.weight": torch.ones(2)}, path)
    with pytest.raises(CorruptError, match="do not fit") as caught:
        get_encoder(name, device="cpu")
    assert str(path) in str(caught.value)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CorruptError, match="no readable weights file"):
        get_encoder(name, device="cpu")
    path.unlink()
    torch.save({"a": Bomb(tmp_path / "ran")}, path.with_suffix(".pth"))
    with pytest.raises(CorruptError, match="nothing in it was run"):
        get_encoder(name, device="cpu")
    assert not (tmp_path / "ran").exists()
