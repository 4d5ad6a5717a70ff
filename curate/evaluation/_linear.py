"""Linear accuracy: multinomial logistic regression on frozen features.

Features are standardized with the mean and deviation of all training images. The L2 penalty is the one of the grid that
is most accurate on held-out training images; equal accuracies go to the stronger penalty.
"""

from __future__ import annotations

import numpy as np

from curate.evaluation._logistic import logistic_path
from curate.evaluation._probe import Probe
from curate.evaluation._split import Parts
from embeddings.store import blocks

PENALTIES = (10.0, 1.0, 0.1, 0.01, 1e-3, 1e-4)  # strongest first: each warm-starts the next
ROUGHLY = 1e-3  # tolerance while choosing
FLOAT64_VALUES = 1 << 25  # larger features are fitted in float32, at half the memory
CONSTANT = 1e-9  # a deviation below this share of the mean is rounding


def linear_probe(train: np.ndarray, labels: np.ndarray, test: np.ndarray, held_out: Parts) -> Probe:
    """Predicts test images by logistic regression, its penalty chosen on held-out training images.

    Args:
        train: Features [n, d].
        labels: Class numbers int [n].
        test: Features [m, d].
        held_out: Parts of the training rows to choose on.
    """
    train, test = standardized(train, test)
    n_classes = int(labels.max()) + 1
    correct, seen = np.zeros(len(PENALTIES)), 0
    for fit, held in held_out:
        models = logistic_path(train[fit], labels[fit], n_classes, PENALTIES, tolerance=ROUGHLY)
        correct += [(model.predict(train[held]) == labels[held]).sum() for model in models]
        seen += len(held)
    best = int(correct.argmax())
    predicted = predict(train, labels, test, PENALTIES[best])
    return Probe(predicted=predicted, settings={"penalty": PENALTIES[best]}, validation=float(correct[best] / seen))


def predict(train: np.ndarray, labels: np.ndarray, test: np.ndarray, penalty: float) -> np.ndarray:
    """Class numbers int64 [m] of test features under one penalty; both standardized."""
    return logistic_path(train, labels, int(labels.max()) + 1, [penalty])[0].predict(test)


def standardized(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both parts with the training part's mean and deviation removed; features constant in training become 0."""
    dtype = np.float64 if train.size <= FLOAT64_VALUES else np.float32
    n = len(train)
    mean = sum(block.sum(axis=0) for _, block in blocks(train, dtype=np.float64)) / n
    variance = sum(np.square(block - mean).sum(axis=0) for _, block in blocks(train, dtype=np.float64)) / n
    deviation = np.sqrt(variance)
    varies = deviation > CONSTANT * np.abs(mean)
    scale = np.where(varies, deviation, np.inf)
    scaled = [((part.astype(dtype) - mean.astype(dtype)) / scale).astype(dtype, copy=False) for part in (train, test)]
    return scaled[0], scaled[1]
