"""What one sample of a run costs, in seconds and in operations, measured on noise."""

from __future__ import annotations

import copy
import time
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from curate.pretraining import ranks
from curate.pretraining.sample import Sample
from curate.pretraining.trainer import Trainer

PROBE_IMAGES, PROBE_STEPS = 32, 2
GPU_IMAGES, GPU_STEPS = 256, 8  # a small batch leaves a GPU idle, and a sample of it costs more


class Cost(NamedTuple):
    """Per sample, views and backward pass included."""

    seconds: float
    flops: float  # of matrix products and convolutions; a multiplication and an addition are two


def measure_cost(trainer: Trainer, *, batch: int) -> Cost:
    """Takes a few steps with a copy of the trainer, so that the run itself is not touched."""
    twin, edge = copy.deepcopy(trainer), trainer.settings.backbone.stored_edge
    device = trainer.placement.device
    gpu = device.type == "cuda"
    n = max(2, min(batch // ranks.count(), GPU_IMAGES if gpu else PROBE_IMAGES))
    numbers = np.arange(n, dtype=np.uint64)
    noise = np.random.default_rng(0).integers(0, 256, (n, 3, edge, edge), dtype=np.uint8)
    sample = Sample(noise, hashes=numbers, visits=np.zeros(n, np.int64))

    def step() -> None:
        twin.step(sample, share=0.0, batch=batch, images=n * ranks.count())
        if gpu:
            torch.cuda.synchronize(device)

    with FlopCounterMode(display=False) as counter:
        step()
    if trainer.execution.compile:  # a copy is not, and counts what compiled code would hide
        twin.network.module.compile()
        step()
    times = []
    for _ in range(GPU_STEPS if gpu else PROBE_STEPS):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return Cost(min(times) / (n * ranks.count()), counter.get_total_flops() / n)
