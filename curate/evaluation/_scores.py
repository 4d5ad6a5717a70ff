"""Balanced accuracy, macro F1 and calibration error of a classifier, on the resamples of the test images.

    balanced  mean over the classes in the test part of hits / images of it
    macro F1   mean over the classes in the test part of 2 hits / (images of it + images called it)
    ECE        sum over bins of |images right - their summed confidence| / m

Classes are summed by sparse matrices: an image is of one class, so 500 classes cost no more than two.

Where classes have few test images each, the percentile intervals of the first two are too short: one image alone shows
no spread of its class, and macro F1 reads low besides. Measured coverage of 95% intervals, balanced and macro F1 (120
times each; classes of uneven size): 96% and 91% with 9 classes in 80 images, 96% and 97% in 268; 91% and 86% with 30 in
150 (13% of F1's lay wholly below the truth), 92% and 89% with 95 in 268. Centering the draws, moving them by their
bias, the basic and the bias-corrected bootstrap cover no better there; widening by n / (n - 1) per class is too wide.

Confidence is the probability of the most probable class; the bins are 15 of equal width, (0, 1/15] to (14/15, 1].
Sampling alone makes the calibration error of a perfectly calibrated classifier positive, the more so the fewer images:
``calibrated_error`` is what it would read (bins taken as normal), the ``null`` of the estimate. A resample adds that
noise once more, so draws are moved to have the value as their mean: the interval is that of the reading at this many
test images.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks".
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from curate.evaluation._intervals import Measured, Metric

BINS = 15


def balanced_accuracy(correct: np.ndarray, labels: np.ndarray) -> Metric:
    """The metric "mean over classes of the share that is right"; classes that a resample lacks are left out of it.

    Args:
        correct: Which images are right, bool [m].
        labels: Class numbers int [m].
    """
    classes, own = np.unique(labels, return_inverse=True)
    member = _members(own, len(classes))
    right = _members(own, len(classes), counted=correct)

    def metric(weights: np.ndarray) -> np.ndarray:
        drawn = _summed(member, weights)
        recall = _summed(right, weights) / np.maximum(drawn, 1)
        return np.asarray(recall.sum(axis=1) / (drawn > 0).sum(axis=1))

    return metric


def macro_f1(predicted: np.ndarray, labels: np.ndarray) -> Metric:
    """The metric "mean F1 of the classes", from class numbers said and true, int [m].

    A class that is not in the test part has no F1; one that a resample lacks is left out of that resample.
    """
    classes, own = np.unique(labels, return_inverse=True)
    said = np.searchsorted(classes, predicted).clip(max=len(classes) - 1)
    member = _members(own, len(classes))
    called = _members(said, len(classes), counted=classes[said] == predicted)
    hit = _members(own, len(classes), counted=predicted == labels)

    def metric(weights: np.ndarray) -> np.ndarray:
        drawn = _summed(member, weights)
        f1 = 2 * _summed(hit, weights) / np.maximum(drawn + _summed(called, weights), 1)
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


def _members(own: np.ndarray, n_classes: int, *, counted: np.ndarray | None = None) -> csr_array:
    """Which of the images that count, bool [m], are of which class int [m]: sparse [C, m]."""
    rows = np.arange(len(own)) if counted is None else np.flatnonzero(counted)
    return csr_array((np.ones(len(rows)), (own[rows], rows)), (n_classes, len(own)))


def _summed(members: csr_array, weights: np.ndarray) -> np.ndarray:
    """Weights [b, m] summed by class [b, C]."""
    return np.asarray((members @ weights.T).T)


def _binned(confidence: np.ndarray) -> np.ndarray:
    """Which bin [m, BINS] each confidence is in, as 0 and 1."""
    number = np.ceil(confidence * BINS).astype(np.int64).clip(1, BINS) - 1
    return np.asarray(np.eye(BINS)[number])
