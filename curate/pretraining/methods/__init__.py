"""Self-supervised methods, one file each on one outline.

A method is a module with a frozen ``Config`` and the functions of the protocol ``Method``; ``load_method`` finds it by
name. What it trains is a ``Learner``: the backbone, the heads that are dropped after training, and the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, cast

from embeddings.errors import UnknownNameError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from curate.pretraining.augment.presets import Preset
    from curate.pretraining.recipe import Training

METHODS = {"simclr": "curate.pretraining.methods.simclr"}


class Output(NamedTuple):
    """What one step yields."""

    loss: torch.Tensor  # scalar
    features: torch.Tensor  # [views x batch, d] of the backbone


class Learner(Protocol):
    """An ``nn.Module`` whose state dict holds all that the method learns.

    One with a moving teacher also defines ``after_step(share)``, called after each optimizer step at that share of C.
    """

    backbone: nn.Module

    def __call__(self, views: Sequence[torch.Tensor]) -> Output:
        """Loss and features of normalized views, each [batch, 3, S, S]."""


class MethodConfig(Protocol):
    """The knobs of a method: a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def training(self) -> Training:
        """The optimizer's side."""


class Method(Protocol):
    """The functions of a method's module."""

    def recipe(self, init: str) -> MethodConfig:
        """Default knobs for weights from ``scratch``, ``public`` or ``run``."""

    def views(self, config: Any) -> Sequence[Preset]:
        """What happens to each view."""

    def chance_loss(self, batch: int) -> float:
        """The loss of a network that cannot tell images apart."""

    def build(self, backbone: nn.Module, dim: int, config: Any) -> nn.Module:
        """The learner around a backbone with ``dim`` features; heads take their weights from torch's generator."""


def load_method(name: str) -> Method:
    """The method of this name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in METHODS:
        raise UnknownNameError("method", name, METHODS)
    return cast(Method, import_module(METHODS[name]))
