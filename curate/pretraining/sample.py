"""The images of one step: as they are stored, and as a learner sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from curate.pretraining.augment.draws import LEARNER_STREAM, uniforms
from curate.pretraining.augment.transfer import on_device


@dataclass(frozen=True)
class Sample:
    """The images of one step and what their draws depend on."""

    pixels: np.ndarray  # uint8 [b, 3, S, S]
    hashes: np.ndarray  # uint64 [b]
    visits: np.ndarray  # int64 [b]

    def __len__(self) -> int:
        return len(self.pixels)

    def part(self, where: slice) -> Sample:
        """Some of the images."""
        return Sample(self.pixels[where], self.hashes[where], self.visits[where])


@dataclass(frozen=True)
class Seen:
    """The views of b images, in the order of the images."""

    views: Sequence[torch.Tensor]  # each float32 [b, 3, S, S], normalized; local crops are smaller
    sample: Sample
    seed: int

    def __len__(self) -> int:
        return len(self.sample)

    def uniforms(self, count: int) -> torch.Tensor:
        """Uniform numbers in (0, 1), float64 [b, count], that depend on seed, image and visit alone."""
        sample = self.sample
        drawn = uniforms(self.seed, sample.hashes, sample.visits, stream=LEARNER_STREAM, count=count)
        return on_device(drawn, self.views[0].device)

    def part(self, where: slice) -> Seen:
        """Some of the images."""
        return Seen([view[where] for view in self.views], self.sample.part(where), self.seed)
