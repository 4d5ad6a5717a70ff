"""Encoders that know nothing: an untrained ResNet-18. A ranking that it shares was in the pixels all along.

    random       seed 0
    random:3     another seed

At 128 px; pixels are scaled to -1..1; features are the pooled last stage, 512.
"""

from __future__ import annotations

import re

from embeddings.encoders.folding import fold_batch_norms
from embeddings.encoders.networks import build_network
from embeddings.encoders.torch_encoder import Placement, TorchEncoder, weights_digest
from embeddings.encoders.transform import Transform
from embeddings.errors import UnknownNameError
from embeddings.spec import EncoderSpec

SIZE = 128
GRAY = 127.5


def make_random(name: str, placement: Placement) -> TorchEncoder:
    """Builds ``random`` or ``random:SEED``.

    Raises:
        UnknownNameError: the seed is no whole number.
    """
    match = re.fullmatch(r"random(?::(\d{1,9}))?", name)
    if not match:
        raise UnknownNameError("encoder", name, ("random", "random:1"))
    seed = int(match[1] or 0)
    network = build_network("resnet18", seed=seed)
    transform = Transform(size=SIZE, mean=GRAY, std=GRAY)
    spec = EncoderSpec(
        name=f"random:{seed}",
        dim=network.dim,
        size=SIZE,
        preprocessing=f"{transform}; pooled features of an untrained ResNet-18",
        weights=weights_digest(network.module),
    )
    return TorchEncoder(fold_batch_norms(network.module), spec=spec, transform=transform, placement=placement)
