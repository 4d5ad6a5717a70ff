"""Where measures disagree, and what that means, in plain sentences.

The headline distance compares sets as a whole. Coverage and distances to neighbors look at single images, the degree-2
MMD weighs directions by their variance, and full FD depends on the number of images. Where they point to different
sides, the reason is nearly always one of those written here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from curate.results import Estimate, PoolScore
from curate.scoring.ranking import settled
from curate.scoring.verdicts import COVERS, has_far_part, relative

MISSES = 0.5  # of the coverage expected of a pool of the target's own kind
STRAYS = 1.5  # times the distance to target neighbors expected of such a pool
OFFSET = 2 / 3  # share of the distance
TOLD = 0.05  # of a pool, surely: a far part
FLATTERS = 0.05  # share of copies
SHOWN = 3
OTHERS = {
    "mmd": (
        "the degree-2 MMD",
        "it weighs directions by variance, the distance by standard deviation",
    ),
    "coverage": ("coverage", "it counts target images that are served, however much else a pool holds"),
    "frechet_full": ("full FD", "it depends on the number of images, and its other dimensions are noise at such sizes"),
}


def remarks(pool: PoolScore) -> list[str]:
    """What other measures add to a pool's verdict."""
    checks = (_far_part, _missing_part, _serves_within, _strays, _same_mmd, _offset, _copies)
    return [said for check in checks if (said := check(pool))]


def disagreements(pools: Sequence[PoolScore]) -> list[str]:
    """Pairs of pools that the headline distance settles one way and another measure the other way."""
    found = []
    for name, (called, reason) in OTHERS.items():
        pairs = [f"{a.name} before {b.name}" for a, b in combinations(pools, 2) if _turned(a, b, name)]
        if pairs:
            more = f" and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
            ordered = ", ".join(pairs[:SHOWN]) + more
            found.append(f"By the distance the order is {ordered}; by {called} it is the other way round: {reason}.")
    return found


def _turned(a: PoolScore, b: PoolScore, name: str) -> bool:
    """True if ``a`` is surely nearer by the distance and ``b`` surely nearer by another measure."""
    x, y = a.metrics.get(name), b.metrics.get(name)
    if x is None or y is None or x.value is None or y.value is None:
        return False
    if not settled(a, b):
        return False
    if not x.lower_is_closer:
        return _end(x, x.high) / (x.null or 1) < _end(y, y.low) / (y.null or 1)
    return _end(x, x.low) > _end(y, y.high)


def _end(estimate: Estimate, end: float | None) -> float:
    """An end of the interval, or the value where there is none."""
    return (estimate.value or 0.0) if end is None else end


def _far_part(pool: PoolScore) -> str:
    if pool.verdict == "copies" or not has_far_part(pool.findings, TOLD):
        return ""
    share, far, rest = (pool.findings["parts"][name] for name in ("share", "far", "rest"))
    mixed = has_far_part(pool.findings)
    return (
        f"About {share['value']:.0%} of its images ({share['low']:.0%} to {share['high']:.0%}) are far from the "
        f"target: as a set of their own they read {far['value']:.0f}, the others {max(rest['value'], 0):.0f}."
        + (" Select from it; do not take it whole." if mixed else "")
    )


def _missing_part(pool: PoolScore) -> str:
    coverage = pool.metrics.get("coverage")
    if pool.verdict not in ("same", "near") or coverage is None or not relative(coverage) < MISSES:
        return ""
    return (
        f"As a whole it is {pool.verdict}, but only {coverage.value:.0%} of the target's images have a neighbor in it "
        f"({coverage.null:.0%} in a pool of the target's own kind): it misses parts of the target."
    )


def _serves_within(pool: PoolScore) -> str:
    coverage = pool.metrics.get("coverage")
    if pool.verdict not in ("middle", "far") or coverage is None or not relative(coverage) >= COVERS:
        return ""
    return (
        f"As a whole it is {pool.verdict}, but {coverage.value:.0%} of the target's images have a neighbor in it: what "
        "the target needs is there among other images. Select from it; do not take it whole."
    )


def _strays(pool: PoolScore) -> str:
    away = pool.metrics.get("to_target")
    if pool.verdict not in ("same", "near") or away is None or not relative(away) > STRAYS:
        return ""
    return (
        f"Its images lie {relative(away):.1f} times as far from the target's as the target's own do: near as a whole, "
        "it holds images that the target does not know."
    )


def _same_mmd(pool: PoolScore) -> str:
    mmd = pool.metrics.get("mmd")
    if mmd is None or mmd.low is None or mmd.high is None or pool.verdict == "same":
        return ""
    if not mmd.low <= 0 <= mmd.high or (pool.metrics["frechet"].low or 0.0) <= 0:
        return ""
    return (
        "The degree-2 MMD does not tell it from the target at these sizes, the distance does: what differs are "
        "directions of small variance, which that kernel hardly sees."
    )


def _offset(pool: PoolScore) -> str:
    gap, distance = pool.metrics.get("mean_gap"), pool.metrics["frechet"].value or 0.0
    if pool.verdict == "same" or gap is None or gap.value is None or distance <= 0 or gap.value < OFFSET * distance:
        return ""
    return (
        f"{min(gap.value / distance, 1):.0%} of the distance is one offset that all its images share. A change of "
        "format does that (gray, background, resolution, compression), and so does other content: `--also factors` "
        "tells which."
    )


def _copies(pool: PoolScore) -> str:
    copied = pool.metrics.get("copies")
    if copied is None or not (copied.value or 0.0) >= FLATTERS or pool.verdict == "copies":
        return ""
    return f"{copied.value:.0%} of it are copies of target images, which flatter every figure here."
