"""A torch network behind the Encoder protocol: one device, eval mode, no gradients, fixed batches.

Pixels travel to the device as uint8 and are scaled there. Where a batch does not fit into the device's memory it is run
in halves, and so are all that follow; the results are as many as before.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from embeddings.encoders.transform import Transform
from embeddings.errors import UnknownNameError, UsageError, one_line
from embeddings.spec import EncoderSpec

PRECISIONS = ("auto", "float32", "bfloat16")
CPU_BATCH = 16  # larger batches leave the cache and are slower
ACCELERATOR_BATCH = 256


@dataclass(frozen=True)
class Placement:
    """Where a network runs, in which precision, and whether torch.compile goes over it first."""

    device: torch.device
    precision: str
    compile: bool = False

    @classmethod
    def choose(cls, device: str = "auto", precision: str = "auto", *, compile: bool = False) -> Placement:
        """CUDA when there is one, else the CPU; bfloat16 on CUDA, else float32.

        Raises:
            UnknownNameError: no such precision.
            UsageError: no such device on this machine.
        """
        if precision not in PRECISIONS:
            raise UnknownNameError("precision", precision, PRECISIONS)
        place = torch.device("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else _device(device)
        automatic = "bfloat16" if place.type == "cuda" else "float32"
        return cls(place, automatic if precision == "auto" else precision, compile)


class TorchEncoder:
    """A network with pooled features [B, dim] as an Encoder: ``prepare`` on the CPU, ``encode`` on the device."""

    def __init__(self, module: nn.Module, *, spec: EncoderSpec, transform: Transform, placement: Placement) -> None:
        self.spec = spec
        self.prepare = transform
        self.precision = placement.precision
        self.parallel = placement.device.type == "cpu"
        self.batch_size = CPU_BATCH if self.parallel else ACCELERATOR_BATCH
        self.lot = self.batch_size  # images on the device at once: halved when they do not fit
        self._device = placement.device
        # channels_last is 1.5x faster on a CPU too, and uint8 [B, S, S, 3] already lies that way
        self.module = module.eval().requires_grad_(False).to(self._device)
        self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network: Any = torch.compile(self.module) if placement.compile else self.module
        self._mean, self._std = (_channels(v).to(self._device) for v in (transform.mean, transform.std))

    def encode(self, batch: np.ndarray) -> np.ndarray:
        """uint8 [batch_size, size, size, 3] -> float32 [batch_size, d].

        Raises:
            UsageError: not even one image fits into the device's memory, or torch.compile cannot compile here.
        """
        found: list[np.ndarray] = []
        while len(batch):
            vectors = self._try(_padded(batch[: self.lot], self.lot))
            if vectors is None:
                self._halve()
            else:
                found.append(vectors[: len(batch)])
                batch = batch[self.lot :]
        return np.concatenate(found)

    def _try(self, pixels: np.ndarray) -> np.ndarray | None:
        """The vectors, or None if the device's memory was too small; its frames hold nothing once this returns."""
        try:
            return self._run(pixels)
        except torch.OutOfMemoryError:
            return None
        except torch._dynamo.exc.TorchDynamoException as error:
            raise UsageError(
                f"torch.compile cannot compile {self.spec.name} here ({one_line(error)}).", hint="Leave out compile."
            ) from error

    def _run(self, pixels: np.ndarray) -> np.ndarray:
        x = self._moved(torch.from_numpy(pixels)).permute(0, 3, 1, 2)
        bfloat16 = torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bfloat16")
        with torch.inference_mode(), bfloat16:
            features: torch.Tensor = self._network((x.float() - self._mean) / self._std)
        array: np.ndarray = features.float().cpu().numpy()
        return array

    def _moved(self, pixels: torch.Tensor) -> torch.Tensor:
        """On the device; pinned memory lets a GPU fetch them while the CPU goes on."""
        if self._device.type == "cuda":
            return pixels.pin_memory().to(self._device, non_blocking=True)
        return pixels.to(self._device)

    def _halve(self) -> None:
        if self.lot == 1:
            raise UsageError(
                f"{self.spec.name} does not fit into the memory of {self._device} with one image of "
                f"{self.spec.size}x{self.spec.size} pixels.",
                hint="Free the device's memory, choose a smaller encoder or NAME@SIZE, or --device cpu.",
            )
        self.lot //= 2
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


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
            f"The network does not take images of {size}x{size} pixels ({one_line(error)}).", hint="Leave out @SIZE."
        ) from error
    if features.ndim != 2:
        raise UsageError(f"The network gives {list(features.shape)}, wanted [n, d].", hint="Choose another network.")
    return int(features.shape[1])


def _padded(batch: np.ndarray, size: int) -> np.ndarray:
    """Blank images up to a fixed size, so that every run has the same shape."""
    missing = size - len(batch)
    return np.pad(batch, [(0, missing), (0, 0), (0, 0), (0, 0)]) if missing > 0 else batch


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
