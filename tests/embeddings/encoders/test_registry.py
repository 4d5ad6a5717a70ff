"""Names: which there are, which are meant, and what they cost to list."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from embeddings.encoders import describe_encoder, encoder_names, encoder_spec, get_encoder, registry
from embeddings.encoders.torch_encoder import Placement
from embeddings.errors import UnknownNameError, UsageError

BUILT_IN = ["lite0", "lite0:untrained", "lite0@224", "random", "color-texture", "inception"]


@pytest.fixture(autouse=True)
def _no_plugins_of_this_machine(monkeypatch):
    monkeypatch.setattr(registry.metadata, "entry_points", lambda group: [])


def test_the_built_in_names_all_build(weights):
    weights.inception()
    names = encoder_names()
    assert names == BUILT_IN
    assert [get_encoder(name).spec.name for name in names] == [*names[:3], "random:0", *names[4:]]


def test_patterns_reach_into_the_library_that_they_name():
    assert encoder_names("lite0*") == ["lite0", "lite0:untrained", "lite0@224"]
    assert {"torchvision:resnet50", "timm:resnet50.a1_in1k"} <= set(encoder_names("*:resnet*"))
    assert encoder_names("torchvision:vit_b_*") == ["torchvision:vit_b_16", "torchvision:vit_b_32"]


def test_a_word_that_nothing_built_in_has_is_searched_in_every_library():
    found = encoder_names("dinov2")
    assert "timm:vit_small_patch14_dinov2.lvd142m" in found
    assert all("dinov2" in name for name in found)
    assert encoder_names("*dinov2*") == found
    assert encoder_names("DINOv2") == found
    assert encoder_names("nothing*") == encoder_names("*:nothing") == []


def test_what_is_known_of_a_name_agrees_with_the_encoder(weights):
    weights.inception()
    for name in [*BUILT_IN, weights.torchvision("resnet18"), weights.timm("test_resnet.r160_in1k")]:
        known, spec = describe_encoder(name), get_encoder(name).spec
        assert known["name"] == name
        assert known["size"] == spec.size
        assert known["dim"] in (spec.dim, None)
        assert known["license"] == (spec.license or None)


def test_listing_names_and_the_spec_of_lite0_do_not_import_torch():
    code = (
        "import sys; from embeddings.encoders import encoder_names, encoder_spec; "
        "from embeddings.encoders import describe_encoder; [describe_encoder(n) for n in encoder_names()]; "
        "encoder_spec('lite0@224'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("lite1", "lite0"),
        ("randon", "random"),
        ("color_texture", "color-texture"),
        ("resnet50", "torchvision:resnet50 or timm:resnet50.a1_in1k"),
        ("tim:resnet50", "timm:resnet50.a1_in1k"),
        ("vit_small_patch14_dinov2.lvd142m", "timm:vit_small_patch14_dinov2.lvd142m"),
        ("vit_small_patch14_dinov2", "timm:vit_small_patch14_dinov2.lvd142m"),
        ("dinov2", "timm:vit_base_patch14_dinov2.lvd142m"),
    ],
)
def test_unknown_names_show_the_nearest_of_every_library(name, near):
    with pytest.raises(UnknownNameError, match=f"Did you mean {near}"):
        get_encoder(name)


def test_a_name_like_no_other_shows_the_families():
    with pytest.raises(UnknownNameError) as caught:
        get_encoder("zzzzqqqq")
    assert "run:DIR" in caught.value.hint
    assert "timm:NAME" in caught.value.hint
    assert len(caught.value.hint) < 200


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
