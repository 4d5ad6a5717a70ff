"""Several processes that train one network on one batch (torchrun), as if they were one.

Each process takes a run of the batch's images. What couples images is computed over all of them: batch norms share
their statistics, and parts that a loss compares are gathered. Gradients are added, not averaged, because each process
sends back its own images' part of the whole batch's gradient. So 1, 2 and 4 processes take the same steps but for
rounding, however the images are spread.

    torchrun --nproc-per-node 4 --no-python curate pretrain --selection ... --out ...

The folder of the run must be one that all processes see. Alone, every function here does nothing. Flags and counts
travel between CPUs (gloo), also where gradients travel between GPUs (NCCL), so that nobody waits for a GPU to ask
whether the run goes on.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

BUCKET_BYTES = 1 << 26  # gradients that travel together
PATIENCE = timedelta(days=1)  # the others wait while the first process decodes all images; torchrun ends the orphaned
_here = threading.local()


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Joins the processes that torchrun started, inside the block; alone if there are none."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # what asks for no device in particular must not meet on the first one
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def alone() -> Iterator[None]:
    """Inside the block this thread counts as the only process, and its batch norms share nothing."""
    _here.alone = True
    try:
        yield
    finally:
        _here.alone = False


def count() -> int:
    """How many processes work together."""
    return dist.get_world_size() if dist.is_initialized() and not getattr(_here, "alone", False) else 1


def rank() -> int:
    """The number of this process, from 0; the first one writes files."""
    return dist.get_rank() if count() > 1 else 0


def local_device(device: str) -> str:
    """This process's own device where torchrun started one process per GPU: ``auto`` and ``cuda`` mean that one."""
    local = os.environ.get("LOCAL_RANK")
    return f"cuda:{local}" if local and device in ("auto", "cuda") and torch.cuda.is_available() else device


def own(n: int) -> slice:
    """Which of a batch's n images this process takes; nearly equal runs in the order of the processes."""
    return slice(rank() * n // count(), (rank() + 1) * n // count())


def wait() -> None:
    """Returns when all processes are here."""
    if count() > 1:
        total(torch.zeros(()))


def total(values: torch.Tensor) -> torch.Tensor:
    """The sum over all processes, without gradient."""
    if count() == 1:
        return values
    out = values.detach().clone()
    dist.all_reduce(out)
    return out


def any_of(flag: bool) -> bool:
    """True if it is true in one of the processes."""
    return bool(total(torch.tensor(int(flag))) > 0)


def gather(values: torch.Tensor, n: int) -> torch.Tensor:
    """Rows [n, ...] of the whole batch from this process's [b, ...], without gradient."""
    if count() == 1:
        return values.detach()
    whole = values.new_zeros((n, *values.shape[1:]))
    whole[own(n)] = values.detach()
    dist.all_reduce(whole)
    return whole


def add_gradients(parameters: Iterable[torch.Tensor]) -> None:
    """Replaces each gradient by its sum over all processes; a parameter without one anywhere keeps none."""
    if count() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        dist.all_reduce(flat)
        for gradient, summed in zip(bucket, torch.split(flat, [g.numel() for g in bucket]), strict=True):
            gradient.copy_(summed.view_as(gradient))


def share_batch_norms(module: nn.Module) -> None:
    """Lets every batch norm of a network take its statistics over all processes; its state stays the same.

    torch's SyncBatchNorm refuses CPU tensors; this one works on both.
    """
    if count() == 1:
        return
    for layer in module.modules():
        if isinstance(layer, _BatchNorm) and not isinstance(layer, SharedBatchNorm):
            layer.__class__ = _shared(type(layer))  # type: ignore[assignment, arg-type]


class SharedBatchNorm(_BatchNorm):
    """Batch norm over the images of all processes, in place of another batch norm."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[b, C, ...] -> [b, C, ...]."""
        if not self.training or count() == 1:
            return super().forward(x)
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        values = x if x.dtype == torch.float64 else x.float()
        ours = values.new_full((1,), x.numel() // x.shape[1])
        *_, n = sums = _sum_over_all(torch.cat([values.sum(axes), ours]))
        mean = sums[:-1] / n
        centered = values - mean.view(shape)
        variance = _sum_over_all(centered.square().sum(axes)) / n
        self._remember(mean.detach(), (variance * n / (n - 1).clamp(min=1)).detach())
        scale = torch.rsqrt(variance + self.eps)
        scale = scale * self.weight if self.affine else scale
        out = centered * scale.view(shape)
        out = (out + self.bias.view(shape) if self.affine else out).to(x.dtype)
        ends = [getattr(self, name) for name in ("drop", "act") if hasattr(self, name)]  # timm's batch norms have them
        found: torch.Tensor = nn.Sequential(*ends)(out)
        return found

    def _remember(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
        self.running_var.lerp_(variance.to(self.running_var.dtype), weight)


@cache
def _shared(kind: type[nn.Module]) -> type[nn.Module]:
    """A class that is both this batch norm and a shared one."""
    return type(f"Shared{kind.__name__}", (SharedBatchNorm, kind), {})


def _sum_over_all(values: torch.Tensor) -> torch.Tensor:
    summed: torch.Tensor = _Total.apply(values)  # type: ignore[no-untyped-call]
    return summed


class _Total(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        out = x.clone()
        dist.all_reduce(out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        out = gradient.clone()
        dist.all_reduce(out)
        return out


def _buckets(gradients: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Gradients of one type in runs that travel together."""
    bucket: list[torch.Tensor] = []
    size = 0
    for gradient in gradients:
        if bucket and (size + gradient.nbytes > BUCKET_BYTES or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += gradient.nbytes
    if bucket:
        yield bucket
