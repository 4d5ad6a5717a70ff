"""Rare defects: how well the linear head finds each class, and what it misses if few good images may be rejected.

An inspection has many images that are in order and few that are not. Of two figures matter most which defects are
missed, and how many good parts are thrown away for it:

    CLASS          auroc, average_precision   of p(class), this class against all others
                   recall                     share of the class that is rejected
    all but NORMAL the same of 1 - p(normal), every defect against the normal class;
                   false_reject               share of the normal images that is rejected
    costs          see ``_costs``, if a table of costs was given

An image is rejected if its 1 - p(normal) stands out from that of held-out training images of the normal class, of which
``reject`` may be rejected; ``false_reject`` tells what is rejected of the test images. Probabilities of the models that
were fitted without a held-out part are compared with one another only: a prior that differs from part to part moves
them all. Networks that were fitted to all training images have none. NORMAL is the label that was named, else the
largest class of the training part. Where classes are balanced and none is in order, the rows of the classes are the
ones to read.

A class without a training image has no p(class) to be ranked by; whether it is rejected can be told all the same. One
of which the test part has fewer than five units (groups, else images) has figures without an interval. It is a detail,
and so are classes beyond the eight with the most test images: which ones does not depend on the arm.

Cost: one fit per held-out part; 2,000 resamples of 1,000 test images take .1 s per class.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from curate.evaluation._intervals import MIN_UNITS
from curate.evaluation._linear import Scaler, fitted
from curate.evaluation._split import Split
from curate.evaluation._view import Figure, View
from curate.evaluation.examinations._costs import cost_questions, read_costs
from curate.evaluation.examinations._detection import (
    RANKINGS,
    Question,
    Scored,
    Side,
    against_normal,
    figures,
    missing,
    normal_class,
    ranked,
    rejected,
    stand_out,
    why_no_threshold,
)

SHOWN = 8  # classes that are no details
NOT_TESTED = "the test part has no image of this class"
NOT_TRAINED = "no training image of this class"


def examine(view: View) -> list[Figure]:
    """AUROC, average precision and recall of every class, false rejects, and expected cost.

    Raises:
        UnknownNameError: no image has the label that was named as normal.
        SourceError: no table of costs where one was named.
        UsageError: a table that does not hold up.
    """
    split, said = view.comparison.split, view.probed.probabilities
    names, truth = split.facts["class_names"], split.labels[split.test]
    normal = normal_class(split, view.settings.normal)
    above = _rejected(view, normal)
    asked: list[Question | Figure] = []
    details: list[bool] = []
    shown = _most_tested(split)
    for number in range(len(names)):
        asked += _of_class(view, number, None if number == normal else above)
        details += [number not in shown] * (len(asked) - len(details))
    asked += against_normal(f"all but {names[normal]}", 1 - said[:, normal], truth == normal, above)
    if view.settings.costs is not None:
        asked += cost_questions(said, truth, read_costs(view.settings.costs, names), normal)
    found = figures(view.comparison.resamples, asked)
    of_classes = (replace(figure, detail=hidden) for figure, hidden in zip(found, details, strict=False))
    return [*of_classes, *found[len(details) :]]


def _of_class(view: View, number: int, above: np.ndarray | str | None) -> list[Question | Figure]:
    """What is asked of one class; ``above`` is None for the normal one, of which nothing is to be rejected."""
    split = view.comparison.split
    name, of_class = split.facts["class_names"][number], split.labels[split.test] == number
    recall = [] if above is None else ["recall"]
    if not of_class.any():
        return [missing(name, metric, NOT_TESTED) for metric in (*RANKINGS, *recall)]
    side, others = Side(f"image of {name}", of_class), Side(f"image but of {name}", ~of_class)
    asked: list[Question | Figure] = [missing(name, metric, NOT_TRAINED) for metric in RANKINGS]
    if (split.labels[split.train] == number).any():
        asked = [*ranked(name, view.probed.probabilities[:, number], side, others)]
    return asked if above is None else [*asked, rejected(name, "recall", side, above)]


def _most_tested(split: Split) -> set[int]:
    """Numbers of the classes with the most test images, of those that have enough for an interval; ties: the lower."""
    truth, units = split.labels[split.test], split.units[split.test]
    images = np.bincount(truth, minlength=split.n_classes)
    enough = [c for c in range(split.n_classes) if len(np.unique(units[truth == c])) >= MIN_UNITS]
    return set(sorted(enough, key=lambda number: -images[number])[:SHOWN])


def _rejected(view: View, normal: int) -> np.ndarray | str:
    """Which test images are rejected, bool [m], or why no threshold can be set."""
    missing = why_no_threshold(view)
    if missing:
        return missing
    return stand_out(_scores_by_model(view, normal), view.settings.reject)


def _scores_by_model(view: View, normal: int) -> list[Scored]:
    """1 - p(normal) by every model that was fitted without a part of the training images."""
    split = view.comparison.split
    labels, scaler = split.labels[split.train], Scaler.of(view.features[split.train])
    train, test = (scaler(view.features[rows]) for rows in (split.train, split.test))
    penalty, scored = view.probed.chosen["linear"]["penalty"], []
    for fit, held in split.held_out:
        in_order = held[labels[held] == normal]
        if len(in_order):
            model = fitted(train[fit], labels[fit], penalty, n_classes=split.n_classes)
            known, scores = (1 - model.probabilities(part)[:, normal] for part in (train[in_order], test))
            scored.append((known, scores))
    return scored
