"""From a choice to its supply curve, and the cut where near images run out.

Only what is ordered by nearness has a knee. The far part of a selection is not measured, and keeps its share of what
is left; nothing is cut that a floor demands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from curate.results import FAR, SAME, TARGET
from curate.selection._candidates import Candidates, Choice
from curate.selection._nearness import Sample
from curate.selection._supply import (
    Delivery,
    Knee,
    SupplyCurve,
    Taken,
    delivered_supply,
    describe,
    find_knee,
    supply_curve,
)
from curate.terms import Terms
from embeddings.errors import TooFewImagesError
from embeddings.moments import FOLDS, fold_of


@dataclass(frozen=True, kw_only=True)
class Supply:
    """How far the near images of a choice last."""

    curve: SupplyCurve
    knee: Knee | None
    words: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Plain JSON object; ``n`` and ``distance`` are those of all images so far, window by window."""
        points = self.curve.points
        return {
            "n": [point.n for point in points],
            "distance": [point.distance.to_json() for point in points],
            "knee": self.knee.to_json() if self.knee else None,
            "words": list(self.words),
            "curve": self.curve.to_json(),
        }


def supply_of(candidates: Candidates, choice: Choice, terms: Mapping[str, Terms]) -> Supply | None:
    """The supply curve of a choice in the order taken; None where it holds too few images to tell."""
    rows = choice.rows[~is_far(choice)]
    target = candidates.stores[TARGET].rows().take(candidates.queries)
    folds = _folds(candidates, rows)
    try:
        curve = supply_curve(
            Sample(vectors=candidates.target_vectors, folds=fold_of(target)),
            Taken(
                vectors=lambda places: candidates.vectors(rows[places]),
                folds=folds,
                own=candidates.own[rows],
                turn=sum(code == SAME for code in choice.codes),
            ),
            center=candidates.pool_center,
            progress=candidates.progress,
        )
    except TooFewImagesError:
        return None
    knee = find_knee(curve)
    words = [describe(curve, knee), *_delivered(candidates, rows, folds, knee, terms)]
    return Supply(curve=curve, knee=knee, words=tuple(words))


def cut(choice: Choice, knee: Knee, why: str, *, far: float = 0.0) -> Choice:
    """The choice without the near part beyond the knee, and with the far part that makes its share ``far`` again."""
    beyond = is_far(choice)
    near, distant = np.cumsum(~beyond), np.cumsum(beyond)
    keep = np.flatnonzero(np.where(beyond, distant <= round(far / (1 - far) * knee.n), near <= knee.n))
    return replace(
        choice,
        rows=choice.rows[keep],
        scores=choice.scores[keep],
        reasons=[choice.reasons[i] for i in keep.tolist()],
        codes=[choice.codes[i] for i in keep.tolist()] if choice.codes else (),
        stopped=why,
    )


def is_far(choice: Choice) -> np.ndarray:
    """True for the rows [r] of the far part."""
    return np.array([code == FAR for code in choice.codes] or [False] * len(choice.rows), bool)


def _folds(candidates: Candidates, rows: np.ndarray) -> np.ndarray:
    """Fold [r] of each candidate; copies and images of one group share one."""
    folds = np.empty(len(rows), np.int64)
    for name, where, places in candidates.by_store(rows):
        folds[where] = fold_of(candidates.stores[name].rows().take(places))
    return folds


def _delivered(
    candidates: Candidates, rows: np.ndarray, folds: np.ndarray, knee: Knee | None, terms: Mapping[str, Terms]
) -> list[str]:
    """What the whole deliveries hold, of which some pools are samples."""
    sampled = [name for name in candidates.names if terms.get(name, Terms()).of]
    if not sampled:
        return []
    if knee is None:
        return [f"How many near images the whole of {', '.join(sampled)} holds is open: those at hand did not run out."]
    of_pools = rows[~candidates.own[rows]][: knee.from_pools]
    taken = folds[~candidates.own[rows]][: knee.from_pools]
    deliveries = []
    for name in candidates.names:
        number = candidates.names.index(name)
        held = np.bincount(_folds(candidates, candidates.rows_of(name)), minlength=FOLDS)
        if name != TARGET and held.any():
            near = np.bincount(taken[candidates.source[of_pools] == number], minlength=FOLDS)
            size = max(terms.get(name, Terms()).of or 0, int(held.sum()))
            deliveries.append(Delivery(size=size, images=held, near=near))
    whole = delivered_supply(knee, deliveries)
    return [f"With the whole of {', '.join(sampled)}, near images would last to about N = {whole}."]
