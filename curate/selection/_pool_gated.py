"""pool-gated: a uniform draw from the target's own images and the pools that the score calls same or near.

The control that tells whether ranking images inside near pools adds anything to choosing the right pools.
"""

from __future__ import annotations

from dataclasses import replace

from curate.results import TARGET
from curate.selection._candidates import Candidates, Choice, drawn
from curate.selection._ledger import Ledger


def choose(candidates: Candidates, ledger: Ledger, *, seed: int) -> Choice:
    """Draws inside the gate; needs ``candidates.report``. Stops where the gate's images run out."""
    assert candidates.report is not None
    near = [name for name in candidates.report.near if name in candidates.stores]
    rows = candidates.rows_of(TARGET, *near)
    reason = "pool-gated: drawn from the target and the near pools"
    choice = drawn(candidates, ledger, rows, seed=seed, reason=reason)
    return replace(choice, parameters={"near": near}, stopped="" if ledger.done else _why(near, len(rows)))


def _why(near: list[str], n: int) -> str:
    if not near:
        alone = f"; the target alone holds {n:,} images" if n else ""
        return f"no pool is near: do not pretrain on these{alone}"
    return f"the target's own images and the near pools ({', '.join(near)}) hold {n:,} images"
