"""Which images to take, from which pool, under a budget: every method on one path, with a reason for every image.

chosen = select("inspection/", {"web": "web/"}, budget=5_000, method="near-first")
chosen.counts(), chosen.to_paths()

A method is a module with one function, ``choose(candidates, *, budget, seed) -> Choice``, named in METHODS.
"""

from curate.selection._methods import METHODS, NEEDS_REPORT
from curate.selection._path import select

__all__ = ["METHODS", "NEEDS_REPORT", "select"]
