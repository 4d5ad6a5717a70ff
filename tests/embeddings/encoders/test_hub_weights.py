"""Weights from torch.hub's cache: found, refused, downloaded in plain sight."""

from __future__ import annotations

import pytest
import torch

from embeddings import files
from embeddings.encoders.hub_weights import cached_path, load_hub_weights, require_hub_file
from embeddings.errors import CorruptError, MissingExtraError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def save(folder, tensors):
    """Writes tensors under the name that torch.hub gives: NAME-<first 8 digits of the sha256>.pth."""
    torch.save(tensors, folder / "w")
    return (folder / "w").rename(folder / f"net-{files.digest_file(folder / 'w')[:8]}.pth")


def test_a_cached_file_is_loaded_without_a_network(cache, offline):
    path = save(cache, {"a": torch.arange(3)})
    url = f"https://example.org/models/{path.name}"
    assert cached_path(url) == path
    assert torch.equal(load_hub_weights(url)["a"], torch.arange(3))


def test_content_that_breaks_its_name_s_promise_is_refused(cache, offline):
    path = save(cache, {"a": torch.arange(3)})
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(CorruptError, match="its name promises"):
        require_hub_file(f"https://example.org/{path.name}")


def test_a_file_that_is_no_state_dict_is_refused(cache, offline):
    (cache / "net.pth").write_bytes(b"<html>sign in</html>")
    with pytest.raises(CorruptError, match="no readable weights file"):
        load_hub_weights("https://example.org/net.pth")


def test_without_network_the_error_names_file_and_place_and_leaves_nothing(cache, offline):
    with pytest.raises(MissingExtraError, match=r"net-00000000\.pth") as caught:
        require_hub_file("https://example.org/net-00000000.pth")
    assert str(cache / "net-00000000.pth") in caught.value.hint
    assert not list(cache.iterdir())


def test_a_download_shows_progress_and_lands_in_the_cache(cache, tmp_path, monkeypatch, capfd):
    origin = tmp_path / "origin"
    origin.mkdir()
    path = save(origin, {"a": torch.arange(5)})
    monkeypatch.setattr("embeddings.encoders.hub_weights._require_answer", lambda url: None)
    assert require_hub_file(path.as_uri()) == cache / path.name
    assert torch.equal(load_hub_weights(path.as_uri())["a"], torch.arange(5))
    assert "100%" in capfd.readouterr().err
