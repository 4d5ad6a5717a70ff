"""Where weights files come from: put there by hand, cached by PyTorch's or Hugging Face's hub, or downloaded.

Every encoder that needs a file names its place below one folder, which is looked at first: ``$CURATE_WEIGHTS``, else
``curate/weights`` in the user's cache folder.

    timm:NAME              timm/NAME.safetensors (or .pth, .pt, .bin)
    open_clip:ARCH/TAG     open_clip/ARCH/TAG.safetensors (or .pth, .pt, .bin)
    torchvision:NAME       torchvision/FILE, the file's own name with its digest (resnet18-f37072fd.pth)
    inception              inception/pt_inception-2015-12-05-6726825d.pth

A download is never silent: it shows its progress, and it starts only after the host has answered.
"""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Protocol

import torch

from embeddings import files
from embeddings.errors import CorruptError, MissingExtraError, one_line

PATIENCE_S = 10.0  # how long a host may take to answer before we say that there is no network
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")  # which a file put there by hand may have; the first is preferred


class _UnreachableError(Exception):
    """Raised when a host does not hand out a file."""


class Origin(Protocol):
    """A file that a hub hands out."""

    @property
    def title(self) -> str:
        """What to look for on a machine with a network."""

    @property
    def address(self) -> str:
        """URL that answers if the hub can be reached."""

    def cached(self) -> Path | None:
        """The file in the hub's own cache, if it is there."""

    def download(self) -> Path:
        """Fetches the file into the hub's own cache, with a progress bar; OSError if that fails."""


@dataclass(frozen=True)
class TorchHubFile:
    """One file at a URL, in torch.hub's cache."""

    url: str

    @property
    def name(self) -> str:
        """The file's own name, which may promise its digest: NAME-<first digits of the sha256>.pth."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def title(self) -> str:
        """See ``Origin``."""
        return self.url

    @property
    def address(self) -> str:
        """See ``Origin``."""
        return self.url

    def cached(self) -> Path | None:
        """See ``Origin``."""
        return self._path if self._path.exists() else None

    def download(self) -> Path:
        """See ``Origin``; half a download leaves nothing."""
        with files.atomic_path(self._path) as temporary:
            try:
                torch.hub.download_url_to_file(self.url, str(temporary), progress=True)
            except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
                raise _UnreachableError(one_line(error)) from error  # the host's refusal, not this disk's
        return self._path

    @property
    def _path(self) -> Path:
        return Path(torch.hub.get_dir()) / "checkpoints" / self.name


@dataclass(frozen=True)
class HuggingFaceFile:
    """The first of some files that a repository of the Hugging Face hub has, in that hub's cache."""

    repository: str
    names: tuple[str, ...]

    @property
    def title(self) -> str:
        """See ``Origin``."""
        return f"{self.names[0]} of {self.repository} on the Hugging Face hub"

    @property
    def address(self) -> str:
        """See ``Origin``."""
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.repository, self.names[0])

    def cached(self) -> Path | None:
        """See ``Origin``."""
        from huggingface_hub import try_to_load_from_cache

        found = [try_to_load_from_cache(self.repository, name) for name in self.names]
        return next((Path(path) for path in found if isinstance(path, str)), None)

    def download(self) -> Path:
        """See ``Origin``; an interrupted download goes on where it stopped."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        for name in self.names:
            try:
                return Path(hf_hub_download(self.repository, name))
            except LocalEntryNotFoundError:
                raise
            except EntryNotFoundError:
                continue
        raise FileNotFoundError(f"{self.repository} has none of {', '.join(self.names)}")


def find_weights(encoder: str, place: str, origin: Origin) -> Path:
    """The weights file of an encoder, downloaded with a progress bar if it is nowhere on this machine.

    Args:
        encoder: Its name, for messages.
        place: Where a file put there by hand lies below the weights folder; its suffix may be any of ``SUFFIXES``.
        origin: Where else it comes from.

    Raises:
        MissingExtraError: not on this machine and not to be downloaded; names the file and where to put it.
        CorruptError: the content is not what the file's name promises.
    """
    path = _by_hand(place) or origin.cached() or _download(encoder, place, origin)
    _check_hash(path)
    return path


def weights_folder() -> Path:
    """Where weights files may be put by hand, whether or not it exists."""
    chosen = os.environ.get("CURATE_WEIGHTS")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(chosen).expanduser() if chosen else cache / "curate" / "weights"


def _by_hand(place: str) -> Path | None:
    exact = weights_folder() / place
    others = (exact.with_name(exact.name.removesuffix(exact.suffix) + suffix) for suffix in SUFFIXES)
    return next((path for path in (exact, *others) if path.is_file()), None)


def _download(encoder: str, place: str, origin: Origin) -> Path:
    try:
        _require_answer(origin.address)
        return origin.download()
    except (OSError, _UnreachableError) as error:
        why = one_line(error)
        raise MissingExtraError(
            f"The weights of {encoder} are not on this machine and cannot be downloaded ({why}).",
            hint=f"Get {origin.title} on a machine with a network and put it at {weights_folder() / place}.",
        ) from error


def _require_answer(url: str) -> None:
    """Fails soon where there is no network; the download itself waits without limit.

    Asked in a thread of its own, because looking up a host's name knows no time limit.
    """
    answer: Future[None] = Future()
    Thread(target=_ask, args=(url, answer), daemon=True).start()
    try:
        answer.result(timeout=PATIENCE_S)
    except TimeoutError:
        raise TimeoutError(f"no answer within {PATIENCE_S:g} s") from None


def _ask(url: str, answer: Future[None]) -> None:
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE_S).close()
        answer.set_result(None)
    except urllib.error.HTTPError:  # refused, but there: the download will say why
        answer.set_result(None)
    except Exception as error:
        answer.set_exception(error)


def _check_hash(path: Path) -> None:
    """The digest that a file's name promises: NAME-<first digits>.pth, or all 64 that name it in a hub's cache."""
    match = re.search(r"-([0-9a-f]{8,16})$|^([0-9a-f]{64})$", path.resolve().name.partition(".")[0])
    if not match:
        return
    promised, found = match[1] or match[2], files.digest_file(path)
    if not found.startswith(promised):
        raise CorruptError(
            f"{path.name} has sha256 {found[:8]}..., its name promises {promised[:8]}.",
            hint=f"Delete {path.resolve()}.",
        )
