"""All arms on one labeled set: one split, one set of resamples, one learning curve of the frozen encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from curate.evaluation._intervals import Measured, Resamples, accuracy
from curate.evaluation._knn import knn_probe
from curate.evaluation._label_equivalents import Curve, label_equivalents, learning_curve
from curate.evaluation._linear import fitted, linear_probe, standardized
from curate.evaluation._scores import balanced_accuracy, calibrated_error, calibration_error, centered, macro_f1
from curate.evaluation._split import Split
from curate.results import Estimate

UNITS = {
    "linear": "linear accuracy",
    "linear_balanced": "class-balanced linear accuracy",
    "linear_f1": "macro F1 of the linear head",
    "linear_ece": "expected calibration error of the linear head",
    "knn": "k-NN accuracy",
    "knn_balanced": "class-balanced k-NN accuracy",
}
ECE = "linear_ece"  # lower is better, and no share of images

# The linear head on other features [k, d] of the test images ``at`` int64 [k], positions in the test part ->
# probabilities [k, C]
Classifier = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Probed:
    """One arm's figures on the test images, and what was chosen on held-out training images."""

    measured: dict[str, Measured]  # by metric
    chosen: dict[str, dict[str, float]]  # by probe: settings and held-out accuracy
    probabilities: np.ndarray  # [m, C] by the linear head, of every test image
    correct: np.ndarray  # [m] of every test image, whether the head is right; of several trainings, the share that is
    classify: Classifier


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
            return fitted(train[rows], labels[rows], penalty).predict(test)

        return learning_curve(fit, labels, test_labels, self.resamples)

    def probe(self, features: np.ndarray) -> Probed:
        """Fits both probes on features [n, d] and measures them."""
        train, test = self._parts(features)
        labels, _ = self._parts(self.split.labels)
        n_classes = self.split.n_classes
        linear = linear_probe(train, labels, test, self.split.held_out, n_classes=n_classes)
        knn = knn_probe(train, labels, test, self.split.held_out, n_classes=n_classes)
        probes = {"linear": linear, "knn": knn}
        return self.judge(
            {name: probe.probabilities for name, probe in probes.items()},
            {name: {**probe.settings, "held_out_accuracy": probe.validation} for name, probe in probes.items()},
            lambda features, _: linear.classify(features),
        )

    def judge(
        self, probabilities: dict[str, np.ndarray], chosen: dict[str, dict[str, float]], classify: Classifier
    ) -> Probed:
        """Measures classifiers by what they say of the test images.

        Args:
            probabilities: [m, C] by classifier; ``linear`` is among them.
            chosen: Settings of each, and its held-out accuracy.
            classify: The linear one, for other features.
        """
        _, truth = self._parts(self.split.labels)
        metrics, right = {}, {}
        for name, said in probabilities.items():
            predicted = said.argmax(axis=1)
            right[name] = predicted == truth
            metrics[name] = accuracy(right[name])
            metrics[f"{name}_balanced"] = balanced_accuracy(right[name], truth)
            if name == "linear":
                metrics["linear_f1"] = macro_f1(predicted, truth)
                metrics[ECE] = calibration_error(said, truth)
        measured = self.resamples.measure(metrics)
        measured[ECE] = centered(measured[ECE])
        return Probed(
            measured=measured,
            chosen=chosen,
            probabilities=probabilities["linear"],
            correct=right["linear"],
            classify=classify,
        )

    def metrics(self, probed: Probed) -> dict[str, Estimate]:
        """Figures with their intervals."""
        found = {name: self._estimate(name, measured) for name, measured in probed.measured.items()}
        return {**found, ECE: replace(found[ECE], null=calibrated_error(probed.probabilities))}

    def gains(self, probed: Probed) -> dict[str, Estimate]:
        """Paired differences against the frozen encoder."""
        frozen = self.frozen.measured
        return {
            name: self.resamples.difference(m, frozen[name], UNITS[name], lower_is_better=name == ECE)
            for name, m in probed.measured.items()
        }

    def _estimate(self, name: str, measured: Measured) -> Estimate:
        is_error = name == ECE
        return self.resamples.estimate(measured, UNITS[name], is_share=not is_error, lower_is_better=is_error)

    def label_equivalents(self, probed: Probed) -> Estimate:
        """Labels with which the frozen encoder is as accurate."""
        return label_equivalents(self.curve, probed.measured["linear"], self.resamples)

    def facts(self) -> dict[str, Any]:
        """How the set was split, and the frozen encoder's linear accuracy by number of labels."""
        curve = {"labels": self.curve.sizes.tolist(), "linear": self.curve.accuracy.mean(axis=1).tolist()}
        return {**self.split.facts, "frozen_curve": curve}

    @cached_property
    def resamples(self) -> Resamples:
        """Draws of the test images, the same for all arms."""
        units = self.split.units[self.split.test]
        return Resamples(units=units, n_train=len(self.split.train), seed=self.seed)

    def _parts(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return values[self.split.train], values[self.split.test]
