"""How a method trains: batch, optimizer and its peak learning rate, all keyed on samples seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

from embeddings.errors import UnknownNameError, UsageError

OPTIMIZERS = {"sgd": 1.0, "adamw": 0.5}  # the learning rate grows with this power of the batch


@dataclass(frozen=True, kw_only=True)
class Training:
    """The optimizer's side of a recipe; every method's Config holds one."""

    optimizer: str
    learning_rate: float  # peak, at a batch of 256; scaled by the batch for sgd, by its square root for adamw
    weight_decay: float  # not on biases and norms
    batch: int = 256  # images per step; a quarter of the images if that is less
    warmup: float = 0.05  # share of C
    momentum: float = 0.9  # of sgd
    keep_statistics: bool = False  # of the backbone's batch norms, as they came with its weights

    def peak(self, batch: int) -> float:
        """The highest learning rate of a run with this batch size."""
        return self.learning_rate * math.pow(batch / 256, OPTIMIZERS[self.optimizer])

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise UnknownNameError("optimizer", self.optimizer, OPTIMIZERS)
        wanted = {
            "batch": self.batch >= 2,
            "learning_rate": self.learning_rate > 0,
            "weight_decay": self.weight_decay >= 0,
            "warmup": 0 <= self.warmup < 1,
            "momentum": 0 <= self.momentum < 1,
        }
        for name, holds in wanted.items():
            if not holds:
                raise UsageError(f"{name} cannot be {getattr(self, name)}.", hint="See curate.pretraining.recipe.")
