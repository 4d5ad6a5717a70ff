"""Where heavy matrix products run: NumPy on the CPU, or the device that CURATE_COMPUTE names.

    CURATE_COMPUTE=cuda     or cuda:1; unset or cpu: the CPU

The choice is the user's and never made for them: another device sums in another order, so the last digits of a float32
figure may differ. What is exact by design (``neighbors.nearest``) stays exact as long as products are full float32,
which is why TF32 is switched off here whatever the process has set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from embeddings.errors import UsageError

VARIABLE = "CURATE_COMPUTE"
CPU = "cpu"


def compute_device() -> str:
    """Name of the device for matrix products.

    Raises:
        UsageError: CURATE_COMPUTE names no device of this machine.
    """
    name = os.environ.get(VARIABLE, "").strip() or CPU
    if name != CPU:
        _require(name)
    return name


def product(x: np.ndarray, y: np.ndarray, *, device: str | None = None) -> np.ndarray:
    """The product x y' on the compute device.

    Args:
        x: [n, d] float32 or float64.
        y: [m, d] of the same dtype. The scatter of rows [b, d] is ``product(rows.T, rows.T)``.
        device: None: ``compute_device()``.

    Returns:
        [n, m] of that dtype, in its full precision.

    Raises:
        UsageError: CURATE_COMPUTE names no device of this machine.
    """
    name = device or compute_device()
    return np.asarray(x @ y.T) if name == CPU else device_product(x, y, name)


def device_product(x: np.ndarray, y: np.ndarray, device: str) -> np.ndarray:
    """``product`` on tensors of a device, which may be the CPU."""
    import torch

    with full_float32():
        a, b = (torch.from_numpy(np.ascontiguousarray(side)).to(device) for side in (x, y))
        found: np.ndarray = (a @ b.T).cpu().numpy()
    return found


@contextmanager
def full_float32() -> Iterator[None]:
    """No TF32 in CUDA products meanwhile: it keeps 10 bits of 23."""
    import torch

    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    products.fp32_precision = "ieee"
    try:
        yield
    finally:
        products.fp32_precision = before


def _require(name: str) -> None:
    import torch

    try:
        torch.empty(0, device=name)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise UsageError(
            f"{VARIABLE} names {name!r}, which cannot be used here ({str(error).splitlines()[0]}).",
            hint=f"Unset {VARIABLE} to compute on the CPU.",
        ) from None
