"""Seeded weights where public ones belong, and a machine without a network."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
from encoder_weights import Weights

from embeddings.encoders import hub_weights, registry
from embeddings.encoders.torchvision_import import import_torchvision


class HubCache:
    """``hub_cache("resnet18", seed=0)`` puts seeded weights where torch.hub keeps the public ones of this network."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str, *, seed: int = 0) -> Path:
        models = import_torchvision().models
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            module = models.get_model(name, weights=None)
        file = models.get_model_weights(name).DEFAULT.url.rsplit("/", 1)[-1]
        path = self.folder / "checkpoints" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(module.state_dict(), path)
        return path


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    registry._build_once.cache_clear()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("CURATE_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(hub_weights, "_check_hash", lambda path: None)  # seeded weights are not the promised ones
    return HubCache(tmp_path / "hub")


@pytest.fixture
def weights(tmp_path, monkeypatch):
    registry._build_once.cache_clear()  # the same names stood for other files before
    return Weights(tmp_path / "weights", monkeypatch)


@pytest.fixture
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
