"""Small groups of candidates that lie together, so that a draw from a pool serves all of it evenly.

A set of points is halved at the median of the direction in which it spreads most, and its halves likewise, until no
part has more than ``size`` points. One point of every part is a stratified sample of the whole: its means have less
variance than those of a plain draw, and a choice within a part leans to no side of the pool.

Cost: n log2(n / size) for n points; memory: 8 bytes per point beside them.

Source: k-d trees, Bentley (1975); stratified sampling, Neyman (1934).
"""

from __future__ import annotations

import numpy as np

SPREAD_POINTS = 2048  # at most so many tell in which direction a part spreads most


def strata(points: np.ndarray, rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Parts of some rows.

    Args:
        points: [n, k].
        rows: [r] into them.
        size: Points of a part, at most; 1 or more.

    Returns:
        Rows by part, each of ``size / 2`` rows or more unless all fit into one; equal coordinates keep their order.
    """
    if not len(rows):
        return []
    if len(rows) <= size:
        return [rows]
    some = points[rows[:: -(-len(rows) // SPREAD_POINTS)]]
    axis = int(some.var(axis=0, dtype=np.float64).argmax())
    order, half = np.argsort(points[rows, axis], kind="stable"), len(rows) // 2
    return strata(points, rows[order[:half]], size) + strata(points, rows[order[half:]], size)
