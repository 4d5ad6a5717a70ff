"""Arrays on their way to the device where images are augmented."""

from __future__ import annotations

import numpy as np
import torch


def on_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """The array there. A GPU fetches it from pinned memory while the CPU goes on: a view takes dozens of small ones."""
    here = torch.from_numpy(array)
    return here.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else here.to(device)
