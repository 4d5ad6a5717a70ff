"""The two sides of a comparison: a set of images by its embeddings, or by the moments that a partner exported."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np

from curate.distances._frechet import TargetFrame, frechet_to, require_images
from curate.distances._frechet_full import FullTarget
from curate.distances._knn import TargetSpacing
from curate.results import Estimate
from curate.scoring.profile import describe, describe_moments
from embeddings import files
from embeddings.errors import TooFewImagesError
from embeddings.histograms import NeuronHistograms
from embeddings.moments import Folded, Moments
from embeddings.moments_file import is_moments_file, read_moments
from embeddings.pipeline import Embeddable, as_store
from embeddings.progress import Progress
from embeddings.spec import EncoderSpec
from embeddings.store import EmbeddingStore


class Side(ABC):
    """A set of images as measures see it: moments always, vectors where there are any."""

    name: str
    store: EmbeddingStore | None = None  # None where only moments are known

    @property
    @abstractmethod
    def spec(self) -> EncoderSpec:
        """The encoder of its vectors."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """Equal digests give equal figures."""

    @property
    @abstractmethod
    def moments(self) -> Moments:
        """Its moments by fold."""

    @property
    def histograms(self) -> NeuronHistograms | None:
        """Histograms of its activations, where they came with the moments."""
        return None

    @abstractmethod
    def halves(self) -> tuple[Moments, Moments]:
        """Moments of two random halves that share no group and no copy."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What one knows of it without comparing it to anything."""

    def folds(self) -> np.ndarray:
        """Fold [n] of every row of its store."""
        raise NotImplementedError(f"{self.name} has no rows")

    def __len__(self) -> int:
        return len(self.moments)


class StoreSide(Side):
    """A set whose vectors are at hand."""

    def __init__(self, name: str, store: EmbeddingStore) -> None:
        self.name, self.store = name, store
        self._folded, self._store = Folded(store), store

    @property
    def spec(self) -> EncoderSpec:
        """The encoder of the store."""
        return self._store.spec

    @cached_property
    def digest(self) -> str:
        """Of images, encoder, blocks, labels, and the address, which says how pictures were seen (``#white:4095``)."""
        labels = files.digest(self._store.column("label"))
        return files.digest([self._folded.digest, labels, self._store.source])

    @property
    def moments(self) -> Moments:
        """Computed once, kept in the store's folder."""
        return self._folded.moments

    def halves(self) -> tuple[Moments, Moments]:
        """Of rows, with folds of their own."""
        vectors, side, folds = self._store.vectors(), self._folded.folds() % 2, self._folded.folds(salt="floor")
        a, b = (np.flatnonzero(side == s) for s in (0, 1))
        for half in (a, b):
            require_images(len(half), "half of the target", 4)
        return Moments.from_vectors(vectors[a], folds[a]), Moments.from_vectors(vectors[b], folds[b])

    def facts(self) -> dict[str, Any]:
        """As ``describe``."""
        return describe(self._store)

    def folds(self) -> np.ndarray:
        """Found once."""
        return self._folded.folds()

    def __len__(self) -> int:
        return len(self._store)


class MomentsSide(Side):
    """A set of which only a file of moments is at hand."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self._path = name, path
        self._exported = read_moments(path)

    @property
    def spec(self) -> EncoderSpec:
        """The encoder named in the file."""
        return self._exported.spec

    @property
    def digest(self) -> str:
        """Of the file."""
        return self._exported.digest

    @property
    def moments(self) -> Moments:
        """As they were exported."""
        return self._exported.moments

    @property
    def histograms(self) -> NeuronHistograms | None:
        """If they were exported."""
        return self._exported.histograms

    def halves(self) -> tuple[Moments, Moments]:
        """Even and odd folds."""
        return self.moments.halves()

    def facts(self) -> dict[str, Any]:
        """Its count."""
        return describe_moments(str(self._path), self.digest, self.moments)


class Embedding(TypedDict, total=False):
    """Where and how sources are embedded, as ``as_store`` takes it."""

    work: Path | str | None  # where embeddings and scores are kept and reused (.curate); None keeps nothing
    device: str  # auto, cpu, cuda
    workers: int | None  # that read and decode images
    progress: Progress


def open_side(thing: Embeddable, name: str, encoder: str, **embedding: Unpack[Embedding]) -> Side:
    """A store, vectors, a source to embed, or a file of moments, as a side.

    Raises:
        As ``as_store``; CorruptError: a file of moments that does not read back.
    """
    if isinstance(thing, str | Path) and is_moments_file(thing):
        return MomentsSide(name, Path(thing))
    return StoreSide(name, as_store(thing, name=name, encoder=encoder, **embedding))


@dataclass(eq=False)
class Target:
    """The target and what is computed of it once for all pools."""

    side: Side

    @property
    def store(self) -> EmbeddingStore | None:
        """Its store; None where only moments are known."""
        return self.side.store

    @property
    def moments(self) -> Moments:
        """Its moments by fold."""
        return self.side.moments

    @cached_property
    def frame(self) -> TargetFrame:
        """What the headline distance needs."""
        return TargetFrame.of(self.moments)

    @cached_property
    def spacing(self) -> TargetSpacing:
        """What distances to neighbors and coverage need."""
        assert self.store is not None
        return TargetSpacing.of(self.store, self.side.folds())

    @cached_property
    def full(self) -> FullTarget:
        """What the full-dimension distance needs."""
        return FullTarget(self.moments)

    @cached_property
    def floor(self) -> Estimate:
        """Headline distance between two random halves of the target: truth 0, so its interval is the resolution."""
        try:
            a, b = self.side.halves()
            return frechet_to(TargetFrame.of(a), b, minimum=4)
        except TooFewImagesError as error:
            n = len(self.side) // 2
            return Estimate(value=None, n=(n, n), reason=error.message)
