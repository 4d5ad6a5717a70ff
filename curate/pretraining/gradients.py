"""The gradient of a batch's loss: at once or in chunks, by one process or several, exactly.

What a learner encodes is a function of each image alone (but for batch norms); its heads and its loss may compare the
images of a batch. In chunks (cached gradients): encode all chunks without a graph; take heads and loss over the whole
batch, and the gradient with respect to what was encoded; then encode each chunk again and send its part of that
gradient back through it. The sum over chunks is the gradient of the whole batch, at the memory of one chunk. Where
nothing compares images, the loss is a mean over them, so chunks are weighted by their images and added.

Several processes share a batch in the same way: each sends back the gradient of its own images.

Source: Gao, Zhang, Han, Callan, "Scaling deep contrastive learning batch size under memory limited setup", 2021
(arXiv 2101.06983).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from curate.pretraining import ranks
from curate.pretraining.methods import Learner
from curate.pretraining.sample import Seen
from embeddings.errors import UsageError


class Result(NamedTuple):
    """What a batch yielded, its gradients apart."""

    loss: torch.Tensor  # scalar, of the whole batch
    features: torch.Tensor  # [n, d] of the backbone, of this process's images


@dataclass(frozen=True)
class Step:
    """Where a step stands and how it is computed."""

    share: float  # of C
    images: int  # of the whole batch, over all processes
    chunks: int = 1
    low: bool = False  # run networks in bfloat16 where torch holds that to be safe


def backward(learner: Learner, seen: Seen, step: Step) -> Result:
    """Adds the gradient of the batch's loss to the learner's parameters, of this process's images.

    Args:
        learner: what to train; the same in all processes.
        seen: this process's images of the batch.
        step: where and how.
    """
    chunks = [seen.part(where) for where in split(len(seen), step.chunks)]
    if not learner.coupled:
        return _uncoupled(learner, chunks, step)
    return _at_once(learner, seen, step) if len(chunks) == 1 else _cached(learner, chunks, step)


def split(n: int, chunks: int) -> list[slice]:
    """``chunks`` nearly equal runs of n images, none empty."""
    count = min(chunks, n)
    return [slice(first, last) for first, last in pairwise(i * n // count for i in range(count + 1))]


def require_exact_chunks(backbone: nn.Module, chunks: int) -> None:
    """Refuses chunks for a backbone whose batch norms would see each chunk by itself.

    Raises:
        UsageError: it has batch norms that take the statistics of what passes.
    """
    if chunks > 1 and any(_takes_statistics(layer) for layer in backbone.modules()):
        raise UsageError(
            f"The batch was to pass in {chunks} chunks, but the batch norms of the backbone need it whole.",
            hint="Use a backbone without batch norm (a ViT, a ConvNeXt), or accept it with chunk_stats=true.",
        )


def _uncoupled(learner: Learner, chunks: Sequence[Seen], step: Step) -> Result:
    losses, features = [], []
    for chunk in chunks:
        with network_pass(chunk, low=step.low):
            encoded = learner.encode(chunk)
            loss = learner.loss(learner.project(encoded.parts), share=step.share) * (len(chunk) / step.images)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
        features.append(encoded.features.detach())
    return Result(ranks.total(torch.stack(losses).sum()), torch.cat(features))


def _at_once(learner: Learner, seen: Seen, step: Step) -> Result:
    with network_pass(seen, low=step.low):
        encoded = learner.encode(seen)
    return Result(_compare(learner, encoded.parts, seen, step), encoded.features.detach())


def _cached(learner: Learner, chunks: Sequence[Seen], step: Step) -> Result:
    found = []
    for chunk in chunks:
        with torch.no_grad(), network_pass(chunk, low=step.low), _still(learner):
            found.append(learner.encode(chunk))
    whole = [torch.cat(same).requires_grad_() for same in zip(*(f.parts for f in found), strict=True)]
    loss = _compare(learner, whole, chunks[0], step)
    for chunk, where in zip(chunks, split(sum(map(len, chunks)), step.chunks), strict=True):
        with network_pass(chunk, low=step.low):
            again = learner.encode(chunk).parts
        sent = [(part, w.grad[where]) for part, w in zip(again, whole, strict=True) if w.grad is not None]
        torch.autograd.backward([part for part, _ in sent], [gradient for _, gradient in sent])
    return Result(loss, torch.cat([f.features for f in found]))


def _compare(learner: Learner, parts: Sequence[torch.Tensor], seen: Seen, step: Step) -> torch.Tensor:
    """Loss of the whole batch; sends its gradient back to this process's parts."""
    with network_pass(seen, low=step.low):
        ours = learner.project(parts)
        if ranks.count() == 1:
            loss = learner.loss(ours, share=step.share)
        else:
            whole = [ranks.gather(part, step.images).requires_grad_(part.requires_grad) for part in ours]
            loss = learner.loss(whole, share=step.share)
    loss.backward()  # type: ignore[no-untyped-call]
    if ranks.count() > 1:
        own = ranks.own(step.images)
        sent = [(part, w.grad[own]) for part, w in zip(ours, whole, strict=True) if w.grad is not None]
        torch.autograd.backward([part for part, _ in sent], [gradient for _, gradient in sent])
    return loss.detach()


@contextmanager
def network_pass(seen: Seen, *, low: bool) -> Iterator[None]:
    """Precision of the networks, and a state of chance that the images alone decide: a second pass is the same."""
    device, sample = seen.views[0].device, seen.sample
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed((int(sample.hashes[0]) ^ int(sample.visits[0]) ^ seen.seed) & (2**63 - 1))
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            yield


@contextmanager
def _still(learner: Learner) -> Iterator[None]:
    """Batch norms keep their running statistics as they are: the images pass a second time."""
    layers = [layer for layer in learner.modules() if isinstance(layer, _BatchNorm) and layer.training]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def _takes_statistics(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm) and layer.training
