"""CMMD as published, to compare with other tools' figures: 1000 x biased MMD^2 with one Gaussian kernel.

    CMMD = 1000 [ mean k(x, x') + mean k(y, y') - 2 mean k(x, y) ],   k = exp(-|x - y|^2 / (2 * 10^2)), |x| = |y| = 1

all pairs, each image with itself among them. Unit vectors are at most 2 apart, so the kernel is nearly linear and CMMD
is about 10 |mean x - mean y|^2: it hardly sees a shift of covariance. Published figures use CLIP ViT-L/14 at 336 px.

Source: Jayasumana et al., Rethinking FID: towards a better evaluation metric for image generation (CVPR 2024).
"""

from __future__ import annotations

import numpy as np

from curate.distances._kernels import Gaussian, PairSums, Side, cross_sums, middle, own_sums
from curate.distances._samples import Vectors, as_vectors
from curate.results import Estimate
from embeddings.moments import FOLDS

BANDWIDTH = 10.0
SCALE = 1000.0
EVERY_FOLD = np.arange(FOLDS)


def cmmd(target: Vectors, pool: Vectors) -> Estimate:
    """CMMD of a pool and a target, for comparison only.

    Args:
        target: Array [n, d] or store; rows are scaled to unit length (a row of zeros stays zero).
        pool: The same, [m, d], from the same encoder.

    Returns:
        Estimate in thousandths of a squared difference of kernel means. Lower = closer; biased up. ``null`` is that
        bias, what it would read for the same distribution: 1000 (1 - mean k over independent pairs) / n, summed over
        both sides, or None where a side has no independent pair. A set against itself reads 0. No interval.

    Raises:
        EncoderMismatchError: different encoders.
        SourceError: an array that is not finite, not [n, d], or empty.
    """
    ours, theirs = as_vectors(target), as_vectors(pool)
    ours.spec.require_same(theirs.spec, ("target", "pool"))
    x, y = (Side.of(store, unit_length=True) for store in (ours, theirs))
    kernel, center = Gaussian(BANDWIDTH**2), middle(x, y)
    own = [own_sums(kernel, side, center) for side in (x, y)]
    value = sum(_biased(*sums) for sums in own) - 2 * cross_sums(kernel, x, y, center).mean(EVERY_FOLD, EVERY_FOLD)
    bias = sum(_biased(*sums) - sums[0].mean(EVERY_FOLD, EVERY_FOLD) for sums in own)
    return Estimate(
        value=SCALE * value,
        n=(len(theirs), len(ours)),
        unit="squared difference of kernel means, x 1000",
        method="CMMD as published: biased MMD^2, Gaussian kernel, sigma = 10, unit vectors",
        null=SCALE * bias if np.isfinite(bias) else None,
    )


def _biased(apart: PairSums, within: PairSums) -> float:
    """Mean over all pairs, those of one unit and the diagonal among them."""
    return float((apart.sums.sum() + within.sums.sum()) / (apart.counts.sum() + within.counts.sum()))
