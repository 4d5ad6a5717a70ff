"""Selecting for one half of the target, so that the other half can judge.

The target's images are split by a hash of their block: images of one group, copies and near duplicates stay together.
Images of the judging half are neither searched for nor chosen, and pools are gated by their score against the seen
half. A judging image that also lies in a pool is out of it too.

A selection of own images and pools' images is tried with as many pools' images, and with so many fewer own ones as the
seen half has fewer: otherwise the pools would fill their places, with images that the selection does not hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.distances._frechet import MIN_IMAGES
from curate.diversity._union import as_union
from curate.results import TARGET, ShiftReport
from curate.scoring import score
from curate.selection._candidates import Candidates, counter_hash, drawn
from curate.selection._limits import open_ledger
from curate.selection._methods import find_method
from curate.selection._near_duplicates import near_duplicates
from curate.selection._path import Selector, Wish, choose
from embeddings.errors import TooFewImagesError, UsageError
from embeddings.moments import block_names, connected_rows
from embeddings.store import EmbeddingStore

SALT = "judging half"
NO_POOL = "half the target has it choose the target's own images alone, so no choice among the pools' images is judged."


@dataclass(frozen=True, kw_only=True, eq=False)
class Pick:
    """What one method chose for the seen half."""

    rows: np.ndarray  # [r] int64 candidates, ascending; none where the method chose nothing
    stopped: str = ""
    reason: str = ""  # why nothing was chosen


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """The candidates that are left, and the images that judge."""

    selector: Selector
    candidates: Candidates
    seen: np.ndarray  # rows of the target store that may be selected for, whether searched for or not
    judging: np.ndarray  # [j] int64 rows of the target store, each picture once
    images_asked: int | None = None

    @classmethod
    def of(cls, selector: Selector, images: int | None = None, own: int = 0) -> Trial:
        """Splits the target of a selector, for methods that may take so many images, if not all that the wish allows.

        ``own`` of these images are the target's: of them only the share that the seen half has is asked for.

        Raises:
            TooFewImagesError: fewer than 20 images on a side, or none with a weight above 0 to select for.
        """
        candidates, target = selector.gathered.candidates, selector.inputs.target
        judges = _judging_half(target, selector.gathered.left_out)
        searched = ~judges[candidates.queries]
        left = _without(candidates, np.flatnonzero(judges), searched)
        if not candidates.own.any():  # near copies of its images were not looked for
            left = _without_resembling(left, candidates.queries[~searched], work=selector.settings["work"])
        trial = cls(
            selector=selector,
            candidates=left,
            seen=np.flatnonzero(~judges),
            judging=candidates.queries[~searched],
            images_asked=None if images is None else max(images - _missing(candidates, left, own), 1),
        )
        _require_halves(trial.candidates, len(trial.judging))
        return trial

    @cached_property
    def report(self) -> ShiftReport:
        """What ``score`` says of the pools to the seen half."""
        inputs = self.selector.inputs
        return score(inputs.target.take(self.seen), inputs.pools, **self.selector.settings)

    @cached_property
    def wish(self) -> Wish:
        """The same wish, for no more images than were asked of the trial, or than are left."""
        wish, left = self.selector.wish, max(len(self.candidates), 1)
        asked = [n for n in (self.images_asked, wish.budget.images) if n is not None]
        return replace(wish, budget=replace(wish.budget, images=min([*asked, left]))) if asked else wish

    def pick(self, method: str) -> Pick:
        """Runs a method on what is left."""
        try:
            choice, _ = choose(self._candidates_for(method), method, self.wish)
        except UsageError as error:  # floors, labels or near pools that half the target does not have
            return Pick(rows=np.empty(0, np.int64), reason=error.message)
        return Pick(rows=np.sort(choice.rows), stopped=choice.stopped)

    def control(self, pick: Pick) -> Pick | None:
        """What a pick that holds own images is held against: these, and random images of the pools for the others.

        As many images as the pick if the limits allow it, by the draw of ``random``. None where it holds no own image,
        or where the pools have no candidates: a draw from all candidates is a fair control then.
        """
        own = pick.rows[self.candidates.own[pick.rows]]
        pools = np.flatnonzero(~self.candidates.own)
        if not len(own) or not len(pools):
            return None
        if len(own) == len(pick.rows):
            return Pick(rows=np.empty(0, np.int64), reason=NO_POOL)
        ledger = open_ledger(self.candidates, replace(self.wish.budget, images=len(pick.rows)), self.wish.terms)
        ledger.walk(own)
        drawn(self.candidates, ledger, pools, seed=self.wish.seed, reason="")
        return Pick(rows=np.sort(ledger.taken))

    def _candidates_for(self, method: str) -> Candidates:
        return self.candidates.asked(report=find_method(method).report_from(lambda: self.report))

    def images(self, rows: np.ndarray) -> EmbeddingStore:
        """The store of some candidates [r], ascending; in memory."""
        return as_union([store.take(place) for _, store, place in self.parts(rows)])

    def parts(self, rows: np.ndarray) -> Iterator[tuple[str, EmbeddingStore, np.ndarray]]:
        """Name, store and rows of it, for every source of some candidates [r], ascending."""
        for name, _, places in self.candidates.by_store(rows):
            yield name, self.candidates.stores[name], places

    def matched_sample(self, sampled: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Of a control's candidates [r], ascending, as many as are sampled of its pick, with the same own images."""
        own, pools = sampled[self.candidates.own[sampled]], rows[~self.candidates.own[rows]]
        return np.sort(np.concatenate([own, self.sample(pools, len(sampled) - len(own))]))

    def sample(self, rows: np.ndarray, most: int) -> np.ndarray:
        """At most so many of some candidates [r], ascending, by a draw that depends on source and key alone."""
        if len(rows) <= most:
            return rows
        keys, names = self.candidates.column("key", rows), self.candidates.names
        source = self.candidates.source[rows]
        drawn = counter_hash(f"{SALT}\0{names[s]}\0{key}" for s, key in zip(source, keys, strict=True))
        return np.sort(rows[np.argsort(drawn, kind="stable")[:most]])


