"""The state of a run on disk: written whole, checked when read, the last two kept.

    checkpoints/step-000000120.safetensors   model, heads and optimizer, one tensor per name
    checkpoints/step-000000120.json          step, sha256 of the tensors, digest of the configuration; written last

A run is a pure function of its configuration and step, so this is all a restart needs.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import nn

from embeddings import files
from embeddings.errors import CorruptError, TrainingError

log = logging.getLogger(__name__)
KEPT = 2
MODEL, OPTIMIZER = "model.", "optimizer."


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Where a checkpoint stands."""

    step: int = 0  # optimizer steps done
    samples_seen: int = 0
    seconds: float = 0.0  # of training so far


def save_checkpoint(
    folder: Path, learner: nn.Module, optimizer: torch.optim.Optimizer, *, mark: Mark, config: str
) -> None:
    """Writes one checkpoint and deletes all but the last two.

    Args:
        folder: ``checkpoints/`` of the run.
        learner: backbone and heads.
        optimizer: over the learner's parameters.
        mark: where the run stands.
        config: digest of the run's configuration.

    Raises:
        TrainingError: the state is not finite; nothing is written.
        StorageError: no space.
    """
    state = _tensors(learner, optimizer)
    broken = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise TrainingError(
            f"The run diverged by step {mark.step}: {broken[0]} is not finite.", hint="Lower the learning rate."
        )
    data = save(state)
    path = folder / f"step-{mark.step:09d}.safetensors"
    with files.atomic_path(path) as temporary:
        temporary.write_bytes(data)
    facts = {"schema": "curate.checkpoint/1", "config": config, "sha256": files.digest_bytes(data)}
    files.write_json(path.with_suffix(".json"), facts | vars(mark))
    for old in sorted(folder.glob("step-*.json"))[:-KEPT]:
        old.unlink()
        old.with_suffix(".safetensors").unlink(missing_ok=True)


def load_checkpoint(folder: Path, learner: nn.Module, optimizer: torch.optim.Optimizer, config: str) -> Mark | None:
    """Restores the newest checkpoint that reads back, or returns None; tells of each that does not."""
    for path in sorted(folder.glob("step-*.json"), reverse=True):
        try:
            facts, data = _read(path, config)
        except CorruptError as error:
            log.warning("%s It is skipped.", error.message)
            continue
        _restore(load(data), learner, optimizer)
        return Mark(**{name: facts[name] for name in Mark.__dataclass_fields__})
    return None


def _read(path: Path, config: str) -> tuple[dict[str, Any], bytes]:
    facts, tensors = files.read_json(path), path.with_suffix(".safetensors")
    data = tensors.read_bytes() if tensors.exists() else b""
    found = {"config": config, "sha256": files.digest_bytes(data)}
    for name, value in found.items():
        if facts.get(name) != value:
            raise CorruptError(f"Checkpoint {path.stem} does not read back ({name} differs).")
    return facts, data


def _tensors(learner: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Everything that changes during training, on the CPU, under one flat name each."""
    state = {MODEL + name: tensor for name, tensor in learner.state_dict().items()}
    for number, entries in optimizer.state_dict()["state"].items():
        state |= {f"{OPTIMIZER}{number}.{name}": tensor for name, tensor in entries.items()}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def _restore(state: dict[str, torch.Tensor], learner: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    learner.load_state_dict({k.removeprefix(MODEL): v for k, v in state.items() if k.startswith(MODEL)})
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in state.items():
        if key.startswith(OPTIMIZER):
            number, name = key.removeprefix(OPTIMIZER).split(".", 1)
            entries.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
