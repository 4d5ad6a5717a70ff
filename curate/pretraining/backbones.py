"""Which network is trained, at which size, from which weights.

Weights come from ``scratch``, from the network's ``public`` ImageNet weights, or from an earlier run (``run:DIR``).
What was trained is written under the network's own parameter names, without heads, for the encoder ``run:DIR`` to read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save

from embeddings import files
from embeddings.encoders.checkpoint import PREFIX, SCHEMA, load_backbone
from embeddings.encoders.networks import Network, build_network
from embeddings.encoders.torch_encoder import weights_digest
from embeddings.errors import UnknownNameError, UsageError

SIZES = {"lite0": 64, "resnet18": 128, "resnet18-small": 32, "resnet50": 128, "tiny-resnet": 32}  # default, in pixels


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A network's name, its training size and the origin of its weights."""

    network: str
    size: int
    init: str  # scratch, public or run
    weights: str = ""  # sha256 of an earlier run's weights
    folder: Path | None = None  # of that run

    @property
    def stored_edge(self) -> int:
        """Edge of the images that views are cut from: a quarter larger."""
        return self.size * 5 // 4

    def build(self, seed: int) -> Network:
        """The network with its starting weights, in training mode on the CPU.

        Raises:
            CorruptError: the earlier run's weights do not read back.
            MissingExtraError: public weights that are not on this machine.
        """
        if self.folder is not None:
            return load_backbone(self.folder)[0]
        return build_network(self.network, init=self.init, seed=seed)


def resolve_backbone(network: str | None, *, init: str, size: int | None) -> Backbone:
    """Fills in what the user left open: the earlier run's network and size, lite0 for public weights, else tiny-resnet.

    Raises:
        UnknownNameError: no such network or init.
        UsageError: a size out of range, or an earlier run of another network.
    """
    if init.startswith(PREFIX):
        return _resolve_run(Path(init.removeprefix(PREFIX)), network, size)
    if init not in ("scratch", "public"):
        raise UnknownNameError("init", init, ("scratch", "public", "run:DIR"))
    network = network or ("lite0" if init == "public" else "tiny-resnet")
    if network not in SIZES:
        raise UnknownNameError("backbone", network, SIZES)
    return Backbone(network=network, size=_checked(size or SIZES[network]), init=init)


def save_backbone(folder: Path, network: Network, *, size: int) -> None:
    """Writes backbone.safetensors, then backbone.json; ``size`` is the edge in pixels it was trained at.

    Raises:
        StorageError: no space.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.module.state_dict().items()}
    with files.atomic_path(folder / "backbone.safetensors") as temporary:
        temporary.write_bytes(save(tensors))
    facts = {"network": network.name, "dim": network.dim, "mean": network.mean, "std": network.std}
    files.write_json(folder / "backbone.json", {"schema": SCHEMA, "size": size, **facts})


def _resolve_run(folder: Path, wanted: str | None, size: int | None) -> Backbone:
    network, trained_at = load_backbone(folder)
    if wanted not in (None, network.name):
        raise UsageError(
            f"{folder} trained {network.name}; the backbone asked for is {wanted}.",
            hint=f"Leave out the backbone, or use {network.name}.",
        )
    weights = weights_digest(network.module)
    return Backbone(network=network.name, size=_checked(size or trained_at), init="run", weights=weights, folder=folder)


def _checked(size: int) -> int:
    if not 32 <= size <= 224 or size % 8:
        raise UsageError(f"Images of {size} pixels cannot be trained on.", hint="Use a multiple of 8 from 32 to 224.")
    return size
