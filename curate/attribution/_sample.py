"""The sampled pictures of a store, read from its source again, and their vectors after a change.

Large pictures are shrunk when they are read, which leaves the encoder more detail than it sees and a sample in memory:
0.1 GB for 250 pictures at an edge of 128. Traces of compression go with it, as they do in the encoder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from PIL import Image

from curate.attribution._facts import Facts
from curate.attribution._transforms import Change
from curate.distances._coverage import sampled_rows
from embeddings.encoders import Encoder
from embeddings.errors import ImageError
from embeddings.moments import fold_of
from embeddings.pictures.views import load_image
from embeddings.pipeline.batches import one_thread_each
from embeddings.sources import Source, open_source
from embeddings.store import EmbeddingStore

MOST_KEPT = 16_384  # vectors; those of one target and some ten pools
KEPT = 3  # times the encoder's edge: what a picture's shorter side is shrunk to when it is read


@dataclass(frozen=True)
class Sample:
    """Pictures of one side, all of them RGB."""

    pictures: tuple[Image.Image, ...]
    folds: np.ndarray  # [n] uint8
    edge: int  # of the encoder
    left_out: int = 0  # sampled pictures that could not be read or decoded, or have changed
    problem: str = ""  # of the first of them

    @classmethod
    def read(cls, store: EmbeddingStore, limit: int, *, edge: int, workers: int, salt: str = "") -> Sample:
        """The pictures of at most ``limit`` rows with the lowest key hash.

        Raises:
            SourceError: the store's source is gone, or holds no images.
        """
        source, chosen = open_source(store.source), store.take(sampled_rows(store, limit))
        folds, rows = fold_of(chosen.rows(), salt=salt), chosen.rows().select(["uri", "sha256"]).to_pylist()
        with ThreadPoolExecutor(workers) as threads:
            found = list(threads.map(lambda row: read_picture(source, KEPT * edge, **row), rows))
        kept = [i for i, picture in enumerate(found) if isinstance(picture, Image.Image)]
        pictures = tuple(picture for picture in found if isinstance(picture, Image.Image))
        problems = [picture for picture in found if isinstance(picture, str)]
        return cls(pictures, folds[kept], edge, len(problems), problems[0] if problems else "")

    def __len__(self) -> int:
        return len(self.pictures)

    def take(self, mask: np.ndarray) -> Sample:
        """Those of the pictures that a mask [n] keeps."""
        kept = tuple(picture for picture, keep in zip(self.pictures, mask, strict=True) if keep)
        return replace(self, pictures=kept, folds=self.folds[mask])

    def changed(self, change: Change | None) -> Sample:
        """The sample with every picture changed."""
        return self if change is None else replace(self, pictures=tuple(map(change, self.pictures)))

    @cached_property
    def facts(self) -> Facts:
        """What is measured of the pictures."""
        return Facts.of(self.pictures, edge=self.edge)


class Vectors:
    """Vectors of pictures under one encoder; what looks the same to the encoder is encoded once."""

    def __init__(self, encoder: Encoder, *, workers: int) -> None:
        self.edge = encoder.spec.size
        self._encoder, self._workers = encoder, workers
        self._known: dict[bytes, np.ndarray] = {}  # by digest of the prepared pixels

    def of(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """Float64 [n, d]."""
        with ThreadPoolExecutor(self._workers) as threads:
            prepared = list(threads.map(self._encoder.prepare, pictures))
        names = [hashlib.sha256(np.ascontiguousarray(pixels).data).digest() for pixels in prepared]
        new = {name: pixels for name, pixels in zip(names, prepared, strict=True) if name not in self._known}
        self._encode(list(new), list(new.values()))
        found = np.stack([self._known[name] for name in names], dtype=np.float64)
        while len(self._known) > MOST_KEPT:
            del self._known[next(iter(self._known))]
        return found

    def _encode(self, names: list[bytes], prepared: list[np.ndarray]) -> None:
        size = self._encoder.batch_size
        starts = range(0, len(names), size)
        with one_thread_each(self._workers if self._encoder.parallel else 1) as lanes:
            batches = lanes.map(
                lambda start: self._encoder.encode(_padded(prepared[start : start + size], size)), starts
            )
            for start, vectors in zip(starts, batches, strict=True):
                part = names[start : start + size]
                self._known.update(zip(part, np.asarray(vectors, np.float32), strict=False))


def _padded(prepared: list[np.ndarray], size: int) -> np.ndarray:
    """A batch [size, ...], zeros at its end."""
    batch = np.zeros((size, *prepared[0].shape), prepared[0].dtype)
    batch[: len(prepared)] = prepared
    return batch


def read_picture(source: Source, edge: int, *, uri: str, sha256: str | None) -> Image.Image | str:
    """The picture, its shorter side at most ``edge``, or why it cannot be had."""
    try:
        picture = load_image(source, uri, sha256=sha256)
    except ImageError as error:
        return error.message
    ratio = edge / min(picture.size)
    if ratio >= 1:
        return picture
    return picture.resize((round(picture.width * ratio), round(picture.height * ratio)), Image.Resampling.BICUBIC)
