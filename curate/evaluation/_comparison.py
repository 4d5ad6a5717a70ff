"""All arms on one labeled set: one split, one set of resamples, one learning curve of the frozen encoder.

A split in folds has a probe for each; a figure is one of all test images together, each told by its own fold's probe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from curate.evaluation._intervals import Measured, Resamples, accuracy
from curate.evaluation._kept import Memory, NoMemory
from curate.evaluation._knn import knn_probe, knn_probes
from curate.evaluation._label_equivalents import Curve, Fit, Lesson, joint_curve, joint_sizes, label_equivalents
from curate.evaluation._linear import fitted, linear_probe, linear_probes, standardized
from curate.evaluation._probe import Probe
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
PROBES = {"linear": linear_probe, "knn": knn_probe}
PROBES_OF_FOLDS = {"linear": linear_probes, "knn": knn_probes}

# The linear head on other features [k, d] of the test images ``at`` int64 [k], positions in the test part ->
# probabilities [k, C]
Classifier = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Probed:
    """One arm's figures on the test images, and what was chosen on held-out training images."""

    measured: dict[str, Measured]  # by metric
    chosen: dict[str, dict[str, Any]]  # by probe: settings (of every fold) and held-out accuracy
    probabilities: np.ndarray  # [m, C] by the linear head, of every test image
    correct: np.ndarray  # [m] of every test image, whether the head is right; of several trainings, the share that is
    classify: Classifier


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One labeled set: its split, and the frozen encoder's features [n, d] that every arm is compared with."""

    split: Split
    frozen_features: np.ndarray
    seed: int = 0
    memory: Memory = field(default_factory=NoMemory)  # of what is measured of the frozen encoder alone

    @cached_property
    def frozen(self) -> Probed:
        """The frozen encoder's figures."""
        return self.probe(self.frozen_features)

    @cached_property
    def baseline(self) -> dict[str, Measured]:
        """Those that gains are gains over."""
        return self.memory("baseline", lambda: self.frozen.measured)

    @cached_property
    def curve(self) -> Curve:
        """The frozen encoder's learning curve."""
        return self.memory("curve", self._curve)

    def _curve(self) -> Curve:
        labels, parts = self.split.labels, self.split.parts
        penalties = np.atleast_1d(self.frozen.chosen["linear"]["penalty"])
        lessons = (
            Lesson(
                fit=self._fit(part, float(penalty)),
                labels=labels[part.train],
                truth=labels[part.test],
                at=np.flatnonzero(self._part == number),
            )
            for number, (part, penalty) in enumerate(zip(parts, penalties, strict=True))
        )
        return joint_curve(lessons, joint_sizes([len(part.train) for part in parts]), self.resamples)

    def probe(self, features: np.ndarray) -> Probed:
        """Fits both probes on features [n, d] and measures them."""
        n_classes, probes = self.split.n_classes, self._probes(features)

        def classify(features: np.ndarray, at: np.ndarray) -> np.ndarray:
            found = np.zeros((len(features), n_classes))
            for number in np.unique(self._part[at]):
                asked = self._part[at] == number
                found[asked] = probes["linear"][number].classify(features[asked])
            return found

        return self.judge(
            {name: self._joined([probe.probabilities for probe in found]) for name, found in probes.items()},
            {name: _chosen(found) for name, found in probes.items()},
            classify,
        )

    def _probes(self, features: np.ndarray) -> dict[str, list[Probe]]:
        """Both probes of every part."""
        split, labels, n_classes = self.split, self.split.labels, self.split.n_classes
        if split.folds:
            return {n: fit(features, labels, split.folds, n_classes=n_classes) for n, fit in PROBES_OF_FOLDS.items()}
        data = features[split.train], labels[split.train], features[split.test]
        return {name: [fit(*data, split.held_out, n_classes=n_classes)] for name, fit in PROBES.items()}

    def judge(
        self, probabilities: dict[str, np.ndarray], chosen: dict[str, dict[str, Any]], classify: Classifier
    ) -> Probed:
        """Measures classifiers by what they say of the test images.

        Args:
            probabilities: [m, C] by classifier; ``linear`` is among them.
            chosen: Settings of each, and its held-out accuracy.
            classify: The linear one, for other features.
        """
        truth = self.split.labels[self.split.test]
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
        return {
            name: self.resamples.difference(m, self.baseline[name], UNITS[name], lower_is_better=name == ECE)
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
        parts, units = self.split.parts, self.split.units[self.split.test]
        n_train = round(float(np.mean([len(part.train) for part in parts])))
        return Resamples(units=units, n_train=n_train, seed=self.seed, folds=len(parts))

    @cached_property
    def _part(self) -> np.ndarray:
        """Number of the split's part that tests each test image, int64 [m]."""
        found = np.empty(len(self.split.test), np.int64)
        for number, part in enumerate(self.split.parts):
            found[np.searchsorted(self.split.test, part.test)] = number
        return found

    def _joined(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """What each part has of its test images [m', C], in the order of all of them [m, C]."""
        found = np.empty((len(self._part), self.split.n_classes))
        for number, value in enumerate(values):
            found[self._part == number] = value
        return found

    def _fit(self, part: Split, penalty: float) -> Fit:
        train, test = standardized(self.frozen_features[part.train], self.frozen_features[part.test])
        labels = self.split.labels[part.train]
        return lambda rows: fitted(train[rows], labels[rows], penalty).predict(test)


def _chosen(probes: Sequence[Probe]) -> dict[str, Any]:
    """Settings that were chosen, of several probes a list of each; held-out accuracy, the mean over them."""
    accuracy = float(np.mean([probe.validation for probe in probes]))
    settings: dict[str, Any] = dict(probes[0].settings)
    if len(probes) > 1:
        settings = {name: [probe.settings[name] for probe in probes] for name in settings}
    return {**settings, "held_out_accuracy": accuracy}
