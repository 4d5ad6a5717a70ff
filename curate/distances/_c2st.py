"""Classifier two-sample test: how well a linear classifier tells target from pool on images it has not seen.

For every fold f, linear discriminant analysis on the other folds; fold f is scored by it:

    w_f = A_f^-1 (m_t - m_p),   A_f = (1 - r) S + r (tr S / d) I,   S = (S_t + S_p) / 2

The average S makes the two sides count alike and is what maximizes the AUC of a linear score between Gaussians. The
shrinkage r is the oracle-approximating one of Chen et al., a closed form in S and the number of independent blocks of
images: nothing is tuned, and n below d works. All of it comes from the moments of folds; the vectors are read once more
to be scored. Pairs are compared within a fold only, where one classifier scored both: pooled over folds, cross-fitted
scores read below 0.5 under the null.

Copies and groups share a fold across both sets, else a copy of a target image in the pool would be taken for target.

The interval is a delete-a-fold jackknife with the classifiers refitted without the fold (their means; A_f is kept). The
folds' figures share training images, so their own spread, or DeLong's error, is too small, up to 1.4 times under the
null. The p value is a randomization test on the cross-fitted difference of mean scores, sum over f != g of
h_f h_g d_f' A^-1 d_g, with d_f = m_tf - m_pf: under the null d_f and -d_f are equally likely, and folds are independent
whatever the groups. All sign patterns are counted, the observed one among them, so p is never 0 (1/512 at best).

A linear classifier sees what shifts the mean; sets that differ in spread alone read 0.5.

Source: Lopez-Paz and Oquab, Revisiting classifier two-sample tests (ICLR 2017); Ben-David et al. (2010) for the proxy
A-distance; Chen et al., Shrinkage algorithms for MMSE covariance estimation (2010), as scikit-learn states it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from scipy import linalg, stats

from curate.distances._frechet import NORMAL_95, require_images
from curate.distances._jackknife import delete_fold_jackknife
from curate.distances._samples import Vectors, as_vectors, in_given_order, joint_folds
from curate.results import Estimate
from embeddings.errors import TooFewImagesError
from embeddings.moments import FOLDS, Moments, block_names, unpack
from embeddings.store import EmbeddingStore
from embeddings.vectors import Vectors as Rows
from embeddings.vectors import blocks

MIN_FOLDS = 3
DECIMALS = 6

Classifier = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class TwoSample:
    """What the classifier found: effect sizes, whether they are chance, and the score of every image."""

    auc: Estimate  # 0.5 = indistinguishable, 1 = always told apart
    accuracy: Estimate  # mean of both sides' shares of right answers; 0.5 = indistinguishable
    pad: Estimate  # proxy A-distance 2 (1 - 2 error); 0 = indistinguishable, 2 = always told apart
    p: float  # of no difference in mean scores
    target_scores: np.ndarray  # [n] float64 log odds of being a target image, by a classifier that has not seen it
    pool_scores: np.ndarray  # [m] float64, likewise

    def most_telling(self, count: int = 12) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers of the target images least like the pool, and of the pool images least like the target."""
        ordered = (np.argsort(-self.target_scores, kind="stable"), np.argsort(self.pool_scores, kind="stable"))
        return ordered[0][:count], ordered[1][:count]


def c2st(target: Vectors, pool: Vectors, *, seed: int = 0) -> TwoSample:
    """Tells target from pool by a cross-fitted linear classifier.

    Args:
        target: Array [n, d] or store; n >= 20.
        pool: The same, [m, d], from the same encoder; m >= 20.
        seed: Another seed draws other folds.

    Returns:
        TwoSample; lower AUC, accuracy and PAD = closer. The 95% intervals are for classifiers trained on nine tenths of
        so many images, conservative under the null.

    Raises:
        TooFewImagesError: fewer than 20 images on a side, or too few independent groups.
        EncoderMismatchError: different encoders.
    """
    ours, theirs = as_vectors(target), as_vectors(pool)
    ours.spec.require_same(theirs.spec, ("target", "pool"))
    for name, store in (("target", ours), ("pool", theirs)):
        require_images(len(store), name)
    fit = CrossFit(*_sides(ours, theirs, salt=str(seed) if seed else ""))
    classifiers = [fit.without(fold) for fold in range(FOLDS)]
    scored = [scores(side, classifiers) for side in fit.sides]
    auc, accuracy = _estimates(fit, scored, seed)
    # The column of a row's own fold is the classifier that leaves out that fold and no other.
    own = [s[np.arange(len(s)), side.folds].round(DECIMALS) for side, s in zip(fit.sides, scored, strict=True)]
    return TwoSample(
        auc=auc,
        accuracy=accuracy,
        pad=_proxy_distance(accuracy),
        p=sign_flip_p(*fit.gaps(), fit.within()),
        target_scores=in_given_order(own[0], target, ours),
        pool_scores=in_given_order(own[1], pool, theirs),
    )


