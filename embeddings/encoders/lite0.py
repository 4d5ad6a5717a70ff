"""EfficientNet-Lite0: the default encoder, whose ImageNet weights come with the installation.

    lite0            128 px, ImageNet weights
    lite0@224        another edge, a multiple of 32
    lite0:untrained  its twin with seeded random weights: what the architecture alone is worth

Pixels are (x - 127) / 128, padding is TensorFlow's "same" from the actual size; features are the global mean of the
head convolution, 1280. Wrong padding or scaling leaves a cosine of only .68 to .81 to the right features.
Source: Tan and Le, EfficientNet, ICML 2019; TensorFlow's EfficientNet-Lite.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from embeddings import files
from embeddings.encoders.lite0_weights import weights_path
from embeddings.encoders.transform import Transform
from embeddings.errors import UnknownNameError, UsageError
from embeddings.spec import EncoderSpec

if TYPE_CHECKING:
    from embeddings.encoders.torch_encoder import Placement, TorchEncoder

NAMES = ("lite0", "lite0:untrained", "lite0@224")
DIM = 1280
SIZE = 128
STRIDE = 32


def public_spec(name: str) -> EncoderSpec | None:
    """The spec of ``lite0`` and ``lite0@SIZE`` without importing torch; None for other names."""
    if not re.match(r"lite0(@|$)", name):
        return None
    return _spec(_parse(name)[1], _public_digest(), untrained=False)


def make_lite0(name: str, placement: Placement) -> TorchEncoder:
    """Builds the encoder of a name as listed above.

    Raises:
        UnknownNameError: no such variant.
        UsageError: the edge is no multiple of 32.
    """
    from embeddings.encoders.folding import fold_batch_norms
    from embeddings.encoders.networks import build_network
    from embeddings.encoders.torch_encoder import TorchEncoder, weights_digest

    untrained, size = _parse(name)
    module = build_network("lite0", init="scratch" if untrained else "public").module
    digest = weights_digest(module) if untrained else _public_digest()
    spec = _spec(size, digest, untrained=untrained)
    return TorchEncoder(fold_batch_norms(module), spec=spec, transform=_transform(size), placement=placement)


def _parse(name: str) -> tuple[bool, int]:
    match = re.fullmatch(r"lite0(:untrained)?(?:@(\d+))?", name)
    if not match:
        raise UnknownNameError("encoder", name, NAMES)
    size = int(match[2] or SIZE)
    if size < STRIDE or size % STRIDE:
        raise UsageError(f"lite0 takes an edge that is a multiple of {STRIDE}, not {size}.", hint="Try lite0@128.")
    return bool(match[1]), size


def _spec(size: int, digest: str, *, untrained: bool) -> EncoderSpec:
    name = "lite0" + ":untrained" * untrained + f"@{size}" * (size != SIZE)
    return EncoderSpec(
        name=name,
        dim=DIM,
        size=size,
        preprocessing=f"{_transform(size)}; global mean of the head convolution",
        weights=digest,
        license="Apache-2.0",
    )


def _transform(size: int) -> Transform:
    return Transform(size=size, mean=127.0, std=128.0)


@cache
def _public_digest() -> str:
    return files.digest_file(weights_path())
