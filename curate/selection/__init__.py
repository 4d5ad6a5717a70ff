"""Which images to take, from which pool, under a budget: every method on one path, with a reason for every image.

chosen = select("inspection/", {"web": "web/"}, budget=5_000, method="near-first")
chosen.counts(), chosen.to_paths()

``group_shares`` tells how often each group occurs in target, pools and selection, ``weights_toward`` what would even
it.

A method is a module with one function, ``choose(candidates, ledger, *, seed) -> Choice``, named in METHODS.
"""

from curate.selection._comparison import audited, compare
from curate.selection._group_shares import group_shares, weights_toward
from curate.selection._methods import METHODS, find_method
from curate.selection._preflight import require_possible
from curate.selection._select import open_selector, select

__all__ = [
    "METHODS",
    "audited",
    "compare",
    "find_method",
    "group_shares",
    "open_selector",
    "require_possible",
    "select",
    "weights_toward",
]
