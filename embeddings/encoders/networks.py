"""The trainable networks: one float batch in, pooled features out, without a classifier.

name              edge (px)   parameters   features
tiny-resnet       28 to 64        0.3 M        128    four stages of one basic block, for CPUs
resnet18-small    28 to 64       11.2 M        512    ResNet-18 with a 3x3 stride-1 stem and no max-pool
resnet50-small    28 to 64       23.5 M       2048    ResNet-50 likewise
resnet18          32 up          11.2 M        512    torchvision's
resnet34          32 up          21.3 M        512    torchvision's
resnet50          32 up          23.5 M       2048    torchvision's
convnext-tiny     32 up          27.8 M        768    torchvision's
lite0             32 up           3.4 M       1280    timm's tf_efficientnet_lite0
tiny-vit          28 to 64        0.8 M        128    see ``transformers`` for these four
vit-ti            28 up           5.4 M        192
vit-s             28 up          21.4 M        384
vit-b             28 up          85.3 M        768
torchvision:NAME  see ``libraries``
timm:NAME         see ``libraries``

Parameters have the names that torchvision and timm give them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from embeddings.encoders.libraries import build_library, build_torchvision, is_of_library, is_published, own_size
from embeddings.encoders.lite0_weights import load_weights
from embeddings.encoders.timm import PREFIX as TIMM
from embeddings.encoders.torch_encoder import feature_count
from embeddings.encoders.torchvision_import import import_timm, import_torchvision
from embeddings.encoders.transformers import SHAPES, build_transformer, has_tokens
from embeddings.errors import UnknownNameError, UsageError

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
TINY_WIDTHS = (16, 32, 64, 128)


@dataclass(frozen=True)
class Network:
    """A network and how to feed it: ``module((x - mean) / std)`` maps pixels x in 0..255, [B, 3, S, S], to [B, dim]."""

    name: str
    module: nn.Module
    dim: int
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]


@dataclass(frozen=True)
class Wish:
    """What a builder is asked for."""

    name: str
    public: bool
    size: int  # of the images, in pixels; matters to networks that know positions
    patch: int | None  # of tiny-vit to vit-b


def build_network(
    name: str, *, init: str = "scratch", seed: int = 0, size: int | None = None, patch: int | None = None
) -> Network:
    """Builds a network in training mode, from seeded random weights or from its public ImageNet weights.

    The global random state is left as it was; the same seed gives the same weights on every machine.

    Args:
        name: in the table above.
        init: ``scratch`` or ``public``.
        seed: of random weights.
        size: edge of the images in pixels, for networks that know positions; default the network's own.
        patch: edge of the patches of tiny-vit to vit-b in pixels; default by size.

    Raises:
        UnknownNameError: no such network or ``init``.
        UsageError: the network has no public weights, or cannot be built for this size.
        MissingExtraError: the public weights are not on this machine.
        CorruptError: their file is damaged.
    """
    require_network(name)
    if init not in ("scratch", "public"):
        raise UnknownNameError("init", init, ("scratch", "public"))
    if init == "public" and not has_public_weights(name):
        raise UsageError(
            f"Network {name!r} has no public weights.", hint="Use init 'scratch', or a network such as lite0."
        )
    build = BUILDERS[name].build if name in BUILDERS else _library
    with seeded(seed):
        return build(Wish(name, init == "public", size or default_size(name), patch))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds torch's CPU generator inside the block and puts its state back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def require_network(name: str) -> None:
    """Refuses a name that stands for no network.

    Raises:
        UnknownNameError: it does not; names the nearest.
    """
    if name not in BUILDERS and not is_of_library(name):
        raise UnknownNameError("network", name, (*BUILDERS, "timm:NAME", "torchvision:NAME"))


def has_public_weights(name: str) -> bool:
    """Whether somebody gives out weights of this network; they need not be on this machine."""
    return BUILDERS[name].public if name in BUILDERS else is_published(name)


def default_size(name: str) -> int:
    """Edge in pixels of the images that a network is trained on if nothing else is asked for."""
    return BUILDERS[name].size if name in BUILDERS else own_size(name)


def takes_masks(name: str) -> bool:
    """Whether a network is a plain transformer of timm's, of whose patches a method may hide some."""
    if name in BUILDERS or not name.startswith(TIMM):
        return name in SHAPES
    return has_tokens(outline(name, size=default_size(name)).module)


