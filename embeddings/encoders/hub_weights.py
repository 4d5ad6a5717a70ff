"""Weights that PyTorch's hub hands out: taken from its local cache, downloaded only in plain sight."""

from __future__ import annotations

import pickle
import re
import urllib.request
from pathlib import Path
from typing import Any

import torch

from embeddings import files
from embeddings.errors import CorruptError, MissingExtraError

PATIENCE_S = 10.0  # how long a host may take to answer before we say that there is no network


def cached_path(url: str) -> Path:
    """Where torch.hub keeps the file of this address, whether or not it is there."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


def require_hub_file(url: str) -> Path:
    """The file of this address in the cache, downloaded with a progress bar if it is not there yet.

    Raises:
        MissingExtraError: not in the cache and not to be downloaded; names the file and where to put it.
        CorruptError: the content is not what the file's name promises.
    """
    path = cached_path(url)
    if not path.exists():
        _download(url, path)
    _check_hash(path)
    return path


def load_hub_weights(url: str) -> dict[str, Any]:
    """The state dict at this address; see ``require_hub_file`` for where it comes from.

    Raises:
        MissingExtraError: not in the cache and not to be downloaded.
        CorruptError: the file is not what its name promises, or is no state dict.
    """
    path = require_hub_file(url)
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise CorruptError(f"{path.name} is no readable weights file ({error}).", hint=f"Delete {path}.") from error
    return state


def _download(url: str, path: Path) -> None:
    try:
        _require_answer(url)
        with files.atomic_path(path) as temporary:
            torch.hub.download_url_to_file(url, str(temporary), progress=True)
    except OSError as error:
        raise MissingExtraError(
            f"The weights {path.name} are not on this machine and cannot be downloaded ({error}).",
            hint=f"Get this file on a machine with a network and put it at {path}.",
        ) from error


def _require_answer(url: str) -> None:
    """Fails soon where there is no network; the download itself waits without limit."""
    urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE_S).close()


def _check_hash(path: Path) -> None:
    promised = re.search(r"-([0-9a-f]{8,})\.[^.]+$", path.name)
    found = files.digest_file(path)
    if promised and not found.startswith(promised[1]):
        raise CorruptError(
            f"{path.name} has sha256 {found[:8]}..., its name promises {promised[1]}.", hint=f"Delete {path}."
        )
