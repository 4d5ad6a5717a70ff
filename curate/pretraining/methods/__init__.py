"""Self-supervised methods, one file each on one outline.

A method is a module with a frozen ``Config``, its ``RECIPES`` and the functions of the protocol ``Method``;
``load_method`` finds it by name. What it trains is a ``Learner``: the backbone, the heads that are dropped after
training, and the loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, cast

from embeddings.errors import UnknownNameError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from curate.pretraining.augment.presets import Preset
    from curate.pretraining.recipe import Training
    from curate.pretraining.sample import Seen
    from embeddings.encoders.networks import Network


class Entry(NamedTuple):
    """What is known of a method before its module is loaded."""

    module: str
    backbone: str = "tiny-resnet"  # default when training from scratch
    tokens: bool = False  # True: it needs a transformer whose tokens it can mask


METHODS = {
    "simclr": Entry("curate.pretraining.methods.simclr"),
}


class Encoded(NamedTuple):
    """What a learner makes of b images."""

    parts: tuple[torch.Tensor, ...]  # what the loss is computed from; the first axis of each is the b images
    features: torch.Tensor  # [b or views x b, d] of the backbone


class Learner(Protocol):
    """An ``nn.Module`` whose state dict holds all that the method learns.

    ``loss(encode(seen).parts, share=...)`` is the mean over the images. Where ``coupled`` is True it compares images of
    one batch with each other, so it is always given a whole batch, whatever ran on which device; else the mean of parts
    of a batch, weighted by their images, is that of the batch.

    A learner may also define ``after_backward(share)``, called before each optimizer step (to drop gradients), and
    ``after_step(share)``, called after it (to move a teacher).
    """

    backbone: nn.Module
    coupled: bool

    def encode(self, seen: Seen) -> Encoded:
        """What the loss compares."""

    def loss(self, parts: Sequence[torch.Tensor], *, share: float) -> torch.Tensor:
        """Scalar loss, at least float32, at a share of C in [0, 1]."""


class MethodConfig(Protocol):
    """The knobs of a method: a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def training(self) -> Training:
        """The optimizer's side."""


class Method(Protocol):
    """What a method's module holds."""

    # "scratch" and "continued" (from public weights or a run): what is used by default; "paper": the published
    # recipe; others as the method has them
    RECIPES: Mapping[str, MethodConfig]

    def views(self, config: Any) -> Sequence[Preset]:
        """What happens to each view."""

    def chance_loss(self, config: Any, batch: int) -> float:
        """The loss of a network whose views tell nothing of their image; a floor to be left behind."""

    def build(self, network: Network, config: Any) -> nn.Module:
        """The learner around a network; heads take their weights from torch's generator."""


def load_method(name: str) -> Method:
    """The method of this name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in METHODS:
        raise UnknownNameError("method", name, METHODS)
    return cast(Method, import_module(METHODS[name].module))


def find_recipe(method: str, name: str) -> MethodConfig:
    """The recipe of this name.

    Raises:
        UnknownNameError: no such method or recipe.
    """
    recipes = load_method(method).RECIPES
    if name not in recipes:
        raise UnknownNameError(f"recipe of {method}", name, recipes)
    return recipes[name]


def default_recipe(method: str, init: str) -> MethodConfig:
    """The recipe for weights from ``scratch``, ``public`` or ``run``."""
    return find_recipe(method, "scratch" if init == "scratch" else "continued")
