"""How a method trains: batch, optimizer and its rates, all keyed on samples seen."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from embeddings.errors import UnknownNameError, UsageError

OPTIMIZERS = {"sgd": 1.0, "lars": 1.0, "adamw": 0.5}  # the learning rate grows with this power of the batch


@dataclass(frozen=True, kw_only=True)
class Training:
    """The optimizer's side of a recipe; every method's Config holds one."""

    optimizer: str
    learning_rate: float  # peak, at a batch of 256; grows with the batch as ``scaling`` says
    weight_decay: float  # not on biases and norms
    weight_decay_end: float | None = None  # reached along half a cosine at the end of C
    batch: int = 256  # images per step; a quarter of the images if that is less
    warmup: float = 0.05  # share of C
    floor: float = 0.0  # of the learning rate at the end of C, as a share of its peak
    scaling: float | None = None  # power of the batch; default 1 for sgd and lars, .5 for adamw
    momentum: float = 0.9  # of sgd and lars
    betas: tuple[float, float] = (0.9, 0.999)  # of adamw
    trust: float = 1e-3  # of lars
    bias_rate: float | None = None  # learning rate of biases and norms as a share of that of weights; default 1
    clip: float | None = None  # largest norm of the gradient of each parameter
    keep_statistics: bool = False  # of the backbone's batch norms, as they came with its weights

    def peak(self, batch: int) -> float:
        """The highest learning rate of a run with this batch size."""
        power = OPTIMIZERS[self.optimizer] if self.scaling is None else self.scaling
        return self.learning_rate * math.pow(batch / 256, power)

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise UnknownNameError("optimizer", self.optimizer, OPTIMIZERS)
        wanted = {
            "batch": self.batch >= 2,
            "learning_rate": self.learning_rate > 0,
            "weight_decay": self.weight_decay >= 0,
            "weight_decay_end": self.weight_decay_end is None or self.weight_decay_end >= 0,
            "warmup": 0 <= self.warmup < 1,
            "floor": 0 <= self.floor <= 1,
            "momentum": 0 <= self.momentum < 1,
            "betas": all(0 <= beta < 1 for beta in self.betas),
            "trust": self.trust > 0,
            "bias_rate": self.bias_rate is None or self.bias_rate >= 0,
            "clip": self.clip is None or self.clip > 0,
        }
        for name, holds in wanted.items():
            if not holds:
                raise UsageError(f"{name} cannot be {getattr(self, name)}.", hint="See curate.pretraining.recipe.")


# Ours, for thousands to hundreds of thousands of samples seen: from nothing, and from public weights.
SCRATCH = Training(optimizer="adamw", learning_rate=4e-3, weight_decay=1e-2, batch=128)
CONTINUED = replace(SCRATCH, learning_rate=3e-4, batch=64, keep_statistics=True)
