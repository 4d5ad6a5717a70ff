"""What a probe returns: predictions for the test images and the settings chosen on held-out training images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Predictions of one probe."""

    predicted: np.ndarray  # int64 [m] class number of every test image
    settings: dict[str, float]  # chosen among the grid, without the test images
    validation: float  # accuracy on held-out training images under these settings
