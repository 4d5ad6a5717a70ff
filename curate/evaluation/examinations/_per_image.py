"""Figures that are means over images of one value per image: accuracies, their means and slopes, shares kept.

    figure = sum_i w_i value_i / sum_i w_i per_i        w: how often a resample draws the image

A slope of accuracies over steps is linear in them, so it too is a mean of one value per image: see ``slope_weights``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curate.evaluation._intervals import Metric, Resamples
from curate.evaluation._view import Figure
from curate.results import Estimate


@dataclass(frozen=True, kw_only=True)
class PerImage:
    """One figure, by its value on every image."""

    condition: str
    metric: str
    values: np.ndarray  # float [k]
    unit: str
    per: np.ndarray | None = None  # float [k], 0 or 1: what their sum is divided by; None: the images
    is_share: bool = True
    lower_is_better: bool = False
    detail: bool = False  # one of many that another figure sums up

    def metric_of_weights(self, weights: np.ndarray) -> np.ndarray:
        """Its value on each of the resamples [b, k]."""
        per = np.ones_like(self.values) if self.per is None else self.per
        return np.asarray((weights @ self.values) / np.maximum(weights @ per, 1))

    @property
    def has_value(self) -> bool:
        """False where it would be divided by 0."""
        return bool(len(self.values) if self.per is None else self.per.any())


def slope_weights(steps: Sequence[float]) -> np.ndarray:
    """Weights [s] with which values at these steps sum to their least-squares slope; zeros for a single step."""
    centered = np.asarray(steps, np.float64) - np.mean(steps)
    return np.asarray(centered / (np.square(centered).sum() or 1.0))


def figures(found: Sequence[PerImage], resamples: Resamples, *, reason: str, note: str = "") -> list[Figure]:
    """The same as figures of an examination.

    Args:
        found: One entry per figure.
        resamples: Of the images; their draws are the same for every arm.
        reason: Why a figure has no value where it has none.
        note: What its method adds in words.
    """
    metrics: dict[str, Metric] = {str(i): entry.metric_of_weights for i, entry in enumerate(found) if entry.has_value}
    measured = resamples.measure(metrics) if metrics else {}
    lacking = Estimate(value=None, reason=reason, **resamples.facts())
    return [
        Figure(
            condition=entry.condition,
            metric=entry.metric,
            found=measured.get(str(i), lacking),
            unit=entry.unit,
            is_share=entry.is_share,
            lower_is_better=entry.lower_is_better,
            detail=entry.detail,
            note=note,
            resamples=resamples,
        )
        for i, entry in enumerate(found)
    ]
