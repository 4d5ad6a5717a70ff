"""Linear accuracy: multinomial logistic regression on frozen features.

Features are standardized with the mean and deviation of all training images; while folds choose, whose fits serve two
of them, with those of the images that are fitted to. The L2 penalty is the one of the grid that is most accurate on
held-out training images; equal accuracies go to the stronger penalty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from curate.evaluation._logistic import Logistic, logistic_path, predictions_along
from curate.evaluation._probe import Hits, Probe, cross_fit, held_out_accuracy
from curate.evaluation._split import Parts, Split
from embeddings.vectors import blocks

PENALTIES = (10.0, 1.0, 0.1, 0.01, 1e-3, 1e-4)  # strongest first: each warm-starts the next
ROUGHLY = 1e-4  # tolerance while choosing, in float32: on 1 of 60 synthetic grids the choice was not the exact one
FLOAT64_VALUES = 1 << 25  # larger features are fitted in float32, at half the memory
CONSTANT = 1e-9  # a deviation below this share of the mean is rounding


@dataclass(frozen=True)
class Scaler:
    """Takes the training part's mean and deviation out of features; those constant in training become 0."""

    mean: np.ndarray  # float64 [d]
    scale: np.ndarray  # float64 [d], infinite where constant
    dtype: type

    @classmethod
    def of(cls, train: np.ndarray) -> Scaler:
        """That of training features [n, d]."""
        n = len(train)
        mean = sum(block.sum(axis=0) for _, block in blocks(train, dtype=np.float64)) / n
        variance = sum(np.square(block - mean).sum(axis=0) for _, block in blocks(train, dtype=np.float64)) / n
        deviation = np.sqrt(variance)
        varies = deviation > CONSTANT * np.abs(mean)
        dtype = np.float64 if train.size <= FLOAT64_VALUES else np.float32
        return cls(mean, np.where(varies, deviation, np.inf), dtype)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Features [b, d], standardized."""
        centered: np.ndarray = features.astype(self.dtype) - self.mean.astype(self.dtype)
        return np.asarray((centered / self.scale).astype(self.dtype, copy=False))


def linear_probe(
    train: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    held_out: Parts,
    *,
    n_classes: int | None = None,
    scaler: Scaler | None = None,
) -> Probe:
    """Predicts test images by logistic regression, its penalty chosen on held-out training images.

    Args:
        train: Features [n, d].
        labels: Class numbers int [n].
        test: Features [m, d].
        held_out: Parts of the training rows to choose on.
        n_classes: C, if classes with higher numbers than those of the training images are to have a column.
        scaler: How features are standardized; None: by the training features.
    """
    scaler, n_classes = scaler or Scaler.of(train), n_classes or int(labels.max()) + 1
    accuracy = held_out_accuracy(_hits(train, labels, scaler), held_out)
    return _settle(train, labels, test, accuracy, n_classes=n_classes, scaler=scaler)


def linear_probes(features: np.ndarray, labels: np.ndarray, parts: Sequence[Split], *, n_classes: int) -> list[Probe]:
    """The probe of every fold.

    Args:
        features: Of all rows [n, d].
        labels: Class numbers int [n]; rows that are in no fold may have any.
        parts: The folds.
        n_classes: C.
    """
    return cross_fit(parts, features, labels, _hits(features, labels), partial(_settle, n_classes=n_classes))


def _hits(features: np.ndarray, labels: np.ndarray, scaler: Scaler | None = None) -> Hits:
    """Which images the model of each penalty tells right."""

    def hits(fit: np.ndarray, asked: np.ndarray) -> np.ndarray:
        scaled = scaler or Scaler.of(features[fit])
        train, others = (scaled(features[rows]).astype(np.float32, copy=False) for rows in (fit, asked))
        said = predictions_along(train, labels[fit], PENALTIES, others, tolerance=ROUGHLY)
        return np.asarray(said == labels[asked])

    return hits


def _settle(
    train: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    accuracy: np.ndarray,
    *,
    n_classes: int,
    scaler: Scaler | None = None,
) -> Probe:
    """The probe under the best penalty."""
    scaled, best = scaler or Scaler.of(train), int(accuracy.argmax())
    model = fitted(scaled(train), labels, PENALTIES[best], n_classes=n_classes)

    def classify(features: np.ndarray) -> np.ndarray:
        return model.probabilities(scaled(features))

    return Probe(
        probabilities=classify(test),
        classify=classify,
        settings={"penalty": PENALTIES[best]},
        validation=float(accuracy[best]),
    )


def fitted(train: np.ndarray, labels: np.ndarray, penalty: float, *, n_classes: int | None = None) -> Logistic:
    """The model of standardized training features [n, d] under one penalty."""
    return logistic_path(train, labels, n_classes or int(labels.max()) + 1, [penalty])[0]


def standardized(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both parts with the training part's mean and deviation removed; features constant in training become 0."""
    scaler = Scaler.of(train)
    return scaler(train), scaler(test)
