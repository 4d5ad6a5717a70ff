"""Distances between a target and a pool, each with its error or its null.

Every function takes arrays [n, d] or stores and says in its docstring which direction is closer.
"""

from curate.distances._copies import copies
from curate.distances._coverage import coverage
from curate.distances._frechet import frechet
from curate.distances._frechet_full import frechet_full

__all__ = ["copies", "coverage", "frechet", "frechet_full"]
