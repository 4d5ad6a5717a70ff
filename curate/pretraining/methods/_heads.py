"""What sits on a backbone while it trains: multi-layer perceptrons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

from torch import nn

from embeddings.errors import UsageError

LastNorm = Literal["affine", "plain"] | None


def mlp(
    widths: Sequence[int],
    *,
    bias: bool | Literal["hidden"],
    last_norm: LastNorm = None,
    hidden_norm: bool = True,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Linear layers from each width to the next; between two of them a batch norm, then the activation.

    Args:
        widths: of the input, of each hidden layer and of the output; at least two.
        bias: whether the Linear layers have one: all, none, or all but the last ("hidden").
        last_norm: what follows the last Linear: nothing, or a batch norm with ("affine") or without ("plain") weights.
        hidden_norm: whether a batch norm precedes each activation.
        activation: makes the layer between two Linear layers.

    Raises:
        UsageError: a width below 1.
    """
    if min(widths) < 1:
        raise UsageError(f"A head of the widths {tuple(widths)} cannot be built; each must be at least 1.")
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths[:-1]):
        layers.append(nn.Linear(inputs, outputs, bias=bool(bias)))
        layers += [nn.BatchNorm1d(outputs)] if hidden_norm else []
        layers.append(activation())
    layers.append(nn.Linear(widths[-2], widths[-1], bias=bias is True))
    layers += [nn.BatchNorm1d(widths[-1], affine=last_norm == "affine")] if last_norm else []
    return nn.Sequential(*layers)


def is_transformer(backbone: nn.Module) -> bool:
    """True if the network cuts images into patches; papers then give it other heads than a convolutional one."""
    return hasattr(backbone, "patch_embed")
