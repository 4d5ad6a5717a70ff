"""Intervals over seeds and images against closed forms, simulation and brute force."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from curate.evaluation._pairs import holm
from curate.experiments import statistics
from curate.experiments.statistics import Draws, detectable, effect, equivalence, equivalence_power, power, spread


def draws(table, name="", *, is_share=False):
    """From differences [S, U] of equally large units; those that are no shares have no least variance."""
    values, n = table.mean(axis=1), table.shape[1]
    units, influence = np.array([f"{name}{i}" for i in range(n)]), (table - values[:, None]) / np.sqrt(n * (n - 1))
    return Draws(values=values, influence=influence, weights=np.full(n, is_share / n), units=units)


def mixture(rng, seeds, units, of_seeds, of_images, of_both):
    parts = rng.standard_normal((seeds, 1)), rng.standard_normal((1, units)), rng.standard_normal((seeds, units))
    return of_seeds * parts[0] + of_images * parts[1] + of_both * parts[2]


def test_with_all_images_alike_it_is_the_paired_t_interval():
    values = np.array([0.03, 0.01, 0.05, 0.02])
    found = effect([draws(np.repeat(values[:, None], 50, axis=1))])
    oracle = stats.ttest_1samp(values, 0.0)
    interval = oracle.confidence_interval(0.95)
    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), interval.low, interval.high))
    assert (found.p, found.df, found.share_of_seeds) == pytest.approx((oracle.pvalue, 3, 1.0))


def test_with_all_seeds_alike_it_is_the_interval_over_images():
    images = np.random.default_rng(0).integers(-1, 2, 80).astype(float)
    several = effect([draws(np.tile(images, (4, 1)))])
    one = effect([draws(images[None])])
    oracle = stats.ttest_1samp(images, 0.0)
    interval = oracle.confidence_interval(0.95)
    for found in (several, one):
        assert (found.low, found.high, found.df) == pytest.approx((interval.low, interval.high, 79))
    assert one.reason == "one draw; the interval covers test images only"
    assert several.reason == ""
    assert several.share_of_seeds == pytest.approx(0.0)


def test_one_seed_is_the_bootstrap_over_images():
    rng = np.random.default_rng(1)
    images = rng.integers(-1, 2, 300).astype(float)
    drawn = images[rng.integers(300, size=(4000, 300))].mean(axis=1)
    assert effect([draws(images[None])]).se == pytest.approx(drawn.std(), rel=0.04)


def test_the_parts_are_those_of_a_balanced_analysis_of_variance():
    """Mean squares of the two-way layout, by hand."""
    table = mixture(np.random.default_rng(2), 4, 30, 0.05, 0.3, 0.2)
    n_seeds, n_units = table.shape
    mean, by_seed, by_unit = table.mean(), table.mean(axis=1, keepdims=True), table.mean(axis=0)
    of_seeds = n_units * ((by_seed - mean) ** 2).sum() / (n_seeds - 1)
    of_units = n_seeds * ((by_unit - mean) ** 2).sum() / (n_units - 1)
    rest = ((table - by_seed - by_unit + mean) ** 2).sum() / (n_seeds - 1) / (n_units - 1)
    wanted = (max(of_seeds, rest) + max(of_units - rest, 0)) / (n_seeds * n_units)
    assert spread([draws(table)]).variance == pytest.approx(wanted)


def test_identical_arms_differ_by_exactly_nothing_and_are_equivalent():
    found = effect([draws(np.zeros((3, 40)))])
    assert (found.value, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)
    assert found.is_equivalent
    assert (found.detectable, found.power) == (0.0, 1.0)
    assert not effect([draws(np.zeros((1, 40)))]).is_equivalent  # one draw says nothing of the next


def test_too_few_units_have_no_interval():
    found = effect([draws(np.random.default_rng(0).standard_normal((3, 4)))])
    assert (found.low, found.se, found.p, found.power) == (None, None, None, None)
    assert found.reason == "the test images are of 4 groups"


def test_neither_order_of_seeds_nor_of_units_nor_of_conditions_matters():
    rng = np.random.default_rng(3)
    first, second = (mixture(rng, 3, 25, 0.1, 0.2, 0.3) for _ in range(2))
    seeds, units = rng.permutation(3), rng.permutation(25)
    turned = draws(first[seeds][:, units])
    turned = replace(turned, units=draws(first).units[units])
    plain, other = effect([draws(first), draws(second)]), effect([draws(second), turned])
    for name, value in vars(plain).items():
        assert getattr(other, name) == (pytest.approx(value) if isinstance(value, float) else value)


def test_the_other_sign_is_the_mirror_image():
    table = mixture(np.random.default_rng(4), 3, 40, 0.1, 0.1, 0.3) + 0.05
    plain, turned = effect([draws(table)]), effect([draws(-table)])
    assert (turned.value, turned.low, turned.high) == pytest.approx((-plain.value, -plain.high, -plain.low))
    assert turned.p == pytest.approx(plain.p)


def test_conditions_on_the_same_images_are_not_twice_the_evidence():
    """The image part of two conditions halves only where their images differ."""
    images = np.tile(np.random.default_rng(5).standard_normal(60), (3, 1))
    alone = effect([draws(images)]).se
    assert effect([draws(images), draws(images)]).se == pytest.approx(alone)
    apart = effect([draws(images), draws(images, name="other ")]).se
    assert apart == pytest.approx(alone / np.sqrt(2), rel=0.01)  # U / (U - 1) is of all units together


def arms_that_nest(rng, units, seeds, shares):
    """Difference of two arms, right on the easier images up to a share; all seeds alike."""
    hard = rng.random(units)
    right = [np.tile(hard < share, (seeds, 1)).astype(float) for share in shares]
    return draws(right[0] - right[1], is_share=True)


def test_agreement_on_all_images_is_one_unit_short_of_certain():
    units, matters = 400, 0.01
    found = effect([draws(np.zeros((3, units)), is_share=True)], matters=matters)
    assert (found.value, found.se, found.p) == (0.0, pytest.approx(1 / units), 1.0)
    se = np.sqrt(matters * (1 - matters) / units)  # of the difference that matters, and no less
    assert found.p_equivalence == pytest.approx(stats.t.cdf(-matters / se, units - 1))
    assert found.power == pytest.approx(power(matters, se, units - 1))
    assert not effect([draws(np.zeros((3, 250)), is_share=True)], matters=matters).is_equivalent
    assert effect([draws(np.zeros((3, 300)), is_share=True)], matters=matters).is_equivalent


def test_what_is_detectable_takes_the_disagreement_it_needs():
    found = effect([draws(np.zeros((3, 200)), is_share=True)])
    there = effect([draws(np.zeros((3, 200)), is_share=True)], matters=found.detectable)
    assert there.power == pytest.approx(0.8, abs=0.005)


@pytest.mark.parametrize(("units", "shares"), [(50, (0.98, 0.95)), (200, (0.98, 0.97)), (300, (0.98, 0.965))])
def test_a_difference_that_matters_is_seldom_told_equivalent(units, shares):
    rng = np.random.default_rng(units)
    found = [effect([arms_that_nest(rng, units, 2, shares)], matters=0.01) for _ in range(60)]
    assert np.mean([one.is_equivalent for one in found]) <= 0.06
    assert max(one.power for one in found) < 0.6


@pytest.mark.parametrize("parts", [(0.02, 0.001, 0.001), (0.02, 0.2, 0.01), (0.0, 0.3, 0.0)])
def test_the_quantile_is_cochran_and_coxs(parts):
    table = mixture(np.random.default_rng(7), 3, 40, *parts)
    known = spread([draws(table)])
    seeds, images = known.from_seeds, known.from_images
    few = seeds**2 / known.seeds_square if seeds else 39
    wanted = (stats.t.ppf(0.975, few) * seeds + stats.t.ppf(0.975, 39) * images) / (seeds + images)
    assert stats.t.ppf(0.975, known.df()) == pytest.approx(wanted)


@pytest.mark.parametrize("seeds", [2, 3, 10])
@pytest.mark.parametrize("parts", [(0.02, 0.001, 0.001), (0.0, 0.0, 0.3), (0.01, 0.1, 0.3)])
def test_intervals_cover(seeds, parts):
    assert 0.91 <= coverage(seeds, 1, parts, times=400) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize("conditions", [1, 3])
@pytest.mark.parametrize("parts", [(0.02, 0.001, 0.001), (0.0, 0.3, 0.01), (0.0, 0.0, 0.3), (0.01, 0.1, 0.3)])
def test_intervals_cover_in_long_simulation(seeds, conditions, parts):
    assert 0.93 <= coverage(seeds, conditions, parts, times=1500) <= 0.995


def coverage(seeds, conditions, parts, times):
    rng, covered = np.random.default_rng(seeds), 0
    for _ in range(times):
        found = [draws(mixture(rng, seeds, 100, *parts), name=f"{c} ") for c in range(conditions)]
        known = spread(found)
        mean = np.mean([d.values.mean() for d in found])
        covered += abs(mean) <= stats.t.ppf(0.975, known.df()) * np.sqrt(known.variance)
    return covered / times


def test_right_or_wrong_covers_too():
    """Correctness of two arms whose images have a difficulty in common: shares, not normal figures."""
    rng, covered = np.random.default_rng(8), 0
    for _ in range(300):
        hard, luck = rng.random(200), 0.01 * rng.standard_normal((2, 3, 1))
        own = 0.1 * rng.standard_normal((2, 3, 200))
        better, worse = (hard + own < np.array([0.7, 0.65])[:, None, None] + luck).astype(float)
        truth = _expected(0.7) - _expected(0.65)
        found = draws(better - worse)
        known = spread([found])
        covered += abs(found.values.mean() - truth) <= stats.t.ppf(0.975, known.df()) * np.sqrt(known.variance)
    assert 0.92 <= covered / 300 <= 0.995


def _expected(edge):
    """Probability that a uniform difficulty plus normal noise lies below the edge."""
    at = (np.arange(20_000) + 0.5) / 20_000
    return stats.norm.cdf(edge - at, scale=np.hypot(0.1, 0.01)).mean()


def brute_force_holm(p):
    """Adjusted p as the smallest alpha at which the stepwise procedure rejects, found on the candidate alphas."""
    order = np.argsort(p, kind="stable")
    candidates = sorted({min(1.0, float(p[i]) * k) for i in order for k in range(1, len(p) + 1)} | {1.0})
    adjusted = [1.0] * len(p)
    for alpha in reversed(candidates):
        for rank, i in enumerate(order):
            if p[i] * (len(p) - rank) > alpha:
                break
            adjusted[i] = alpha
    return adjusted


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_stepwise_procedure(p):
    assert holm(p) == pytest.approx(brute_force_holm(np.array(p)))


@given(st.lists(st.floats(0, 0.2), min_size=1, max_size=5))
def test_holm_is_the_closed_test_of_bonferronis(p):
    """An hypothesis is adjusted to the largest Bonferroni p of all the intersections that hold it."""
    for i, adjusted in enumerate(holm(p)):
        sets = [s for size in range(1, len(p) + 1) for s in combinations(range(len(p)), size) if i in s]
        assert adjusted == pytest.approx(max(min(1.0, len(s) * min(p[j] for j in s)) for s in sets))


def test_equivalence_is_two_one_sided_tests_of_a_textbook():
    """scipy's two one-sided t tests; and the 90% interval inside the limits."""
    values = np.array([0.002, -0.003, 0.004, 0.001, -0.001])
    upper = stats.ttest_1samp(values, 0.006, alternative="less").pvalue
    lower = stats.ttest_1samp(values, -0.006, alternative="greater").pvalue
    se = values.std(ddof=1) / np.sqrt(5)
    assert equivalence(values.mean(), se, 4, matters=0.006) == pytest.approx(max(upper, lower))
    for matters in np.linspace(0.001, 0.02, 40):
        interval = stats.ttest_1samp(values, 0.0).confidence_interval(0.90)
        inside = -matters < interval.low and interval.high < matters
        assert inside == (equivalence(values.mean(), se, 4, matters=matters) < 0.05)


