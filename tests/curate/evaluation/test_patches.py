"""Patch memory: coverage of the coreset, scores by the published formula, and defects that were planted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from curate.evaluation.examinations import _patches
from curate.evaluation.examinations._feature_maps import FeatureMaps
from curate.evaluation.examinations._patches import PatchMemory, k_center, patch_features, remember
from embeddings.encoders import get_encoder

SIZE, SPOT = 128, 20


def reach(points, taken):
    return np.linalg.norm(points[:, None] - points[taken], axis=2).min(axis=1).max()


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 12), st.integers(0, 1000))
def test_each_next_point_is_the_farthest(n, width, k, seed):
    points = np.random.default_rng(seed).standard_normal((n, width)) + 10
    taken = k_center(points, k)
    assert len(set(taken.tolist())) == len(taken) == min(k, n)
    from_mean = np.linalg.norm(points - points.mean(axis=0), axis=1)
    assert from_mean[taken[0]] == pytest.approx(from_mean.min(), rel=1e-5)
    for i in range(1, len(taken)):
        own = np.linalg.norm(points[taken[:i]] - points[taken[i]], axis=1).min()
        assert own == pytest.approx(reach(points, taken[:i]), rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_the_coreset_reaches_within_twice_the_best_radius(seed):
    points = np.random.default_rng(seed).random((12, 2))
    for k in (1, 2, 3, 4):
        best = min(reach(points, list(taken)) for taken in itertools.combinations(range(12), k))
        assert reach(points, k_center(points, k)) <= 2 * best + 1e-6


def test_copies_are_taken_once_and_ties_go_to_the_lower_row():
    points = np.array([[0.0], [1], [0], [-1], [1]])
    assert k_center(points, 5).tolist() == [0, 1, 3]
    assert k_center(np.ones((4, 3)), 3).tolist() == [0]


def test_a_projected_coreset_still_covers():
    """Of patches in 40 groups in many dimensions, 40 projected centers find every group."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, 40, 2_000)
    patches = (rng.standard_normal((40, 300))[group] + 0.05 * rng.standard_normal((2_000, 300))).astype(np.float32)
    projected = _patches._projected(patches)
    assert projected.shape == (2_000, _patches.PROJECTED)
    assert len(set(group[k_center(projected, 40)])) == 40


def test_the_memory_is_bounded(monkeypatch):
    patches = np.random.default_rng(0).standard_normal((3_000, 4)).astype(np.float32)
    assert len(remember(patches).patches) == _patches.FEWEST
    assert len(remember(patches[:50]).patches) == 50
    monkeypatch.setattr(_patches, "MOST", 200)
    monkeypatch.setattr(_patches, "FEWEST", 100)
    assert len(remember(patches).patches) == 200
    assert len(remember(patches[:1_500]).patches) == 150


def published(patches, memory):
    """Equations 6 and 7 of the paper, place by place."""
    gaps = np.linalg.norm(patches[:, None].astype(np.float64) - memory, axis=2)
    place = gaps.min(axis=1).argmax()
    nearest = gaps[place].argmin()
    around = np.argsort(np.linalg.norm(memory - memory[nearest], axis=1), kind="stable")[:9]
    weight = 1 - np.exp(gaps[place, nearest]) / np.exp(gaps[place, around]).sum()
    return weight * gaps[place, nearest], place


@pytest.mark.parametrize("rows", [7, 4096])
def test_scores_are_those_of_the_published_formula(rows, monkeypatch):
    monkeypatch.setattr(_patches, "ROWS", rows)
    rng = np.random.default_rng(0)
    memory, images = rng.standard_normal((30, 6)), 1.5 * rng.standard_normal((5, 16, 6))
    scores, places = PatchMemory(memory.astype(np.float32)).scores(images.astype(np.float32))
    for image, score, place in zip(images, scores, places, strict=True):
        wanted, where = published(image.astype(np.float32), memory.astype(np.float32))
        assert place == where
        assert score == pytest.approx(wanted, rel=1e-5)


def test_one_patch_in_memory_and_far_ones():
    memory = PatchMemory(np.zeros((1, 3), np.float32))
    scores, _ = memory.scores(np.array([[[3.0, 4, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]], np.float32))
    np.testing.assert_allclose(scores, [5, 0])
    wide = PatchMemory(np.array([[0.0], [5_000]], np.float32))
    np.testing.assert_allclose(wide.scores(np.array([[[1_000.0]]], np.float32))[0], 1_000)


def test_patches_are_averaged_with_their_neighbors_and_joined():
    fine, coarse = torch.arange(16.0).reshape(1, 1, 4, 4), torch.ones(1, 2, 2, 2)
    found = patch_features([fine, coarse])
    assert found.shape == (1, 16, 3)
    assert found[0, 5, 0] == np.mean([0, 1, 2, 4, 5, 6, 8, 9, 10])
    assert found[0, 0, 0] == np.mean([0, 1, 4, 5])  # a corner has three neighbors
    np.testing.assert_allclose(found[..., 1:], 1)


def test_wide_patches_are_narrowed(monkeypatch):
    monkeypatch.setattr(_patches, "WIDTH", 3)
    maps = torch.arange(6.0).reshape(1, 6, 1, 1).expand(1, 6, 2, 2)
    np.testing.assert_allclose(patch_features([maps]), np.broadcast_to([0.5, 2.5, 4.5], (1, 4, 3)))


@pytest.fixture(scope="module")
def maps():
    return FeatureMaps.of(get_encoder(f"lite0@{SIZE}", device="cpu"))


def tiles(n, seed):
    """Textured tiles uint8 [n, S, S, 3]: stripes at a random phase, and noise."""
    rng = np.random.default_rng(seed)
    phase = rng.random((n, 1, 1, 1)) * 2 * np.pi
    stripes = 40 * np.sin(np.arange(SIZE)[None, None, :, None] * 0.8 + phase)
    return (120 + stripes + rng.normal(0, 12, (n, SIZE, SIZE, 3))).clip(0, 255).astype(np.uint8)


def features(maps, pixels):
    return np.concatenate([patch_features(maps(pixels[i : i + 16])) for i in range(0, len(pixels), 16)])


def test_a_planted_spot_is_found_and_at_its_place(maps):
    normal, good, bad = tiles(32, 0), tiles(20, 1), tiles(20, 2)
    corners = np.random.default_rng(3).integers(4, SIZE - SPOT - 4, (20, 2))
    for image, (top, left) in zip(bad, corners, strict=True):
        image[top : top + SPOT, left : left + SPOT] = 250
    seen = features(maps, normal)
    memory = remember(seen.reshape(-1, seen.shape[2]))
    (found, at), (fine, _) = memory.scores(features(maps, bad)), memory.scores(features(maps, good))
    auroc = (found[:, None] > fine).mean() + (found[:, None] == fine).mean() / 2
    assert auroc > 0.95
    edge = int(seen.shape[1] ** 0.5)
    middle = (np.stack([at // edge, at % edge], axis=1) + 0.5) * SIZE / edge
    assert (np.abs(middle - corners - SPOT / 2).max(axis=1) <= SIZE / edge).mean() >= 0.8


def test_images_that_are_remembered_are_not_strange(maps):
    seen = features(maps, np.concatenate([tiles(2, 0)] * 3))
    flat = seen.reshape(-1, seen.shape[2])
    memory = remember(flat)
    assert len(memory.patches) <= len(flat) // 3
    np.testing.assert_allclose(memory.scores(seen)[0], 0, atol=1e-2)
