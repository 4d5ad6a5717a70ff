"""From opened stores to candidates: exact duplicates, forbidden licenses and excluded images out, whatever the method.

Two images are the same picture if their files or their decoded pixels are equal, or if both equal a third one. Of every
picture one candidate stays: the target's own before a pool's, then the cheapest, pools by name, then by key; so a
picture counts for the same source whatever the order of the arguments and whether or not the pools were scored. A
picture that also occurs in an excluded source goes in every copy, and is not searched for either if it is the target's;
so does every part of an image of which a part is excluded. A license that is not allowed does not hide an allowed copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.results import LEFT_OUT
from curate.selection._candidates import Candidates
from curate.selection._inputs import Inputs
from curate.selection._limits import are_licensed, licenses_of, prices_of
from curate.selection._near_duplicates import NearDuplicates, near_duplicates
from curate.terms import Terms
from embeddings.errors import UnknownNameError
from embeddings.moments import connected_rows
from embeddings.progress import Progress, silent
from embeddings.store import EmbeddingStore

CODES = {  # why an image was left out -> in words, before the image it was left out for
    "duplicate": "duplicate of",
    "near-duplicate": "nearly the same as",
    "excluded": "also in excluded",
    "contaminated": "resembles excluded",
    "license": "its license is not among those allowed",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Gathered:
    """The candidates, and what was left out on the way."""

    candidates: Candidates
    left_out: pa.Table  # schema LEFT_OUT
    facts: dict[str, Any] = field(default_factory=dict)  # how near duplicates were found

    def dropped(self) -> dict[str, int]:
        """Images left out, by code."""
        counts = {pair["values"]: pair["counts"] for pair in pc.value_counts(self.left_out["code"]).to_pylist()}
        return {code: counts.get(code, 0) for code in CODES}


def gather(
    inputs: Inputs,
    *,
    terms: Mapping[str, Terms],
    licenses: Sequence[str] = (),
    near: bool = True,
    work: Path | None = None,
    progress: Progress = silent,
) -> Gathered:
    """Candidates of all stores, each picture once, no excluded one.

    Args:
        inputs: the target, the pools, and the images never to be chosen.
        terms: of the sources; one with a cap of 0 gives no candidates.
        licenses: classes allowed; none: all. The target's own images are the user's.
        near: whether near duplicates and what resembles excluded images go, too.
        work: folder where finished parts of the search for these are kept; None keeps nothing.
        progress: told how far the search for these is.

    Raises:
        UnknownNameError: terms of a source that is not there.
    """
    for name in terms:
        if name not in inputs.stores:
            raise UnknownNameError("source that terms are given for", name, inputs.stores)
    everything = _Everything(inputs, terms)
    offered, licensed = everything.offered(), everything.licensed(licenses)
    banned_by = everything.banned_by()
    allowed = offered & licensed & (banned_by < 0)
    first = everything.first_copy(allowed)
    asks = everything.first_of_target(banned_by < 0)
    found = None
    if near:
        settings = {"colors": inputs.colors, "work": work, "progress": progress}
        found = _resembling(everything, allowed & (first == everything.rows), asks, **settings)
    cause = np.full(len(first), -1) if found is None else found.cause[np.maximum(first, 0)]
    kept = first if found is None else np.where(first < 0, -1, found.kept_for[np.maximum(first, 0)])
    stays = allowed & (kept == everything.rows) & (cause < 0)
    asks &= cause < 0 if found is None else found.cause < 0
    lost = allowed & ~stays
    candidates = Candidates(
        stores=inputs.stores,
        source=everything.origin[stays],
        place=everything.place[stays],
        copies=np.bincount(kept[allowed & (cause < 0)], minlength=len(kept))[stays],
        queries=everything.place[asks],
        prices=everything.prices[stays] if everything.prices.any() else None,
    )
    left_out = [
        everything.left_out(offered & (banned_by >= 0), "excluded", banned_by),
        everything.left_out(lost & (cause >= 0), "contaminated", cause),
        everything.left_out(lost & (cause < 0) & (kept == first), "duplicate", kept),
        everything.left_out(lost & (cause < 0) & (kept != first), "near-duplicate", kept),
        everything.unlicensed(offered & ~licensed & (banned_by < 0), licenses),
    ]
    return Gathered(
        candidates=candidates,
        left_out=pa.concat_tables(left_out).sort_by([("source", "ascending"), ("key", "ascending")]),
        facts={} if found is None else found.facts,
    )


@dataclass(kw_only=True, eq=False)
class Gatherer:
    """Gathers from the same inputs for one wish after the other.

    What was gathered last is kept, for wishes that offer the same images: they may differ in all that is no matter of
    ``gather``, such as budget and seed.
    """

    inputs: Inputs
    work: Path | None = None
    progress: Progress = silent
    _last: tuple[object, Gathered] | None = field(init=False, default=None)

    def gathered(self, *, terms: Mapping[str, Terms], licenses: Sequence[str] = (), near: bool = True) -> Gathered:
        """As ``gather``."""
        of_each = dict.fromkeys(self.inputs.stores, Terms()) | dict(terms)
        offer = {name: _offered_by(said) for name, said in of_each.items()}, tuple(licenses), near
        if self._last is None or self._last[0] != offer:
            self._last = None  # memory holds one
            found = gather(
                self.inputs, terms=terms, licenses=licenses, near=near, work=self.work, progress=self.progress
            )
            self._last = offer, found
        return self._last[1]


def _offered_by(said: Terms) -> Terms:
    """What of a source's terms decides on its candidates."""
    return Terms(price=said.price, license=said.license, cap=0 if said.cap == 0 else None)