@pytest.mark.parametrize(("seeds", "true"), [(3, 0.03), (5, 0.02), (8, 0.01)])
def test_power_is_how_often_a_true_difference_is_told(seeds, true):
    rng = np.random.default_rng(seeds)
    values = true + 0.015 * rng.standard_normal((40_000, seeds))
    told = stats.ttest_1samp(values, 0.0, axis=1).pvalue <= 0.05
    assert power(true, 0.015 / np.sqrt(seeds), seeds - 1) == pytest.approx(told.mean(), abs=0.01)


@pytest.mark.parametrize("seeds", [3, 5, 20])
def test_power_of_equivalence_is_how_often_it_is_shown(seeds):
    values = 0.01 * np.random.default_rng(seeds).standard_normal((40_000, seeds))
    reach = stats.t.ppf(0.95, seeds - 1) * values.std(axis=1, ddof=1) / np.sqrt(seeds)
    shown = (np.abs(values.mean(axis=1)) + reach < 0.012).mean()
    assert equivalence_power(0.012, 0.01 / np.sqrt(seeds), seeds - 1) == pytest.approx(shown, abs=0.01)


@pytest.mark.parametrize("df", [2, 5.5, 40, np.inf])
def test_what_is_detectable_has_the_power_it_says(df):
    assert power(detectable(0.013, df), 0.013, df) == pytest.approx(0.8, abs=1e-4)


