"""The order of the pools, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from curate.results import Estimate, PoolScore

CERTAIN = 0.975  # one-sided: a difference outside its 95% interval


def ranked(pools: Sequence[PoolScore]) -> tuple[PoolScore, ...]:
    """Nearest first, ranks from 1, which pools each one cannot be told from, and how surely it is before the next."""
    order = sorted(pools, key=lambda pool: (_distance(pool).value or 0.0, pool.name))
    following = [_distance(pool) for pool in order[1:]]
    return tuple(
        replace(
            pool,
            rank=place,
            tied_with=tuple(o.name for o in order if o is not pool and _tied(pool, o)),
            before_next=nearer(_distance(pool), following[place - 1]) if place < len(order) else None,
        )
        for place, pool in enumerate(order, 1)
    )


def nearer(a: Estimate, b: Estimate) -> float:
    """Probability that ``a`` is the smaller one, taking the errors as independent (sharing the target, they agree)."""
    spread = float(np.hypot(a.se or 0.0, b.se or 0.0))
    gap = (b.value or 0.0) - (a.value or 0.0)
    return float(stats.norm.cdf(gap / spread)) if spread else float(np.sign(gap) / 2 + 0.5)


def _tied(a: PoolScore, b: PoolScore) -> bool:
    return 1 - CERTAIN < nearer(_distance(a), _distance(b)) < CERTAIN


def _distance(pool: PoolScore) -> Estimate:
    return pool.metrics["frechet"]
