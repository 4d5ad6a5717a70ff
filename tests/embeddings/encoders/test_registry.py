"""Names: which there are, which are meant, and what they cost to list."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from embeddings.encoders import encoder_names, encoder_spec, get_encoder
from embeddings.encoders.torch_encoder import Placement
from embeddings.errors import UnknownNameError, UsageError


def test_the_built_in_names_all_build():
    names = encoder_names()
    assert names == ["lite0", "lite0:untrained", "lite0@224", "random"]
    assert [get_encoder(name).spec.name for name in names] == [*names[:3], "random:0"]


def test_patterns_reach_into_the_library_that_they_name():
    assert encoder_names("lite0*") == ["lite0", "lite0:untrained", "lite0@224"]
    assert "torchvision:resnet50" in encoder_names("*:resnet*")
    assert encoder_names("torchvision:vit_b_*") == ["torchvision:vit_b_16", "torchvision:vit_b_32"]
    assert encoder_names("nothing*") == []


def test_listing_names_and_the_spec_of_lite0_do_not_import_torch():
    code = (
        "import sys; from embeddings.encoders import encoder_names, encoder_spec; "
        "encoder_names(); encoder_spec('lite0@224'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "near"), [("lite1", "lite0"), ("resnet50", "torchvision:resnet50"), ("randon", "random")]
)
def test_unknown_names_show_the_nearest(name, near):
    with pytest.raises(UnknownNameError, match=near):
        get_encoder(name)


@pytest.mark.parametrize("name", ["random:x", "random:-1", "random:"])
def test_a_seed_is_a_whole_number(name):
    with pytest.raises(UnknownNameError, match="random"):
        get_encoder(name)


def test_seeds_of_random_are_encoders_of_their_own():
    assert encoder_spec("random") == encoder_spec("random:0")
    assert encoder_spec("random:1").weights != encoder_spec("random:2").weights


def test_automatic_placement_follows_the_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Placement.choose() == Placement(torch.device("cpu"), "float32")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Placement.choose() == Placement(torch.device("cuda"), "bfloat16")
    assert Placement.choose(precision="float32").precision == "float32"
    assert Placement.choose("cpu").precision == "float32"


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(UsageError, match=device):
        get_encoder("random", device=device)


def test_an_unknown_precision_shows_the_known_ones():
    with pytest.raises(UnknownNameError, match="float32"):
        get_encoder("random", precision="float")
