"""Self-supervised methods, one file each on one outline.

A method is a module with a frozen ``Config``, its ``RECIPES`` and the functions of the protocol ``Method``;
``load_method`` finds it by name. What it trains is a ``Learner``: the backbone, the heads that are dropped after
training, and the loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    "barlow": Entry("curate.pretraining.methods.barlow"),
    "byol": Entry("curate.pretraining.methods.byol"),
    "dino": Entry("curate.pretraining.methods.dino"),
    "distill": Entry("curate.pretraining.methods.distill"),
    "mae": Entry("curate.pretraining.methods.mae", backbone="tiny-vit", tokens=True),
    "mocov3": Entry("curate.pretraining.methods.mocov3"),
    "simclr": Entry("curate.pretraining.methods.simclr"),
    "vicreg": Entry("curate.pretraining.methods.vicreg"),
}


class Encoded(NamedTuple):
    """What a learner makes of b images."""

    parts: Sequence[torch.Tensor]  # what the heads take; the first axis of each is the b images
    features: torch.Tensor  # [b or views x b, d] of the backbone


class Learner(Protocol):
    """An ``nn.Module`` whose state dict holds all that the method learns.

    ``loss(project(encode(seen).parts), share=...)`` is the mean over the images. ``encode`` is the costly part, the
    backbone's, and looks at each image by itself, batch norms apart. Where ``coupled`` is True, heads or loss look at
    several images at once, as a head with batch norm does: they then get a whole batch at a time, in however many
    chunks it was encoded. Else the means over chunks of a batch, weighted by their images, add up to that of the batch.

    A learner may also define ``after_backward(share)``, called before each optimizer step (to drop gradients), and
    ``after_step(share)``, called after it (to move a teacher). ``diagnostics()`` may give figures of the last step; it
    is called after the steps that are logged, in all processes alike.
    """

    backbone: nn.Module
    coupled: bool

    def encode(self, seen: Seen) -> Encoded:
        """What the backbone, and a teacher's, make of the views."""

    def project(self, parts: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """What the heads make of that, which is what the loss compares; the first axis of each is the b images."""

    def modules(self) -> Iterator[nn.Module]:
        """As of every ``nn.Module``."""

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
