"""Tuned networks on disk, so that the same command does not train again: checked when read, made anew if damaged.

start-0.safetensors   network and head of the first start, one tensor per name
tuned.json            what was chosen, and the sha256 of every start; written last
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from embeddings import files
from embeddings.errors import CorruptError

log = logging.getLogger(__name__)
SCHEMA, NAME = "curate.finetuned/1", "tuned.json"

State = dict[str, torch.Tensor]


def keep(folder: Path, choice: dict[str, Any], states: Sequence[State]) -> None:
    """Writes the states of all starts and what was chosen.

    Raises:
        StorageError: no space.
    """
    digests = []
    for number, state in enumerate(states):
        data = save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})
        with files.atomic_path(_path(folder, number)) as temporary:
            temporary.write_bytes(data)
        digests.append(files.digest_bytes(data))
    files.write_json(folder / NAME, {"schema": SCHEMA, "choice": choice, "sha256": digests})


def find(folder: Path) -> tuple[dict[str, Any], list[State]] | None:
    """What ``keep`` wrote; None if there is nothing, or something that does not read back."""
    if not (folder / NAME).exists():
        return None
    try:
        facts = files.read_json(folder / NAME)
        if facts["schema"] == SCHEMA:
            return facts["choice"], [_read(_path(folder, i), digest) for i, digest in enumerate(facts["sha256"])]
    except (CorruptError, OSError, KeyError, TypeError) as error:
        log.warning("The tuned network in %s does not read back (%s); it is trained again.", folder, error)
    return None


def _read(path: Path, digest: str) -> State:
    data = path.read_bytes()
    if files.digest_bytes(data) != digest:
        raise CorruptError(f"{path.name} is damaged.")
    return load(data)


def _path(folder: Path, number: int) -> Path:
    return folder / f"start-{number}.safetensors"
