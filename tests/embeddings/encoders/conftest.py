"""A torch.hub cache filled with seeded weights, and a machine without a network."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch

from embeddings.encoders import hub_weights
from embeddings.encoders.torchvision_import import import_torchvision


class HubCache:
    """``hub_cache("resnet18", seed=0)`` puts seeded weights where the public ones of this network belong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str, *, seed: int = 0) -> Path:
        models = import_torchvision().models
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            module = models.get_model(name, weights=None)
        path = hub_weights.cached_path(models.get_model_weights(name).DEFAULT.url)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(module.state_dict(), path)
        return path


def make_hub_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> HubCache:
    """A cache in this folder that torch uses while the patch lasts."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folder))
    monkeypatch.setattr(hub_weights, "_check_hash", lambda path: None)  # seeded weights are not the promised ones
    return HubCache(folder)


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    return make_hub_cache(tmp_path / "hub", monkeypatch)


@pytest.fixture(scope="module")
def module_hub_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield make_hub_cache(tmp_path_factory.mktemp("hub"), monkeypatch)


@pytest.fixture
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
