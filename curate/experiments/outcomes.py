"""Accuracy of every arm with the influence of every test unit on it, from the predictions of an evaluation.

    accuracy           share of test images that are right           influence of image i:  (c_i - a) / m
    balanced accuracy  mean over classes of the share that is right                        (c_i - a_k) / (m_k K)

with c_i = 1 where image i, of class k, is right. Influences are multiplied by sqrt(g / (g - 1)), g the number of units
that the class (of accuracy: the set) has images in, so that their squares add up to the variance without bias. A class
in one unit alone says nothing of its own spread: a_k is then the mean over all classes, as in collapsed strata, which
takes the spread between classes for that within and errs to the wide side.

A unit's influence is the sum over its images. Cross-fitted, it also trains the probes that tell other units, and moves
the accuracy by more: influences and weights are then divided by the root of ``DRAWN``, the share of the units in a
resample of ``curate evaluate``, so that claims of a study are as unsure as its accuracies (``evaluation/_intervals.py``
has the simulation). Labeled sets are averaged; a unit is known by its first key, so that one which several sets hold is
one unit.

Measured coverage of 95% intervals for a difference of balanced accuracies (400 times each): 95% with 100 classes of one
image, 97% of two, 96% with 60 of three, 95% with 30 of five, 96% with 10 of twenty; 94-96% where some are single.

Source: Efron 1982 (influence functions, infinitesimal jackknife); Cochran 1977, 5A.12 (collapsed strata).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.eval_report import EvalReport
from curate.evaluation._intervals import DRAWN
from embeddings.errors import CorruptError, UnknownNameError, UsageError


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one arm reaches on one target's test images."""

    value: float  # 0 to 1
    influence: np.ndarray  # [U]
    weights: np.ndarray  # [U] by how much it changes when a unit that was right is wrong


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """All arms of one evaluation on the same test units."""

    units: np.ndarray  # [U] names
    by_arm: Mapping[str, Outcome]


def read_outcomes(report: EvalReport, *, metric: str = "linear", labeled: Sequence[str] = ()) -> Outcomes:
    """Outcomes of all arms, labeled sets averaged.

    Args:
        report: An evaluation with its predictions.
        metric: linear or linear_balanced.
        labeled: Which sets; none: all.

    Raises:
        UsageError: the evaluation has no predictions.
        UnknownNameError: no such labeled set.
        CorruptError: arms were tested on different images.
    """
    if report.predictions is None:
        raise UsageError("The evaluation has no predictions.", hint="Evaluate again: earlier versions kept none.")
    known = sorted(set(report.predictions["labeled"].to_pylist()))
    for name in labeled:
        if name not in known:
            raise UnknownNameError("labeled set", name, known)
    facts = report.labeled
    parts = [_of_set(report.predictions, name, metric, facts.get(name, {})) for name in sorted(labeled or known)]
    return averaged(parts)


def outcome(
    correct: np.ndarray, truth: np.ndarray, unit: np.ndarray, *, metric: str = "linear", folds: int = 1
) -> Outcome:
    """Value and influences from which images are right.

    Args:
        correct: bool [m].
        truth: class number int [m].
        unit: unit number int [m], from 0, none left out.
        metric: linear or linear_balanced.
        folds: Of two or more, the images are cross-fitted.
    """
    right = correct.astype(np.float64)
    group = np.unique(truth, return_inverse=True)[1] if metric == "linear_balanced" else np.zeros(len(right), np.int64)
    size = np.bincount(group)
    share = np.bincount(group, weights=right) / size
    held = np.unique(np.stack([group, unit]), axis=1)[0]
    n_units = np.bincount(held)
    single = n_units == 1
    center, n = np.where(single, share.mean(), share), np.where(single, np.maximum(len(size), 2), n_units)
    weight = 1 / (size[group] * len(size)) / np.sqrt(DRAWN if folds > 1 else 1.0)
    influence = (right - center[group]) * weight * np.sqrt(n / (n - 1))[group]
    of_units, weights = (np.bincount(unit, weights=values) for values in (influence, weight))
    return Outcome(value=float(share.mean()), influence=of_units, weights=weights)


def _of_set(predictions: pa.Table, name: str, metric: str, facts: Mapping[str, Any]) -> Outcomes:
    table = predictions.filter(pc.equal(predictions["labeled"], name)).sort_by(
        [("arm", "ascending"), ("key", "ascending")]
    )
    arms, counts = np.unique(_texts(table["arm"]), return_counts=True)
    keys = _texts(table["key"])
    m = len(keys) // len(arms)
    if (counts != m).any() or (keys.reshape(-1, m) != keys[:m]).any():
        raise CorruptError(f"Arms were tested on different images of {name}.", hint="Evaluate again.")
    first, truth = table.slice(0, m), _texts(table["truth"])
    _, start, unit = np.unique(first["unit"].to_numpy(), return_index=True, return_inverse=True)
    correct = (truth == _texts(table["predicted"])).reshape(-1, m)
    numbers = np.unique(truth[:m], return_inverse=True)[1]
    how: dict[str, Any] = {"metric": metric, "folds": facts.get("folds", 1)}
    found = {str(arm): outcome(row, numbers, unit, **how) for arm, row in zip(arms, correct, strict=True)}
    return Outcomes(units=keys[:m][start], by_arm=found)


def averaged(parts: Sequence[Outcomes]) -> Outcomes:
    """The mean over labeled sets, of arms that all of them have."""
    names = np.concatenate([part.units for part in parts])
    units, number = np.unique(names, return_inverse=True)
    shared = set.intersection(*(set(part.by_arm) for part in parts))
    found = {}
    for arm in sorted(shared):
        outcomes = [part.by_arm[arm] for part in parts]
        influence, weights = (
            np.bincount(number, weights=np.concatenate(values)) / len(parts)
            for values in ([o.influence for o in outcomes], [o.weights for o in outcomes])
        )
        value = float(np.mean([o.value for o in outcomes]))
        found[arm] = Outcome(value=value, influence=influence, weights=weights)
    return Outcomes(units=units, by_arm=found)


def _texts(column: pa.ChunkedArray) -> np.ndarray:
    return np.array(column.to_pylist(), dtype=str)
