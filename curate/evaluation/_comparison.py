"""All arms on one labeled set: one split, one set of resamples, one learning curve of the frozen encoder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from curate.evaluation._intervals import Measured, Resamples, accuracy, balanced_accuracy
from curate.evaluation._knn import knn_probe
from curate.evaluation._label_equivalents import Curve, label_equivalents, learning_curve
from curate.evaluation._linear import linear_probe, predict, standardized
from curate.evaluation._split import Split
from curate.results import Estimate

UNITS = {
    "linear": "linear accuracy",
    "linear_balanced": "class-balanced linear accuracy",
    "knn": "k-NN accuracy",
    "knn_balanced": "class-balanced k-NN accuracy",
}


@dataclass(frozen=True, kw_only=True)
class Probed:
    """One arm's figures on the test images, and what was chosen on held-out training images."""

    measured: dict[str, Measured]  # by metric
    chosen: dict[str, dict[str, float]]  # by probe: settings and held-out accuracy


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One labeled set: its split, and the frozen encoder's features [n, d] that every arm is compared with."""

    split: Split
    frozen_features: np.ndarray
    seed: int = 0

    @cached_property
    def frozen(self) -> Probed:
        """The frozen encoder's figures."""
        return self.probe(self.frozen_features)

    @cached_property
    def curve(self) -> Curve:
        """The frozen encoder's learning curve."""
        train, test = standardized(*self._parts(self.frozen_features))
        labels, test_labels = self._parts(self.split.labels)
        penalty = self.frozen.chosen["linear"]["penalty"]

        def fit(rows: np.ndarray) -> np.ndarray:
            return predict(train[rows], labels[rows], test, penalty)

        return learning_curve(fit, labels, test_labels, self._resamples)

    def probe(self, features: np.ndarray) -> Probed:
        """Fits both probes on features [n, d] and measures them."""
        train, test = self._parts(features)
        labels, test_labels = self._parts(self.split.labels)
        probes = {
            "linear": linear_probe(train, labels, test, self.split.held_out),
            "knn": knn_probe(train, labels, test, self.split.held_out),
        }
        metrics = {}
        for name, probe in probes.items():
            correct = probe.predicted == test_labels
            metrics[name] = accuracy(correct)
            metrics[f"{name}_balanced"] = balanced_accuracy(correct, test_labels)
        chosen = {name: {**probe.settings, "held_out_accuracy": probe.validation} for name, probe in probes.items()}
        return Probed(measured=self._resamples.measure(metrics), chosen=chosen)

    def metrics(self, probed: Probed) -> dict[str, Estimate]:
        """Accuracies with their intervals."""
        return {name: self._resamples.estimate(m, UNITS[name]) for name, m in probed.measured.items()}

    def gains(self, probed: Probed) -> dict[str, Estimate]:
        """Paired differences against the frozen encoder."""
        frozen = self.frozen.measured
        return {name: self._resamples.difference(m, frozen[name], UNITS[name]) for name, m in probed.measured.items()}

    def label_equivalents(self, probed: Probed) -> Estimate:
        """Labels with which the frozen encoder is as accurate."""
        return label_equivalents(self.curve, probed.measured["linear"], self._resamples)

    def facts(self) -> dict[str, Any]:
        """How the set was split, and the frozen encoder's linear accuracy by number of labels."""
        curve = {"labels": self.curve.sizes.tolist(), "linear": self.curve.accuracy.mean(axis=1).tolist()}
        return {**self.split.facts, "frozen_curve": curve}

    @cached_property
    def _resamples(self) -> Resamples:
        units = self.split.units[self.split.test]
        return Resamples(units=units, n_train=len(self.split.train), seed=self.seed)

    def _parts(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return values[self.split.train], values[self.split.test]