def sign_flip_p(gaps: np.ndarray, weights: np.ndarray, metric: np.ndarray) -> float:
    """The p value of the null that every fold's gap is as likely as its opposite, over all patterns of signs.

    Args:
        gaps: [K, d] differences of means by fold.
        weights: [K] weight of every fold.
        metric: [d, d] positive definite; lengths are measured by its inverse.
    """
    weighted = gaps * weights[:, None]
    gram = weighted @ linalg.cho_solve(linalg.cho_factor(metric), weighted.T)
    signs = np.array([(1, *rest) for rest in product((1, -1), repeat=len(gaps) - 1)])
    # Same-fold terms do not change with the signs, so they are left in.
    statistic = np.einsum("bk,kl,bl->b", signs, gram, signs)
    return float((statistic >= statistic[0] * (1 - 1e-9)).mean())


@dataclass(frozen=True)
class Side:
    vectors: Rows  # [n, d]
    folds: np.ndarray  # [n]
    moments: Moments
    independent: int  # blocks of copies and groups

    def mean(self, *without: int) -> np.ndarray:
        """Mean [d] over all folds but some."""
        n = np.where(np.isin(np.arange(FOLDS), without), 0, self.moments.n)
        mean: np.ndarray = n @ self.moments.mean / n.sum()
        return mean


@dataclass(frozen=True)
class CrossFit:
    """Both sides by fold, and the classifiers that leave out one fold or two."""

    target: Side
    pool: Side

    def __post_init__(self) -> None:
        if (found := len(self.folds)) < MIN_FOLDS:
            raise TooFewImagesError(
                f"{found} of {FOLDS} folds hold images of both sides; a classifier test needs {MIN_FOLDS}.",
                hint="Use more images, or a finer group column (rows of one group and exact copies count as one).",
            )

    @property
    def sides(self) -> tuple[Side, Side]:
        """Target and pool."""
        return self.target, self.pool

    @property
    def folds(self) -> np.ndarray:
        """Folds that hold images of both sides."""
        return np.flatnonzero((self.target.moments.n > 0) & (self.pool.moments.n > 0))

    def gaps(self) -> tuple[np.ndarray, np.ndarray]:
        """Differences of the folds' means [K, d] and the precision [K] of each."""
        gaps = self.target.moments.mean - self.pool.moments.mean
        precision = 1 / sum(1 / side.moments.n[self.folds] for side in self.sides)
        return gaps[self.folds], np.asarray(precision)

    def within(self) -> np.ndarray:
        """Covariance [d, d] about the means of fold and side, shrunk: no sign of a fold's gap changes it."""
        scatters = [
            side.moments.scatter.sum(axis=0) / max(len(side.moments) - np.count_nonzero(side.moments.n), 1)
            for side in self.sides
        ]
        return self._shrunk(unpack((scatters[0] + scatters[1]) / 2))

    def without(self, fold: int) -> Classifier:
        """Directions [d, FOLDS] and offsets [FOLDS]; column g is trained without ``fold`` and g."""
        kept = [f for f in range(FOLDS) if f != fold]
        covariances = [side.moments.pooled(kept)[2] for side in self.sides]
        means = np.stack([[side.mean(fold, g) for g in range(FOLDS)] for side in self.sides])
        factor = linalg.cho_factor(self._shrunk((covariances[0] + covariances[1]) / 2))
        directions = linalg.cho_solve(factor, (means[0] - means[1]).T)
        return directions, np.einsum("dg,gd->g", directions, means.mean(axis=0))

    def _shrunk(self, covariance: np.ndarray) -> np.ndarray:
        # The average of two covariances has the degrees of freedom of the two harmonically combined.
        return shrunk(covariance, 4 / sum(1 / side.independent for side in self.sides))


def shrunk(covariance: np.ndarray, n: float) -> np.ndarray:
    """Covariance [d, d] of n images drawn toward a multiple of the identity: positive definite, by a closed form."""
    d, trace = len(covariance), np.trace(covariance)
    if trace <= 0:
        return np.eye(d)
    square = (covariance**2).sum()
    spread = (n + 1) * (square - trace**2 / d)
    share = min(1.0, (square + trace**2) / spread) if spread > 0 else 1.0
    return np.asarray((1 - share) * covariance + share * trace / d * np.eye(d))


