"""Which network is trained, at which size, from which weights.

Weights come from ``scratch``, from the network's ``public`` ImageNet weights, or from an earlier run (``run:DIR``).
What was trained is written under the network's own parameter names, without heads, for the encoder ``run:DIR`` to read.

Images are squares of 28 to 518 pixels, in steps that suit the network: its patches where it has some, 4 for the small
ones, 8 for the others, 32 for convnext-tiny; any for the networks of libraries that take it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save

from curate.pretraining.adaptation import plain_state
from embeddings import files
from embeddings.encoders.checkpoint import PREFIX, SCHEMA, load_backbone
from embeddings.encoders.networks import (
    BUILDERS,
    Network,
    build_network,
    default_size,
    has_public_weights,
    outline,
    require_network,
)
from embeddings.encoders.torch_encoder import weights_digest
from embeddings.encoders.transformers import SHAPES, describe_transformer, has_tokens, patch_edge, patch_for, resize
from embeddings.errors import UnknownNameError, UsageError

SMALLEST, LARGEST = 28, 518  # pixels
STEPS = {"tiny-resnet": 4, "resnet18-small": 4, "resnet50-small": 4, "convnext-tiny": 32}  # pixels
PUBLIC_PATCH = 16  # of the transformers' public weights


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
        if self.folder is None:
            return build_network(self.network, init=self.init, seed=seed, size=self.size)
        network, trained_at = load_backbone(self.folder)
        if self.size != trained_at and has_tokens(network.module):
            resize(network.module, self.size)
        return network


def resolve_backbone(network: str | None, *, init: str, size: int | None) -> Backbone:
    """Fills in what the user left open: the earlier run's network and size, lite0 for public weights, else tiny-resnet.

    Raises:
        UnknownNameError: no such network or init.
        UsageError: a size that the network does not take, no public weights, or an earlier run of another network.
    """
    if init.startswith(PREFIX):
        return _resolve_run(Path(init.removeprefix(PREFIX)), network, size)
    if init not in ("scratch", "public"):
        raise UnknownNameError("init", init, ("scratch", "public", "run:DIR"))
    network = network or ("lite0" if init == "public" else "tiny-resnet")
    require_network(network)
    if init == "public" and not has_public_weights(network):
        raise UsageError(f"Network {network!r} has no public weights.", hint="Use init 'scratch', or lite0.")
    size = default_size(network) if size is None else size
    _require_size(network, size, step=_step(network, size, init))
    return Backbone(network=network, size=size, init=init)


def save_backbone(folder: Path, network: Network, *, size: int) -> None:
    """Writes backbone.safetensors, then backbone.json; ``size`` is the edge in pixels it was trained at.

    Raises:
        StorageError: no space.
    """
    state = plain_state(network.module)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with files.atomic_path(folder / "backbone.safetensors") as temporary:
        temporary.write_bytes(save(tensors))
    facts = {"network": network.name, "dim": network.dim, "mean": network.mean, "std": network.std}
    facts |= describe_transformer(network.module)
    files.write_json(folder / "backbone.json", {"schema": SCHEMA, "size": size, **facts})


def _resolve_run(folder: Path, wanted: str | None, size: int | None) -> Backbone:
    network, trained_at = load_backbone(folder)
    if wanted not in (None, network.name):
        raise UsageError(
            f"{folder} trained {network.name}; the backbone asked for is {wanted}.",
            hint=f"Leave out the backbone, or use {network.name}.",
        )
    weights = weights_digest(network.module)
    size = trained_at if size is None else size
    step = patch_edge(network.module) if has_tokens(network.module) else _step(network.name, size)
    _require_size(network.name, size, step=step)
    return Backbone(network=network.name, size=size, init="run", weights=weights, folder=folder)


def _step(network: str, size: int, init: str = "scratch") -> int:
    """What the edge must be a multiple of, in pixels."""
    if network in SHAPES:
        return PUBLIC_PATCH if init == "public" else patch_for(network, size)
    if network in BUILDERS:
        return STEPS.get(network, 8)
    module = outline(network, size=size).module  # refuses a size that it does not take at all
    return patch_edge(module) if has_tokens(module) else 1


def _require_size(network: str, size: int, *, step: int) -> None:
    if SMALLEST <= size <= LARGEST and size % step == 0:
        return
    wanted = f"a multiple of {step} from" if step > 1 else "an edge from"
    low = -(-SMALLEST // step) * step
    raise UsageError(
        f"{network} cannot be trained on images of {size} pixels.",
        hint=f"Use {wanted} {low} to {LARGEST // step * step}; its default is {default_size(network)}.",
    )
