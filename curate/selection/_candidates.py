"""What a selection method sees, and what it gives back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from curate.results import TARGET, ShiftReport
from curate.selection._ledger import Ledger
from embeddings.neighbors import nearest
from embeddings.progress import Progress, silent
from embeddings.store import EmbeddingStore
from embeddings.vectors import Vectors

BLOCK_ROWS = 4096
KEY_ROWS = 65_536  # keys that are Python objects at once
Search = Callable[[np.ndarray, Vectors, int], tuple[np.ndarray, np.ndarray]]  # as ``nearest``
Found = TypeVar("Found")
SAMPLE_ROWS = 32_768  # enough for a mean and 64 principal directions, whatever the size of the pools


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Every image a method may choose: no two of them the same picture, none of them an excluded one.

    They stand in one order whatever the order of the arguments: the target's own images first, then the pools by name,
    by key within a source. A row is the number of a candidate in that order.
    """

    stores: Mapping[str, EmbeddingStore]  # target first, then the pools by name
    source: np.ndarray  # [n] int64, number of the candidate's store
    place: np.ndarray  # [n] int64, its row in that store
    copies: np.ndarray  # [n] int64, how many candidates were this picture or nearly so, itself included
    queries: np.ndarray  # [m] int64, rows of the target store to select for: each picture once, no excluded one
    prices: np.ndarray | None = None  # [n] float64, money per image; None: all are free
    target_weights: np.ndarray | None = None  # [m] float64, how much a target image counts; None: all alike
    far: float = 0.0  # share of the selection that is drawn from far data
    start: EmbeddingStore | None = None  # what the starting model was trained on, where that is known
    report: ShiftReport | None = None  # what `curate score` says of the pools
    search: Search = nearest  # of the nearest candidates; exact unless an index was asked for
    progress: Progress = silent
    _found: dict[str, Any] = field(init=False, repr=False, default_factory=dict)  # by ``once``

    def asked(self, **wish: Any) -> Candidates:
        """The same images under another wish (fields from ``target_weights`` on): either knows what the other found."""
        other = replace(self, **wish)
        object.__setattr__(other, "_found", self._found)
        return other

    def once(self, name: str, find: Callable[[], Found]) -> Found:
        """What the candidates' images alone decide, found when first asked for."""
        if name not in self._found:
            self._found[name] = find()
        found: Found = self._found[name]
        return found

    def __len__(self) -> int:
        return len(self.source)

    @cached_property
    def names(self) -> list[str]:
        """Names of the sources, by number."""
        return list(self.stores)

    @cached_property
    def keys(self) -> np.ndarray:
        """Key [n] of every candidate."""
        return self.column("key", np.arange(len(self)))

    @cached_property
    def weights(self) -> np.ndarray:
        """How much each target image [m] counts, float64, 1 on average."""
        weights = self.target_weights if self.target_weights is not None else np.ones(len(self.queries))
        return np.asarray(weights / weights.mean())

    @cached_property
    def own(self) -> np.ndarray:
        """True for the candidates [n] that are the target's own images."""
        return np.asarray(self.source == 0)

    @property
    def target_keys(self) -> np.ndarray:
        """Key [m] of every target image to select for."""
        keys: np.ndarray = self.stores[TARGET].rows()["key"].to_numpy()[self.queries]
        return keys

    @property
    def target_vectors(self) -> np.ndarray:
        """Vectors [m, d] float32 of the target images to select for."""
        return np.asarray(self.stores[TARGET].vectors()[self.queries], np.float32)

    def column(self, name: str, rows: np.ndarray) -> np.ndarray:
        """One column of the stores' rows, for some candidates [r]."""
        out = np.empty(len(rows), dtype=object)
        for source, where, places in self.by_store(rows):
            out[where] = self.stores[source].rows()[name].to_numpy()[places]
        return out

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Vectors [r, d] float32 of some candidates."""
        out = np.empty((len(rows), self.stores[TARGET].spec.dim), np.float32)
        for source, where, places in self.by_store(rows):
            out[where] = self.stores[source].vectors()[places]
        return out

    def rows_of(self, *names: str) -> np.ndarray:
        """Rows [r] of the candidates from some sources."""
        return np.flatnonzero(np.isin(self.source, [self.names.index(name) for name in names]))

    def counts(self) -> dict[str, int]:
        """Candidates per source."""
        return dict(zip(self.names, np.bincount(self.source, minlength=len(self.names)).tolist(), strict=True))

    def draws(self, seed: int) -> np.ndarray:
        """A random number [n] uint64 per candidate that depends on (seed, source, key) alone.

        Taking the lowest is a uniform draw without replacement. It does not depend on what else is there, and the first
        n of a larger draw are the smaller draw.
        """
        out = np.empty(len(self), np.uint64)
        for name, where, places in self.by_store(np.arange(len(self))):
            prefix = f"{seed}\0{name}\0".encode()
            keys = self.stores[name].rows()["key"].cast(pa.binary()).take(places)
            for start in range(0, len(places), KEY_ROWS):
                texts = [prefix + key for key in keys.slice(start, KEY_ROWS).to_pylist()]
                out[where[start : start + KEY_ROWS]] = hash_bytes(texts)
        return out

    @property
    def pool_sample(self) -> np.ndarray:
        """Vectors [s, d] of the pools' candidates, a fixed random sample of at most 32,768: what the pools look like.

        Where every pool image is a copy of a target image, the target's own candidates stand in.
        """
        return self.once("pool sample", self._sampled)

    @property
    def pool_center(self) -> np.ndarray:
        """Mean [d] float64 of that sample."""
        return self.once("pool center", lambda: self.pool_sample.mean(axis=0, dtype=np.float64))

    def _sampled(self) -> np.ndarray:
        rows = np.flatnonzero(self.source > 0)
        rows = rows if len(rows) else np.arange(len(self))
        if len(rows) > SAMPLE_ROWS:
            rows = np.sort(rows[np.argsort(self.draws(0)[rows], kind="stable")[:SAMPLE_ROWS]])
        return self.vectors(rows)

    def by_store(self, rows: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """For every source of some candidates [r]: its name, which of the r they are, and their rows in its store."""
        for number in np.unique(self.source[rows]):
            where = np.flatnonzero(self.source[rows] == number)
            yield self.names[number], where, self.place[rows[where]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """What a method took, in the order it took it."""

    rows: np.ndarray  # [r] int64, those the ledger let it take
    scores: np.ndarray  # [r] float64, the method's own; lower = nearer or drawn earlier
    reasons: list[str]
    codes: Sequence[str] = ()  # [r] one word for the kind of pick; none: the method's name
    parameters: dict[str, Any] = field(default_factory=dict)  # JSON; what the method used beside the candidates
    stopped: str = ""  # why the method ended before the ledger was done


def drawn(candidates: Candidates, ledger: Ledger, rows: np.ndarray, *, seed: int, reason: str) -> Choice:
    """A uniform draw without replacement among some candidates; score = the random number, in [0, 1)."""
    numbers = candidates.draws(seed)
    taken = ledger.walk(rows[np.argsort(numbers[rows], kind="stable")])
    return Choice(rows=taken, scores=unit_interval(numbers[taken]), reasons=[reason] * len(taken))


def unit_interval(numbers: np.ndarray) -> np.ndarray:
    """uint64 to [0, 1)."""
    return np.ldexp(numbers.astype(np.float64), -64)


def counter_hash(texts: Iterator[str]) -> np.ndarray:
    """uint64 of every text, from sha256."""
    return hash_bytes([text.encode() for text in texts])


def hash_bytes(texts: Sequence[bytes]) -> np.ndarray:
    """The same of texts as they are encoded; a million take a second."""
    sha256 = hashlib.sha256
    digests = b"".join([sha256(text).digest() for text in texts])
    return np.frombuffer(digests, dtype=">u8")[::4].astype(np.uint64)
