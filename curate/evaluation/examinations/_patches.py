"""Patch memory (PatchCore): how far the strangest place of an image is from all places of normal images.

Every place of the encoder's middle feature maps is averaged with its eight neighbors; the coarser map is brought to the
finer one's resolution and both are joined: the patch features. A coreset of the normal images' patches is the memory M.
An image's score is that of its patch p that is farthest from M, m being its nearest and N the nine nearest to m in M:

    score = (1 - exp|p - m| / sum over n in N of exp|p - n|) |p - m|

so that a patch near a lonely m counts more. The coreset is a greedy k-center of a random projection: each next patch is
the one farthest from those taken, which covers all within twice the best possible radius of as many.

Against the paper: border patches are averaged over the neighbors they have; the coreset is taken of at most 40,000
patches, as many of every normal image; the memory holds a tenth of them, at least 1,000, at most 2,000.

Source: Roth et al., "Towards total recall in industrial anomaly detection", CVPR 2022 (arXiv 2106.08265); Gonzalez 1985
(k-center).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from embeddings.device import product

if TYPE_CHECKING:
    import torch

WIDTH = 1_024  # channels of a patch at most; more are averaged in groups
POOL = 40_000  # patches that the coreset is taken of
SHARE, FEWEST, MOST = 0.1, 1_000, 2_000
PROJECTED = 64  # dimensions in which the coreset is taken
NEIGHBORS = 9
ROWS = 4_096  # patches compared with the memory at once
EQUAL = 1e-6  # of the largest squared length: nearer points are one


@dataclass(frozen=True)
class PatchMemory:
    """Patches of normal images [K, D] float32."""

    patches: np.ndarray

    def scores(self, patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of images with patches [k, P, D]: scores float64 [k], higher is stranger, and the worst patch int64 [k]."""
        k, places, width = patches.shape
        distances, nearest = self._nearest(patches.reshape(-1, width))
        worst = distances.reshape(k, places).argmax(axis=1)
        nearest = nearest.reshape(k, places)[np.arange(k), worst]
        found = [self._score(patches[i, worst[i]], nearest[i]) for i in range(k)]
        return np.array(found), worst

    def _nearest(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Squared distance to the nearest patch of the memory, and which it is, of rows [r, D]."""
        lengths = np.square(self.patches).sum(axis=1)
        distances, nearest = np.empty(len(rows), np.float32), np.empty(len(rows), np.int64)
        for start in range(0, len(rows), ROWS):
            block, part = rows[start : start + ROWS], slice(start, start + ROWS)
            gaps = product(block, -2 * self.patches)
            gaps += lengths
            nearest[part] = gaps.argmin(axis=1)
            distances[part] = np.take_along_axis(gaps, nearest[part, None], axis=1)[:, 0] + np.square(block).sum(axis=1)
        return distances, nearest

    def _score(self, patch: np.ndarray, nearest: int) -> float:
        """The distance of a patch [D] to its nearest, weighted by how lonely that one is."""
        gaps = np.linalg.norm(self.patches - self.patches[nearest], axis=1)
        around = np.argsort(gaps, kind="stable")[:NEIGHBORS]
        others = np.linalg.norm(self.patches[around].astype(np.float64) - patch, axis=1)
        distance = np.linalg.norm(self.patches[nearest].astype(np.float64) - patch)
        weight = 1 - np.exp(distance - logsumexp(others)) if len(around) > 1 else 1.0
        return float(weight * distance)


def patch_features(maps: Sequence[torch.Tensor]) -> np.ndarray:
    """Patch features float32 [k, h w, D] of maps [k, C, h, w], the finest of which comes first."""
    import torch
    from torch.nn.functional import adaptive_avg_pool1d, avg_pool2d, interpolate

    with torch.inference_mode():
        smooth = [avg_pool2d(found, 3, stride=1, padding=1, count_include_pad=False) for found in maps]
        size = smooth[0].shape[-2:]
        alike = [smooth[0], *(interpolate(found, size, mode="bilinear") for found in smooth[1:])]
        joined = torch.cat(alike, dim=1).flatten(2).transpose(1, 2)
        narrow = adaptive_avg_pool1d(joined, WIDTH) if joined.shape[2] > WIDTH else joined
        features: np.ndarray = narrow.contiguous().numpy()
    return features


def remember(patches: np.ndarray) -> PatchMemory:
    """The memory of normal patches [n, D]."""
    size = min(max(FEWEST, int(SHARE * len(patches))), MOST)
    return PatchMemory(patches[k_center(_projected(patches), size)])


def k_center(points: np.ndarray, k: int) -> np.ndarray:
    """Rows int64 of points [n, p] that cover all: the one nearest to the mean, then always the farthest one.

    Fewer than k where the rest are copies of those taken; ties go to the lower row.
    """
    centered = np.ascontiguousarray(points - points.mean(axis=0), dtype=np.float32)
    lengths = np.square(centered).sum(axis=1)
    equal = EQUAL * lengths.max()
    row = int(lengths.argmin())
    taken, reach = [row], np.full(len(points), np.inf, np.float32)
    while len(taken) < k:
        np.minimum(reach, lengths + lengths[row] - 2 * (centered @ centered[row]), out=reach)
        row = int(reach.argmax())
        if reach[row] <= equal:
            break
        taken.append(row)
    return np.array(taken, np.int64)


def _projected(patches: np.ndarray) -> np.ndarray:
    """Patches [n, D] in at most 64 random directions, distances about kept."""
    width = patches.shape[1]
    if width <= PROJECTED:
        return patches
    directions = np.random.default_rng(0).standard_normal((PROJECTED, width), dtype=np.float32)
    return product(np.ascontiguousarray(patches, np.float32), directions / np.float32(PROJECTED**0.5))
