import numpy as np
import pytest
from candidates_data import capped, images, make_candidates
from sklearn.linear_model import LogisticRegression

from curate.selection._classifier import PENALTIES, Side, choose, cross_fit, fit_path, log_weights


def normal(n, d=6, shift=0.0, seed=0):
    """Vectors [n, d] of unit variance about (shift, 0, ..., 0)."""
    return np.random.default_rng(seed).normal(size=(n, d)) + shift * np.eye(d)[0]


def side(points, weights=None):
    return Side(points, np.ones(len(points)) if weights is None else weights)


def odds_of(chosen):
    return np.array([float(reason.split()[1].replace(",", "")) for reason in chosen.reasons])


def test_fits_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    target, pool, weights = normal(40, shift=1, seed=1), normal(300, seed=2), rng.uniform(0.1, 3, 40)
    found = fit_path(side(target, weights), side(pool), PENALTIES)
    points, labels = np.vstack([target, pool]), np.repeat([1, 0], [40, 300])
    each = np.concatenate([weights / weights.sum(), np.full(300, 1 / 300)]) / 2
    for penalty, coefficients in zip(PENALTIES, found, strict=True):
        peer = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000).fit(points, labels, sample_weight=each)
        assert coefficients == pytest.approx([*peer.coef_[0], peer.intercept_[0]], abs=1e-4)


def test_odds_are_the_log_ratio_of_densities():
    target, pool = side(normal(20_000, shift=1, seed=1)), side(normal(50_000, seed=2))
    coefficients = fit_path(target, pool, (1e-6,))[0]
    assert coefficients == pytest.approx([1, 0, 0, 0, 0, 0, -0.5], abs=0.05)  # log N(x; 1) / N(x; 0) = x - 1/2


def test_more_images_allow_a_weaker_ridge():
    few, many = (
        cross_fit(side(normal(n, 30, 1.0, seed=1)), side(normal(4 * n, 30, seed=2)), np.arange(n) % 10).penalty
        for n in (20, 2000)
    )
    assert few > many


def test_the_ridge_is_the_one_that_serves_left_out_folds_best():
    target, pool, folds = normal(60, 20, 1.0, seed=1), normal(200, 20, seed=2), np.arange(60) % 5
    dealt = np.arange(200) % 5
    losses = []
    for penalty in PENALTIES:
        total = 0.0
        for fold in range(5):
            seen = np.vstack([target[folds != fold], pool[dealt != fold]])
            n, m = (folds != fold).sum(), (dealt != fold).sum()
            model = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=5000)
            model.fit(seen, np.repeat([1, 0], [n, m]), sample_weight=np.repeat([0.5 / n, 0.5 / m], [n, m]))
            margins = model.decision_function(target[folds == fold]), -model.decision_function(pool[dealt == fold])
            total += sum(np.log1p(np.exp(-m)).sum() / count for m, count in zip(margins, (60, 200), strict=True))
        losses.append(total)
    assert cross_fit(side(target), side(pool), folds).penalty == PENALTIES[int(np.argmin(losses))]


def test_a_fold_is_judged_by_a_classifier_that_has_not_seen_it():
    target, pool, folds = normal(50, shift=1, seed=1), side(normal(200, seed=2)), np.arange(50) % 5
    fit = cross_fit(side(target), pool, folds)
    moved = target.copy()
    moved[folds == 2, 1] += 0.3
    again = cross_fit(side(moved), pool, folds)
    assert again.penalty == fit.penalty
    assert np.array_equal(again.without[2], fit.without[2])
    assert not np.array_equal(again.without[3], fit.without[3])
    assert fit.mean == pytest.approx(np.mean(list(fit.without.values()), axis=0))


def test_the_targets_own_images_have_no_advantage_where_there_is_none():
    candidates = make_candidates(normal(100, 40, seed=1), {"pool": normal(3000, 40, seed=2)}, own=True)
    everything = choose(candidates, images(candidates, len(candidates)), seed=0)
    odds = np.empty(len(candidates))
    odds[everything.rows] = np.log(odds_of(everything))
    gap = odds[candidates.own].mean() - odds[~candidates.own].mean()
    assert abs(gap) < 4 * odds.std() / 10