class _Everything:
    """Every image of a request in one order: the target's, the pools' by name, the excluded ones."""

    def __init__(self, inputs: Inputs, terms: Mapping[str, Terms]) -> None:
        named = inputs.everything
        self.stores = [store for _, store in named]
        self.origin = np.repeat(np.arange(len(named)), [len(store) for store in self.stores])
        self.place = np.concatenate([np.arange(len(store)) for store in self.stores])
        self.rows = np.arange(len(self.origin))
        self._images = pa.concat_tables([_images(name, store) for name, store in named])
        self._picture = connected_rows(self._images["sha256"], self._images["pixels"])
        self._inputs, self._terms = inputs, {name: terms.get(name, Terms()) for name in inputs.stores}
        self.is_excluded = self.origin >= len(inputs.stores)
        prices = [prices_of(store, name, self._terms[name]) for name, store in inputs.stores.items()]
        self.prices = np.concatenate([*prices, np.zeros(np.count_nonzero(self.is_excluded))])

    @property
    def by_priority(self) -> np.ndarray:
        """All rows; of copies the one that comes first stays."""
        return np.lexsort((self.rows, self.prices, self.origin > 0))

    def offered(self) -> np.ndarray:
        """True for images [n] of sources that may give any."""
        barred = [number for number, said in enumerate(self._terms.values()) if said.cap == 0]
        return np.asarray(~self.is_excluded & ~np.isin(self.origin, barred))

    @cached_property
    def _licenses(self) -> np.ndarray:
        """License class [n] of every image."""
        found = [
            value for name, store in self._inputs.stores.items() for value in licenses_of(store, self._terms[name])
        ]
        return np.array(found + [""] * (len(self.rows) - len(found)), object)

    def licensed(self, licenses: Sequence[str]) -> np.ndarray:
        """True for images [n] whose license is allowed; the target's are the user's own."""
        if not licenses:
            return np.ones(len(self.rows), bool)
        return np.asarray(are_licensed(self._licenses.tolist(), licenses) | (self.origin == 0))

    def banned_by(self) -> np.ndarray:
        """For every image [n] an excluded one that shows the same picture or comes from the same file, or -1."""
        excluded = self.rows[self.is_excluded]
        by_picture = _first(self._picture, excluded)
        return np.where(by_picture < 0, _first(connected_rows(self._images["file"]), excluded), by_picture)

    def first_copy(self, allowed: np.ndarray) -> np.ndarray:
        """For every image [n] that of its copies that stays, or -1."""
        order = self.by_priority
        return np.where(allowed, _first(self._picture, order[allowed[order]]), -1)

    def first_of_target(self, clean: np.ndarray) -> np.ndarray:
        """True for the target's images [n] to select for: each picture once."""
        mine = (self.origin == 0) & clean
        return np.asarray(mine & (_first(self._picture, self.rows[mine]) == self.rows))

    def left_out(self, lost: np.ndarray, code: str, because_of: np.ndarray) -> pa.Table:
        """Rows of LEFT_OUT for lost images, each with the image that it was left out for."""
        other = self._images.take(because_of[lost])
        names = [f"{s}/{k}" for s, k in zip(other["source"].to_pylist(), other["key"].to_pylist(), strict=True)]
        return self._table(lost, code, [f"{CODES[code]} {name}" for name in names], names)

    def unlicensed(self, lost: np.ndarray, licenses: Sequence[str]) -> pa.Table:
        """Rows of LEFT_OUT for images whose license is not allowed."""
        wanted = ", ".join(licenses)
        held = self._licenses[lost] if lost.any() else []
        reasons = [f"{CODES['license']} ({wanted}): {value or 'none is known'}" for value in held]
        return self._table(lost, "license", reasons, [""] * len(reasons))

    def _table(self, lost: np.ndarray, code: str, reasons: list[str], because_of: list[str]) -> pa.Table:
        mine = self._images.filter(pa.array(lost))
        columns = {"code": [code] * len(mine), "reason": reasons, "because_of": because_of}
        return pa.table({"source": mine["source"], "key": mine["key"], **columns}, schema=LEFT_OUT)


def _resembling(everything: _Everything, stays: np.ndarray, asks: np.ndarray, **settings: Any) -> NearDuplicates:
    """Near duplicates among the images that stay, and what resembles excluded ones."""
    order = everything.by_priority
    return near_duplicates(
        everything.stores,
        (everything.origin, everything.place),
        order[stays[order]],
        evaluation=everything.rows[everything.is_excluded],
        checked=everything.rows[asks & ~stays],
        **settings,
    )


def _images(source: str, store: EmbeddingStore) -> pa.Table:
    """source, key, digests of picture, pixels and file of every image of a store."""
    names = pa.repeat(pa.scalar(source, pa.string()), len(store))
    rows = store.rows().select(["key", "sha256", "pixels"]).append_column("source", names)
    return rows.append_column("file", store.file_digests())


def _first(group: np.ndarray, among: np.ndarray) -> np.ndarray:
    """For every row [n] the first of some rows [r] in its group, or -1."""
    first = np.full(len(group), -1)
    first[group[among[::-1]]] = among[::-1]  # of several values for one place the last stays
    per_row: np.ndarray = first[group]
    return per_row
