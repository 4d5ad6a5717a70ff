"""The order of the pools, and how sure it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from curate.results import PoolScore

CERTAIN = 0.975  # one-sided: a difference outside its 95% interval


def ranked(pools: Sequence[PoolScore], nearer: Callable[[str, str], float]) -> tuple[PoolScore, ...]:
    """Nearest first, ranks from 1, which pools each one cannot be told from, and how surely it is before the next.

    Args:
        pools: In any order.
        nearer: Probability that the pool of one name is nearer than that of another.
    """
    order = sorted(pools, key=lambda pool: (pool.metrics["frechet"].value or 0.0, pool.name))
    names = [pool.name for pool in order]
    return tuple(
        replace(
            pool,
            rank=place,
            tied_with=tuple(o for o in names if o != pool.name and 1 - CERTAIN < nearer(pool.name, o) < CERTAIN),
            before_next=nearer(pool.name, names[place]) if place < len(names) else None,
        )
        for place, pool in enumerate(order, 1)
    )


def settled(a: PoolScore, b: PoolScore) -> bool:
    """True if ``a`` is nearer than ``b`` beyond the error of their difference."""
    return a.rank < b.rank and b.name not in a.tied_with
