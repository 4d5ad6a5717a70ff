"""What a probe returns: a classifier fitted on training images, and the settings chosen on held-out ones.

Probes of folds choose inside the other folds: the one of fold i on every other fold j, by what is fitted without both.
The one of j asks the same models about fold i, so that each is fitted once: 10 for five folds instead of 20.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from curate.evaluation._split import Parts, Split

Classify = Callable[[np.ndarray], np.ndarray]  # features [b, d] -> probabilities [b, C], rows summing to 1
Right = Callable[[np.ndarray, np.ndarray], np.ndarray]  # rows fitted to, rows asked about -> bool [settings, asked]


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


class Method(NamedTuple):
    """A kind of probe over a grid of settings."""

    right: Callable[..., Right]  # (features [n, d], labels [n], fewest rows that are fitted to, C)
    settle: Callable[..., Probe]  # (train [n, d], labels [n], test [m, d], held-out accuracy [settings], C)


def fit_parts(
    method: Method, features: np.ndarray, labels: np.ndarray, parts: Sequence[Split], n_classes: int
) -> list[Probe]:
    """The probe of every part, from features [n, d] and class numbers int [n] of all rows."""
    held_out = [[(part.train[fit], part.train[held]) for fit, held in part.held_out] for part in parts]
    fewest = min(len(fit) for pairs in held_out for fit, _ in pairs)
    right = _asked_once(method.right(features, labels, fewest, n_classes), np.flatnonzero(labels >= 0))
    return [
        method.settle(
            features[part.train], labels[part.train], features[part.test], held_out_accuracy(right, pairs), n_classes
        )
        for part, pairs in zip(parts, held_out, strict=True)
    ]


def held_out_accuracy(right: Right, held_out: Parts) -> np.ndarray:
    """Share of the held-out images that each setting tells right, float64 [settings]."""
    return np.asarray(np.concatenate([right(fit, held) for fit, held in held_out], axis=1).mean(axis=1))


def _asked_once(right: Right, rows: np.ndarray) -> Right:
    """The same, from one fit to the same images; ``rows`` are all that may be asked about, ascending."""
    known: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}

    def asked(fit: np.ndarray, held: np.ndarray) -> np.ndarray:
        key = fit.tobytes()
        if key not in known:
            others = np.setdiff1d(rows, fit)
            known[key] = others, right(fit, others)
        others, told = known[key]
        return told[:, np.searchsorted(others, held)]

    return asked
