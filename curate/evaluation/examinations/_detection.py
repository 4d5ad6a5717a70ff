"""How well scores find the rare among the many: ranking, and what is rejected at a threshold set beforehand.

    AUROC              P(score of a found one > score of another) + P(equal) / 2
    average precision  sum over distinct scores t of (recall at t - recall above t) precision at t
    recall             share of the wanted that lie above the threshold
    false reject       share of the images in order that lie above it

By chance AUROC is 1/2 and average precision the share of the wanted. The threshold comes from images in order that were
held out from training (``stand_out``), never from test images: the false rejects that it reaches there are a finding,
not the wish.

A resample that lacks a side says nothing, and another one stands in its place. Intervals are told of the smaller side:
fewer than five units of it carry none, and where all are found it is Clopper and Pearson's of as many. Those of
rankings are in ``_ranking_intervals``, the others percentiles.

Source: Fawcett 2006 (AUROC, ties); scikit-learn's definition of average precision; Vovk 2015, "Cross-conformal
predictors" (the threshold).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import NamedTuple

import numpy as np

from curate.evaluation._intervals import Measured, Metric, Resamples
from curate.evaluation._ranking_intervals import RankingResamples
from curate.evaluation._split import Split
from curate.evaluation._view import Figure, View
from curate.results import Estimate
from embeddings.errors import UnknownNameError

ROUNDING = 1e-9
FALSE_REJECT = "false_reject"
AUROC, AVERAGE_PRECISION = "auroc", "average_precision"
RANKINGS = (AUROC, AVERAGE_PRECISION)
Scored = tuple[np.ndarray, np.ndarray]


class Side(NamedTuple):
    """Test images that a figure is about."""

    what: str  # "image of scratch"
    images: np.ndarray  # which they are, bool [m]


@dataclass(frozen=True, kw_only=True)
class Question:
    """A figure that is asked for, and the images without which there is none."""

    condition: str
    metric: str
    unit: str
    answer: Metric
    sides: tuple[Side, ...]
    is_share: bool = True
    lower_is_better: bool = False
    null: float | None = None  # by chance


class Ranking:
    """Images by descending score, cut into runs that hold one score of wanted images or none.

    Only the wanted and what lies between them matter: a resample costs one pass over its images.
    """

    def __init__(self, scores: np.ndarray, wanted: np.ndarray) -> None:
        """Scores [m], and which images are wanted, bool [m]."""
        _, place = np.unique(-scores, return_inverse=True)
        self._order = np.argsort(place, kind="stable")
        place, ranked = place[self._order], wanted[self._order]
        holds = np.bincount(place, ranked) > 0  # per distinct score
        opens = holds | np.append(True, holds)[:-1]
        self._starts = np.flatnonzero(np.diff(place, prepend=-1))[opens]
        self._runs = np.flatnonzero(holds[opens])
        self._wanted = self._order[ranked]
        self._wanted_starts = np.flatnonzero(np.diff(place[ranked], prepend=-1))
        self._kept: tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]] | None = None

    def auroc(self, weights: np.ndarray) -> np.ndarray:
        """Area under the ROC curve [b]; NaN where a side is missing."""
        hits, images, above = self._sums(weights)
        misses = images - hits
        behind = above - np.cumsum(hits, axis=1) - misses / 2  # others above each run, and half of those in it
        n_hits = hits.sum(axis=1)
        with np.errstate(invalid="ignore"):
            found: np.ndarray = 1 - (hits * behind).sum(axis=1) / (n_hits * (weights.sum(axis=1) - n_hits))
        return found

    def average_precision(self, weights: np.ndarray) -> np.ndarray:
        """Average precision [b]; NaN where no image is wanted."""
        hits, _, above = self._sums(weights)
        precision = np.cumsum(hits, axis=1) / np.maximum(above, 1)
        with np.errstate(invalid="ignore"):
            found: np.ndarray = (hits * precision).sum(axis=1) / hits.sum(axis=1)
        return found

    def _sums(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Wanted images, all images in each run that holds some, and all images down to its end [b, runs].

        Both figures of one resample use them, so the last ones are kept until they are asked for again.
        """
        if self._kept is not None and self._kept[0] is weights:
            sums, self._kept = self._kept[1], None
            return sums
        images = np.add.reduceat(np.take(weights, self._order, axis=1), self._starts, axis=1)
        hits = np.add.reduceat(np.take(weights, self._wanted, axis=1), self._wanted_starts, axis=1)
        sums = hits, images[:, self._runs], np.cumsum(images, axis=1)[:, self._runs]
        self._kept = weights, sums
        return sums


