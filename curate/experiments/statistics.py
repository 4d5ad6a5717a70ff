"""The difference of two arms over seeds and test images at once: interval, equivalence, power.

A study trains every arm with several seeds and reads all of them on the same test images, so a difference varies with
the draw of the run (data, order, start) and with the images. Both arms have the same seeds and images: differences are
paired twice. Per seed s there is a value d_s, and the share h_su of every test unit u (a group of images) in it, its
influence, so that sum_u h_su^2 is the variance of d_s that comes from the images; w_u is the most it can move d_s:

    over seeds       V_s = var_s(d_s) / S                    holds also what seeds and images do together
    over images      V_u = sum_u (mean_s h_su)^2             as well
    both together    V_e = sum_su (h_su - mean_s h_su)^2 / (S (S - 1))
    variance         V   = max(V_s, V_e) + V_i,   V_i = max(V_u - V_e, 0) + mean_u w_u^2

Conditions (targets) are averaged; their runs are independent, their test units need not be: units of one name
are added up before they are squared. V_e is a part of V_s that is known far better, hence the first maximum. The last
term is Agresti and Min's: one unit more on which the arms disagree, so that arms which agree on all images are not
told to be the same with certainty. Intervals are value +- t sqrt(V) with the quantile of Cochran and Cox,

    t = (t_s max(V_s, V_e) + t_i V_i) / V

t_s with max(V_s, V_e)^2 / sum (V_s^2 / (S - 1) + V_e^2 / ((S - 1) (U - 1))) degrees of freedom, t_i with U - 1. This
is the analysis of many readers and many cases. With infinitely many images it is the paired t interval over seeds.

Of k times the test units V_i and V_e are a k-th, and so is V_e's part of V_s; what is left of V_s takes more seeds.

Equivalence and power speak of a true difference of ``matters``, and that takes at least this share of disagreement:
for them V_i is multiplied by max(1, matters (1 - matters) / D), D the share of disagreement found, the unit more
included. It is the variance of a score test: fewer than 2.7 / matters test units never show equivalence.

Measured coverage of 95% intervals (arms of equal accuracy whose thresholds on the images' difficulty vary with the
seed, by 0.005 to 0.05; 200 and 1,000 images; 500 studies each): 90-99% with 2 seeds, 96-97% with 3, 95-99% with 5. The
least are those of 2 seeds that vary far more than the images: two of them may agree by luck, and nothing shows it. With
the degrees of freedom of Satterthwaite for all of V it would be 89% at 0.02. Of arms that differ by 0.01 to 0.04 on 18
to 1,000 images and agree on all others, 0-5% are told equivalent where 0.01 matters; their intervals cover 94-100%, but
86-87% where two images of them all are expected to differ.

Conditions are taken as they are: nothing here speaks of targets that were not in the study.

Source: Cochran and Cox 1950; Satterthwaite 1946; Hillis 2007 (degrees of freedom for multiple readers); Agresti and
Min 2005 (matched pairs); Bouthillier et al. 2021 (variance in benchmarks); Schuirmann 1987 (two one-sided tests).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy import optimize, special

MIN_UNITS = 5  # fewer of them say nothing of their spread
POWER = 0.8  # that a study should have
MOST_SEEDS = 100  # asked for
MOST_UNITS = 1_000_000
POINTS = 200  # at which the law of a standard error is taken
TINY = 1e-24  # rounding in a variance of shares


@dataclass(frozen=True, kw_only=True)
class Draws:
    """A figure under one condition: its value in every seed, and how much every test unit moves it."""

    values: np.ndarray  # [S]
    influence: np.ndarray  # [S, U]; squares of a row add up to the variance of its value over images
    weights: np.ndarray  # [U] the most by which a unit moves a value; zeros for a figure that is no share of images
    units: np.ndarray  # [U] names; the same name in another condition is the same images

    def __sub__(self, other: Draws) -> Draws:
        """Paired difference; both have the same seeds and units in the same order."""
        return replace(self, values=self.values - other.values, influence=self.influence - other.influence)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Variance of a mean over conditions: what comes from seeds and what from images."""

    from_seeds: float | None  # sum over conditions of max(V_s, V_e); None: one seed, so nobody knows
    together: float  # sum of V_e, the part of it that more images lessen
    from_images: float  # V_i
    seeds_square: float  # sum over conditions of V_s^2 / (S - 1) + V_e^2 / ((S - 1) (U - 1))
    discordant: float  # D, the share of units on which the arms disagree; infinite where the figure is no share
    seeds: int  # of the condition that has the fewest
    units: int

    @property
    def variance(self) -> float:
        """Of the mean."""
        return (self.from_seeds or 0.0) + self.from_images

    @property
    def se(self) -> float:
        """Standard error of the mean."""
        return float(np.sqrt(self.variance))

    def df(self, level: float = 0.95) -> float:
        """Degrees of freedom with which t has Cochran and Cox's quantile at a level; infinite where nothing varies."""
        if not self.variance:
            return np.inf
        of_seeds, of_images = self.from_seeds or 0.0, float(max(self.units - 1, 1))
        few = of_seeds**2 / self.seeds_square if of_seeds else of_images
        share, p = of_seeds / self.variance, (1 + level) / 2
        wanted = share * quantile(p, few) + (1 - share) * quantile(p, of_images)
        low, high = sorted((few, of_images))
        if wanted >= quantile(p, low):
            return low
        if wanted <= quantile(p, high):
            return high
        return float(optimize.brentq(lambda df: quantile(p, df) - wanted, low, high))

    def at_difference(self, true: float) -> Spread:
        """The same study where the true difference is this one, which takes as large a share of disagreement."""
        return replace(self, from_images=self.from_images * max(1.0, true * (1 - true) / self.discordant))

    def at_seeds(self, seeds: int) -> Spread:
        """The same study with another number of seeds (2 or more) in every condition."""
        ratio = self.seeds / seeds
        square = self.seeds_square * ratio**2 * (self.seeds - 1) / (seeds - 1)
        parts: dict[str, Any] = {"from_seeds": (self.from_seeds or 0.0) * ratio, "together": self.together * ratio}
        return replace(self, **parts, seeds_square=square, seeds=seeds)

    def at_units(self, units: int) -> Spread:
        """The same study with another number of test units (2 or more); what varies with seeds alone stays as it is."""
        ratio, was = self.units / units, self.from_seeds or 0.0
        together = self.together * ratio
        from_seeds = max(was - self.together, 0.0) + together
        square = self.seeds_square * (from_seeds / was) ** 2 if was else 0.0  # as many degrees of freedom
        parts: dict[str, Any] = {
            "from_seeds": from_seeds,
            "together": together,
            "from_images": self.from_images * ratio,
        }
        return replace(self, **parts, seeds_square=square, units=units)


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A difference of two arms with all that a claim needs; figures are None where there is no interval."""

    value: float
    low: float | None = None
    high: float | None = None
    se: float | None = None
    df: float | None = None  # of the t quantiles; None: nothing varies
    level: float = 0.95
    p: float | None = None  # two-sided, of no difference
    p_equivalence: float | None = None  # of a difference as large as ``matters``
    matters: float = 0.01
    power: float | None = None  # to tell a true difference of ``matters`` from none
    power_equivalence: float | None = None  # to show equivalence where there is no difference
    detectable: float | None = None  # smallest true difference that is told with 80% power
    seeds: int = 1
    units: int = 0  # test units
    conditions: int = 1  # targets
    seeds_needed: int | None = None  # for 80% power at ``matters``; None: unknown, or more than 100
    units_needed: int | None = None  # test units for the same, with these seeds; None: unknown, or more than a million
    share_of_seeds: float | None = None  # of the variance, 0 to 1
    reason: str = ""  # why it cannot settle anything

    @property
    def is_equivalent(self) -> bool:
        """True where two one-sided tests show that the difference is smaller than what matters."""
        return not self.reason and self.p_equivalence is not None and self.p_equivalence <= 1 - self.level

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        return asdict(self)


def effect(conditions: Sequence[Draws], *, matters: float = 0.01, level: float = 0.95) -> Effect:
    """The mean of a difference over conditions, with interval, tests and power.

    Args:
        conditions: One per target, each a difference over its seeds and test units.
        matters: Smallest difference that matters, above 0.
        level: Of the interval; tests are at 1 - level.

    Returns:
        Effect. Without interval below 5 test units; with one seed anywhere the interval covers test images only, and
        ``reason`` says so.
    """
    value = float(np.mean([draws.values.mean() for draws in conditions]))
    found = spread(conditions)
    counts: dict[str, Any] = {"seeds": found.seeds, "units": found.units, "conditions": len(conditions)}
    counts |= {"matters": matters, "level": level}
    if found.units < MIN_UNITS:
        return Effect(value=value, reason=f"the test images are of {found.units} groups", **counts)
    se, df = found.se, found.df(level)
    reach, most = quantile((1 + level) / 2, df) * se, 1.0 if np.isfinite(found.discordant) else np.inf
    one_draw, if_matters = found.from_seeds is None, found.at_difference(matters)
    return Effect(
        value=value,
        low=max(value - reach, -most),  # no difference of shares is beyond
        high=min(value + reach, most),
        se=se,
        df=float(df) if np.isfinite(df) else None,
        p=two_sided(value, se, df),
        p_equivalence=equivalence(value, if_matters.se, if_matters.df(level), matters=matters),
        share_of_seeds=None if one_draw or not se else (found.from_seeds or 0.0) / found.variance,
        reason="one draw; the interval covers test images only" if one_draw else "",
        **outlook(found, matters=matters, level=level),
        **counts,
    )


def outlook(found: Spread, *, matters: float, level: float = 0.95) -> dict[str, Any]:
    """What a study of this spread can tell, whatever it finds: the fields of ``Effect`` that do not need a value."""
    alpha, one_draw, if_matters = 1 - level, found.from_seeds is None, found.at_difference(matters)
    known = {"se": if_matters.se, "df": if_matters.df(level), "alpha": alpha}
    least = _detectable(found, found.df(level), alpha)
    return {
        "power": power(matters, **known),
        "power_equivalence": equivalence_power(matters, **known),
        "detectable": least if least < 1 else None,  # no accuracies differ by more
        "seeds_needed": None if one_draw else fewest(if_matters.at_seeds, MOST_SEEDS, matters, alpha),
        "units_needed": None if one_draw else fewest(if_matters.at_units, MOST_UNITS, matters, alpha),
    }


def spread(conditions: Sequence[Draws]) -> Spread:
    """Variance of the mean over conditions, split by where it comes from."""
    n, (shares, weights) = len(conditions), _pooled(conditions)
    images, one_more = float((shares**2).sum()), float((weights**2).mean())
    seeds = [len(draws.values) for draws in conditions]
    sizes: dict[str, Any] = {"seeds": min(seeds), "units": len(shares), "discordant": _discordant(conditions, shares)}
    if min(seeds) == 1:
        return Spread(from_seeds=None, together=0.0, from_images=images + one_more, seeds_square=0.0, **sizes)
    from_seeds = np.array([draws.values.var(ddof=1) / len(draws.values) for draws in conditions]) / n**2
    both = np.array([_together(draws) for draws in conditions]) / n**2
    known = np.maximum(from_seeds, both)
    rest = np.array(seeds) - 1
    square = from_seeds**2 / rest + both**2 / (rest * max(len(shares) - 1, 1))
    varies = known.sum() > TINY
    return Spread(
        from_seeds=float(known.sum()) if varies else 0.0,
        together=float(both.sum()) if varies else 0.0,
        from_images=max(images - float(both.sum()), 0.0) + one_more,
        seeds_square=float(square.sum()),
        **sizes,
    )


def two_sided(value: float, se: float, df: float) -> float:
    """Probability of a value as far from 0 where there is no difference; 1 or 0 where nothing varies."""
    return 2 * _below(-abs(value) / se, df) if se else float(value == 0)


def equivalence(value: float, se: float, df: float, *, matters: float) -> float:
    """Larger p of the two one-sided tests that a difference lies inside +-matters.

    It is at most alpha exactly where the interval of level 1 - 2 alpha lies inside.
    """
    return _below((abs(value) - matters) / se, df) if se else float(abs(value) >= matters)


def power(true: float, se: float, df: float, *, alpha: float = 0.05) -> float:
    """Probability that a two-sided t test at ``alpha`` finds a true difference: a tail of the noncentral t law."""
    return _told(abs(true) / se, quantile(1 - alpha / 2, df) * _drawn(df)) if se else float(true != 0)


def equivalence_power(matters: float, se: float, df: float, *, alpha: float = 0.05) -> float:
    """Probability that two one-sided tests show equivalence where the true difference is 0."""
    if not se:
        return 1.0
    room = np.maximum(matters / se - quantile(1 - alpha, df) * _drawn(df), 0.0)
    return float((2 * special.ndtr(room) - 1).mean())


def detectable(se: float, df: float, *, alpha: float = 0.05) -> float:
    """Smallest true difference that a two-sided test finds with a power of 80%."""
    if not se:
        return 0.0
    edge = quantile(1 - alpha / 2, df)
    edges = edge * _drawn(df)
    return float(optimize.brentq(lambda shift: _told(shift, edges) - POWER, 0.0, 3 * edge + 30, xtol=1e-6)) * se


def quantile(p: float, df: float) -> float:
    """Of the t distribution; infinitely many degrees of freedom are the normal one."""
    return float(special.ndtri(p) if np.isinf(df) else special.stdtrit(df, p))


def _below(value: float, df: float) -> float:
    """Probability of a smaller t."""
    return float(special.ndtr(value) if np.isinf(df) else special.stdtr(df, value))


def _told(shift: float, edges: np.ndarray) -> float:
    """Probability that a normal value about ``shift`` is beyond edges that are equally likely."""
    return float((special.ndtr(shift - edges) + special.ndtr(-edges - shift)).mean())


def _drawn(df: float) -> np.ndarray:
    """How the standard error varies: equally likely values of the one found over the true one."""
    if np.isinf(df):
        return np.ones(1)
    at = (np.arange(POINTS) + 0.5) / POINTS
    return np.asarray(np.sqrt(2 * special.gammaincinv(df / 2, at) / df))


def _pooled(conditions: Sequence[Draws]) -> tuple[np.ndarray, np.ndarray]:
    """Mean influence and weight of every unit in the mean over conditions; units of one name are one."""
    names = np.concatenate([draws.units for draws in conditions])
    number, n = np.unique(names, return_inverse=True)[1], len(conditions)
    mean = np.concatenate([draws.influence.mean(axis=0) for draws in conditions])
    weights = np.concatenate([draws.weights for draws in conditions])
    return np.bincount(number, weights=mean) / n, np.bincount(number, weights=weights) / n


def _discordant(conditions: Sequence[Draws], shares: np.ndarray) -> float:
    """D: what images make a value vary by, over what they would if the arms disagreed on all; and the unit more."""
    most = sum(float((draws.weights**2).sum()) for draws in conditions)
    found = sum(float((draws.influence**2).sum(axis=1).mean()) for draws in conditions)
    return found / most + 1 / len(shares) if most else np.inf


def _together(draws: Draws) -> float:
    """V_e of one condition: what changes from seed to seed in what the units do."""
    n_seeds = len(draws.values)
    left = draws.influence - draws.influence.mean(axis=0)
    return float((left**2).sum()) / (n_seeds * (n_seeds - 1))


def _detectable(found: Spread, df: float, alpha: float) -> float:
    """Smallest true difference told with 80% power; x^2 = c^2 V(x) where it takes more disagreement than was found."""
    factor = detectable(1.0, df, alpha=alpha)
    plain = factor * found.se
    if plain * (1 - plain) <= found.discordant:
        return plain
    k, rest = factor**2 * found.from_images / found.discordant, factor**2 * (found.from_seeds or 0.0)
    return float((k + np.sqrt(k**2 + 4 * (1 + k) * rest)) / (2 * (1 + k)))


def fewest(at: Callable[[int], Spread], most: int, matters: float, alpha: float) -> int | None:
    """Fewest seeds or units at which a difference that matters is told with 80% power; by halving, as power grows."""

    def suffices(count: int) -> bool:
        other = at(count)
        return power(matters, other.se, other.df(1 - alpha), alpha=alpha) >= POWER

    low, high = 1, most
    if not suffices(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high