def test_power_follows_from_the_spread_and_not_from_what_was_found():
    table = mixture(np.random.default_rng(9), 3, 50, 0.01, 0.05, 0.05)
    plain, shifted = effect([draws(table)]), effect([draws(table + 0.3)])
    assert (plain.power, plain.detectable) == pytest.approx((shifted.power, shifted.detectable))


def test_seeds_needed_are_the_fewest_with_power():
    table = mixture(np.random.default_rng(6), 4, 2000, 0.012, 0.01, 0.01)
    found, known = effect([draws(table)], matters=0.02), spread([draws(table)])
    assert vars(known.at_seeds(4)) == pytest.approx(vars(known))
    wanted = next(
        n
        for n in range(2, 101)
        if power(0.02, np.sqrt(known.at_seeds(n).variance), known.at_seeds(n).df()) >= statistics.POWER
    )
    assert found.seeds_needed == wanted
    assert effect([draws(table)], matters=1e-5).seeds_needed is None
    assert effect([draws(table[:1])]).seeds_needed is None


@pytest.mark.parametrize("parts", [(0.004, 0.1, 0.3), (0.0, 0.2, 0.2)])
def test_units_needed_suffice_in_studies_of_so_many(parts):
    """What studies of 200 units say it takes, the median of them, against how often new studies of so many see it."""
    rng, matters = np.random.default_rng(0), 0.02
    said = [effect([draws(mixture(rng, 10, 200, *parts))], matters=matters).units_needed for _ in range(61)]
    units = round(np.median([count or np.inf for count in said]))
    told = [effect([draws(mixture(rng, 10, units, *parts) + matters)]).p <= 0.05 for _ in range(200)]
    assert 0.72 <= np.mean(told) <= 0.88


