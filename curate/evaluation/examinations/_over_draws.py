"""Accuracies that are means over a few random draws of what an arm learned from: lists of labels, wrong labels.

The interval covers the choice of test images and of draws together. Every resample of the test images has weights for
the draws, the same for every figure and arm, so that differences stay paired. Draws are few: a plain bootstrap of k
finds (k - 1) / k of the variance between them. Weights are therefore spread about 1 / k by sqrt(k / (k - 1)), which
finds all of it; some may be negative. One draw has no spread: the interval then covers test images alone.
"""

from __future__ import annotations

import numpy as np

from curate.evaluation._intervals import DRAWS, Measured, Resamples

SHARE = (0.0, 1.0)


def over_draws(values: np.ndarray, resamples: Resamples, *, limits: tuple[float, float] | None = SHARE) -> Measured:
    """The mean over draws and test images.

    Args:
        values: [k, m], of every test image with each draw: whether it is right, or points.
        resamples: Of the m test images.
        limits: What no figure can go beyond; None: there are none.
    """
    of_image = values.astype(np.float64).T
    found = np.concatenate([weights @ of_image / weights.sum(axis=1, keepdims=True) for weights in resamples])
    draws = (found * draw_weights(len(values), resamples.seed)).sum(axis=1)
    return Measured(value=float(values.mean()), draws=draws if limits is None else draws.clip(*limits))


def draw_weights(k: int, seed: int) -> np.ndarray:
    """How much each of k draws counts in every resample [DRAWS, k]; rows sum to 1."""
    rng = np.random.default_rng([seed, 3])
    drawn = rng.multinomial(k, np.full(k, 1 / k), size=DRAWS) / k
    return np.asarray(1 / k + (drawn - 1 / k) * np.sqrt(k / max(k - 1, 1)))
