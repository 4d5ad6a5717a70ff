"""Encoders: an RGB image in, a vector out, and a spec that says exactly how.

Names are ``library:name`` (``torchvision:resnet50``); ``lite0`` is built in and needs no network. All families stand in
``registry``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

from embeddings.on_first_use import on_first_use
from embeddings.spec import EncoderSpec

if TYPE_CHECKING:
    from embeddings.encoders.networks import Network, build_network
    from embeddings.encoders.registry import describe_encoder, encoder_names, encoder_spec, get_encoder

__all__ = ["Encoder", "Network", "build_network", "describe_encoder", "encoder_names", "encoder_spec", "get_encoder"]
_EXPORTS = {
    "Network": ".networks",
    "build_network": ".networks",
    "describe_encoder": ".registry",
    "encoder_names": ".registry",
    "encoder_spec": ".registry",
    "get_encoder": ".registry",
}


class Encoder(Protocol):
    """One encoder on one device; in eval mode, without gradients, each image independent of its batch."""

    spec: EncoderSpec
    batch_size: int  # batches are always padded to this size, so results do not depend on it
    precision: str  # "float32" or "bfloat16": not part of the spec, but never mixed within one store
    parallel: bool  # True if several threads gain from calling ``encode`` at once (a CPU)

    @property
    def prepare(self) -> Callable[[Image.Image], np.ndarray]:
        """RGB image -> uint8 [size, size, 3], on the CPU; picklable, so that worker processes can do it.

        A ``Transform`` for the built-in ones, whose ``edge`` says how much of a large image is of use.
        """

    def encode(self, batch: np.ndarray) -> np.ndarray:
        """uint8 [batch_size, size, size, 3] -> float32 [batch_size, d]."""


__getattr__, __dir__ = on_first_use(__name__, _EXPORTS)
