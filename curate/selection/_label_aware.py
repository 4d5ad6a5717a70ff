"""label-aware: every class of the target gets the same share of the selection.

Without labels in the pools: a candidate belongs to the class that its nearest labeled target images vote for,

    class(x) = argmax_c  sum of w_i / W_c  over the k = 10 nearest labeled images i of class c,   W_c = all weights of c

in the pools' whitened directions. Votes of a class are divided by its size, so that they estimate how likely the image
is under the class and not how frequent the class is: else the 97% good images would outvote the rare defect. Of equal
votes the class of the nearest image wins.

Classes take turns, each taking its candidate nearest to one of its own images. With weights a class has as many turns
as the mean weight of its images says: alike without any. What a class without candidates left cannot take goes to the
others. Target images without a label are not searched for. The choice is nested; the seed sets who is first in a round.

A class is guessed from few images: of 457 emoji chosen for nine classes of 469 labeled ones, 48% had the class in their
pool's own labels too. ``chosen`` in the parameters says what was taken for a class, not what is of that class.

Cost: one pass over the vectors, n l k products for l labeled images; N log C for the turns of C classes.

Deviations: the k-NN density ratio of Fukunaga and Hostetler at equal class priors, used to sort candidates rather than
to classify; nearest first within a class, so that a class with several modes is not balanced over them.

Source: Fukunaga and Hostetler, k-nearest-neighbor Bayes-risk estimation (1975); class-balanced curation as in MetaCLIP
(Xu et al. 2024), there by text.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curate.results import TARGET
from curate.selection._candidates import BLOCK_ROWS, Candidates, Choice, counter_hash
from curate.selection._directions import Whitening
from curate.selection._ledger import Ledger
from embeddings.errors import UsageError
from embeddings.neighbors import nearest

NEIGHBORS = 10


def choose(candidates: Candidates, ledger: Ledger, *, seed: int) -> Choice:
    """Takes turns until the budget is met. Score = squared distance in whitened directions to the nearest of the class.

    Raises:
        UsageError: no target image has a label.
    """
    classes = Classes.of(candidates)
    frame = Whitening.of_pools(candidates)
    found = _assign(candidates, frame, classes)
    numbers = counter_hash(f"{seed}\0{TARGET}\0{name}" for name in classes.names)
    rows = take_in_turns(ledger, found.lists(len(classes.names)), classes.shares, np.argsort(numbers, kind="stable"))
    codes, keys = found.classes[rows], candidates.target_keys[classes.images][found.nearest[rows]]
    taken = np.bincount(codes, minlength=len(classes.names)).tolist()
    return Choice(
        rows=rows,
        scores=found.distances[rows],
        reasons=[f"label-aware: for {classes.names[c]}, near {key}" for c, key in zip(codes, keys, strict=True)],
        parameters={
            "chosen": dict(zip(classes.names, taken, strict=True)),
            "labeled_images": len(classes.images),
            "neighbors": min(NEIGHBORS, len(classes.images)),
            "directions": frame.directions,
        },
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Classes:
    """The labeled images of the target."""

    names: list[str]  # [C]
    images: np.ndarray  # [l] numbers among the target images
    codes: np.ndarray  # [l] class of each
    votes: np.ndarray  # [l] what each counts in a vote; 1 in sum over a class
    shares: np.ndarray  # [C] turns of a class, relative to the others

    @classmethod
    def of(cls, candidates: Candidates) -> Classes:
        """From the labels of the target images whose weight is not 0.

        Raises:
            UsageError: none has a label.
        """
        labels = candidates.stores[TARGET].rows()["label"].to_numpy()[candidates.queries]
        images = np.flatnonzero([label is not None for label in labels] & (candidates.weights > 0))
        if not len(images):
            raise UsageError(
                "label-aware needs labels of the target, and none of its images has one.",
                hint="Name their column in the target's address, label:COLUMN (images.parquet#label:species), or put "
                "the images of every class into a folder of its own.",
            )
        names, codes = np.unique(labels[images].astype(str), return_inverse=True)
        weights = candidates.weights[images]
        total = np.bincount(codes, weights)
        shares = total / np.bincount(codes)
        return cls(names=names.tolist(), images=images, codes=codes, votes=weights / total[codes], shares=shares)


@dataclass(frozen=True, kw_only=True, eq=False)
class Assigned:
    """Which class each candidate belongs to."""

    classes: np.ndarray  # [n] int64
    nearest: np.ndarray  # [n] the nearest labeled image of that class
    distances: np.ndarray  # [n] float64, squared, to it

    def lists(self, count: int) -> list[np.ndarray]:
        """Candidates of every class, nearest first; equal distances in the order of rows."""
        order = np.lexsort((self.distances, self.classes))
        return np.split(order, np.searchsorted(self.classes[order], np.arange(1, count)))


def assign(points: np.ndarray, labeled: np.ndarray, codes: np.ndarray, votes: np.ndarray) -> Assigned:
    """The class that the nearest labeled images of each point vote for.

    Args:
        points: [n, k].
        labeled: [l, k].
        codes: [l] their classes.
        votes: [l] what each counts.
    """
    distances, rows = nearest(points, labeled, min(NEIGHBORS, len(labeled)))
    same = codes[rows][:, :, None] == codes[rows][:, None, :]
    best = (same * votes[rows][:, None, :]).sum(axis=2).argmax(axis=1)  # the first one is the nearest of its class
    own = np.arange(len(points)), best
    return Assigned(classes=codes[rows[own]], nearest=rows[own], distances=distances[own])


def take_in_turns(ledger: Ledger, lists: Sequence[np.ndarray], shares: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Rows [r] in the order taken: next is always the class with the fewest turns had, for its share.

    Args:
        ledger: Says what may be taken.
        lists: [C] candidates of every class, best first.
        shares: [C] turns of a class, relative to the others.
        order: [C] the classes as they stand in a round.
    """
    rows, had = [], np.zeros(len(lists), np.int64)
    waiting = [(1 / shares[c], place, int(c)) for place, c in enumerate(order)]
    left = [iter(candidates.tolist()) for candidates in lists]
    heapq.heapify(waiting)
    while waiting and not ledger.done:
        _, place, c = heapq.heappop(waiting)
        row = next((row for row in left[c] if ledger.take(row)), None)
        if row is not None:
            rows.append(row)
            had[c] += 1
            heapq.heappush(waiting, ((had[c] + 1) / shares[c], place, c))
    return np.array(rows, np.int64)


def _assign(candidates: Candidates, frame: Whitening, classes: Classes) -> Assigned:
    """Classes of all candidates, block by block."""
    labeled, parts, n = frame.apply(candidates.target_vectors[classes.images]), [], len(candidates)
    for start in range(0, n, BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, n))
        parts.append(assign(frame.apply(candidates.vectors(rows)), labeled, classes.codes, classes.votes))
        candidates.progress("assign", int(rows[-1]) + 1, n)
    columns = ("classes", "nearest", "distances")
    return Assigned(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in columns})
