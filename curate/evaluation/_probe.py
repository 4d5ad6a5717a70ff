"""What a probe returns: a classifier fitted on training images, and the settings chosen on held-out ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Classify = Callable[[np.ndarray], np.ndarray]  # features [b, d] -> probabilities [b, C], rows summing to 1


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A fitted probe and what it says of the test images."""

    probabilities: np.ndarray  # [m, C] of every test image; 0 for classes without a training image
    classify: Classify
    settings: dict[str, float]  # chosen among the grid, without the test images
    validation: float  # accuracy on held-out training images under these settings

    @property
    def predicted(self) -> np.ndarray:
        """Most probable class int64 [m] of every test image; ties go to the lower number."""
        best: np.ndarray = self.probabilities.argmax(axis=1)
        return best
