"""What a probe returns: a classifier fitted on training images, and the settings chosen on held-out ones.

Probes of folds choose inside the other folds: the one of fold i on every other fold j, by what is fitted without both.
The one of j asks the same models about fold i, so that each is fitted once: 10 for five folds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from curate.evaluation._split import Parts, Split

Classify = Callable[[np.ndarray], np.ndarray]  # features [b, d] -> probabilities [b, C], rows summing to 1
Hits = Callable[
    [np.ndarray, np.ndarray], np.ndarray
]  # rows fitted to, other rows [k] -> told right, bool [settings, k]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A fitted probe and what it says of the test images."""

    probabilities: np.ndarray  # [m, C] of every test image; 0 for classes without a training image
    classify: Classify
    settings: dict[str, float]  # chosen among the grid, without the test images
    validation: float  # accuracy on held-out training images under these settings

    @property
    def predicted(self) -> np.ndarray:
        """Most probable class int64 [m] of every test image; ties go to the lower number."""
        best: np.ndarray = self.probabilities.argmax(axis=1)
        return best


Settle = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], Probe]  # train, labels, test, held-out accuracies


def held_out_accuracy(hits: Hits, held_out: Parts) -> np.ndarray:
    """Share of the held-out images that each setting tells right, float64 [settings]."""
    return _accuracies(hits, [held_out])[0]


def cross_fit(
    parts: Sequence[Split], features: np.ndarray, labels: np.ndarray, hits: Hits, settle: Settle
) -> list[Probe]:
    """The probe of every fold, from features [n, d] and class numbers int [n] of all rows, which ``hits`` takes."""
    held_out = [[(part.train[fit], part.train[held]) for fit, held in part.held_out] for part in parts]
    return [
        settle(features[part.train], labels[part.train], features[part.test], accuracy)
        for part, accuracy in zip(parts, _accuracies(hits, held_out), strict=True)
    ]


def _accuracies(hits: Hits, held_out: Sequence[Parts]) -> list[np.ndarray]:
    """The accuracy on each list of parts; what several of them fit to is fitted once, asked about their rows alone."""
    wanted: dict[bytes, list[np.ndarray]] = defaultdict(list)
    for parts in held_out:
        for fit, held in parts:
            wanted[fit.tobytes()].append(held)
    asked = {key: np.unique(np.concatenate(rows)) for key, rows in wanted.items()}
    told: dict[bytes, np.ndarray] = {}
    found = []
    for parts in held_out:
        right = []
        for fit, held in parts:
            key = fit.tobytes()
            if key not in told:
                told[key] = hits(fit, asked[key])
            right.append(told[key][:, np.searchsorted(asked[key], held)])
        found.append(np.asarray(np.concatenate(right, axis=1).mean(axis=1)))
    return found