def _sides(target: EmbeddingStore, pool: EmbeddingStore, salt: str) -> tuple[Side, Side]:
    folds = joint_folds(target, pool, salt=salt)
    made = []
    for store, fold in zip((target, pool), folds, strict=True):
        moments = Moments.from_vectors(store.vectors(), fold)
        made.append(Side(store.vectors(), fold, moments, len(np.unique(block_names(store.rows())))))
    return made[0], made[1]


def scores(side: Side, classifiers: list[Classifier]) -> np.ndarray:
    """Log odds [n, FOLDS] of being a target image, by the classifiers that have not seen the row's fold."""
    out = np.empty((len(side.folds), FOLDS))
    for start, block in blocks(side.vectors, dtype=np.float64):
        part = side.folds[start : start + len(block)]
        for fold in np.unique(part):
            rows = np.flatnonzero(part == fold)
            directions, offsets = classifiers[fold]
            out[start + rows] = block[rows] @ directions - offsets
    return out


def _estimates(fit: CrossFit, scored: list[np.ndarray], seed: int) -> tuple[Estimate, Estimate]:
    """AUC and balanced accuracy."""
    sizes = np.stack([side.moments.n for side in fit.sides])
    ranked, right = np.full((FOLDS, FOLDS), 0.5), np.full((2, FOLDS, FOLDS), 0.5)
    for fold in range(FOLDS):
        target, pool = (s[side.folds == fold] for side, s in zip(fit.sides, scored, strict=True))
        if len(target) and len(pool):
            ranked[fold] = _auc(target, pool)
        for side, scores in enumerate((target, -pool)):
            if len(scores):
                right[side, fold] = _auc(scores, np.zeros((1, FOLDS)))
    shares = [_with_refits(table, n) for table, n in zip(right, sizes, strict=True)]
    figures = (_with_refits(ranked, sizes.prod(axis=0)), np.mean(shares, axis=0))
    fewest = min(side.independent for side in fit.sides)
    auc, accuracy = (_estimate(figure, sizes.sum(axis=0), fewest) for figure in figures)
    n = int(sizes[1].sum()), int(sizes[0].sum())
    return replace(auc, unit="AUC", n=n, seed=seed), replace(accuracy, unit="balanced accuracy", n=n, seed=seed)


def _with_refits(table: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[1 + FOLDS]: a figure, and what it is without each fold.

    Args:
        table: [FOLDS, FOLDS] the figure in fold f by the classifier without f and g.
        weights: [FOLDS] weight of fold f.
    """
    kept = weights[:, None] * (1 - np.eye(FOLDS))
    sums = np.append(weights @ np.diag(table), (kept * table).sum(axis=0))
    return np.asarray(sums / np.append(weights.sum(), kept.sum(axis=0)))


def _estimate(figure: np.ndarray, sizes: np.ndarray, fewest: int) -> Estimate:
    """The figure with its interval; at exactly 1 the low end is that of ``fewest`` right answers in as many trials."""
    used = np.flatnonzero(sizes)
    theta = float(figure[0])
    error = float(np.sqrt(delete_fold_jackknife(theta, figure[1:][used], sizes[used]).variance))
    reach = NORMAL_95 * error
    return Estimate(
        value=theta,
        low=max(theta - reach, 0.0) if theta < 1 else 0.025 ** (1 / fewest),
        high=min(theta + reach, 1.0),
        se=error,
        method=f"cross-fitted linear discriminant, jackknife over {FOLDS} folds",
        null=0.5,
    )


def _proxy_distance(accuracy: Estimate) -> Estimate:
    """2 (1 - 2 error) with the interval of the accuracy."""
    value, low, high = (None if a is None else 4 * a - 2 for a in (accuracy.value, accuracy.low, accuracy.high))
    error = None if accuracy.se is None else 4 * accuracy.se
    return replace(accuracy, value=value, low=low, high=high, se=error, unit="proxy A-distance", null=0.0)


def _auc(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Share [c] of pairs in which a row of ``above`` [n, c] is larger than one of ``below`` [m, c]; ties count half."""
    n, m = len(above), len(below)
    ranks = stats.rankdata(np.concatenate([above, below]), axis=0)[:n].sum(axis=0)
    return np.asarray((ranks - n * (n + 1) / 2) / (n * m))
