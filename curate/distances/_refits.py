"""What the headline distance reads without each fold of target and pool: its error, and how sure the order of two is.

The target's halves are independent of each other and the pool is shared by both, so

    variance = pool's jackknife variance of the mean of both halves + sum of the halves' jackknife variances / 4

and intervals are Student's t with Welch's degrees of freedom (ten folds a side make a noisy variance). Two pools share
the target: what its folds do to both distances cancels in their difference, whose refits are the differences of refits.

Source: Busing, Meijer and van der Leeden (1999), see _jackknife.py; Welch, Biometrika 34 (1947).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from curate.distances._jackknife import Jackknife, delete_fold_jackknife
from curate.results import Estimate
from embeddings.errors import UsageError
from embeddings.moments import FOLDS

LEVEL = 0.95


class Error(NamedTuple):
    """Standard error and its degrees of freedom."""

    se: float
    degrees: float


class Part(NamedTuple):
    """What one sample contributes to a variance, known with as many degrees of freedom."""

    variance: float
    degrees: int


@dataclass(frozen=True)
class HalfRefits:
    """The distance from one half of the target: with everything, and without each fold."""

    whole: float
    target: np.ndarray  # [K] without a fold of the half
    pool: np.ndarray  # [L] without a fold of the pool
    sizes: np.ndarray  # [K] images in the folds of the half

    @property
    def jackknife(self) -> Jackknife:
        """Correction and variance due to the half."""
        return delete_fold_jackknife(self.whole, self.target, self.sizes)

    @classmethod
    def sum(cls, parts: Sequence[tuple[float, HalfRefits]]) -> HalfRefits:
        """A weighted sum of distances from the same half."""
        whole, target, pool = (
            sum(weight * getattr(refits, name) for weight, refits in parts) for name in ("whole", "target", "pool")
        )
        return cls(float(whole), np.asarray(target), np.asarray(pool), parts[0][1].sizes)


@dataclass(frozen=True)
class Refits:
    """The headline distance of a pool with folds left out: some 30 numbers, from which all else follows."""

    halves: tuple[HalfRefits, HalfRefits]
    pool_sizes: np.ndarray  # [L] images in the folds of the pool
    n_target: int
    k: int  # directions

    @property
    def value(self) -> float:
        """The distance without its leading bias."""
        corrections = float(np.mean([half.jackknife.correction for half in self.halves]))
        return self._whole + self._of_pool.correction + corrections

    @property
    def pool_part(self) -> Part:
        """The pool's share of the variance; a fold of it is left out of both halves' distances at once."""
        return Part(self._of_pool.variance, len(self.pool_sizes) - 1)

    def estimate(self) -> Estimate:
        """The distance with its error and 95% interval."""
        error = _error([*_target_parts(self.halves), self.pool_part])
        value, reach = self.value, error.se * float(special.stdtrit(error.degrees, (1 + LEVEL) / 2))
        return Estimate(
            value=value,
            low=value - reach,
            high=value + reach,
            se=error.se,
            n=(int(self.pool_sizes.sum()), self.n_target),
            unit="squared embedding units",
            method=f"cross-fitted Fréchet, k={self.k}, jackknife over {FOLDS} folds",
            null=0.0,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        halves = [{name: np.asarray(x).tolist() for name, x in vars(half).items()} for half in self.halves]
        return {"halves": halves, "pool_sizes": self.pool_sizes.tolist(), "n_target": self.n_target, "k": self.k}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Refits:
        """Reads what ``to_json`` wrote."""
        first, second = (
            HalfRefits(float(half["whole"]), *(np.array(half[name]) for name in ("target", "pool", "sizes")))
            for half in document["halves"]
        )
        return cls((first, second), np.array(document["pool_sizes"]), int(document["n_target"]), int(document["k"]))

    @property
    def _whole(self) -> float:
        return float(np.mean([half.whole for half in self.halves]))

    @property
    def _of_pool(self) -> Jackknife:
        left_out = np.mean([half.pool for half in self.halves], axis=0)
        return delete_fold_jackknife(self._whole, left_out, self.pool_sizes)


def order_probability(a: Refits, b: Refits) -> float:
    """Probability that pool ``a`` is nearer to the target than pool ``b``, given their joint error.

    Of two pools that share images it is too unsure, never too sure: they are taken as independent of each other.

    Raises:
        UsageError: measured against different targets.
    """
    if _target_sizes(a) != _target_sizes(b) or a.k != b.k:
        raise UsageError(
            f"The order of two pools needs one target; these were measured against {a.n_target} and {b.n_target} "
            "images, or other folds of them.",
            hint="Measure both pools against the same target.",
        )
    differences = [
        HalfRefits(x.whole - y.whole, x.target - y.target, np.zeros(0), x.sizes)
        for x, y in zip(a.halves, b.halves, strict=True)
    ]
    error, gap = _error([*_target_parts(differences), a.pool_part, b.pool_part]), b.value - a.value
    return float(special.stdtr(error.degrees, gap / error.se)) if error.se else float(np.sign(gap) / 2 + 0.5)


def _target_sizes(refits: Refits) -> list[list[int]]:
    return [half.sizes.tolist() for half in refits.halves]


def _target_parts(halves: Iterable[HalfRefits]) -> list[Part]:
    """Each half's share of the variance of their mean."""
    return [Part(half.jackknife.variance / 4, len(half.sizes) - 1) for half in halves]


def _error(parts: Sequence[Part]) -> Error:
    variance = sum(part.variance for part in parts)
    if not variance > 0:
        return Error(0.0, 1.0)
    # Shares are squared, not variances: those of tiny vectors would vanish.
    return Error(float(np.sqrt(variance)), 1 / sum((p.variance / variance) ** 2 / p.degrees for p in parts))
