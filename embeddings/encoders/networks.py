"""The trainable networks: one float batch in, pooled features out, without a classifier.

name            edge (px)   parameters   features
tiny-resnet     32 to 64        0.3 M        128    four stages of one basic block, for CPUs
resnet18-small  32 to 64       11.2 M        512    ResNet-18 with a 3x3 stride-1 stem and no max-pool
resnet18        128 up         11.2 M        512    torchvision's
resnet50        128 up         23.5 M       2048    torchvision's
lite0           64 up           3.4 M       1280    timm's tf_efficientnet_lite0
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from embeddings.encoders.lite0_weights import load_weights
from embeddings.encoders.torchvision import load_public
from embeddings.encoders.torchvision_import import import_timm, import_torchvision
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


def build_network(name: str, *, init: str = "scratch", seed: int = 0) -> Network:
    """Builds a network in training mode, from seeded random weights or from its public ImageNet weights.

    The global random state is left as it was; the same seed gives the same weights on every machine.

    Raises:
        UnknownNameError: no such network or ``init``.
        UsageError: the network has no public weights.
        MissingExtraError: the public weights are not on this machine.
        CorruptError: their file is damaged.
    """
    if name not in BUILDERS:
        raise UnknownNameError("network", name, BUILDERS)
    if init not in ("scratch", "public"):
        raise UnknownNameError("init", init, ("scratch", "public"))
    with seeded(seed):
        return BUILDERS[name](init == "public")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds torch's CPU generator inside the block and puts its state back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _lite0(public: bool) -> Network:
    module = import_timm().create_model("tf_efficientnet_lite0", num_classes=0)
    if public:
        module.load_state_dict(load_weights())
    return Network("lite0", module, dim=1280, mean=127.0, std=128.0)


def _resnet(name: str, public: bool) -> Network:
    module = load_public(name) if public else import_torchvision().models.get_model(name, weights=None)
    dim = module.fc.in_features
    module.fc = nn.Identity()
    return Network(name, module, dim=dim, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def _resnet18_small(public: bool) -> Network:
    _refuse_public("resnet18-small", public)
    module = import_torchvision().models.resnet18()
    module.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(module.conv1.weight, mode="fan_out", nonlinearity="relu")
    module.maxpool = nn.Identity()
    module.fc = nn.Identity()
    return Network("resnet18-small", module, dim=512, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def _tiny_resnet(public: bool) -> Network:
    _refuse_public("tiny-resnet", public)
    stem = nn.Conv2d(3, TINY_WIDTHS[0], kernel_size=3, padding=1, bias=False)
    layers = [stem, nn.BatchNorm2d(TINY_WIDTHS[0]), nn.ReLU(inplace=True)]
    pairs = zip((TINY_WIDTHS[0], *TINY_WIDTHS), TINY_WIDTHS, strict=False)
    blocks = [_basic_block(narrow, wide) for narrow, wide in pairs]
    module = nn.Sequential(*layers, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return Network("tiny-resnet", module, dim=TINY_WIDTHS[-1], mean=IMAGENET_MEAN, std=IMAGENET_STD)


def _basic_block(narrow: int, wide: int) -> nn.Module:
    if narrow == wide:
        shortcut, stride = None, 1
    else:
        stride = 2
        shortcut = nn.Sequential(nn.Conv2d(narrow, wide, 1, stride, bias=False), nn.BatchNorm2d(wide))
    block: nn.Module = import_torchvision().models.resnet.BasicBlock(narrow, wide, stride, shortcut)
    return block


def _refuse_public(name: str, public: bool) -> None:
    if public:
        raise UsageError(
            f"Network {name!r} has no public weights.", hint="Use init 'scratch', or a network such as lite0."
        )


BUILDERS: dict[str, Callable[[bool], Network]] = {
    "lite0": _lite0,
    "resnet18": lambda public: _resnet("resnet18", public),
    "resnet18-small": _resnet18_small,
    "resnet50": lambda public: _resnet("resnet50", public),
    "tiny-resnet": _tiny_resnet,
}
