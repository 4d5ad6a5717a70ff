"""The guarded import works beside a CPU torch, and leaves a working torchvision alone."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

from embeddings.encoders import torchvision_import
from embeddings.encoders.torchvision_import import MISSING, import_timm, import_torchvision


@pytest.fixture
def fresh_cache():
    torchvision_import._import.cache_clear()
    yield
    torchvision_import._import.cache_clear()


def test_models_transforms_and_timm_are_usable():
    torchvision = import_torchvision()
    assert "resnet18" in torchvision.models.list_models()
    assert torchvision.transforms.functional.resize
    assert import_timm().is_model("tf_efficientnet_lite0")
    assert import_torchvision() is torchvision


def test_works_in_a_fresh_process_whatever_was_imported_before():
    code = "import torch; from embeddings.encoders.torchvision_import import *; import_timm(); import torchvision"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_working_torchvision_is_not_touched(fresh_cache, monkeypatch):
    working = types.ModuleType("torchvision")
    monkeypatch.setattr(torchvision_import.importlib, "import_module", lambda name: working)
    monkeypatch.setattr(torchvision_import, "_declare_operators", lambda: pytest.fail("declared without need"))
    assert import_torchvision() is working


def test_the_missing_operator_is_declared_once_and_the_import_repeated(fresh_cache, monkeypatch):
    calls = []

    def import_module(name):
        calls.append(name)
        if len(calls) == 1:
            raise RuntimeError(MISSING)
        return types.ModuleType(name)

    monkeypatch.setattr(torchvision_import.importlib, "import_module", import_module)
    monkeypatch.setattr(torchvision_import.sys, "modules", {"torchvision": 1, "torchvision.ops": 2, "torch": 3})
    monkeypatch.setattr(torchvision_import, "_declare_operators", lambda: calls.append("declare"))
    import_torchvision()
    assert calls == ["torchvision", "declare", "torchvision"]
    assert torchvision_import.sys.modules == {"torch": 3}


def test_another_failure_is_passed_on(fresh_cache, monkeypatch):
    def import_module(name):
        raise RuntimeError("libcudart.so not found")

    monkeypatch.setattr(torchvision_import.importlib, "import_module", import_module)
    with pytest.raises(RuntimeError, match="libcudart"):
        import_torchvision()
