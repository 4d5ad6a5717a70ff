"""Views of labeled images under one augmentation, their frozen features, and what those still tell of the labels."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from curate.evaluation._intervals import NORMAL_95
from curate.evaluation._ridge import PENALTIES, fit_folds, held_out_hits
from curate.evaluation._split import hold_out, split_labeled
from curate.pretraining.augment.draws import VIEW_DRAWS, draw, image_hash, uniforms
from curate.pretraining.augment.presets import Preset
from curate.pretraining.augment.views import augment
from curate.results import Estimate
from embeddings.encoders import Encoder
from embeddings.errors import ImageError, TooFewImagesError
from embeddings.pictures.views import load_image
from embeddings.pipeline.batches import one_thread_each
from embeddings.sources import Source, open_source
from embeddings.store import EmbeddingStore

FEWEST = 40  # images
STREAM = 2000  # of the generator that draws views in training
METHOD = "cross-fitted ridge classification, paired over images and their groups"


@dataclass(frozen=True)
class Sample:
    """Labeled images as small squares, a quarter larger than the views that are cut from them, as in training."""

    pixels: np.ndarray  # uint8 [n, 3, E, E]
    hashes: np.ndarray  # uint64 [n]
    labels: np.ndarray  # int64 [n] class numbers
    units: np.ndarray  # int64 [n]: images of one unit belong together
    left_out: int  # images that could not be read

    @classmethod
    def read(cls, store: EmbeddingStore, *, size: int, limit: int, workers: int) -> Sample:
        """The labeled images of a store, at most ``limit``, those with the lowest key hash.

        Raises:
            TooFewImagesError: fewer than 40 of them.
            UsageError: no labels, or one class only.
        """
        split = split_labeled(store.rows())
        hashes = np.array([image_hash("", key) for key in store.column("key")], np.uint64)
        labeled = np.flatnonzero(split.labels >= 0)
        rows = np.sort(labeled[np.argsort(hashes[labeled], kind="stable")[:limit]])
        source, edge = open_source(store.source), size * 5 // 4
        places = store.rows().select(["uri", "sha256"]).take(pa.array(rows)).to_pylist()
        with ThreadPoolExecutor(workers) as threads:
            found = list(threads.map(lambda place: _square(source, edge, **place), places))
        kept = [i for i, pixels in enumerate(found) if pixels is not None]
        if len(kept) < FEWEST:
            raise TooFewImagesError(
                f"{len(kept)} labeled images can be read; an audit needs {FEWEST}.", hint="Label more images."
            )
        pixels, rows = np.stack([pixels for pixels in found if pixels is not None]), rows[kept]
        labels = np.unique(split.labels[rows], return_inverse=True)[1]
        return cls(pixels, hashes[rows], labels, split.units[rows], len(found) - len(kept))

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True)
class Eye:
    """A frozen encoder, and how views for it are drawn."""

    encoder: Encoder
    seed: int
    workers: int

    def features(self, sample: Sample, preset: Preset, *, views: int) -> np.ndarray:
        """float32 [n, views, d]: each image's first views under a preset; the same draws for every preset."""
        numbers = np.repeat(np.arange(len(sample)), views)
        visits = np.tile(np.arange(views), len(sample))
        size = self.encoder.batch_size
        starts = range(0, len(numbers), size)

        def look(start: int) -> np.ndarray:
            which = slice(start, start + size)
            return self._encoded(sample, preset, numbers[which], visits[which])

        with one_thread_each(self.workers if self.encoder.parallel else 1) as lanes:
            found = np.concatenate(list(lanes.map(look, starts)))
        return found.reshape(len(sample), views, -1)

    def _encoded(self, sample: Sample, preset: Preset, numbers: np.ndarray, visits: np.ndarray) -> np.ndarray:
        """One batch of views, zeros at its end."""
        size, pixels = self.encoder.spec.size, torch.from_numpy(sample.pixels[numbers])
        u = uniforms(self.seed, sample.hashes[numbers], visits, stream=STREAM, count=VIEW_DRAWS)
        views = augment(pixels, draw(preset, u, stored=pixels.shape[-1], size=size), size=size)
        batch = np.zeros((self.encoder.batch_size, size, size, 3), np.uint8)
        batch[: len(views)] = views.mul_(255).round_().byte().permute(0, 2, 3, 1).numpy()
        return self.encoder.encode(batch)[: len(views)]


class Judge:
    """Probes on the images as they are, and on their views, over the same folds."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, units: np.ndarray) -> None:
        """Takes the features of the images, [n, 1, d]; class numbers [n], and units [n] that are never cut."""
        self.labels, self.units, self.folds = labels, units, hold_out(units, enough=len(units))
        self._models = fit_folds(images, labels, self.folds)
        hits = held_out_hits(self._models, images, labels, self.folds)
        self._penalty = _best(hits)
        self.hits = hits[self._penalty]  # [n]
        self.largest_class = float(np.bincount(labels).max() / len(labels))

    def facts(self) -> dict[str, Any]:
        """What is known of the images as they are."""
        classes, n = len(np.unique(self.labels)), len(self.labels)
        return {"n": n, "classes": classes, "largest_class": self.largest_class, "accuracy": self.accuracy}

    @property
    def signal(self) -> float:
        """What the probe on images has above naming the largest class."""
        return float(self.hits.mean()) - self.largest_class

    @property
    def has_signal(self) -> bool:
        """True if that is more than noise: three errors, since the penalty was chosen on the same images."""
        return self.signal > 3 * (self.accuracy.se or 0.0)

    @property
    def accuracy(self) -> Estimate:
        """On the images as they are, 0..1."""
        return self._estimate(self.hits, unit="accuracy", lower_is_closer=False)

    def hits_on(self, views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Share of each image's views [n, V, d] told right, [n], by probes on views, and by those on images."""
        adapted = held_out_hits(fit_folds(views, self.labels, self.folds), views, self.labels, self.folds)
        unadapted = held_out_hits(self._models, views, self.labels, self.folds)
        return adapted[_best(adapted)], unadapted[self._penalty]

    def lost(self, hits: np.ndarray) -> Estimate:
        """Accuracy on the images as they are less that of hits [n], paired."""
        return self._estimate(self.hits - hits, unit="accuracy lost", null=0.0)

    def _estimate(self, values: np.ndarray, **facts: object) -> Estimate:
        """The mean of [n] values with the error of independent units."""
        n, mean = len(values), float(values.mean())
        sums = np.bincount(np.unique(self.units, return_inverse=True)[1], weights=values - mean)
        se = float(np.sqrt(np.square(sums).sum() * len(sums) / max(1, len(sums) - 1)) / n)
        low, high = mean - NORMAL_95 * se, mean + NORMAL_95 * se
        return Estimate(value=mean, low=low, high=high, se=se, n=(n, n), method=METHOD, **facts)  # type: ignore[arg-type]


def _best(hits: np.ndarray) -> int:
    """The penalty [of penalties, n] that is right most often."""
    assert len(hits) == len(PENALTIES)
    return int(np.round(hits.sum(axis=1), 6).argmax())


def _square(source: Source, edge: int, *, uri: str, sha256: str | None) -> np.ndarray | None:
    """uint8 [3, edge, edge] of one image; None where it cannot be had."""
    try:
        image = load_image(source, uri, sha256=sha256)
    except ImageError:
        return None
    return np.asarray(image.resize((edge, edge), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
