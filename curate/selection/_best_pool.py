"""best-pool: a uniform draw from the single pool that the score ranks nearest.

What one gets by choosing one data set and no more: the target's own images are not drawn, and the budget is not filled
from a second pool. A pool of which nothing is left (copies of the target, excluded images) is passed over.
"""

from __future__ import annotations

from dataclasses import replace

from curate.selection._candidates import Candidates, Choice, drawn
from curate.selection._ledger import Ledger


def choose(candidates: Candidates, ledger: Ledger, *, seed: int) -> Choice:
    """Draws from the nearest pool; needs ``candidates.report``."""
    assert candidates.report is not None
    left = candidates.counts()
    ranked = [pool for pool in candidates.report.pools if pool.name in left]
    pool = next((pool for pool in ranked if left[pool.name]), ranked[0])
    rows, reason = candidates.rows_of(pool.name), f"best-pool: drawn from {pool.name}, the nearest pool"
    choice = drawn(candidates, ledger, rows, seed=seed, reason=reason)
    stopped = "" if ledger.done else f"{pool.name}, the nearest pool, holds {len(rows):,} images"
    return replace(choice, parameters={"pool": pool.name, "verdict": pool.verdict}, stopped=stopped)
