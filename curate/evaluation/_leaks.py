"""Test images that are known from training: near duplicates on both sides of a split.

    twins    test images that are nearly the same picture as a training image, by the rule of selection
             (vectors, hashes and pictures agree; ``curate.selection._near_pairs``)
    clumps   test images whose nearest training image is at most half as far as the 64th

Twins are counted and told. A set that is split here, some of whose images have no group, is refused where 8% of its
test images or more, and five at least, are twins; and where 1% are, if 40% are clumps. Distances are those of
directions seen from the training images' mean. Clumps alone could be small, well separated classes; few twins alone,
the odd look-alikes of an honest set. Under Lite0, split by key (share of clumps, of twins):

    40 crops of each of 30 photographs   .61   .025    emoji, every skin tone     .51 to .60   .012 to .104
    clip art                             .23   .017    emoji, one of each         .23 to .25   .004, OpenMoji .047
    digits                               .04           garments                   .003

Below 256 training images the 64th is in another class, and there are no clumps. Of folds, twins lie in different ones,
and clumps are those of all folds together. Who gives a test part, or a group for
every image, is told and never refused. Above 20,000 images twins are looked for only where 40% are clumps and a refusal
is possible; else their number is not known (None).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from curate.evaluation._images import LabeledImages
from curate.evaluation._knn import unit_rows
from curate.evaluation._split import Split
from curate.selection._near_duplicates import SAME
from curate.selection._near_pairs import EXACT, Images, NearPairs
from embeddings.errors import UsageError
from embeddings.neighbors import nearest

NEIGHBORS = 64
FEWEST = 4 * NEIGHBORS  # training images
HALF = 0.5
CLUMPED = 0.4
LEAKED = 0.01  # of clumped test images
MANY, FEW = 0.08, 5  # twins, of any test images


def check_leaks(images: LabeledImages, split: Split) -> dict[str, Any]:
    """What was looked for and found, as facts of the set.

    Raises:
        UsageError: near duplicates lie on both sides of a split that was made here.
    """
    is_small = len(split.train) + len(split.test) <= EXACT
    may_refuse = images.n_train is None and not _is_grouped(images, split)
    is_clumped = may_refuse and _clumped(images.own_features()[1], split) >= CLUMPED
    if not (is_small or is_clumped):
        return {"near_duplicates_in_train": None}
    train, test = twins(images, split)
    known = len(np.unique(test))
    has_many = known >= max(FEW, MANY * len(split.test))
    if may_refuse and (has_many or (is_clumped and known >= LEAKED * len(split.test))):
        raise _refusal(images, split, train, test)
    return {"near_duplicates_in_train": known}


def _clumped(features: np.ndarray, split: Split) -> float:
    """Share of the test images of all parts."""
    shares = [clump_share(features, part) for part in split.parts]
    return float(np.average(shares, weights=[len(part.test) for part in split.parts]))


def clump_share(features: np.ndarray, split: Split) -> float:
    """Share of the test images whose nearest training image is at most half as far as the 64th; 0 of few images."""
    if len(split.train) < FEWEST:
        return 0.0
    train, test = (features[part].astype(np.float32) for part in (split.train, split.test))
    center = train.mean(axis=0)
    squared, _ = nearest(unit_rows(test - center), unit_rows(train - center), NEIGHBORS)
    return float((squared[:, 0] <= HALF**2 * squared[:, -1]).mean())


def twins(images: LabeledImages, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (training row, test row) that are nearly the same picture, nearest first; of folds, of each in turn."""
    lengths = [len(store) for store in images.stores]
    origin = np.repeat(np.arange(len(lengths)), lengths)
    place = np.concatenate([np.arange(length) for length in lengths])
    rows = np.concatenate([split.train, split.test])
    pairs = NearPairs.of(Images(stores=images.stores, origin=origin[rows], place=place[rows]), SAME)
    order = np.argsort(rows)
    found = []
    for part in split.parts:
        train, test = (order[np.searchsorted(rows[order], side)] for side in (part.train, part.test))
        found.append(_same(pairs, train, test))
    a, b = (np.concatenate(side) for side in zip(*found, strict=True))
    return rows[a], rows[b]


def _same(pairs: NearPairs, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of two lists of images that are nearly the same picture, nearest first."""
    a, b = pairs.between(train, test)
    same, distance = pairs.confirm(a, b)
    order = np.argsort(distance[same], kind="stable")
    return a[same][order], b[same][order]


def _is_grouped(images: LabeledImages, split: Split) -> bool:
    """Whether every image that trains or tests has a group."""
    groups = images.rows["group"].take(pa.array(np.concatenate([split.train, split.test])))
    return bool(groups.null_count == 0)


def _refusal(images: LabeledImages, split: Split, train: np.ndarray, test: np.ndarray) -> UsageError:
    keys, count = images.rows["key"], len(np.unique(test))
    example = f"{keys[int(test[0])].as_py()!r} and {keys[int(train[0])].as_py()!r}"
    return UsageError(
        f"{count:,} of {len(split.test):,} test images of {images.name!r} are nearly the same picture as a training "
        f"image, such as {example}; accuracy would tell how well pictures are remembered.",
        hint="Name the column of what belongs together (a part, a lot, a camera) with --split-by COLUMN, "
        "or give a test part of its own: TRAIN::TEST. If every image stands alone: --split-by key.",
    )
