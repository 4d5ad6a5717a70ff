"""A torch network behind the Encoder protocol: one device, eval mode, no gradients, fixed batches."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import nn

from embeddings.encoders.transform import Transform
from embeddings.errors import UnknownNameError, UsageError
from embeddings.store import EncoderSpec

PRECISIONS = ("auto", "float32", "bfloat16")
CPU_BATCH = 16  # larger batches leave the cache and are slower
ACCELERATOR_BATCH = 128


@dataclass(frozen=True)
class Placement:
    """Where a network runs and in which precision."""

    device: torch.device
    precision: str

    @classmethod
    def choose(cls, device: str = "auto", precision: str = "auto") -> Placement:
        """CUDA when there is one, else the CPU; bfloat16 on CUDA, else float32.

        Raises:
            UnknownNameError: no such precision.
            UsageError: no such device on this machine.
        """
        if precision not in PRECISIONS:
            raise UnknownNameError("precision", precision, PRECISIONS)
        place = torch.device("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else _device(device)
        automatic = "bfloat16" if place.type == "cuda" else "float32"
        return cls(place, automatic if precision == "auto" else precision)


class TorchEncoder:
    """A network with pooled features [B, dim] as an Encoder: ``prepare`` on the CPU, ``encode`` on the device."""

    def __init__(self, module: nn.Module, *, spec: EncoderSpec, transform: Transform, placement: Placement) -> None:
        self.spec = spec
        self.precision = placement.precision
        self.parallel = placement.device.type == "cpu"
        self.batch_size = CPU_BATCH if self.parallel else ACCELERATOR_BATCH
        self._transform, self._device = transform, placement.device
        # channels_last is 1.5x faster on a CPU too, and uint8 [B, S, S, 3] already lies that way
        self.module = module.eval().requires_grad_(False).to(self._device)
        self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._mean, self._std = (_channels(v).to(self._device) for v in (transform.mean, transform.std))

    def prepare(self, image: Image.Image) -> np.ndarray:
        """RGB image -> uint8 [size, size, 3]."""
        return self._transform(image)

    def encode(self, batch: np.ndarray) -> np.ndarray:
        """uint8 [batch_size, size, size, 3] -> float32 [batch_size, d]."""
        pixels = torch.from_numpy(batch).to(self._device).permute(0, 3, 1, 2)
        bfloat16 = torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bfloat16")
        with torch.inference_mode(), bfloat16:
            features: torch.Tensor = self.module((pixels.float() - self._mean) / self._std)
        array: np.ndarray = features.float().cpu().numpy()
        return array


def weights_digest(module: nn.Module) -> str:
    """sha256 over names, types, shapes and values of every tensor of a network."""
    state = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        array = tensor.detach().cpu().contiguous().numpy()
        state.update(f"{name} {array.dtype} {array.shape};".encode())
        state.update(array.data)
    return state.hexdigest()


def feature_count(module: nn.Module, size: int) -> int:
    """The number d of features a network gives for images of this edge.

    Raises:
        UsageError: the network does not take this size, or does not give one vector per image.
    """
    try:
        with torch.inference_mode():
            features = module.eval()(torch.zeros(2, 3, size, size))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UsageError(
            f"The network does not take images of {size}x{size} pixels ({error}).", hint="Leave out @SIZE."
        ) from error
    if features.ndim != 2:
        raise UsageError(f"The network gives {list(features.shape)}, wanted [n, d].", hint="Choose another network.")
    return int(features.shape[1])


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"Device {name!r} cannot be used here ({str(error).splitlines()[0]}).", hint="Use 'auto' or 'cpu'."
        ) from None
    return device


def _channels(value: float | tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float32).reshape(-1, 1, 1)