def outline(name: str, *, size: int) -> Network:
    """A network without memory for its weights, to ask for shapes; with them where its library cannot build it so.

    Raises:
        UnknownNameError: no such network.
        UsageError: a library's network does not take images of this size, or does not give one vector per image.
    """
    try:
        with torch.device("meta"):
            return build_network(name, size=size)
    except NotImplementedError:
        return build_network(name, size=size)


def _library(wish: Wish) -> Network:
    module, transform = build_library(wish.name, size=wish.size, public=wish.public)
    try:
        dim = feature_count(module, wish.size)
    except UsageError as error:
        hint = f"The default size of {wish.name} is {default_size(wish.name)} pixels."
        raise UsageError(error.message, hint=hint) from error
    return Network(wish.name, module.train(), dim=dim, mean=transform.mean, std=transform.std)


def _torchvision(wish: Wish) -> Network:
    module = build_torchvision(wish.name.replace("-", "_"), public=wish.public)
    return Network(wish.name, module, dim=BUILDERS[wish.name].dim, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def _small_resnet(wish: Wish) -> Network:
    module = build_torchvision(wish.name.removesuffix("-small"), public=False)
    module.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(module.conv1.weight, mode="fan_out", nonlinearity="relu")
    module.maxpool = nn.Identity()
    return Network(wish.name, module, dim=BUILDERS[wish.name].dim, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def _lite0(wish: Wish) -> Network:
    module = import_timm().create_model("tf_efficientnet_lite0", num_classes=0)
    if wish.public:
        module.load_state_dict(load_weights())
    return Network(wish.name, module, dim=BUILDERS[wish.name].dim, mean=127.0, std=128.0)


def _transformer(wish: Wish) -> Network:
    published = SHAPES[wish.name].published
    if wish.public and published:
        module, transform = build_library(TIMM + published, size=wish.size, public=True)
        return Network(wish.name, module, dim=BUILDERS[wish.name].dim, mean=transform.mean, std=transform.std)
    module = build_transformer(wish.name, size=wish.size, patch=wish.patch)
    return Network(wish.name, module, dim=BUILDERS[wish.name].dim, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def _tiny_resnet(wish: Wish) -> Network:
    stem = nn.Conv2d(3, TINY_WIDTHS[0], kernel_size=3, padding=1, bias=False)
    layers = [stem, nn.BatchNorm2d(TINY_WIDTHS[0]), nn.ReLU(inplace=True)]
    pairs = zip((TINY_WIDTHS[0], *TINY_WIDTHS), TINY_WIDTHS, strict=False)
    blocks = [_basic_block(narrow, wide) for narrow, wide in pairs]
    module = nn.Sequential(*layers, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return Network(wish.name, module, dim=BUILDERS[wish.name].dim, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def _basic_block(narrow: int, wide: int) -> nn.Module:
    if narrow == wide:
        shortcut, stride = None, 1
    else:
        stride = 2
        shortcut = nn.Sequential(nn.Conv2d(narrow, wide, 1, stride, bias=False), nn.BatchNorm2d(wide))
    block: nn.Module = import_torchvision().models.resnet.BasicBlock(narrow, wide, stride, shortcut)
    return block


class Known(NamedTuple):
    """What is known of a network by its name."""

    build: Callable[[Wish], Network]
    dim: int
    size: int = 128  # default edge of the images in pixels
    public: bool = True  # whether somebody gives out weights


BUILDERS = {
    "tiny-resnet": Known(_tiny_resnet, TINY_WIDTHS[-1], size=32, public=False),
    "resnet18-small": Known(_small_resnet, 512, size=32, public=False),
    "resnet50-small": Known(_small_resnet, 2048, size=32, public=False),
    "resnet18": Known(_torchvision, 512),
    "resnet34": Known(_torchvision, 512),
    "resnet50": Known(_torchvision, 2048),
    "convnext-tiny": Known(_torchvision, 768),
    "lite0": Known(_lite0, 1280, size=64),
    "tiny-vit": Known(_transformer, SHAPES["tiny-vit"].width, size=32, public=False),
    "vit-ti": Known(_transformer, SHAPES["vit-ti"].width),
    "vit-s": Known(_transformer, SHAPES["vit-s"].width),
    "vit-b": Known(_transformer, SHAPES["vit-b"].width),
}
