"""The gradient of a batch's loss, at once or in chunks, exactly.

A loss that couples the images of a batch is a function L(z_1 .. z_b) of what was encoded. In chunks (cached gradients):
encode all chunks without a graph, compute L and dL/dz once over the whole batch, then encode each chunk again and send
its dL/dz back through it. The sum over chunks is the gradient of the whole batch, at the memory of one chunk. Any other
loss is a mean over images, so its chunks are weighted by their images and added.

Source: Gao, Zhang, Han, Callan, "Scaling deep contrastive learning batch size under memory limited setup", 2021
(arXiv 2101.06983).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch

from curate.pretraining.methods import Learner
from curate.pretraining.sample import Seen


class Result(NamedTuple):
    """What a batch yielded, its gradients apart."""

    loss: torch.Tensor  # scalar, detached
    features: torch.Tensor  # [n, d] of the backbone, detached


def backward(learner: Learner, seen: Seen, *, share: float, chunks: int = 1, low: bool = False) -> Result:
    """Adds the gradient of the batch's loss to the learner's parameters.

    Args:
        learner: what to train.
        seen: the batch.
        share: of C.
        chunks: how many parts the batch passes the network in.
        low: run the network in bfloat16 where torch holds that to be safe.
    """
    parts = [seen.part(where) for where in split(len(seen), chunks)]
    precision = torch.autocast(seen.views[0].device.type, torch.bfloat16, enabled=low)
    way = _coupled if learner.coupled else _uncoupled
    return way(learner, parts, share=share, precision=precision)


def split(n: int, chunks: int) -> list[slice]:
    """``chunks`` nearly equal runs of n images, none empty."""
    edges = [i * n // min(chunks, n) for i in range(min(chunks, n) + 1)]
    return [slice(first, last) for first, last in itertools.pairwise(edges)]


def _uncoupled(learner: Learner, chunks: Sequence[Seen], *, share: float, precision: torch.autocast) -> Result:
    total = sum(map(len, chunks))
    losses, features = [], []
    for chunk in chunks:
        with precision:
            encoded = learner.encode(chunk)
            loss = learner.loss(encoded.parts, share=share) * (len(chunk) / total)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
        features.append(encoded.features.detach())
    return Result(torch.stack(losses).sum(), torch.cat(features))


def _coupled(learner: Learner, chunks: Sequence[Seen], *, share: float, precision: torch.autocast) -> Result:
    if len(chunks) == 1:
        with precision:
            encoded = learner.encode(chunks[0])
            loss = learner.loss(encoded.parts, share=share)
        loss.backward()  # type: ignore[no-untyped-call]
        return Result(loss.detach(), encoded.features.detach())
    with torch.no_grad(), precision:
        found = [learner.encode(chunk) for chunk in chunks]
    parts = [torch.cat(same).requires_grad_() for same in zip(*(f.parts for f in found), strict=True)]
    with precision:
        loss = learner.loss(parts, share=share)
    gradients = torch.autograd.grad(loss, parts, allow_unused=True)
    start = 0
    for chunk in chunks:
        with precision:
            again = learner.encode(chunk).parts
        where = slice(start, start := start + len(chunk))
        sent = [
            (part, g[where]) for part, g in zip(again, gradients, strict=True) if g is not None and part.requires_grad
        ]
        torch.autograd.backward([part for part, _ in sent], [g for _, g in sent])
    return Result(loss.detach(), torch.cat([f.features for f in found]))
