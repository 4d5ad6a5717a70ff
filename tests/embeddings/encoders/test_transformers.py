"""Vision transformers: patches by size, positions by their formula, starting weights, other sizes, pooling."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from embeddings.encoders.networks import build_network
from embeddings.encoders.torchvision_import import import_timm
from embeddings.encoders.transformers import (
    SHAPES,
    describe_transformer,
    freeze_positions,
    has_tokens,
    patch_edge,
    patch_for,
    resize,
    sincos_positions,
)


def reference_positions(grid, dim):
    """Patch by patch, number by number: sines and cosines of the column, then of the row."""
    quarter, rows = dim // 4, []
    for y in range(grid):
        for x in range(grid):
            angles = [[place / 10000 ** (k / quarter) for k in range(quarter)] for place in (x, y)]
            rows.append([wave(angle) for axis in angles for wave in (math.sin, math.cos) for angle in axis])
    return np.array(rows)


@pytest.fixture(scope="module")
def tiny():
    return build_network("tiny-vit", size=32, seed=3).module


@pytest.mark.parametrize(("grid", "dim"), [(1, 4), (2, 8), (7, 64), (5, 192)])
def test_positions_equal_the_formula(grid, dim):
    found = sincos_positions(grid, dim)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), reference_positions(grid, dim), atol=1e-6)


def test_positions_are_those_of_timm_with_rows_and_columns_exchanged():
    """Timm lists the row first, as MoCo v3 does; MAE the column."""
    theirs = import_timm().layers.build_sincos2d_pos_embed([6, 6], 32, interleave_sin_cos=True)
    torch.testing.assert_close(sincos_positions(6, 32), torch.cat([theirs[:, 16:], theirs[:, :16]], dim=1))


def test_no_two_places_have_the_same_position():
    positions = sincos_positions(14, 192).double()
    distances = torch.cdist(positions, positions) + torch.eye(196) * 9
    assert distances.min() > 0.5


@pytest.mark.parametrize(
    ("size", "tiny", "others"),
    [(28, 4, 4), (32, 4, 4), (52, 4, 4), (56, 8, 8), (104, 8, 8), (112, 8, 16), (224, 8, 16)],
)
def test_patches_leave_seven_along_an_edge(size, tiny, others):
    assert [patch_for(name, size) for name in SHAPES] == [tiny, others, others, others]


def test_starting_weights(tiny):
    """Glorot's bound sqrt(6 / (in + out)), the patch convolution as the linear layer that it is."""
    layers = [(tiny.patch_embed.proj.weight, 3 * 16, 128), (tiny.blocks[0].attn.qkv.weight, 128, 384)]
    layers += [(tiny.blocks[3].mlp.fc2.weight, 512, 128)]
    for weight, inputs, outputs in layers:
        bound = math.sqrt(6 / (inputs + outputs))
        assert weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert weight.var().item() == pytest.approx(bound**2 / 3, rel=0.05)
    for name, bias in tiny.named_parameters():
        assert not name.endswith("bias") or not bias.any()
    assert 0.01 < tiny.cls_token.std().item() < 0.03
    torch.testing.assert_close(tiny.pos_embed[0, 1:], sincos_positions(8, 128))
    assert not tiny.pos_embed[0, 0].any()
    assert all(norm.eps == 1e-6 for norm in tiny.modules() if isinstance(norm, torch.nn.LayerNorm))


def test_a_seed_fixes_the_patch_size_s_weights():
    first, second = (build_network("tiny-vit", size=64, seed=1).module for _ in range(2))
    assert patch_edge(first) == 8
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("size", [8, 16, 30, 48])
def test_other_sizes_pass_and_what_is_missing_is_filled_with_the_mean_color(tiny, size):
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    whole = -(-size // 4) * 4
    padded = torch.zeros(2, 3, whole, whole)
    padded[..., :size, :size] = x
    with torch.no_grad():
        torch.testing.assert_close(tiny.eval()(x), tiny(padded))


def test_another_size_for_good(tiny):
    module = build_network("tiny-vit", size=32, seed=3).module
    freeze_positions(module)
    resize(module, 48)
    assert module.pos_embed.shape == (1, 1 + 144, 128)
    assert not module.pos_embed.requires_grad
    torch.testing.assert_close(module.pos_embed[0, 0], tiny.pos_embed[0, 0])
    x = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(x), tiny.eval()(x))  # which interpolates on the way


def test_features_are_the_class_token(tiny):
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(tiny.eval()(x), tiny.forward_features(x)[:, 0])
    assert describe_transformer(tiny) == {"patch": 4}


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("timm:test_vit", True),
        ("timm:vit_small_patch14_dinov2", True),
        ("timm:vit_tiny_r_s16_p8_224", False),  # a ResNet makes its tokens
        ("timm:test_convnext", False),
        ("torchvision:vit_b_16", False),
        ("tiny-resnet", False),
    ],
)
def test_what_counts_as_tokens_that_can_be_hidden(name, plain):
    with torch.device("meta"):
        module = build_network(name, size=224).module
    assert has_tokens(module) is plain
    assert bool(describe_transformer(module)) is plain
