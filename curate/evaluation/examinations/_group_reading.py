"""How well an image's group can be read from its features: a classifier two-sample test between groups.

A ridge classifier (that of the training probe) names the group of images it has not seen, in five parts that keep
units whole. Over all images it also reads what goes with the group, the class first of all; within classes one
classifier per class is asked only to tell apart the groups of that class, and classes of one group are left out. The
null is the share of images that naming the largest group (of the class) gets right. Readable is not unfair: it says
that a head can use the group, and that a shift of the group will move features.

Accuracy instead of a kernel distance between groups, because features of different networks have no common scale.

Source: Lopez-Paz and Oquab, Revisiting Classifier Two-Sample Tests (ICLR 2017).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate.evaluation.examinations._group_gaps import units_by_group
from curate.pretraining.ridge import cross_fitted

MOST = 2_000  # images
PARTS = 5


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Which images had their group named rightly."""

    rows: np.ndarray  # int64 [r] row numbers
    hits: np.ndarray  # bool [r]
    chance: float  # share of them in the largest group, of their class where there are several classifiers


@dataclass(frozen=True, kw_only=True)
class Grouped:
    """Images whose group is asked for, [r] each."""

    rows: np.ndarray  # int64 row numbers, ascending
    groups: np.ndarray  # int64
    labels: np.ndarray  # int64 class numbers
    units: np.ndarray  # int64
    parts: np.ndarray  # int64, 0 to PARTS - 1: those of one part are left out together

    @classmethod
    def draw(cls, groups: np.ndarray, labels: np.ndarray, units: np.ndarray, *, seed: int) -> Grouped:
        """At most MOST of the images [n] that have a group and a label (no -1), units whole."""
        among = np.flatnonzero((groups >= 0) & (labels >= 0))
        _, unit, sizes = np.unique(units[among], return_inverse=True, return_counts=True)
        order = np.random.default_rng([seed, 4]).permutation(len(sizes))
        place = np.argsort(order)
        fits = np.cumsum(sizes[order]) <= MOST
        fits[0] = True
        kept = fits[place[unit]]
        rows = among[kept]
        parts = (place % PARTS)[unit[kept]]
        return cls(rows=rows, groups=groups[rows], labels=labels[rows], units=units[rows], parts=parts)

    def at(self, places: np.ndarray) -> Grouped:
        """Some of them, by place or mask."""
        return Grouped(**{name: values[places] for name, values in vars(self).items()})


def read_groups(features: np.ndarray, images: Grouped) -> Reading:
    """Reads the group of images, whatever else goes with it; features [n, d] are of all rows."""
    _, compact, sizes = np.unique(images.groups, return_inverse=True, return_counts=True)
    hits = cross_fitted(features[images.rows], compact, images.parts) == compact
    return Reading(rows=images.rows, hits=hits, chance=float(sizes.max() / len(hits)))


def read_within(features: np.ndarray, images: Grouped, *, least: int) -> Reading | None:
    """The same class by class, among groups with ``least`` units in the class; None where no class has two of them."""
    found = []
    for label in np.unique(images.labels):
        inside = images.at(images.labels == label)
        sizes = units_by_group(inside.groups, inside.units, int(inside.groups.max()) + 1)
        inside = inside.at(sizes[inside.groups] >= least)
        if (sizes >= least).sum() >= 2 and len(np.unique(inside.parts)) >= 2:
            found.append(read_groups(features, inside))
    if not found:
        return None
    hits = np.concatenate([reading.hits for reading in found])
    chance = sum(reading.chance * len(reading.hits) for reading in found) / len(hits)
    return Reading(rows=np.concatenate([reading.rows for reading in found]), hits=hits, chance=chance)
