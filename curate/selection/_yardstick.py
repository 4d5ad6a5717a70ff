"""How near selections are to images that no method saw, and by how much one is nearer than another.

Two selections are measured against the same judging images, and they may share images of their own: what a fold of
either does to both distances cancels in their difference. So its standard error is

    variance = sum over halves of (jackknife variance of the halves' differences) / 4  +  sum_j (e_aj - e_bj)^2

with e_aj the share of fold j in the jackknife variance of selection a, the pseudo-value's deviation over
sqrt(K (h_j - 1)) (distances/_jackknife.py), so that the sum of e_aj^2 is that variance. Folds go by key and group, so
an image, or a group, is in the same fold of both. The interval is Student's t with Welch's degrees of freedom.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from curate.comparison import RANDOM, Reading
from curate.distances import mmd
from curate.distances._coverage import TargetBalls, coverage_of
from curate.distances._frechet import MIN_IMAGES, TargetFrame, refit_frechet, require_images
from curate.distances._refits import LEVEL, HalfRefits, Part, Refits
from curate.results import Estimate
from curate.scoring import shift_index
from embeddings.errors import TooFewImagesError
from embeddings.moments import FOLDS, store_moments
from embeddings.store import EmbeddingStore


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """What is measured of one selection under one encoder."""

    refits: Refits
    folds: list[int]  # of the selection that hold images
    mmd: Estimate
    coverage: Estimate
    total_variance: float  # of the judging images

    @property
    def reading(self) -> Reading:
        """The figures, before the selection is held against others."""
        distance = self.refits.estimate()
        index = shift_index(distance, self.total_variance)
        return Reading(index=index, distance=distance, mmd=self.mmd, coverage=self.coverage)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        return {
            "refits": self.refits.to_json(),
            "folds": self.folds,
            "mmd": self.mmd.to_json(),
            "coverage": self.coverage.to_json(),
            "total_variance": self.total_variance,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Measured:
        """Reads what ``to_json`` wrote."""
        return cls(
            refits=Refits.from_json(document["refits"]),
            folds=document["folds"],
            mmd=Estimate.from_json(document["mmd"]),
            coverage=Estimate.from_json(document["coverage"]),
            total_variance=document["total_variance"],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Yardstick:
    """The judging images under one encoder; made once for all selections."""

    frame: TargetFrame
    balls: TargetBalls

    @classmethod
    def of(cls, judging: EmbeddingStore) -> Yardstick:
        """Of 20 images or more.

        Raises:
            TooFewImagesError: fewer, or too few independent groups.
        """
        require_images(len(judging), "judging half of the target")
        return cls(frame=TargetFrame.of(store_moments(judging)), balls=TargetBalls.of(judging))

    def measure(self, chosen: EmbeddingStore) -> Measured | str:
        """The figures of some chosen images, or why there are none."""
        moments = store_moments(chosen)
        try:
            refits = refit_frechet(self.frame, moments, minimum=MIN_IMAGES)
        except TooFewImagesError as error:
            return error.message
        return Measured(
            refits=refits,
            folds=np.flatnonzero(moments.n).tolist(),
            mmd=mmd(self.frame.moments, moments),
            coverage=coverage_of(self.balls, chosen),
            total_variance=self.frame.total_variance,
        )


@dataclass(frozen=True, kw_only=True)
class Readings:
    """What one encoder says, by method."""

    methods: dict[str, Reading]
    controls: dict[str, Reading]  # of the methods that have a control of their own


def readings(found: Mapping[str, Measured | str], controls: Mapping[str, Measured | str] | None = None) -> Readings:
    """Readings from what one encoder measured of each method and control, every method held against the others.

    Args:
        found: What was measured of each method, or why it could not be.
        controls: The same of the controls; a method without one is held against random.
    """
    controls = controls or {}
    measured = {method: m for method, m in found.items() if isinstance(m, Measured)}
    gaps = {(a, b): index_difference(measured[a], measured[b]) for a in measured for b in measured if a != b}
    out = {}
    for method, known in found.items():
        if isinstance(known, str):
            out[method] = unknown_reading(known)
            continue
        tied = tuple(sorted(b for (a, b), gap in gaps.items() if a == method and not _is_settled(gap)))
        control = controls.get(method)
        gain = index_difference(known, control) if isinstance(control, Measured) else None
        gain = gaps.get((method, RANDOM)) if control is None else gain
        out[method] = replace(known.reading, against_random=gain, tied_with=tied)
    blind = {method: unknown_reading(m) if isinstance(m, str) else m.reading for method, m in controls.items()}
    return Readings(methods=out, controls=blind)


def unknown_reading(reason: str) -> Reading:
    """A reading without figures."""
    none = Estimate(value=None, reason=reason)
    return Reading(index=none, distance=none, mmd=none, coverage=none)


def index_difference(a: Measured, b: Measured) -> Estimate:
    """By how many points of the index selection ``a`` is farther than ``b``; negative = nearer.

    The interval is that of the difference of their distances, in the points that the two distances are apart: the index
    is monotone, so the one excludes 0 where the other does.
    """
    gap, (se, degrees) = a.refits.value - b.refits.value, _difference_error(a, b)
    reach = se * float(stats.t.ppf((1 + LEVEL) / 2, degrees))
    points = _points_per_unit(a, b)
    return Estimate(
        value=gap * points,
        low=(gap - reach) * points,
        high=(gap + reach) * points,
        se=se * points,
        n=(int(a.refits.pool_sizes.sum()), a.refits.n_target),
        unit="points of the index",
        method=f"paired jackknife over {FOLDS} folds of the judging images and of the chosen ones",
        null=0.0,
    )


def _points_per_unit(a: Measured, b: Measured) -> float:
    """Points of the index per unit of distance between two selections."""
    x, y = a.refits.value, b.refits.value
    total = max(a.total_variance, np.finfo(float).tiny)
    scale = (x + total) * (y + total)  # of 100 x / (x + V) - 100 y / (y + V) = 100 V (x - y) / ((x + V) (y + V))
    return 100 * total / scale if min(x, y) > -total / 2 else 100 / total


def _difference_error(a: Measured, b: Measured) -> tuple[float, float]:
    """Standard error of the difference of two distances, and its degrees of freedom."""
    differences = [
        HalfRefits(x.whole - y.whole, x.target - y.target, np.zeros(0), x.sizes)
        for x, y in zip(a.refits.halves, b.refits.halves, strict=True)
    ]
    parts = [Part(half.jackknife.variance / 4, len(half.sizes) - 1) for half in differences]
    shares = _fold_shares(a) - _fold_shares(b)
    parts.append(Part(float((shares**2).sum()), max(len(a.folds), len(b.folds)) - 1))
    variance = sum(part.variance for part in parts)
    if not variance > 0:
        return 0.0, 1.0
    return float(np.sqrt(variance)), 1 / sum((p.variance / variance) ** 2 / p.degrees for p in parts)


def _fold_shares(measured: Measured) -> np.ndarray:
    """What each fold of the selection adds to its distance [FOLDS]; their squares sum to the jackknife variance."""
    refits = measured.refits
    whole = float(np.mean([half.whole for half in refits.halves]))
    left_out = np.mean([half.pool for half in refits.halves], axis=0)
    share = refits.pool_sizes / refits.pool_sizes.sum()
    pseudo = whole / share - (1 / share - 1) * left_out
    center = len(share) * whole - ((1 - share) * left_out).sum()
    shares = np.zeros(FOLDS)
    shares[measured.folds] = (pseudo - center) / np.sqrt(len(share) * (1 / share - 1))
    return shares


def _is_settled(gap: Estimate) -> bool:
    return gap.low is not None and gap.high is not None and not gap.low <= 0 <= gap.high
