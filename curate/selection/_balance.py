"""What is taken among a few candidates: the one that keeps the chosen like the target as a whole.

    J(S) = 2 |m_S|^2 + |C_S - C_T|_F^2

m_S is the mean and C_S the second moment of the chosen images about the target's mean, C_T the target's, in units in
which the target's images have mean square 1. Pools that cannot be told from the target count as more images of it: few
images' own moments are off by more than those of all together (51 garments', alone, made a choice worse than a plain
draw, by 3.9 +- 1.7 where all together made it better by 1.3 +- .5). J is MMD^2 with the kernel (x.y + 1)^2, so this is
kernel herding among a few candidates at a time: each pick x is the one with the least

    |S + x| J(S + x) + 0.05 d(x)     d(x) = squared distance to the image whose turn it is, its price included

and d = 0 where it is nobody's turn. Nearest images alone lean to one side, as all of a pool are drawn in the same
style; of sixteen near ones some lean the other way. Only moments of what was taken are kept, so a pick costs r k^2
operations, whatever the size of the pools.

Source: Chen, Welling and Smola, Super-samples from kernel herding (UAI 2010). Deviations: without replacement, and only
among the nearest of the target image whose turn it is, or among neighbors, so that no kind of image is passed over.
"""

from __future__ import annotations

import numpy as np

NEARNESS = 0.05  # from 0 to 0.1 the distance to unseen images hardly changes; it makes equals go by price
WIDTH = 2.0  # nothing is compared that is more than so many times as far (squared) as the nearest
DECIMALS = 9  # gains nearer than that are ties


class Balance:
    """The chosen images' mean and second moment, and the pick that brings them nearest to the target's."""

    def __init__(self, targets: np.ndarray, weights: np.ndarray, pool: np.ndarray, *, reach: int) -> None:
        """From images like the target's [m, k], how much each counts [m], the candidates [n, k], and how many compete.

        The target's own image, at distance 0, is always taken.
        """
        self.reach, self._pool = reach, pool
        share = weights / weights.sum()
        self._mean = share @ targets
        gaps = targets - self._mean
        self._unit = float(np.sqrt(share @ (gaps**2).sum(axis=1))) or 1.0
        gaps = gaps / self._unit
        self._wanted = (gaps.T * share) @ gaps
        self._taken, self._sum, self._square = 0, np.zeros(targets.shape[1]), np.zeros_like(self._wanted)

    def pick(self, rows: np.ndarray, distances: np.ndarray) -> int:
        """Place of the best among candidates [r], the nearest first; it counts as taken."""
        rows = rows[distances <= WIDTH * distances[0]] if distances[0] > 0 else rows[:1]
        return self._best(rows, NEARNESS * distances[: len(rows)] / self._unit**2)

    def pick_any(self, rows: np.ndarray) -> int:
        """Place of the best among candidates [r], however near; it counts as taken."""
        return self._best(rows, np.zeros(len(rows)))

    def _best(self, rows: np.ndarray, penalties: np.ndarray) -> int:
        points = (self._pool[rows] - self._mean) / self._unit
        place = int((self._costs(points) + penalties).round(DECIMALS).argmin())
        self.add(points[place])
        return place

    def add(self, point: np.ndarray) -> None:
        """Counts an image [k] as taken, in the target's units."""
        self._taken += 1
        self._sum += point
        self._square += np.outer(point, point)

    def _costs(self, points: np.ndarray) -> np.ndarray:
        """|S + x| J(S + x) for each of the points x [r], but for what all have in common."""
        n = self._taken + 1
        across = np.einsum("ij,ij->i", points @ (self._square / n - self._wanted), points) + 2 * points @ self._sum / n
        own = (np.einsum("ij,ij->i", points, points) + 1) ** 2 / n
        costs: np.ndarray = 2 * across + own
        return costs
