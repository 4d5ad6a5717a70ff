"""What fine-tuning changes of a network, and how fast each of its stages learns.

head      nothing: only the head on its features is trained
last:N    its last N stages
whole     all of it

Stages are those of ``curate.pretraining.adaptation``, but for norms that stand by themselves: they belong to the stage
before. Of L stages, number i (from 0) learns at ``DECAY ** (L - i)`` of the head's rate, for early stages hold what any
image needs. Published decays, over 12 to 24 transformer blocks:

    ELECTRA small and base .80, large .90    Clark et al., ICLR 2020 (arXiv 2003.10555)
    BEiT    base .65, large .75              Bao et al., ICLR 2022 (arXiv 2106.08254)
    MAE     base .65                         He et al., CVPR 2022 (arXiv 2111.06377)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from curate.pretraining.adaptation import stages_of
from embeddings.errors import UsageError

DECAY = 0.75
WHOLE = "whole"
NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)

Layer = list[nn.Parameter]


@dataclass(frozen=True)
class Depth:
    """What of a network is fine-tuned."""

    kind: str = WHOLE  # or head, or last
    count: int = 0  # stages, of ``last``

    @classmethod
    def parse(cls, text: str) -> Depth:
        """Reads ``head``, ``last:N`` or ``whole``; ``Settings`` lets nothing else pass."""
        kind, _, count = text.partition(":")
        return cls(kind, int(count or 0))

    def __str__(self) -> str:
        return f"{self.kind}:{self.count}" if self.count else self.kind

    def apply(self, network: nn.Module) -> None:
        """Freezes what is not trained, in place.

        Raises:
            UsageError: more stages than the network has.
        """
        network.requires_grad_(self.kind == WHOLE)
        layers = layers_of(network)
        if self.count > len(layers):
            raise UsageError(
                f"The last {self.count} stages were to be fine-tuned; the network has {len(layers)}.",
                hint=f"Ask for at most {len(layers)}, or for whole.",
            )
        for layer in layers[len(layers) - self.count :]:
            for parameter in layer:
                parameter.requires_grad_(True)


def layers_of(network: nn.Module) -> list[Layer]:
    """The parameters of each stage in order; those of no stage (class token, positions) count to the first."""
    layers: list[Layer] = []
    taken: set[int] = set()
    for stage in stages_of(network):
        own = [p for p in stage.parameters() if id(p) not in taken]
        taken |= {id(p) for p in own}
        if layers and isinstance(stage, NORMS):
            layers[-1] += own
        else:
            layers.append(own)
    outside = [p for p in network.parameters() if id(p) not in taken]
    return [outside + layers[0], *layers[1:]] if layers else [outside]


def layer_factors(count: int, decay: float) -> list[float]:
    """Learning rates of ``count`` stages, first to last, as shares of the head's."""
    return [decay ** (count - i) for i in range(count)]


def parameter_groups(network: nn.Module, head: nn.Module, *, decay: float, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for an optimizer, each with its ``factor`` of the rate; biases, norms and head do not decay."""
    layers = layers_of(network)
    groups = []
    for layer, factor in zip(layers, layer_factors(len(layers), decay), strict=True):
        trained = [p for p in layer if p.requires_grad]
        weights, vectors = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
        groups.append({"params": weights, "factor": factor, "weight_decay": weight_decay})
        groups.append({"params": vectors, "factor": factor, "weight_decay": 0.0})
    groups.append({"params": list(head.parameters()), "factor": 1.0, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]
