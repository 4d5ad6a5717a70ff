"""The state of a run on disk: written whole, checked when read, the last few kept.

    checkpoints/step-000000120.safetensors   model, heads and optimizer, one tensor per name
    checkpoints/step-000000120.json          step, sha256 of the tensors, what they depend on; written last

A run is a pure function of its configuration, precision and step, so this is all a restart needs.
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
from embeddings.errors import CorruptError, ForeignFolderError, TrainingError

log = logging.getLogger(__name__)
KEPT = 2
MODEL, OPTIMIZER = "model.", "optimizer."


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a checkpoint's state depends on, beside its step."""

    config: str  # digest of the run's configuration
    precision: str = "float32"  # follows from the device, which may be another one when the run goes on


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Where a checkpoint stands."""

    step: int = 0  # optimizer steps done
    samples_seen: int = 0
    seconds: float = 0.0  # of training so far


def save_checkpoint(
    folder: Path, learner: nn.Module, optimizer: torch.optim.Optimizer, *, mark: Mark, origin: Origin, keep: int = KEPT
) -> None:
    """Writes one checkpoint and deletes all but the last ones.

    Args:
        folder: ``checkpoints/`` of the run.
        learner: backbone and heads.
        optimizer: over the learner's parameters.
        mark: where the run stands.
        origin: what the state depends on.
        keep: how many checkpoints stay, this one included.

    Raises:
        TrainingError: the state is not finite; nothing is written.
        StorageError: no space.
    """
    state = _tensors(learner, optimizer)
    broken = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise TrainingError(
            f"The run diverged by step {mark.step}: {broken[0]} is not finite.",
            hint="Lower the learning rate (--set learning_rate=...) and choose a new folder; the last checkpoints "
            "are kept.",
        )
    data = save(state)
    path = folder / f"step-{mark.step:09d}.safetensors"
    with files.atomic_path(path) as temporary:
        temporary.write_bytes(data)
    facts = {"schema": "curate.checkpoint/1", **vars(origin), "sha256": files.digest_bytes(data)}
    files.write_json(path.with_suffix(".json"), facts | vars(mark))
    for old in sorted(folder.glob("step-*.json"))[:-keep]:
        old.unlink()
        old.with_suffix(".safetensors").unlink(missing_ok=True)


def load_checkpoint(folder: Path, learner: nn.Module, optimizer: torch.optim.Optimizer, origin: Origin) -> Mark | None:
    """Restores the newest checkpoint that reads back, or returns None; tells of each that does not.

    Raises:
        ForeignFolderError: it was trained in another precision.
    """
    for path in sorted(folder.glob("step-*.json"), reverse=True):
        try:
            facts, data = _read(path, origin.config)
        except CorruptError as error:
            log.warning("%s It is skipped.", error.message)
            continue
        _require_same_precision(folder.parent, facts.get("precision", origin.precision), origin.precision)
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


def _require_same_precision(run: Path, found: str, wanted: str) -> None:
    if found != wanted:
        raise ForeignFolderError(
            f"{run} was begun with precision {found!r}, this device trains with precision {wanted!r}.",
            hint="Go on with the --device it was begun on, or choose a new folder for --out.",
        )


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
    for parameter, entry in optimizer.state.items():
        for name, tensor in entry.items():
            if tensor.ndim == 4 and tensor.shape == parameter.shape:  # kernels for many tensors want one layout
                entry[name] = torch.empty_like(parameter.detach()).copy_(tensor)
