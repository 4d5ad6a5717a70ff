"""Encoders of others: module:function, plugins, and what is said when they do not hold up."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint

import numpy as np
import pytest
from encoder_weights import pooled

from embeddings.encoders import encoder_names, get_encoder, registry, user
from embeddings.encoders.color_texture import ColorTexture
from embeddings.errors import ConfigError, UnknownNameError, UsageError

MODULE = """
import torch
from embeddings.encoders.color_texture import ColorTexture
from embeddings.encoders.transform import Transform
from embeddings.errors import ConfigError

def pair():
    return torch.nn.Flatten(), Transform(size=4, mean=0.0, std=255.0)

def named(name, placement):
    encoder = ColorTexture()
    encoder.seen = name, placement.device.type, placement.precision
    return encoder

def optional(strength=3):
    return ColorTexture()

def fails():
    return 1 / 0

def refuses():
    raise ConfigError("no license file", hint="Buy one.")

def number():
    return 3

constant = 5
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The module ``my_encoders``, where Python finds it."""
    registry._build_once.cache_clear()
    (tmp_path / "my_encoders.py").write_text(MODULE)
    (tmp_path / "broken_encoders.py").write_text("import torch\n1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture
def plugins(mine, monkeypatch):
    """``plugins(name="module:function")`` installs plugins."""

    def install(**points):
        found = [EntryPoint(name, value, registry.GROUP) for name, value in points.items()]
        monkeypatch.setattr(registry.metadata, "entry_points", lambda group: found if group == registry.GROUP else [])

    return install


def test_a_network_and_its_transform_make_an_encoder(mine):
    encoder = get_encoder("my_encoders:pair", device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (16, 4, 4, 3), dtype=np.uint8)
    np.testing.assert_allclose(encoder.encode(pixels), pixels.transpose(0, 3, 1, 2).reshape(16, -1) / 255, rtol=1e-6)
    assert (encoder.spec.name, encoder.spec.dim, encoder.spec.license) == ("my_encoders:pair", 48, "unknown")


def test_the_example_in_the_documentation_works(tmp_path, monkeypatch):
    code = re.search(r"( +import torch\n.*?mean=127.5, std=127.5\)\n)", user.__doc__, re.DOTALL)[1]
    (tmp_path / "documented.py").write_text(re.sub(r"^    ", "", code, flags=re.MULTILINE))
    monkeypatch.syspath_prepend(tmp_path)
    encoder = get_encoder("documented:pooled", device="cpu")
    assert (encoder.spec.dim, encoder.spec.size) == (48, 64)
    assert encoder.spec.weights == get_encoder("encoder_weights:pooled").spec.weights
    assert encoder.prepare == pooled()[1]


def test_a_function_of_two_arguments_learns_name_and_placement(mine):
    encoder = get_encoder("my_encoders:named", device="cpu", precision="bfloat16")
    assert encoder.seen == ("my_encoders:named", "cpu", "bfloat16")
    assert isinstance(get_encoder("my_encoders:optional", device="cpu"), ColorTexture)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my_encoders:fails", "'my_encoders:fails' failed: ZeroDivisionError: division by zero"),
        ("my_encoders:number", "gave a int without spec, batch_size"),
        ("my_encoders:constant", "is no function"),
        ("my_encoders:absent", "is no function"),
        ("broken_encoders:make", "broken_encoders does not load: ZeroDivisionError"),
    ],
)
def test_what_does_not_hold_up_is_named(mine, name, said):
    with pytest.raises(UsageError, match=said):
        get_encoder(name, device="cpu")


def test_errors_of_ours_pass(mine):
    with pytest.raises(ConfigError, match="no license file"):
        get_encoder("my_encoders:refuses", device="cpu")


@pytest.mark.parametrize("name", ["no_such_module:make", "no_such_module.inner:make", "my encoders:pair", "x:y:z"])
def test_a_module_that_is_not_there_is_an_unknown_name(mine, name):
    with pytest.raises(UnknownNameError):
        get_encoder(name)


def test_a_plugin_is_an_encoder_by_its_name_with_variants(plugins):
    plugins(acme="my_encoders:named")
    assert get_encoder("acme", device="cpu").seen[0] == "acme"
    assert get_encoder("acme:large", device="cpu").seen[0] == "acme:large"
    assert "acme" in encoder_names()
    assert encoder_names("acm*") == ["acme"]


def test_a_family_of_ours_wins_and_the_plugin_is_not_loaded(plugins):
    plugins(random="broken_encoders:make")
    assert get_encoder("random:3", device="cpu").spec.name == "random:3"


def test_plugins_can_be_switched_off(plugins, monkeypatch):
    plugins(acme="my_encoders:named")
    monkeypatch.setenv("CURATE_DISABLE_PLUGINS", "1")
    assert "acme" not in encoder_names()
    with pytest.raises(UnknownNameError):
        get_encoder("acme", device="cpu")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("broken_encoders:make", "does not load: ZeroDivisionError"),
        ("no_such_module:make", "does not load: ModuleNotFoundError"),
        ("my_encoders:fails", "failed: ZeroDivisionError"),
        ("my_encoders:number", "gave a int"),
    ],
)
def test_a_plugin_that_does_not_hold_up_is_named(plugins, value, said):
    plugins(acme=value)
    with pytest.raises(UsageError, match=f"Plugin 'acme' .{value}.* {said}"):
        get_encoder("acme", device="cpu")
