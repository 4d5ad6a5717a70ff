"""Feature maps from the middle of an encoder's network: what each place of an image looks like.

    convolutions   the two resolutions before the coarsest, of each the last map of the outermost layers that give it:
                   layer2 and layer3 of a ResNet, stages 3 and 5 of Lite0
    transformers   the tokens of the blocks at half and at three quarters of the depth, without class token

The layers are found by one run that watches all of them, so any network behind a ``TorchEncoder`` serves whose inner
layers give square maps or square grids of tokens.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from embeddings.encoders import Encoder

if TYPE_CHECKING:
    import torch
    from torch import nn

Shape = tuple[int, ...]
NUMBERED = re.compile(r"(^|[._])\d+$")
OTHERS = 8  # class token and registers, at most


class FeatureMaps:
    """The maps of some layers of an encoder, batch by batch."""

    def __init__(self, encoder: Encoder, layers: Sequence[str]) -> None:
        self.encoder, self.layers = encoder, layers

    @classmethod
    def of(cls, encoder: Encoder) -> FeatureMaps | None:
        """Those of an encoder; None if it is no network of torch, or has no such layers."""
        module = getattr(encoder, "module", None)
        if module is None:
            return None
        blank = np.zeros((1, encoder.spec.size, encoder.spec.size, 3), np.uint8)
        names = [name for name, _ in module.named_modules()]
        with _watched(module, names, lambda found: tuple(found.shape)) as runs:
            encoder.encode(blank)
        layers = middle_blocks(runs[-1]) or middle_stages(runs[-1])
        return cls(encoder, layers) if layers else None

    def __call__(self, pixels: np.ndarray) -> list[torch.Tensor]:
        """Maps float32 [k, C, h, w] of uint8 [k, S, S, 3], the finest first."""
        import torch

        with _watched(self.encoder.module, self.layers, _as_map) as runs:  # type: ignore[attr-defined]
            self.encoder.encode(pixels)
        maps = [torch.cat([run[name] for run in runs])[: len(pixels)] for name in self.layers]
        return sorted(maps, key=lambda found: -found.shape[-1])


def middle_stages(shapes: dict[str, Shape]) -> list[str]:
    """Layers of the two resolutions before the coarsest, from the shapes of all layers in the order they finished."""
    by_edge: dict[int, list[str]] = {}
    for name, shape in shapes.items():
        if name and len(shape) == 4 and _edge(shape) > 1:
            by_edge.setdefault(_edge(shape), []).append(name)
    levels = sorted(by_edge, reverse=True)[-3:-1]
    return [min(reversed(by_edge[edge]), key=lambda name: name.count(".")) for edge in levels]


def middle_blocks(shapes: dict[str, Shape]) -> list[str]:
    """The blocks at half and at three quarters of the longest row of siblings that give tokens."""
    batch = shapes[""][0]
    numbered = [name for name, shape in shapes.items() if NUMBERED.search(name) and _is_tokens(shape, batch)]
    rows = Counter((name.rpartition(".")[0], shapes[name]) for name in numbered)
    if not rows:
        return []
    (parent, shape), depth = rows.most_common(1)[0]
    blocks = [name for name in numbered if name.rpartition(".")[0] == parent and shapes[name] == shape]
    return list(dict.fromkeys(blocks[-(-depth * quarters // 4) - 1] for quarters in (2, 3)))


@contextmanager
def _watched(
    module: nn.Module, names: Sequence[str], look: Callable[[torch.Tensor], Any]
) -> Iterator[list[dict[str, Any]]]:
    """What ``look`` makes of the outputs of some layers, by layer, for every run that came to its end."""
    import torch

    ended: list[dict[str, Any]] = []
    now: dict[str, Any] = {}

    def hook(name: str) -> Callable[..., None]:
        def watch(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                now[name] = look(output)

        return watch

    def end(*_: Any) -> None:
        ended.append(dict(now))

    layers = dict(module.named_modules())
    hooks = [module.register_forward_pre_hook(lambda *_: now.clear())]
    hooks += [layers[name].register_forward_hook(hook(name)) for name in names]
    hooks.append(module.register_forward_hook(end))
    try:
        yield ended
    finally:
        for handle in hooks:
            handle.remove()


def _as_map(output: torch.Tensor) -> torch.Tensor:
    """Float32 [B, C, h, w] of a map, channels first or last, or of tokens [B, T, C]."""
    found = output.float().cpu()
    if found.ndim == 3:
        edge = isqrt(found.shape[1])
        return found[:, -edge * edge :].reshape(len(found), edge, edge, -1).permute(0, 3, 1, 2)
    return found if found.shape[2] == found.shape[3] else found.permute(0, 3, 1, 2)


def _edge(shape: Shape) -> int:
    """Edge of a square map [B, C, h, w] or [B, h, w, C]; 0 if it is none."""
    _, first, height, last = shape
    return height if height in (first, last) else 0


def _is_tokens(shape: Shape, batch: int) -> bool:
    """Whether an output is a square grid of tokens [B, T, C], some of other kinds before it."""
    if len(shape) != 3 or shape[0] != batch:
        return False
    edge = isqrt(shape[1])
    return edge > 1 and shape[1] - edge * edge <= OTHERS
