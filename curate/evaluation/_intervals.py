"""Accuracies with bootstrap intervals over test images, and paired differences between arms.

Test units (groups, copies) are drawn with replacement, as many as there are; every image counts as often as its unit is
drawn, and class shares vary with the draw (not stratified). All arms are measured on the same draws, so their
differences are paired. Intervals are percentiles: they cover the choice of test images, not of training images.

Cross-fitted test images also train the probes that tell each other, so that accuracies vary more than over as many
images held out: in simulation by 14% with 40 images, 9 to 10% with 60 to 100, 0 to 3% with 120 and more, whatever the
number of folds. A resample draws 80% of the units there, which widens intervals by 12%; of 95% they then covered 94 to
96% for accuracies and 96 to 97% for differences, with 40 to 150 images (600 times each).

Two arms that agree on all n test units have differences without spread. A difference d of shares reaches therefore
no less far to either side than Agresti and Min's interval, that of half a unit more for each arm, v the variance of its
draws (of a mean over classes too: a unit weighs 1 / n there or, in the root mean square, more):

    (n d +- z sqrt(n^2 v + 1)) / (n + 2)

Measured coverage of 95% intervals (2% to 30% of images discordant, 400 times each): at a true difference of 0, 97-100%
with 20 images and 96-100% with 100; of 0.05, 94-100% and 95-96%. Percentiles alone: 64% with 20 images of which one is
expected to differ. No end lies beyond -1 or 1, where no difference of shares can be.

Source: Efron 1979; Field and Welsh 2007 (bootstrap of clusters); Agresti and Min 2005 (matched pairs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy import special

from curate.numerals import counted
from curate.results import Estimate

DRAWS = 2_000
LEVEL = 0.95
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
NORMAL_95 = 1.959964
MIN_UNITS = 5  # fewer of them say nothing of their spread
NO_INTERVAL = "no interval"  # how the method of such a figure begins
DRAWN = 0.8  # of the units, where they are cross-fitted
BLOCK = 1 << 22  # weights held at once

Metric = Callable[[np.ndarray], np.ndarray]  # weights of the test images [b, m] -> one value per draw [b]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A figure on the test images, and on every resample of them."""

    value: float
    draws: np.ndarray  # [DRAWS]


@dataclass(frozen=True, kw_only=True)
class Resamples:
    """The test images of one labeled set, and how they are drawn; of several folds, fewer at a time."""

    units: np.ndarray  # int64 [m]
    n_train: int
    seed: int = 0
    folds: int = 1  # in which they are tested, each by a model of its own

    def __iter__(self) -> Iterator[np.ndarray]:
        """Blocks [b, m] of how often each test image counts, DRAWS rows in all; the same ones every time."""
        _, unit = np.unique(self.units, return_inverse=True)
        n, rng = self.n_units, np.random.default_rng(self.seed)
        step = max(1, BLOCK // len(unit))
        for start in range(0, DRAWS, step):
            size = min(step, DRAWS - start)
            drawn = rng.integers(n, size=(size, self.n_drawn)) + n * np.arange(size)[:, None]
            yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)[:, unit].astype(np.float64)

    @cached_property
    def n_units(self) -> int:
        """Units that can be drawn."""
        return len(np.unique(self.units))

    @property
    def n_drawn(self) -> int:
        """Units of a resample."""
        return self.n_units if self.folds == 1 else round(DRAWN * self.n_units)

    def measure(self, metrics: Mapping[str, Metric]) -> dict[str, Measured]:
        """Every metric on the test images and on all resamples."""
        whole = np.ones((1, len(self.units)))
        draws = [{name: metric(weights) for name, metric in metrics.items()} for weights in self]
        return {
            name: Measured(value=float(metric(whole)[0]), draws=np.concatenate([d[name] for d in draws]))
            for name, metric in metrics.items()
        }

    def estimate(
        self, measured: Measured, unit: str, *, is_share: bool = True, lower_is_better: bool = False
    ) -> Estimate:
        """A figure with its interval; ``n`` is (training labels, test images).

        All right or all wrong has no spread to draw from; the far end of a share is then Clopper and Pearson's.
        """
        estimate = replace(self._interval(measured, unit), lower_is_closer=lower_is_better)
        if estimate.low is None or not is_share or measured.value not in (0.0, 1.0):
            return estimate
        reach = 1 - TAILS[0] ** (1 / self.n_drawn)
        return replace(estimate, **({"low": 1 - reach} if measured.value else {"high": reach}))

    def difference(
        self, measured: Measured, other: Measured, unit: str, *, is_share: bool = True, lower_is_better: bool = False
    ) -> Estimate:
        """Paired difference, first minus second, with its interval; above zero the first one is larger.

        Of shares of images it is never narrower than Agresti and Min's, so that agreement is not certainty.
        """
        paired = Measured(value=measured.value - other.value, draws=measured.draws - other.draws)
        found = replace(self._interval(paired, f"difference of {unit}"), lower_is_closer=lower_is_better)
        if found.low is None or found.high is None or not is_share:
            return found
        n = self.n_units
        middle, se = n * paired.value / (n + 2), float(np.sqrt(n**2 * paired.draws.var() + 1)) / (n + 2)
        reach = float(special.ndtri(TAILS[1])) * se
        low, high = max(min(found.low, middle - reach), -1.0), min(max(found.high, middle + reach), 1.0)
        method = f"{found.method}, no narrower than Agresti and Min's"
        return replace(found, low=low, high=high, se=max(found.se or 0.0, se), method=method)

    def facts(self) -> dict[str, Any]:
        """What every estimate on these test images has in common."""
        return {"n": (self.n_train, len(self.units)), "lower_is_closer": False, "seed": self.seed}

    def _interval(self, measured: Measured, unit: str) -> Estimate:
        if self.n_units < MIN_UNITS:
            method = f"{NO_INTERVAL}: the test images are of {counted(self.n_units, 'unit')}"
            return Estimate(value=measured.value, unit=unit, method=method, **self.facts())
        low, high = np.quantile(measured.draws, TAILS)
        return Estimate(
            value=measured.value,
            low=float(low),
            high=float(high),
            se=float(measured.draws.std(ddof=1)),
            level=LEVEL,
            unit=unit,
            method=f"percentile bootstrap over {self._units()}, {DRAWS:,} draws, not stratified",
            **self.facts(),
        )

    def _units(self) -> str:
        drawn = f" of {self.folds} folds, {self.n_drawn} at a time" if self.folds > 1 else ""
        return f"{self.n_units} test units{drawn}"


def accuracy(correct: np.ndarray) -> Metric:
    """The metric "share of images that are right", from which ones are, bool [m]."""
    right = correct.astype(np.float64)
    return lambda weights: (weights @ right) / weights.sum(axis=1)
