"""Is it learning? A verdict in words from the curves of a run.

diverged       a loss that is not finite
collapsed      all images give nearly the same features
not learning   the loss sits at its chance value, that of a network that tells nothing apart
healthy        none of these
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

COLLAPSED_SPREAD = 0.02
TOLERANCE = 0.02  # share of the chance loss that counts as no difference
TAIL = 0.1  # share of the logged steps that is averaged at either end


@dataclass(frozen=True)
class Health:
    """A verdict and its reason."""

    verdict: str  # healthy, too early, not learning, collapsed or diverged
    detail: str


def feature_spread(features: torch.Tensor) -> float:
    """Root mean squared distance of the normalized features [n, d] from their mean: 0 = all alike, at most 1.

    sqrt(1 - |mean(f / |f|)|^2)
    """
    center = F.normalize(features.detach().float(), dim=1).mean(dim=0)
    return math.sqrt(max(0.0, 1.0 - float(center.square().sum())))


def judge(curves: Sequence[dict[str, float]]) -> Health:
    """The verdict on a run from its logged steps, each with ``loss``, ``chance_loss`` and ``feature_spread``."""
    bad = [row for row in curves if not math.isfinite(row["loss"])]
    if bad:
        return Health("diverged", f"The loss was {bad[0]['loss']} after {bad[0]['samples_seen']:,} samples.")
    ends = max(1, round(TAIL * len(curves)))
    start, loss = _mean(curves[:ends], "loss"), _mean(curves[-ends:], "loss")
    chance, spread = _mean(curves[-ends:], "chance_loss"), _mean(curves[-ends:], "feature_spread")
    if spread < COLLAPSED_SPREAD:
        return Health("collapsed", f"All images give nearly the same features (spread {spread:.3f} of at most 1).")
    path = f"The loss went from {start:.3f} to {loss:.3f}; its chance value is {chance:.3f}."
    if loss < chance * (1 - TOLERANCE):
        return Health("healthy", path)
    if loss > chance * (1 + TOLERANCE) and start - loss > chance * TOLERANCE:
        return Health("too early", f"{path} It is still on its way there: spend more samples.")
    return Health("not learning", f"{path} Views of one image are not recognized: try another learning rate.")


def _mean(rows: Sequence[dict[str, float]], name: str) -> float:
    return sum(row[name] for row in rows) / len(rows)
