"""Macro F1 and calibration error of a classifier, on the resamples of the test images.

    macro F1   mean over the classes in the test part of 2 hits / (images of it + images called it)
    ECE        sum over bins of |images right - their summed confidence| / m

Confidence is the probability of the most probable class; the bins are 15 of equal width, (0, 1/15] to (14/15, 1].
Sampling alone makes the calibration error of a perfectly calibrated classifier positive, the more so the fewer images:
``calibrated_error`` is what it would read (bins taken as normal), the ``null`` of the estimate. A resample adds that
noise once more, so draws are moved to have the value as their mean: the interval is that of the reading at this many
test images.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks".
"""

from __future__ import annotations

import numpy as np

from curate.evaluation._intervals import Measured, Metric

BINS = 15


def macro_f1(predicted: np.ndarray, labels: np.ndarray) -> Metric:
    """The metric "mean F1 of the classes", from class numbers said and true, int [m].

    A class that is not in the test part has no F1; one that a resample lacks is left out of that resample.
    """
    numbers = np.unique(labels)
    member, called = ((values[:, None] == numbers).astype(np.float64) for values in (labels, predicted))
    hit = member * called

    def metric(weights: np.ndarray) -> np.ndarray:
        drawn = weights @ member
        f1 = 2 * (weights @ hit) / np.maximum(drawn + weights @ called, 1)
        return np.asarray(np.where(drawn > 0, f1, 0).sum(axis=1) / (drawn > 0).sum(axis=1))

    return metric


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> Metric:
    """The metric "expected calibration error" of probabilities [m, C]; 0 is calibrated, 1 the worst."""
    confidence = probabilities.max(axis=1)
    surplus = (probabilities.argmax(axis=1) == labels) - confidence
    by_bin = _binned(confidence) * surplus[:, None]

    def metric(weights: np.ndarray) -> np.ndarray:
        return np.asarray(np.abs(weights @ by_bin).sum(axis=1) / weights.sum(axis=1))

    return metric


def calibrated_error(probabilities: np.ndarray) -> float:
    """The calibration error that probabilities [m, C] would read if they were true."""
    confidence = probabilities.max(axis=1).clip(0, 1)
    variance = _binned(confidence).T @ (confidence * (1 - confidence))
    return float(np.sqrt(2 / np.pi * variance).sum() / len(confidence))


def centered(measured: Measured) -> Measured:
    """The same with draws that have the value as their mean, none below 0."""
    return Measured(value=measured.value, draws=np.maximum(measured.draws + measured.value - measured.draws.mean(), 0))


def _binned(confidence: np.ndarray) -> np.ndarray:
    """Which bin [m, BINS] each confidence is in, as 0 and 1."""
    number = np.ceil(confidence * BINS).astype(np.int64).clip(1, BINS) - 1
    return np.asarray(np.eye(BINS)[number])
