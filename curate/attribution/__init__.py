"""Where a shift comes from: what kind it is, and how much of it preprocessing would repair."""

from curate.attribution._factors import TargetFactors, factors
from curate.attribution._memorized import Memorized, NearCopy, memorized
from curate.attribution._parts import Parts, far_part
from curate.attribution._results import Factor, Factors, Repair
from curate.attribution._slices import Slice, Slices, slices
from curate.attribution._telling import Pull, Shown, Telling, telling

__all__ = [
    "Factor",
    "Factors",
    "Memorized",
    "NearCopy",
    "Parts",
    "Pull",
    "Repair",
    "Shown",
    "Slice",
    "Slices",
    "TargetFactors",
    "Telling",
    "factors",
    "far_part",
    "memorized",
    "slices",
    "telling",
]
