"""Distances between a target and a pool.

Every function takes arrays [n, d] or stores, says in its docstring which direction is closer, and returns an Estimate
with its error or its null; ``frechet_full`` alone returns the bare figure that other tools quote.
"""

from curate.distances._copies import copies
from curate.distances._coverage import coverage
from curate.distances._frechet import frechet
from curate.distances._frechet_full import frechet_full

__all__ = ["copies", "coverage", "frechet", "frechet_full"]
