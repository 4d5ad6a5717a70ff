"""What a network that is being trained says of images, as the encoder ``run:DIR`` would say it; training is untouched.

A copy of the network sees them, in eval mode and without gradient, in the fixed batches of every encoder.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch

from embeddings.encoders.checkpoint import load_backbone
from embeddings.encoders.networks import Network
from embeddings.encoders.torch_encoder import Placement, TorchEncoder
from embeddings.encoders.transform import Transform
from embeddings.errors import CorruptError
from embeddings.spec import EncoderSpec

TOLERANCE = 1e-3  # of the largest feature: a low-rank change or a small map's kernel rounds otherwise


def features_of(network: Network, pixels: np.ndarray, placement: Placement) -> np.ndarray:
    """Features float32 [n, d] of images uint8 [n, 3, S, S], squashed to that square as ``run:DIR`` does.

    Args:
        network: stays as it is, gradients and statistics too.
        pixels: may be memory-mapped; a batch of them is read at a time.
        placement: where the copy runs.
    """
    size = pixels.shape[-1]
    transform = Transform(size=size, mean=network.mean, std=network.std)
    spec = EncoderSpec(name=network.name, dim=network.dim, size=size, preprocessing=str(transform), weights="")
    twin = copy.deepcopy(network.module).float()
    encoder = TorchEncoder(twin, spec=spec, transform=transform, placement=placement)
    batches = range(0, len(pixels), encoder.batch_size)
    squares = (pixels[i : i + encoder.batch_size].transpose(0, 2, 3, 1) for i in batches)
    return np.concatenate([encoder.encode(np.ascontiguousarray(batch)) for batch in squares])


def require_same_features(folder: Path, network: Network, pixels: np.ndarray) -> None:
    """Reads the written backbone back and lets it see a few images beside the network in memory, in float32 on the CPU.

    Raises:
        CorruptError: it does not read back, or says something else.
    """
    cpu = Placement(torch.device("cpu"), "float32")
    written, _ = load_backbone(folder)
    wanted, found = (features_of(n, pixels, cpu) for n in (network, written))
    if wanted.shape == found.shape and np.allclose(found, wanted, rtol=0, atol=TOLERANCE * np.abs(wanted).max()):
        return
    raise CorruptError(
        f"The backbone written to {folder} does not give the features of the network that was trained.",
        hint="This is a defect: report it with the name of the network. The checkpoints hold the trained weights.",
    )
