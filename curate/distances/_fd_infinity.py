"""FD-infinity: the full-dimension Fréchet distance read off at infinitely many images.

FD is biased up by c_a / n + c_b / m. It is measured on nested shares of both sets, and the straight line in
x = 1/n + 1/m through these points is read at x = 0. Both sets are shrunk together, so the bias is proportional to x
whatever n, m and the two constants are; shrinking one side, as published, leaves the other side's bias in (0.900 where
the truth is 0.814 at d = 64, n = m = 1,500; 0.816 here).

A share is a run of whole folds, counted in a circle: 10 of 10, 9, 8, down to 5. Copies and groups therefore stay
together, Moments carry all that is needed, and every share is averaged over several starting folds, where one random
order would add its own noise. The ten shares that leave one fold out also give the standard error: their residuals
about the line are a delete-a-fold jackknife over both sides at once.

The line holds while the smallest share has clearly more images than there are dimensions. Below that FD is no longer
linear in x: two random parts of one set read 147 at n = 250 and 41 at n = 900 (d = 1280; plain FD: 251 and 110). The
headline distance ``frechet`` is the one to use there.

Source: Chong and Forsyth, Effectively unbiased FID and Inception Score and where to find them (CVPR 2020), one-sided.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from curate.distances._fold_errors import LEVEL
from curate.distances._frechet_full import between
from curate.distances._samples import Sample, as_moments
from curate.results import Estimate
from embeddings.errors import TooFewImagesError, UsageError
from embeddings.moments import FOLDS, Moments

POINTS = 6
MAX_POINTS = FOLDS - 2  # down to 3 of 10 folds
STARTS = range(0, FOLDS, 2)  # first folds of a share; a share of 9 folds starts at every one


def fd_infinity(target: Sample, pool: Sample, *, points: int = POINTS, seed: int = 0) -> Estimate:
    """Full-dimension Fréchet distance of a pool and a target, extrapolated to infinitely many images.

    Args:
        target: Array [n, d], store or Moments; n of some 4 d or more for a sound figure.
        pool: The same, [m, d], from the same encoder.
        points: Sizes on the line, 2 to 8; each further one is a share smaller by a tenth.
        seed: Another seed draws other folds (not for Moments, whose folds are fixed).

    Returns:
        Estimate in squared units of the embedding. Lower = closer; 0 = same distribution, and unbiased there, so it may
        be negative. The 95% interval covers 95% of the time where the distributions differ and 98% where they do not.
        ``null`` is None where the smallest share has fewer images than dimensions: the line does not hold there, and
        ``method`` says so. Time: 1 + 5 points trace terms of d^3 or min(n, m)^3.

    Raises:
        TooFewImagesError: a share with fewer than 2 images on a side, or all images in one fold.
        EncoderMismatchError: different encoders.
        UsageError: points outside 2 to 8.
        SourceError: an array that is not finite, not [n, d], or empty.
    """
    if not 2 <= points <= MAX_POINTS:
        raise UsageError(f"A line through {points} sizes; wanted 2 to {MAX_POINTS}.", hint=f"Ask for {POINTS}.")
    x, y = as_moments(target, seed=seed), as_moments(pool, seed=seed)
    x.require_same_encoder(y)
    shares = _shares(points)
    _check(x, y, shares)
    measured = [np.array([_point(x, y, folds) for folds in share]) for share in shares]  # [starts, (x, FD)] each
    line = np.array([share.mean(axis=0) for share in measured])
    slope, value = np.polyfit(line[:, 0], line[:, 1], 1)
    error, degrees = _error(measured[0][0, 0], measured[1], slope)
    reach = error * float(stats.t.ppf((1 + LEVEL) / 2, degrees))
    sound = min(_smallest(x, shares), _smallest(y, shares)) > x.dim
    return Estimate(
        value=float(value),
        low=float(value) - reach,
        high=float(value) + reach,
        se=error,
        n=(len(y), len(x)),
        unit="squared embedding units",
        method=_method(points, sound=sound),
        seed=seed,
        null=0.0 if sound else None,
    )


def _shares(points: int) -> list[list[list[int]]]:
    """Runs of folds by size: all of them, the ten runs of nine, then runs of eight, seven, ... folds."""
    starts = [range(1), range(FOLDS), *[STARTS] * (points - 2)]
    return [[[(s + i) % FOLDS for i in range(FOLDS - less)] for s in first] for less, first in enumerate(starts)]


def _point(x: Moments, y: Moments, folds: list[int]) -> tuple[float, float]:
    """1/n + 1/m and the distance over some folds of both sides."""
    a, b = x.pooled(folds), y.pooled(folds)
    return 1 / a[0] + 1 / b[0], between(a, b)


def _error(whole: float, nine: np.ndarray, slope: float) -> tuple[float, int]:
    """Standard error and its degrees of freedom from the shares that lack one fold.

    Args:
        whole: 1/n + 1/m of all images.
        nine: [FOLDS, (x, FD)] without each fold.
        slope: Of the line; what a share reads higher because it is smaller is no error.
    """
    left_out = nine[nine[:, 0] > whole]  # folds that hold images
    share = 1 - whole / left_out[:, 0]
    residual = left_out[:, 1] - slope * left_out[:, 0]
    residual -= residual.mean()
    return float(np.sqrt(((1 / share - 1) * residual**2).mean())), len(left_out) - 1


def _smallest(moments: Moments, shares: list[list[list[int]]]) -> int:
    return min(int(moments.n[folds].sum()) for folds in shares[-1] + shares[1])


def _check(x: Moments, y: Moments, shares: list[list[list[int]]]) -> None:
    for name, moments in (("target", x), ("pool", y)):
        if _smallest(moments, shares) < 2:
            raise TooFewImagesError(
                f"The {name}'s {len(moments)} images leave a share with fewer than 2; a line needs 2 in each.",
                hint="Use more images, or a finer group column (rows of one group and exact copies count as one).",
            )


def _method(points: int, *, sound: bool) -> str:
    line = f"FD-infinity, both sides, line through {points} sizes, jackknife over {FOLDS} folds"
    return line if sound else f"{line}; fewer images than dimensions: the line does not hold"