def test_what_varies_with_seeds_and_images_takes_either_and_what_varies_with_seeds_alone_takes_seeds():
    rng = np.random.default_rng(6)
    known = spread([draws(mixture(rng, 4, 200, 0.05, 0.2, 0.3), name=name) for name in "ab"])
    assert vars(known.at_units(known.units)) == pytest.approx(vars(known))
    more, most = known.at_units(4 * known.units), known.at_units(10**12)
    assert more.from_images == pytest.approx(known.from_images / 4)
    assert known.from_seeds - more.from_seeds == pytest.approx(0.75 * known.together)
    assert most.from_seeds == pytest.approx(known.from_seeds - known.together)
    assert more.from_seeds**2 / more.seeds_square == pytest.approx(known.from_seeds**2 / known.seeds_square)
    for other in (known.at_units(900).at_seeds(7), known.at_seeds(7).at_units(900)):
        assert vars(other) == pytest.approx(vars(known.at_seeds(7).at_units(900)))


def test_units_needed_are_unknown_of_one_seed_and_none_where_seeds_alone_vary_by_more():
    table = mixture(np.random.default_rng(6), 4, 200, 0.002, 0.2, 0.05)
    assert effect([draws(table)], matters=0.02).units_needed > 200
    assert effect([draws(table)], matters=1e-5).units_needed is None
    assert effect([draws(table[:1])], matters=0.02).units_needed is None
