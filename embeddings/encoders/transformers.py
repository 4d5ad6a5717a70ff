"""Vision transformers of any image size, and what methods need to know of timm's.

name      width  blocks  heads  parameters
tiny-vit    128       4      4       0.8 M    for images of 28 to 64 pixels, on CPUs
vit-ti      192      12      3       5.4 M
vit-s       384      12      6      21.4 M
vit-b       768      12     12      85.3 M

All are timm's ``VisionTransformer`` with one class token, under timm's parameter names. Patches are the largest of 4,
8 and 16 pixels (tiny-vit: 4 and 8) that leave at least seven of them along an edge: 4 below 56 pixels, 8 below 112,
16 from there on. Another size than that of the run works too: positions are interpolated, and what is missing to whole
patches is filled up with zeros, the mean color.

Weights start as MAE's: Glorot uniform for linear layers and for the patch convolution seen as one, biases 0, the class
token N(0, .02). Positions start as the fixed two-dimensional sines and cosines of MAE and MoCo v3, zero for the class
token; those methods leave them as they are (``freeze_positions``), others train them.

Features are the class token after the last norm, as in DINO, MoCo v3 and supervised weights (for MAE see there).
Transformers of timm that are asked for by their own names pool as timm does.

Source: Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021 (arXiv 2010.11929); initialization and positions:
He et al., "Masked autoencoders are scalable vision learners", CVPR 2022 (arXiv 2111.06377). MoCo v3 has twelve heads in
ViT-S; timm, DINO and this file have six.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from embeddings.encoders.torchvision_import import import_timm

TOKENS_ALONG_EDGE = 7  # at least


class Shape(NamedTuple):
    """The measures of a transformer."""

    width: int
    blocks: int
    heads: int
    patches: tuple[int, ...] = (4, 8, 16)  # edges in pixels to choose from
    published: str | None = None  # timm's name of the same network with weights


SHAPES = {
    "tiny-vit": Shape(128, 4, 4, patches=(4, 8)),
    "vit-ti": Shape(192, 12, 3, published="vit_tiny_patch16_224"),
    "vit-s": Shape(384, 12, 6, published="vit_small_patch16_224"),
    "vit-b": Shape(768, 12, 12, published="vit_base_patch16_224"),
}
FLEXIBLE = {"dynamic_img_size": True, "dynamic_img_pad": True}  # options of timm: any image size


def build_transformer(name: str, *, size: int, patch: int | None = None) -> nn.Module:
    """A transformer with random weights for images of ``size`` pixels; ``patch`` overrides the rule above."""
    shape = SHAPES[name]
    module: nn.Module = import_timm().models.VisionTransformer(
        img_size=size,
        patch_size=patch or patch_for(name, size),
        num_classes=0,
        embed_dim=shape.width,
        depth=shape.blocks,
        num_heads=shape.heads,
        **FLEXIBLE,
    )
    _start(module)
    return module


def patch_for(name: str, size: int) -> int:
    """Edge in pixels of the patches of a network that is made for images of ``size`` pixels."""
    smallest, *larger = SHAPES[name].patches
    return max([smallest, *(patch for patch in larger if size >= TOKENS_ALONG_EDGE * patch)])


def has_tokens(module: nn.Module) -> bool:
    """Whether a network is a plain transformer over square patches, whose tokens can be masked."""
    layers = import_timm().layers
    plain = isinstance(module, import_timm().models.VisionTransformer)
    return plain and isinstance(module.patch_embed, layers.PatchEmbed) and module.pos_embed is not None


def patch_edge(module: Any) -> int:
    """Edge in pixels of a transformer's patches."""
    return int(module.patch_embed.patch_size[0])


def describe_transformer(module: Any) -> dict[str, Any]:
    """What must be known beside name and size to build a network again; nothing if it is no transformer of timm's."""
    return {"patch": patch_edge(module)} if has_tokens(module) else {}


def freeze_positions(module: Any) -> None:
    """Takes the positions out of training."""
    module.pos_embed.requires_grad_(False)


def resize(module: Any, size: int) -> None:
    """Makes a transformer one for images of ``size`` pixels; its positions are interpolated."""
    frozen = not module.pos_embed.requires_grad
    module.set_input_size(img_size=(size, size))
    module.pos_embed.requires_grad_(not frozen)


def sincos_positions(grid: int, dim: int) -> torch.Tensor:
    """The fixed positions of a square grid of patches, row by row, float32 [grid^2, dim]; dim a multiple of four.

    Patch (y, x) has (sin x w, cos x w, sin y w, cos y w) over the dim / 4 frequencies w_k = 10000^(-4 k / dim).
    """
    quarter = dim // 4
    frequencies = 10000 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    return torch.cat([waves.repeat(grid, 1), waves.repeat_interleave(grid, dim=0)], dim=1).float()


def init_linear(layer: nn.Module) -> None:
    """Glorot uniform weights and zero biases, for ``Module.apply``; other layers stay as they are."""
    if isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _start(module: Any) -> None:
    """The starting weights that the module's docstring tells of."""
    module.apply(init_linear)
    projection = module.patch_embed.proj
    nn.init.xavier_uniform_(projection.weight.view(len(projection.weight), -1))
    nn.init.zeros_(projection.bias)
    nn.init.normal_(module.cls_token, std=0.02)
    with torch.no_grad():
        module.pos_embed[0, 0] = 0
        module.pos_embed[0, 1:] = sincos_positions(module.patch_embed.grid_size[0], module.embed_dim)
