"""Permutation test of the MMD: could two samples of one distribution be this far apart?

Units (a group with its copies, or a single image) are dealt anew to target and pool, as many to each as they had, and
the MMD^2 is taken again from the same kernel sums, bandwidths and center: these are fixed by the pooled data, so they
do not see the labels. p = (1 + #{permuted >= observed}) / (permutations + 1) is never 0 and rejects at level a at most
a share a of the time, exactly so where units are alike on both sides (one image each, or groups of the same kind).

Source: Phipson and Smyth, Permutation p-values should never be zero, SAGMB 9 (2010).
"""

from __future__ import annotations

import numpy as np

from curate.distances._kernels import TILE_ROWS, Kernel, Side, middle
from curate.distances._mmd import make_kernel
from curate.distances._samples import Vectors, as_vectors
from curate.results import Estimate
from embeddings.errors import TooFewImagesError, UsageError

MAX_ROWS = 5_000


def mmd_permutation(
    target: Vectors, pool: Vectors, *, kernel: str = "poly2", permutations: int = 200, seed: int = 0
) -> Estimate:
    """Permutation p value of ``mmd``.

    Args:
        target: Array [n, d] or store; n + m <= 5,000 (the units' kernel matrix is held in memory: 200 MB).
        pool: The same, [m, d], from the same encoder.
        kernel: poly2, poly3 or gaussian.
        permutations: B; the smallest p is 1 / (B + 1).
        seed: Seed of the permutations.

    Returns:
        Estimate in 1 / (B + 1)..1, without an interval; small = not the same distribution. 1/2 expected under the null.

    Raises:
        TooFewImagesError: fewer than 2 independent images on a side.
        EncoderMismatchError: different encoders.
        UnknownNameError: no such kernel.
        UsageError: more than 5,000 images, or no permutations.
        SourceError: an array that is not finite, not [n, d], or empty.
    """
    ours, theirs = as_vectors(target), as_vectors(pool)
    ours.spec.require_same(theirs.spec, ("target", "pool"))
    _check_size(len(ours) + len(theirs), permutations)
    x, y = Side.of(ours), Side.of(theirs)
    sums, sizes = unit_sums(make_kernel(kernel, ours, theirs), x, y)
    p = permutation_p(sums, sizes, int(x.units.max()) + 1, permutations=permutations, rng=np.random.default_rng(seed))
    return Estimate(
        value=p,
        n=(len(theirs), len(ours)),
        unit="p value",
        lower_is_closer=False,
        method=f"MMD^2, {kernel}, {permutations} permutations of groups",
        seed=seed,
        null=0.5,
    )


def unit_sums(kernel: Kernel, x: Side, y: Side) -> tuple[np.ndarray, np.ndarray]:
    """Sums of k - 1 over the pairs of two units [u, u], 0 on the diagonal, and rows [u] per unit; x's units first."""
    center = middle(x, y)
    unit = np.concatenate([x.units, y.units + x.units.max() + 1])
    order = np.argsort(unit, kind="stable")
    rows = np.concatenate([side.read(np.arange(len(side)), center) for side in (x, y)])[order]
    sizes = np.bincount(unit)
    sums, starts = np.zeros((len(sizes), len(sizes))), np.cumsum(sizes) - sizes
    for start in range(0, len(rows), TILE_ROWS):
        tile = slice(start, start + TILE_ROWS)
        part = np.add.reduceat(kernel(rows[tile], rows), starts, axis=1, dtype=np.float64)
        np.add.at(sums, unit[order[tile]], part)
    np.fill_diagonal(sums, 0.0)
    return sums, sizes


def permutation_p(
    sums: np.ndarray, sizes: np.ndarray, units: int, *, permutations: int, rng: np.random.Generator
) -> float:
    """Share of labelings, the observed one included, whose MMD^2 is no less; the first ``units`` units are the target.

    Raises:
        TooFewImagesError: fewer than 2 units on a side.
    """
    if min(units, len(sizes) - units) < 2:
        raise TooFewImagesError(
            f"{units} and {len(sizes) - units} independent images cannot be permuted; both sides need 2.",
            hint="Use more images, or a finer group column (rows of one group and exact copies count as one).",
        )
    observed = np.arange(len(sizes)) < units
    labels = np.stack([observed, *(rng.permutation(observed) for _ in range(permutations))], axis=1).astype(float)
    values = _mmds(sums, sizes.astype(float), labels)
    slack = 1e-9 * np.abs(values).max()  # a labeling that deals copies differently ties, up to rounding
    return float((values >= values[0] - slack).sum() / (permutations + 1))


def _mmds(sums: np.ndarray, sizes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """MMD^2 [B] of labelings [u, B], 1 for the target's units."""
    inside, rest = sums @ labels, 1 - labels
    target, cross = (labels * inside).sum(axis=0), (rest * inside).sum(axis=0)
    pool = sums.sum() - target - 2 * cross
    n, m = sizes @ labels, sizes @ rest
    own = target / (n**2 - sizes**2 @ labels) + pool / (m**2 - sizes**2 @ rest)
    return np.asarray(own - 2 * cross / (n * m))


def _check_size(rows: int, permutations: int) -> None:
    if rows > MAX_ROWS:
        raise UsageError(
            f"{rows:,} images are too many for a permutation test; at most {MAX_ROWS:,} fit in memory.",
            hint="Give a random sample of both sides; with that many images the interval of mmd says as much.",
        )
    if permutations < 1:
        raise UsageError(f"{permutations} permutations give no p value; wanted at least 1.", hint="Ask for 200.")
