"""The backbone of a pretraining run as an encoder: ``run:DIR``.

A run folder holds the network's tensors in backbone.safetensors and, in backbone.json, how to build and feed it:
``{"schema": "curate.backbone/1", "network": "lite0", "dim": 1280, "size": 64, "mean": 127.0, "std": 128.0}``;
of a transformer also ``"patch"``, the edge of its patches in pixels.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from embeddings import files
from embeddings.encoders.folding import fold_if_equal
from embeddings.encoders.networks import Network, build_network
from embeddings.encoders.torch_encoder import Placement, TorchEncoder, weights_digest
from embeddings.encoders.transform import Transform
from embeddings.errors import CorruptError, UsageError, one_line
from embeddings.spec import EncoderSpec

SCHEMA = "curate.backbone/1"
PREFIX = "run:"


def load_backbone(folder: Path) -> tuple[Network, int]:
    """The trained network and the edge in pixels it was trained at.

    Raises:
        UsageError: the folder is not a run.
        CorruptError: the run's files do not read back or disagree.
    """
    facts = _read_facts(folder)
    try:
        size, mean, std = int(facts["size"]), _scale(facts["mean"]), _scale(facts["std"])
        network = build_network(facts["network"], size=size, patch=facts.get("patch"))
        network.module.load_state_dict(load_file(folder / "backbone.safetensors"))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise CorruptError(
            f"The backbone in {folder} does not read back ({one_line(error)}).", hint="Pretrain again."
        ) from error
    return replace(network, mean=mean, std=std), size


def make_run(name: str, placement: Placement) -> TorchEncoder:
    """Builds ``run:DIR``.

    Raises:
        UsageError: the folder is not a run.
        CorruptError: the run's files do not read back or disagree.
    """
    network, size = load_backbone(Path(name.removeprefix(PREFIX)))
    transform = Transform(size=size, mean=network.mean, std=network.std)
    spec = EncoderSpec(
        name=f"{PREFIX}{network.name}@{size}",  # the folder stays out: the same weights elsewhere are the same encoder
        dim=network.dim,
        size=size,
        preprocessing=f"{transform}; {_features(network)}",
        weights=weights_digest(network.module),
    )
    return TorchEncoder(fold_if_equal(network.module, size), spec=spec, transform=transform, placement=placement)


def _features(network: Network) -> str:
    """Where the features come from, in words."""
    return "class token" if getattr(network.module, "global_pool", None) == "token" else "pooled features"


def _scale(value: Any) -> float | tuple[float, ...]:
    """A mean or standard deviation, one for all channels or one each."""
    return tuple(map(float, value)) if isinstance(value, list) else float(value)


def _read_facts(folder: Path) -> dict[str, Any]:
    if not (folder / "backbone.json").is_file():
        raise UsageError(
            f"{folder} is not a finished pretraining run: it has no backbone.json.",
            hint="Give the folder that `curate pretrain --out` wrote.",
        )
    facts: dict[str, Any] = files.read_json(folder / "backbone.json")
    if facts.get("schema") != SCHEMA:
        raise CorruptError(
            f"{folder} has backbone schema {facts.get('schema')!r}, wanted {SCHEMA!r}.", hint="Pretrain again."
        )
    return facts