def _missing(candidates: Candidates, left: Candidates, own: int) -> int:
    """How many of so many own images the seen half lacks, if it lacks the same share of these as of all."""
    held = np.count_nonzero(candidates.own)
    return own - round(own * np.count_nonzero(left.own) / held) if own else 0


def _judging_half(target: EmbeddingStore, left_out: pa.Table) -> np.ndarray:
    """True for the target images [n] that judge."""
    names, keys = block_names(target.rows()), target.rows()["key"].to_pylist()
    kept_for = _kept_for(left_out)
    labels = (names.tolist(), [kept_for.get(key, key) for key in keys])
    together = connected_rows(*(pa.chunked_array([label], pa.string()) for label in labels))
    by_name = np.argsort(names, kind="stable")
    first = by_name[np.unique(together[by_name], return_index=True)[1]]  # of those that stay together, by name
    odd = counter_hash(f"{SALT}\0{name}" for name in names[first]) % 2 == 1
    return np.asarray(odd[together])


def _kept_for(left_out: pa.Table) -> dict[str, str]:
    """Key of a target image that was left out -> key of the target image that it was left out for."""
    ours = pc.and_(pc.equal(left_out["source"], TARGET), pc.starts_with(left_out["because_of"], f"{TARGET}/"))
    rows = left_out.filter(ours).select(["key", "because_of"]).to_pylist()
    return {row["key"]: row["because_of"].removeprefix(f"{TARGET}/") for row in rows}


def _without(candidates: Candidates, judging: np.ndarray, searched: np.ndarray) -> Candidates:
    """The candidates without the pictures of the judging half, to be searched with the other queries only."""
    target = candidates.stores[TARGET].rows()
    digests = ("sha256", "pixels")
    pictures = [target[name].take(pa.array(judging)).combine_chunks().drop_null() for name in digests]
    kept = np.ones(len(candidates), bool)
    for number, store in enumerate(candidates.stores.values()):
        mine = np.flatnonzero(candidates.source == number)
        banned = np.zeros(len(store), bool)
        for name, known in zip(digests, pictures, strict=True):
            banned |= pc.is_in(store.rows()[name], value_set=known).to_numpy()
        if number == 0:
            banned[judging] = True
        kept[mine] = ~banned[candidates.place[mine]]
    return _restricted(candidates, kept, searched)


def _restricted(candidates: Candidates, kept: np.ndarray, searched: np.ndarray) -> Candidates:
    """Some of the candidates [n] bool, and some of the queries [m] bool."""
    weights = candidates.target_weights
    return replace(
        candidates,
        source=candidates.source[kept],
        place=candidates.place[kept],
        copies=candidates.copies[kept],
        prices=None if candidates.prices is None else candidates.prices[kept],
        queries=candidates.queries[searched],
        target_weights=None if weights is None else weights[searched],
    )


def _without_resembling(candidates: Candidates, judging: np.ndarray, *, work: Path | None) -> Candidates:
    """The candidates and queries without those that resemble an image of the judging half."""
    stores = list(candidates.stores.values())
    n, m, j = len(candidates), len(candidates.queries), len(judging)
    places = (
        np.concatenate([candidates.source, np.zeros(m + j, np.int64)]),
        np.concatenate([candidates.place, candidates.queries, judging]),
    )
    found = near_duplicates(
        stores,
        places,
        np.arange(n),
        checked=np.arange(n, n + m),
        evaluation=np.arange(n + m, n + m + j),
        work=work,
        progress=candidates.progress,
    )
    kept, asks = found.cause[:n] < 0, found.cause[n : n + m] < 0
    return _restricted(candidates, kept, asks)


def _require_halves(candidates: Candidates, judging: int) -> None:
    seen, weights = len(candidates.queries), candidates.target_weights
    if min(seen, judging) < MIN_IMAGES:
        raise TooFewImagesError(
            f"The target splits into {seen:,} images to select for and {judging:,} to judge; both need {MIN_IMAGES}.",
            hint="Add target images.",
        )
    if weights is not None and not weights.any():
        raise TooFewImagesError(
            f"None of the {seen:,} images to select for has a weight above 0.", hint="Add images of what is weighted."
        )
