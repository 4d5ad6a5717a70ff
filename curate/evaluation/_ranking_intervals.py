"""Intervals of AUROC and average precision, which percentiles of the bootstrap leave too short where few are wanted.

On the logit scale, with a t quantile, m units on the smaller side:

    logit A +- t SE / (A (1 - A))

SE is that of the bootstrap, by test unit, with m - 1 degrees of freedom. An AUROC near 1 of few images is often one
whose draws hardly vary. Its variance is therefore the mean of the bootstrap's and the one that exponential scores would
have at A, n1 and n2 units, N = (n1 + n2) / 2:

    A (1 - A) (1 + (N - 1) ((1 - A) / (2 - A) + A / (1 + A))) / (n1 n2)

Half of that mean is estimated, so that it has 4 (m - 1) degrees of freedom (Satterthwaite). A figure of 0 or 1 keeps
Clopper and Pearson's end of m trials. For AUROC it holds whatever the scores are: of n1 wanted images and n2 others
min(n1, n2) disjoint pairs are independent, and all of them have to be in order.

Measured coverage of 95% intervals (100 to 400 times each), where percentiles had 83 to 93% of AUROC: with 7 to 20
wanted of 100 to 1,000 images, normal scores and AUROC .86 to .96, 95 to 99% of AUROC and 96 to 99% of average
precision; with 200 wanted of 1,000, 95% and 94%. Where the wanted vary twice as much as the others, or 15%
of them look like these (20 of 200), 91 to 92% of AUROC and 94 to 97% of average precision. Differences between arms are
percentiles no narrower than Agresti and Min's, as elsewhere, n being the smaller side: they cover 98 to 100% with 8 to
30 wanted and 96 to 100% with 100 of 400 (400 times each; percentiles alone 85 to 95% and 93 to 96%).

Source: Hanley and McNeil 1982; Newcombe 2006 (N for both sides); Satterthwaite 1946; Pepe 2003 (the logit).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import special, stats

from curate.evaluation._intervals import DRAWS, TAILS, Measured, Resamples
from curate.results import Estimate


@dataclass(frozen=True, kw_only=True)
class RankingResamples(Resamples):
    """Resamples of the smaller of two sides that are told apart by their scores."""

    n_others: int  # units of the larger side
    of_pairs: bool  # whether the figure is an AUROC, a share of pairs

    def estimate(
        self, measured: Measured, unit: str, *, is_share: bool = True, lower_is_better: bool = False
    ) -> Estimate:
        """A figure in [0, 1] with its interval; ``n`` is (training labels, images of the smaller side)."""
        found = super().estimate(measured, unit, is_share=is_share, lower_is_better=lower_is_better)
        if found.low is None or measured.value in (0.0, 1.0):
            return found
        value, variance = measured.value, float(measured.draws.var(ddof=1))
        freedom = self.n_units - 1
        how = f"standard error of a bootstrap over {self._units()}, {DRAWS:,} draws, not stratified"
        if self.of_pairs:
            drawn = self.n_units / self.n_drawn
            variance = (variance + drawn * exponential_variance(value, self.n_units, self.n_others)) / 2
            how += ", averaged with Hanley and McNeil's"
            freedom *= 4
        se = float(np.sqrt(variance))
        reach = float(stats.t.ppf(TAILS[1], freedom)) * se / (value * (1 - value))
        low, high = (float(special.expit(special.logit(value) + side)) for side in (-reach, reach))
        method = f"logit, t of {freedom} degrees of freedom; {how}"
        return replace(found, low=low, high=high, se=se, method=method)


def exponential_variance(auroc: float, n: int, m: int) -> float:
    """Variance of an AUROC of n wanted and m others with exponential scores; Newcombe's, the same for either side."""
    more = (n + m) / 2 - 1
    return auroc * (1 - auroc) * (1 + more * ((1 - auroc) / (2 - auroc) + auroc / (1 + auroc))) / (n * m)
