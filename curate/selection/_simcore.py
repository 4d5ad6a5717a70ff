"""simcore: the centers of the target take turns taking the candidate of highest cosine, and stop when it has sunk.

    round i:  I_i = one candidate for every center, of highest cosine;   the last if mean cos(I_i) < 0.95 mean cos(I_1)

K-means centers stand for the target's images, and in every round each takes its nearest candidate that is still open.
The mean cosine of a first round over the pools alone is the reference: once a round is under 0.95 of it, what follows
would be too unlike the target, and the coreset stays smaller than what was asked for.

K = 100, or as many as there are distinct target images. A center takes as many turns a round as its images weigh on
average. One pass over the n candidates finds the reference, and one more each time that the lists are renewed, some
log(N / K) times; 2 n K d operations each. Memory: the lists, no number per candidate. Nested.

Source: Kim, Bae and Yun, Coreset sampling from open-set for fine-grained self-supervised learning (CVPR 2023), from the
paper alone. Deviations: its features are those of a model trained on the target itself, here any encoder's; centers
take turns within a round, so no two take the same image; the round that sank is kept; the target's own images, which
the paper always trains on, are candidates where they may be chosen, and do not raise the reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np

from curate.results import TARGET
from curate.selection._candidates import Candidates, Choice
from curate.selection._ledger import Ledger
from curate.selection._turns import Schedule, Turns, each_turn, subset, take_turns
from embeddings.clusters import fit_centers, nearest_centers
from embeddings.vectors import Vectors

CENTERS = 100
SUNK = 0.95


def choose(candidates: Candidates, ledger: Ledger, *, seed: int) -> Choice:
    """Takes rounds until the ledger is done or one has sunk. Score = 1 - cosine to the center."""
    centers = _Centers.of_target(candidates)
    schedule = Schedule(order=np.random.default_rng(seed).permutation(len(centers.vectors)), weights=centers.weights)
    pool = cast(Vectors, _Units(candidates))
    reference = _first_cosine(candidates, centers, pool, schedule, ledger)
    coming = each_turn(centers.vectors, pool, schedule, ledger, search=candidates.search)
    turns, cosine = _take_rounds(coming, len(schedule), SUNK * reference)
    sunk = f"the mean cosine of a round is {cosine:.3f}, under {SUNK} of the {reference:.3f} of the pools' first"
    return Choice(
        rows=turns.rows,
        scores=turns.distances / 2,
        reasons=[
            f"simcore: choice {choice:,} of center {center + 1} of {len(schedule)}, of {centers.sizes[center]:,} images"
            for choice, center in zip(turns.choices, turns.takers, strict=True)
        ],
        parameters={"centers": len(schedule), "reference": round(reference, 6), "stops_below": SUNK},
        stopped="" if ledger.done else sunk,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Centers:
    """What stands for the target's images."""

    vectors: np.ndarray  # [k, d + 1] float32 of length 1
    sizes: np.ndarray  # [k] int64 target images
    weights: np.ndarray  # [k] float64 their mean weight

    @classmethod
    def of_target(cls, candidates: Candidates) -> _Centers:
        """From the target images that count."""
        counts = candidates.weights > 0
        images = _unit(candidates.target_vectors[counts])
        means = fit_centers(images, CENTERS)
        owner = nearest_centers(images, means, 1)[:, 0]
        used, owner, sizes = np.unique(owner, return_inverse=True, return_counts=True)
        vectors = means[used] / np.linalg.norm(means[used], axis=1, keepdims=True)
        weights = np.bincount(owner, candidates.weights[counts]) / sizes
        return cls(vectors=vectors, sizes=sizes, weights=weights)


class _Units:
    """The candidates' vectors scaled to length 1, read by row numbers."""

    def __init__(self, candidates: Candidates) -> None:
        self._candidates = candidates
        self.shape, self.dtype = (len(candidates), candidates.stores[TARGET].spec.dim + 1), np.dtype(np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return _unit(self._candidates.vectors(rows))


def _unit(vectors: np.ndarray) -> np.ndarray:
    """[r, d] to float32 [r, d + 1] of length 1; a zero vector has a direction of its own, of cosine 0 to all others."""
    wide = vectors.astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    out = np.zeros((len(wide), wide.shape[1] + 1), np.float32)
    out[:, :-1] = wide / np.where(norms > 0, norms, 1)[:, None]
    out[:, -1] = norms == 0
    return out


def _first_cosine(
    candidates: Candidates, centers: _Centers, pool: Vectors, schedule: Schedule, ledger: Ledger
) -> float:
    """Mean cosine of a first round over the open candidates from the pools; from the target where there is no other."""
    open_ = np.flatnonzero(ledger.open)
    rows = open_[~candidates.own[open_]] if not candidates.own[open_].all() else open_
    ledger = Ledger.of_images(len(rows), len(schedule))
    turns = take_turns(centers.vectors, subset(pool, rows), schedule, ledger, search=candidates.search)
    return _cosine(turns.distances)


def _take_rounds(coming: Iterator[tuple[int, int, float]], size: int, least: float) -> tuple[Turns, float]:
    """Turns to the end of the first round with a mean cosine below the least, and the last round's mean cosine."""
    taken: list[tuple[int, int, float]] = []
    cosine = least
    for turn in coming:
        taken.append(turn)
        if len(taken) % size == 0:
            cosine = _cosine(np.array([distance for _, _, distance in taken[-size:]]))
            if cosine < least:
                break
    return Turns.of(taken), cosine


def _cosine(distances: np.ndarray) -> float:
    """Mean cosine from squared distances [r] of vectors of length 1."""
    return float(1 - distances.sum() / max(len(distances), 1) / 2)