def test_weights_of_a_mixture_of_both_sides():
    ratio = np.array([0.01, 1.0, 40.0])
    assert log_weights(np.log(ratio), 0.25) == pytest.approx(np.log(ratio / (0.75 + 0.25 * ratio)))
    assert log_weights(np.log(ratio), 0.0) == pytest.approx(np.log(ratio))
    assert log_weights(np.log(ratio), 1.0) == pytest.approx([0, 0, 0])
    assert log_weights(np.array([800.0, -800.0]), 0.2) == pytest.approx([np.log(5), -800 - np.log(0.8)])


def test_the_draw_looks_like_the_target():
    candidates = make_candidates(normal(500, shift=1.5, seed=1), {"pool": normal(20_000, seed=2)})
    chosen = choose(candidates, images(candidates, 300), seed=0)
    vectors = candidates.vectors(chosen.rows)
    assert vectors.mean(axis=0) == pytest.approx([1.5, 0, 0, 0, 0, 0], abs=0.2)
    assert vectors[:, 0].std() == pytest.approx(1, abs=0.12)  # the 300 largest odds would have .2
    assert (np.diff(chosen.scores) >= 0).all()


def test_target_images_count_by_their_weight():
    target = np.vstack([normal(200, shift=3, seed=1), normal(200, shift=-3, seed=2)])
    pools = {"pool": np.random.default_rng(3).normal(size=(4000, 6)) * 3}
    positive = []
    for weights in ([1.0, 9.0], [9.0, 1.0], [0.0, 1.0]):
        candidates = make_candidates(target, pools, target_weights=np.repeat(weights, 200))
        chosen = choose(candidates, images(candidates, 200), seed=0)
        positive.append((candidates.vectors(chosen.rows)[:, 0] > 0).mean())
    assert positive[2] < positive[0] < 0.4
    assert positive[1] > 0.6


def test_two_modes_on_opposite_sides_are_invisible_to_it():
    target = np.vstack([normal(200, shift=4, seed=1), normal(200, shift=-4, seed=2)])
    candidates = make_candidates(target, {"pool": np.random.default_rng(3).normal(size=(4000, 6)) * 3})
    chosen = choose(candidates, images(candidates, 400), seed=0)
    near = np.abs(np.abs(candidates.vectors(np.arange(4000))[:, 0]) - 4) < 1
    assert near[chosen.rows].mean() < 1.5 * near.mean()


@pytest.mark.parametrize("pool", [normal(1), np.ones((40, 6)), normal(300)])
@pytest.mark.parametrize("target", [normal(1, seed=5), np.ones((3, 6)), normal(9, seed=5)])
def test_small_and_constant_sets(target, pool):
    candidates = make_candidates(target, {"pool": pool}, own=True)
    chosen = choose(candidates, images(candidates, 10_000), seed=0)
    assert sorted(chosen.rows) == list(range(len(candidates)))
    assert np.isfinite(chosen.scores).all()
    assert chosen.parameters["cross_fitted"] == (len(target) == 9)  # copies share a fold
    assert chosen.parameters["cross_fitted"] or chosen.parameters["penalty"] == PENALTIES[0]


def test_nested_seeded_and_capped():
    candidates = make_candidates(normal(80, shift=1), {"a": normal(400, seed=1), "b": normal(400, seed=2)}, own=True)
    large, small = (choose(candidates, images(candidates, n), seed=3) for n in (90, 25))
    assert np.array_equal(large.rows[:25], small.rows)
    assert large.reasons[:25] == small.reasons
    assert not np.array_equal(choose(candidates, images(candidates, 90), seed=4).rows, large.rows)
    under_caps = choose(candidates, capped(candidates, 90, [5, 7, 1000]), seed=3)
    assert np.bincount(candidates.source[under_caps.rows]).tolist() == [5, 7, 78]


def test_reasons_tell_the_ratio():
    candidates = make_candidates(normal(500, shift=1.5, seed=1), {"pool": normal(5000, seed=2)})
    chosen = choose(candidates, images(candidates, 200), seed=0)
    expected = 1.5 * candidates.vectors(chosen.rows)[:, 0] - 1.5**2 / 2
    assert np.corrcoef(np.log(odds_of(chosen)), expected)[0, 1] > 0.97
