"""Weights files: put by hand, cached, downloaded in plain sight, or refused with the place where they belong."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch

from embeddings import files
from embeddings.encoders import hub_weights
from embeddings.encoders.hub_weights import HuggingFaceFile, TorchHubFile, find_weights, weights_folder
from embeddings.errors import CorruptError, MissingExtraError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CURATE_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights" / "library").mkdir(parents=True)
    return tmp_path / "weights"


@pytest.fixture
def cache(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def save(folder, content=b"tensors"):
    """Writes bytes under the name that torch.hub gives: NAME-<first 8 digits of the sha256>.pth."""
    path = folder / f"net-{files.digest_bytes(content)[:8]}.pth"
    path.write_bytes(content)
    return path


def find(name="net-00000000.pth"):
    return find_weights("library:net", f"library/{name}", TorchHubFile(f"https://example.org/models/{name}"))


def test_the_folder_is_chosen_or_lies_in_the_user_s_cache(monkeypatch):
    monkeypatch.setenv("CURATE_WEIGHTS", "~/w")
    assert weights_folder() == Path.home() / "w"
    monkeypatch.delenv("CURATE_WEIGHTS")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert weights_folder() == Path("/cache/curate/weights")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert weights_folder() == Path.home() / ".cache/curate/weights"


def test_a_file_put_by_hand_goes_first_whatever_its_suffix(folder, cache, offline):
    path = save(cache)
    assert find(path.name) == path
    by_hand = folder / "library" / path.with_suffix(".safetensors").name
    by_hand.write_bytes(b"tensors")
    assert find(path.name) == by_hand
    exact = folder / "library" / path.name
    exact.write_bytes(b"tensors")
    assert find(path.name) == exact


def test_a_dot_in_a_name_is_no_suffix(folder, offline):
    (folder / "library" / "net.v1.bin").write_bytes(b"tensors")
    assert find("net.v1.safetensors").name == "net.v1.bin"


@pytest.mark.parametrize("where", ["hand", "cache"])
def test_content_that_breaks_its_name_s_promise_is_refused(folder, cache, offline, where):
    path = save(cache if where == "cache" else folder / "library")
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(CorruptError, match="its name promises") as caught:
        find(path.name)
    assert str(path) in caught.value.hint


def test_without_network_the_error_names_encoder_file_and_place_and_leaves_nothing(folder, cache, offline):
    with pytest.raises(MissingExtraError, match="library:net") as caught:
        find()
    assert f"put it at {folder / 'library' / 'net-00000000.pth'}" in caught.value.hint
    assert "example.org/models/net-00000000.pth" in caught.value.hint
    assert not list(cache.iterdir())


def test_a_host_that_never_answers_is_given_up(folder, cache, monkeypatch):
    """As where looking up its name hangs, which no timeout of a socket ends."""
    released, answered = threading.Event(), threading.Event()

    def hang(*args, **kwargs):
        released.wait(60)
        answered.set()

    monkeypatch.setattr(urllib.request, "urlopen", hang)
    monkeypatch.setattr(hub_weights, "PATIENCE_S", 0.2)
    with pytest.raises(MissingExtraError, match=r"no answer within 0\.2 s"):
        find()
    assert not answered.is_set()
    released.set()


def test_a_host_that_refuses_to_be_asked_is_still_a_host(folder, cache, monkeypatch):
    def refuse(request, timeout):
        raise urllib.error.HTTPError(request.full_url, 405, "Method Not Allowed", {}, None)

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda url, path, progress: Path(path).write_bytes(b"w"))
    assert find("net.pth").read_bytes() == b"w"


def test_a_download_shows_progress_and_lands_in_the_cache(folder, cache, tmp_path, monkeypatch, capfd):
    (tmp_path / "origin").mkdir()
    path = save(tmp_path / "origin")
    monkeypatch.setattr(hub_weights, "_require_answer", lambda url: None)
    found = find_weights("library:net", f"library/{path.name}", TorchHubFile(path.as_uri()))
    assert found == cache / path.name
    assert found.read_bytes() == b"tensors"
    assert "100%" in capfd.readouterr().err


class TestHuggingFace:
    """Its cache: blobs named by their sha256, and links to them by file name."""

    @pytest.fixture
    def hub(self, tmp_path, monkeypatch):
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
        monkeypatch.setenv("CURATE_WEIGHTS", str(tmp_path / "weights"))
        return tmp_path / "hf" / "models--owner--net"

    @staticmethod
    def put(hub, name, content, digest=None):
        blob = hub / "blobs" / (digest or files.digest_bytes(content))
        link = hub / "snapshots" / "0" / name
        for path in (blob, link, hub / "refs" / "main"):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link.symlink_to(blob)
        (hub / "refs" / "main").write_text("0")
        return link

    def find(self):
        return find_weights("library:net", "library/net.safetensors", HuggingFaceFile("owner/net", ("a", "b")))

    def test_the_first_file_that_is_cached_is_taken(self, hub, offline):
        second = self.put(hub, "b", b"second")
        assert self.find() == second
        first = self.put(hub, "a", b"first")
        assert self.find() == first

    def test_content_that_is_not_what_the_hub_sent_is_refused(self, hub, offline):
        self.put(hub, "a", b"damaged", digest=files.digest_bytes(b"whole"))
        with pytest.raises(CorruptError, match="its name promises"):
            self.find()

    def test_without_network_the_error_comes_at_once(self, hub, offline):
        with pytest.raises(MissingExtraError, match="library:net") as caught:
            self.find()
        assert "a of owner/net on the Hugging Face hub" in caught.value.hint
        assert str(weights_folder() / "library" / "net.safetensors") in caught.value.hint

    def test_files_that_a_repository_lacks_are_passed_over(self, hub, monkeypatch, tmp_path):
        from huggingface_hub.errors import EntryNotFoundError

        def download(repository, name):
            if name == "a":
                raise EntryNotFoundError("404")
            return str(tmp_path / name)

        monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
        assert HuggingFaceFile("owner/net", ("a", "b")).download() == tmp_path / "b"
        with pytest.raises(FileNotFoundError, match="none of a"):
            HuggingFaceFile("owner/net", ("a",)).download()