def share(part: np.ndarray, whole: np.ndarray) -> Metric:
    """The metric "share of ``whole`` that is ``part``", bool [m] each; NaN where a resample lacks the whole."""
    both, base = (part & whole).astype(np.float64), whole.astype(np.float64)

    def metric(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.asarray((weights @ both) / (weights @ base))

    return metric


def images_needed(reject: float) -> int:
    """How many images in order must be held out before any image can stand out from so many."""
    return ceil((1 - reject) / reject - ROUNDING)


def stand_out(scored: Sequence[Scored], reject: float) -> np.ndarray | str:
    """Which test images stand out from held-out images in order, or why that cannot be said.

        stands out  <=>  (held-out images in order that score as high + 1) / (held-out images in order + 1) <= reject

    Every image is compared under one model with those that the model has not seen, so models may differ in scale. With
    one model this is a threshold on its score, and at most a share ``reject`` of images in order stands out, on average
    over their draw; the more several models disagree, the fewer do.

    Args:
        scored: By model: scores of held-out images in order, and of the test images [m]; higher is further from order.
        reject: Share of images in order that may stand out.
    """
    n = sum(len(in_order) for in_order, _ in scored)
    if n < images_needed(reject):
        return f"{n} images in order were held out; a threshold that rejects {reject:.3g} takes {images_needed(reject)}"
    as_high = sum(len(known) - np.searchsorted(np.sort(known), scores, side="left") for known, scores in scored)
    return np.asarray(as_high + 1 <= reject * (n + 1) + ROUNDING)


def why_no_threshold(view: View) -> str:
    """Why an arm can have no threshold; empty if it can."""
    if not view.saw_labels:
        return ""
    return f"the {view.kind} network was fitted to all training images, so none is left to set a threshold on"


def normal_class(split: Split, named: str | None) -> int:
    """Number of the class that is in order: the named one, else the largest of the training part.

    Raises:
        UnknownNameError: no image has that label.
    """
    names = split.facts["class_names"]
    if named is None:
        return int(np.bincount(split.labels[split.train], minlength=len(names)).argmax())
    if named not in names:
        raise UnknownNameError("label", named, names)
    return int(names.index(named))


def ranked(condition: str, scores: np.ndarray, wanted: Side, others: Side) -> list[Question]:
    """AUROC and average precision of scores [m]; the null of the latter is the share of the wanted."""
    sides, at = (wanted, others), np.flatnonzero(wanted.images | others.images)
    ranking = Ranking(scores[at], wanted.images[at])

    def of_those(answer: Metric) -> Metric:
        return lambda weights: answer(weights if len(at) == weights.shape[1] else weights[:, at])

    metrics = {
        AUROC: ("AUROC", ranking.auroc, 0.5),
        AVERAGE_PRECISION: (
            "average precision",
            ranking.average_precision,
            float(wanted.images.sum() / max(len(at), 1)),
        ),
    }
    return [
        Question(condition=condition, metric=name, unit=unit, answer=of_those(answer), sides=sides, null=null)
        for name, (unit, answer, null) in metrics.items()
    ]


def rejected(condition: str, metric: str, side: Side, above: np.ndarray | str) -> Question | Figure:
    """The share of a side that lies above the threshold: which images do, bool [m], or why there is no threshold."""
    if isinstance(above, str):
        return missing(condition, metric, above)
    return Question(
        condition=condition,
        metric=metric,
        unit=f"share rejected of every {side.what}",
        answer=share(above, side.images),
        sides=(side,),
        lower_is_better=metric == FALSE_REJECT,
    )


def missing(condition: str, metric: str, reason: str) -> Figure:
    """The figure of what cannot be measured."""
    lower = metric == FALSE_REJECT
    found = Estimate(value=None, reason=reason, lower_is_closer=lower)
    return Figure(condition=condition, metric=metric, found=found, lower_is_better=lower)


def against_normal(
    condition: str,
    scores: np.ndarray,
    in_order: np.ndarray,
    above: np.ndarray | str,
    *,
    known: np.ndarray | None = None,
) -> list[Question | Figure]:
    """Every image that is not in order against those that are, by scores [m]: ranking, recall and false rejects.

    Args:
        condition: Of the figures.
        scores: [m], higher is further from order.
        in_order: bool [m].
        above: Which images are rejected, bool [m], or why there is no threshold.
        known: Which images have a score, bool [m]; None: all.
    """
    seen = np.ones(len(scores), bool) if known is None else known
    defects, good = Side("image that is not in order", ~in_order & seen), Side("image in order", in_order & seen)
    asked: list[Question | Figure] = [*ranked(condition, scores, defects, good)]
    asked += [rejected(condition, "recall", defects, above), rejected(condition, FALSE_REJECT, good, above)]
    return asked


def figures(resamples: Resamples, asked: Sequence[Question | Figure]) -> list[Figure]:
    """All questions answered on the test images and their resamples, in one pass; figures stay as they are."""
    questions = {str(i): q for i, q in enumerate(asked) if isinstance(q, Question)}
    open_ones = {i: q.answer for i, q in questions.items() if all(side.images.any() for side in q.sides)}
    measured = resamples.measure(open_ones)
    return [
        item if isinstance(item, Figure) else _figure(item, measured.get(str(i)), resamples)
        for i, item in enumerate(asked)
    ]


def _figure(question: Question, measured: Measured | None, resamples: Resamples) -> Figure:
    """The figure of an answer; its interval is that of the smallest side."""
    found: Measured | Estimate
    sides = sorted(question.sides, key=lambda side: len(np.unique(resamples.units[side.images])))
    if measured is None:
        reason = f"the test part has no {sides[0].what}"
        facts = {**resamples.facts(), "lower_is_closer": question.lower_is_better}
        found = Estimate(value=None, reason=reason, unit=question.unit, **facts)
    else:
        known = measured.draws[np.isfinite(measured.draws)]
        draws = np.where(np.isfinite(measured.draws), measured.draws, np.resize(known, len(measured.draws)))
        found = Measured(value=measured.value, draws=draws)
    return Figure(
        condition=question.condition,
        metric=question.metric,
        found=found,
        unit=question.unit,
        is_share=question.is_share,
        lower_is_better=question.lower_is_better,
        null=question.null,
        resamples=_resamples_of(question, sides, resamples),
    )


def _resamples_of(question: Question, sides: Sequence[Side], resamples: Resamples) -> Resamples:
    """Those of the first side, the smallest; of a ranking they know the other one."""
    units = [resamples.units[side.images] for side in sides]
    if question.metric not in RANKINGS:
        return replace(resamples, units=units[0])
    return RankingResamples(
        units=units[0],
        n_train=resamples.n_train,
        seed=resamples.seed,
        folds=resamples.folds,
        n_others=len(np.unique(units[1])),
        of_pairs=question.metric == AUROC,
    )
