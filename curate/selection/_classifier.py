"""classifier: importance resampling by a classifier that tells the target from the pools.

    f(x) = b + v'z(x) = log p_target / p_pool,   by logistic regression of target against pools at equal weight
    w(x) = p_target / p_candidates = e^f / (1 - a + a e^f) ;   take the N largest  log w(x) + G(x),   G ~ Gumbel

z are the pools' whitened directions, a is the share of the target's own images among the candidates. With both sides at
equal weight the log odds are the log of the ratio of densities, so no ratio has to be estimated from two densities. The
draw is one by importance (Gumbel top-N, nested), not the N largest odds: those would be the images most unlike the
pools, not a sample of the target.

The ridge is the one of PENALTIES with the lowest cross-entropy on folds that were left out (a proper score: its optimum
is the true ratio). The target's own images are judged by the classifier that left out their fold, all others by the
mean of the folds' classifiers. A target of a single fold cannot be left out: the strongest ridge is taken as it is.

A linear head knows one direction only. Where the target has several modes it looks for what they have in common, finds
what lies beyond them all, and is worse than random: a distance of .40 where random reads .17 and a quota .02 (60 rare
modes among 2,000). Use it where the target is one region of the pools; else near-first.

Cost: one pass over the vectors, n k products; fits on the target and at most 8,192 pool images, whatever n.

Deviations from the usual quality filter: equal sides, ridge by cross-fitting, a draw in place of a threshold.

Source: Bickel, Brückner and Scheffer (2009) and Sugiyama, Suzuki and Kanamori (2012) for ratios by logistic regression;
Brown et al. (2020, appendix A) for the noisy threshold that the draw replaces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from curate.results import TARGET
from curate.selection._candidates import BLOCK_ROWS, Candidates, Choice
from curate.selection._directions import Whitening
from curate.selection._dsir import gumbel_keys
from curate.selection._ledger import Ledger
from embeddings.moments import FOLDS, fold_of

PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)  # strongest first: each fit starts from the one before
POOL_ROWS = 8_192
TOLERANCE = 1e-7  # of the gradient
LARGEST = 700.0  # exp of it is finite
DECIMALS = 6


def choose(candidates: Candidates, ledger: Ledger, *, seed: int) -> Choice:
    """Draws by importance. Score = -(log w + G): lower = drawn earlier."""
    frame, folds = Whitening.of_pools(candidates), fold_of(candidates.stores[TARGET].rows())
    telling = candidates.weights > 0
    fit = cross_fit(
        Side(frame.apply(candidates.target_vectors[telling]), candidates.weights[telling]),
        _pool_side(frame.apply(candidates.pool_sample)),
        folds[candidates.queries[telling]],
    )
    odds = _log_odds(candidates, frame, fit, folds)
    weights = log_weights(odds, float(candidates.own.mean()))
    scores = -gumbel_keys(weights, candidates.draws(seed)).round(DECIMALS)
    rows = ledger.walk(np.argsort(scores, kind="stable"))
    parameters = {"penalty": fit.penalty, "cross_fitted": len(fit.without) > 0, "directions": frame.directions}
    return Choice(rows=rows, scores=scores[rows], reasons=_reasons(odds[rows]), parameters=parameters)


@dataclass(frozen=True, eq=False)
class Side:
    """Images of one side, in the directions the classifier sees."""

    points: np.ndarray  # [n, k]
    weights: np.ndarray  # [n] positive


@dataclass(frozen=True, eq=False)
class CrossFit:
    """Linear classifiers [k + 1], the offset last: the mean one, and those that have not seen a fold of the target."""

    mean: np.ndarray
    without: dict[int, np.ndarray]  # empty if the target lies in one fold
    penalty: float


def cross_fit(target: Side, pool: Side, folds: np.ndarray) -> CrossFit:
    """Classifiers with the ridge that serves images left out best.

    Args:
        target: Its images, [m, k].
        pool: Images of the pools, [s, k].
        folds: [m] fold of every target image; pool images are dealt out in turn.
    """
    present = np.unique(folds)
    if len(present) < 2:
        only = fit_path(target, pool, PENALTIES[:1])[0]
        return CrossFit(only, {}, PENALTIES[0])
    dealt = present[np.arange(len(pool.points)) % len(present)]
    paths, losses = {}, np.zeros(len(PENALTIES))
    for fold in present.tolist():
        (seen, held), (others, kept) = _parted(target, folds == fold), _parted(pool, dealt == fold)
        paths[fold] = fit_path(seen, others, PENALTIES)
        for side, sign, total in ((held, 1, target.weights.sum()), (kept, -1, pool.weights.sum())):
            losses += [side.weights @ _loss(sign * _odds(side.points, found)) / total for found in paths[fold]]
    best = int(losses.argmin())
    without = {fold: path[best] for fold, path in paths.items()}
    return CrossFit(np.mean(list(without.values()), axis=0), without, PENALTIES[best])


def fit_path(target: Side, pool: Side, penalties: tuple[float, ...]) -> list[np.ndarray]:
    """Coefficients [k + 1] for every penalty: minimize  mean loss of target / 2 + of pool / 2 + penalty / 2 |v|^2.

    Args:
        target: Images that shall have positive odds.
        pool: Images that shall have negative ones; may be none.
        penalties: Strongest first.
    """
    sides = [side for side in (target, pool) if len(side.points)]
    points = np.vstack([side.points for side in sides]).astype(np.float64)
    sign = np.concatenate([np.full(len(side.points), 1.0 if side is target else -1.0) for side in sides])
    weights = np.concatenate([side.weights / side.weights.sum() / 2 for side in sides])
    problem, found = _Problem(np.hstack([points, np.ones((len(points), 1))]), sign, weights), []
    coefficients = np.zeros(points.shape[1] + 1)
    for penalty in penalties:
        coefficients = problem.solve(penalty, coefficients)
        found.append(coefficients)
    return found


def log_weights(odds: np.ndarray, own: float) -> np.ndarray:
    """Log weights [n] of a draw from candidates of which a share ``own`` is the target's.

    Args:
        odds: [n] log p_target / p_pool.
        own: The target's share of all candidates.
    """
    with np.errstate(divide="ignore"):  # a share of 0 or 1
        return np.asarray(odds - np.logaddexp(np.log1p(-own), np.log(own) + odds))


@dataclass(frozen=True, eq=False)
class _Problem:
    points: np.ndarray  # [n, k + 1], ones last
    sign: np.ndarray  # [n] 1 for target, -1 for pool
    weights: np.ndarray  # [n]

    def solve(self, penalty: float, start: np.ndarray) -> np.ndarray:
        ridge = np.full(len(start), penalty)
        ridge[-1] = 0.0

        def value(c: np.ndarray) -> tuple[float, np.ndarray]:
            margin = self.sign * (self.points @ c)
            pull = self.weights * self.sign * expit(-margin)
            return float(self.weights @ _loss(margin) + ridge @ c**2 / 2), ridge * c - pull @ self.points

        def curvature(c: np.ndarray) -> np.ndarray:
            share = expit(self.points @ c)
            bend = (self.weights * share * (1 - share))[:, None] * self.points
            return np.asarray(self.points.T @ bend + np.diag(ridge))

        found = minimize(value, start, jac=True, hess=curvature, method="trust-exact", options={"gtol": TOLERANCE})
        return np.asarray(found.x)


def _loss(margin: np.ndarray) -> np.ndarray:
    return np.asarray(np.logaddexp(0, -margin))


def _odds(points: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    return np.asarray(points @ coefficients[:-1] + coefficients[-1])


def _parted(side: Side, held: np.ndarray) -> tuple[Side, Side]:
    """The images that are not held out, and those that are."""
    seen, out = (Side(side.points[part], side.weights[part]) for part in (~held, held))
    return seen, out


def _pool_side(points: np.ndarray) -> Side:
    rows = np.random.default_rng(0).permutation(len(points))[:POOL_ROWS]
    return Side(points[rows], np.ones(len(rows)))


def _log_odds(candidates: Candidates, frame: Whitening, fit: CrossFit, folds: np.ndarray) -> np.ndarray:
    """Log p_target / p_pool [n] of all candidates, by classifiers that have not seen the target's own among them."""
    n, odds = len(candidates), np.empty(len(candidates))
    for start in range(0, n, BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, n))
        points = frame.apply(candidates.vectors(rows)).astype(np.float64)
        odds[rows] = _odds(points, fit.mean)
        fold = np.where(candidates.own[rows], folds[np.where(candidates.own[rows], candidates.place[rows], 0)], FOLDS)
        for number, classifier in fit.without.items():
            odds[rows[fold == number]] = _odds(points[fold == number], classifier)
        candidates.progress("classify", int(rows[-1]) + 1, n)
    return odds


def _reasons(odds: np.ndarray) -> list[str]:
    ratios = np.exp(np.clip(odds, -LARGEST, LARGEST))
    return [f"classifier: {ratio:,.3g} times as likely in the target as in the pools" for ratio in ratios]
