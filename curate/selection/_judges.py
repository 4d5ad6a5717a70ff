"""Encoders that judge selections they had no part in: pictures read from the sources again, vectors of a sample.

Every picture is read once for all judges, and only if some figure needs it. Where more than a twentieth of a sample
cannot be read, the judges say nothing of it: what is left would be another sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image

from curate.attribution._sample import KEPT, Vectors, read_picture
from curate.distances._coverage import sampled_rows
from curate.results import TARGET
from curate.scoring.kept import Kept
from curate.selection._trial import Pick, Trial
from curate.selection._yardstick import Measured, Readings, Yardstick, readings
from embeddings.encoders import Encoder, get_encoder
from embeddings.errors import CurateError, TooFewImagesError
from embeddings.moments import Folded
from embeddings.pipeline.batches import core_count
from embeddings.sources import Source, open_source
from embeddings.store import EmbeddingStore

JUDGES = ("color-texture", "random")  # stand in where none is named
LIMITS = {
    "color-texture": "hand-made features: colors, edges and their coarse layout, not meaning",
    "random": "random weights: color, texture and coarse shape, not meaning",
}
MOST = 500  # images of a side
UNREAD = 0.05  # of a sample that may be missing
CHUNK = 256  # pictures in memory


class Place(NamedTuple):
    """Where a picture is, and what it was when it was selected."""

    source: str  # address
    uri: str
    sha256: str | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """Some images under the selecting encoder, and where their pictures are."""

    images: EmbeddingStore
    places: list[Place]  # [n]
    problem: str = ""  # why there are no pictures at all

    @classmethod
    def of(cls, images: EmbeddingStore, parts: Sequence[tuple[str, EmbeddingStore, np.ndarray]]) -> Sample:
        """Images of some sources, one source after the other: name, store and rows of it [r]."""
        without = [name for name, store, _ in parts if not has_pictures(store)]
        if without:
            problem = f"the images of {', '.join(without)} are vectors without a source of pictures"
            return cls(images=images, places=[], problem=problem)
        places = []
        for _, store, rows in parts:
            chosen = store.rows().select(["uri", "sha256"]).take(pa.array(rows)).to_pylist()
            places += [Place(store.source, row["uri"], row["sha256"]) for row in chosen]
        return cls(images=images, places=places)


def has_pictures(store: EmbeddingStore) -> bool:
    """True for a store made from images, not for arrays."""
    return bool(store.source and store.spec.size)


class Bench:
    """Some judges, and what they have looked at."""

    def __init__(self, encoders: Sequence[Encoder], *, workers: int | None) -> None:
        self.specs = [encoder.spec for encoder in encoders]
        self._workers = workers or core_count()
        self._vectors = [Vectors(encoder, workers=self._workers) for encoder in encoders]
        self._seen: dict[Place, list[np.ndarray] | str] = {}
        self._sources: dict[str, Source | str] = {}

    @classmethod
    def of(cls, names: Sequence[str], *, device: str, workers: int | None) -> Bench:
        """The judges of these names.

        Raises:
            UnknownNameError: no such encoder.
            MissingExtraError: its weights or its library are not on this machine.
        """
        return cls([get_encoder(name, device=device.partition(",")[0]) for name in names], workers=workers)

    def view(self, sample: Sample, judge: int) -> EmbeddingStore | str:
        """A sample under one of the judges, or why that cannot be had."""
        if sample.problem:
            return sample.problem
        self._look(sample.places)
        found = [self._seen[place] for place in sample.places]
        kept = [i for i, seen in enumerate(found) if not isinstance(seen, str)]
        problems = [seen for seen in found if isinstance(seen, str)]
        if len(problems) > UNREAD * len(found) or not kept:
            return f"{len(problems):,} of {len(found):,} images cannot be read again; the first: {problems[0]}"
        vectors = np.stack([found[i][judge] for i in kept]).astype(np.float32)
        rows = sample.images.rows().take(pa.array(kept))
        return EmbeddingStore(spec=self.specs[judge], rows=rows, vectors=vectors)

    def _look(self, places: Sequence[Place]) -> None:
        new = [place for place in dict.fromkeys(places) if place not in self._seen]
        for address in dict.fromkeys(place.source for place in new):
            self._sources.setdefault(address, _opened(address))
        for start in range(0, len(new), CHUNK):
            chunk = new[start : start + CHUNK]
            with ThreadPoolExecutor(self._workers) as threads:
                read = dict(zip(chunk, threads.map(self._read, chunk), strict=True))
            pictures = {place: found for place, found in read.items() if isinstance(found, Image.Image)}
            self._seen |= {place: found for place, found in read.items() if isinstance(found, str)}
            self._seen |= dict(zip(pictures, self._encoded(list(pictures.values())), strict=True))

    def _encoded(self, pictures: list[Image.Image]) -> Iterator[list[np.ndarray]]:
        """Vectors of every picture under every judge."""
        if not pictures:
            return
        yield from map(list, zip(*(vectors.of(pictures) for vectors in self._vectors), strict=True))

    @cached_property
    def _edge(self) -> int:
        return KEPT * max(vectors.edge for vectors in self._vectors)

    def _read(self, place: Place) -> Image.Image | str:
        source = self._sources[place.source]
        if isinstance(source, str):
            return source
        try:
            return read_picture(source, self._edge, uri=place.uri, sha256=place.sha256)
        except (CurateError, OSError) as error:
            return str(getattr(error, "message", error))


class Judging:
    """What the judges say of some selections; figures are kept below the work folder."""

    def __init__(self, trial: Trial, picks: Mapping[str, Pick], controls: Mapping[str, Pick], bench: Bench) -> None:
        self._bench, self._work = bench, trial.selector.settings["work"]
        target = trial.selector.inputs.target
        rows = trial.judging[sampled_rows(target.take(trial.judging), MOST)]
        self._judging = Sample.of(target.take(rows), [(TARGET, target, rows)])
        sampled = {name: trial.sample(pick.rows, MOST) for name, pick in picks.items()}
        matched = {name: trial.matched_sample(sampled[name], control.rows) for name, control in controls.items()}
        self._chosen = {name: pick.reason or _sample_of(trial, sampled[name]) for name, pick in picks.items()}
        self._controls = {name: c.reason or _sample_of(trial, matched[name]) for name, c in controls.items()}
        self._yardsticks: dict[int, Yardstick | str] = {}

    def readings(self, judge: int) -> Readings:
        """What one of the judges says, by method."""
        found, controls = (
            {name: self._measured(sample, judge) for name, sample in samples.items()}
            for samples in (self._chosen, self._controls)
        )
        return readings(found, controls)

    def _measured(self, chosen: Sample | str, judge: int) -> Measured | str:
        if isinstance(chosen, str):
            return chosen
        digests = [Folded(sample.images).digest for sample in (self._judging, chosen)]
        kept = Kept(self._work, "judge", self._bench.specs[judge].fingerprint, *digests)
        entry = kept.get("measured", partial(self._look, chosen, judge))
        return str(entry["reason"]) if "reason" in entry else Measured.from_json(entry)

    def _look(self, chosen: Sample, judge: int) -> dict[str, Any]:
        if judge not in self._yardsticks:
            self._yardsticks[judge] = self._yardstick(judge)
        yardstick, theirs = self._yardsticks[judge], self._bench.view(chosen, judge)
        if isinstance(yardstick, str):
            return {"reason": yardstick}
        measured = theirs if isinstance(theirs, str) else yardstick.measure(theirs)
        return {"reason": measured} if isinstance(measured, str) else measured.to_json()

    def _yardstick(self, judge: int) -> Yardstick | str:
        judging = self._bench.view(self._judging, judge)
        try:
            return judging if isinstance(judging, str) else Yardstick.of(judging)
        except TooFewImagesError as error:
            return error.message


def _sample_of(trial: Trial, rows: np.ndarray) -> Sample:
    return Sample.of(trial.images(rows), list(trial.parts(rows)))


def _opened(address: str) -> Source | str:
    """The source, or why it cannot be opened."""
    try:
        return open_source(address)
    except (CurateError, OSError) as error:
        return str(getattr(error, "message", error))
