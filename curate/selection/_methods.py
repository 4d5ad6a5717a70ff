"""The methods by name, one module each; loaded when asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from curate.results import ShiftReport
from curate.selection._candidates import Choice
from embeddings.errors import TooFewImagesError, UnknownNameError


@dataclass(frozen=True, kw_only=True)
class Method:
    """What is known of a method before it is loaded."""

    module: str
    about: str
    needs_report: bool = False  # goes by the verdicts of `curate score`
    heeds_report: bool = False  # as far as there are any; images may be too few for verdicts
    needs_labels: bool = False  # of the target
    nested: bool = True  # a smaller budget takes the first images of a larger one
    seeded: bool = True  # draws, or lets a draw decide who comes first
    stops: bool = False  # may end before the budget is spent
    weighted: bool = True  # heeds the weights of target images
    near_first: bool = False  # takes what is near first, so that there is a knee where it runs out

    def load(self) -> Callable[..., Choice]:
        """``choose(candidates, ledger, *, seed) -> Choice``."""
        choose: Callable[..., Choice] = import_module(f"curate.selection.{self.module}").choose
        return choose

    def report_from(self, compute: Callable[[], ShiftReport]) -> ShiftReport | None:
        """The report that the method goes by; None where it goes by none, or can do without and images are too few.

        Raises:
            TooFewImagesError: it cannot do without.
        """
        try:
            return compute() if self.needs_report or self.heeds_report else None
        except TooFewImagesError:
            if self.needs_report:
                raise
            return None


METHODS = {
    "near-first": Method(
        module="_near_first",
        about="near pools, target images in turn, of what is near the one that keeps the balance",
        heeds_report=True,
        near_first=True,
    ),
    "pool-gated": Method(
        module="_pool_gated",
        about="drawn from the near pools: the control of what ranking images adds",
        needs_report=True,
        stops=True,
        weighted=False,
    ),
    "best-pool": Method(
        module="_best_pool", about="drawn from the nearest pool alone", needs_report=True, stops=True, weighted=False
    ),
    "random": Method(module="_random", about="drawn from everything: what a budget buys blindly", weighted=False),
    "uniform": Method(module="_uniform", about="drawn in equal shares from every source", weighted=False),
    "knn-quota": Method(
        module="_knn_quota", about="turns over all pools, in whitened directions: the plain control", near_first=True
    ),
    "assignment": Method(
        module="_assignment", about="one image per target image, at the least summed distance", nested=False
    ),
    "herding": Method(
        module="_herding",
        about="whatever brings the mean embedding nearest to the target's, one by one",
        nested=False,
        seeded=False,
        stops=True,
    ),
    "classifier": Method(module="_classifier", about="drawn by the odds of a classifier, target against pools"),
    "dsir": Method(module="_dsir", about="drawn so that clusters are as common as in the target"),
    "simcore": Method(
        module="_simcore", about="centers of the target take turns; stops when a round has sunk", stops=True
    ),
    "label-aware": Method(
        module="_label_aware", about="equal shares for the target's classes, nearest first", needs_labels=True
    ),
    "move": Method(
        module="_move", about="draws the starting model's data toward the target, for continued runs", seeded=False
    ),
    "cluster-balanced": Method(
        module="_cluster_balanced", about="equal numbers from clusters of the pools; no target", weighted=False
    ),
    "global-top": Method(
        module="_global_top",
        about="nearest to any target image: a warning, often worse than random",
        seeded=False,
        weighted=False,
    ),
}


def find_method(name: str) -> Method:
    """The method of this name.

    Raises:
        UnknownNameError: no such method.
    """
    if name not in METHODS:
        raise UnknownNameError("selection method", name, METHODS)
    return METHODS[name]
