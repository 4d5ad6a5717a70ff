"""Robustness: accuracy of the linear head on corrupted test images, and on the same task under other conditions.

    clean                    linear              accuracy on the test images that are corrupted, as they are
    gaussian-noise 3         linear              accuracy under one corruption at one severity
    gaussian-noise           linear, retained    mean over the severities, and its share of the clean accuracy
                             slope               points of accuracy lost per step of severity, least squares from 0 on
    all corruptions          linear, retained, slope     means over the corruptions
    shift NAME               see ``_shifts``

Every arm sees the same corrupted pictures: they are made at the frozen encoder's input size, and resized for an arm
with another one. At most ``images`` of the test images are corrupted, those with the lowest key hash; what is drawn
depends on seed, key, corruption and severity alone. Pictures are read once and no corrupted one is kept: memory is
n S^2 3 bytes. Cost: 76 n pictures encoded per arm (1,000 test images: 76,000), and about as long again to corrupt them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image
from threadpoolctl import threadpool_limits

from curate.evaluation._intervals import Resamples
from curate.evaluation._pictures import read_pictures
from curate.evaluation._view import Figure, View
from curate.evaluation.corruptions import NAMES, corrupt, draws
from curate.evaluation.examinations._per_image import PerImage, figures, slope_weights
from curate.evaluation.examinations._shifts import shifted
from curate.pretraining.augment.draws import image_hash
from embeddings.encoders import Encoder
from embeddings.pipeline.batches import core_count, one_thread_each

CLEAN = "clean"
ALL = "all corruptions"
ACCURACY = "linear accuracy"
SLOPE = "points of linear accuracy lost per step of severity"
RETAINED = "share of the clean linear accuracy"

Hits = dict[tuple[str, int], np.ndarray]  # by corruption and severity: 1.0 where the head is right, float64 [k]
Make = Callable[[int], np.ndarray]  # number of an image of the sample -> uint8 [S, S, 3]


def examine(view: View) -> list[Figure]:
    """Accuracy under corruptions, its slopes, and accuracy on the user's shift sets."""
    encoder = view.eye()
    sample = Sample.read(view, encoder)
    chosen = [name for name in NAMES if name in view.settings.corruptions or not view.settings.corruptions]
    severities = sorted(set(view.settings.severities))
    clean, hits = _hits(view, encoder, sample, [(name, severity) for name in chosen for severity in severities])
    found = _summarized(clean, hits, chosen, severities)
    reason = "no sampled image is right as it is" if len(sample) else sample.told
    return [*figures(found, sample.resamples(view), reason=reason, note=sample.told), *shifted(view, encoder)]


@dataclass(frozen=True)
class Sample:
    """The test images that are corrupted."""

    pixels: np.ndarray  # uint8 [k, S, S, 3], S the frozen encoder's input size
    at: np.ndarray  # int64 [k] positions in the test part
    hashes: list[int]  # of their keys
    unread: int  # sampled images that could not be read
    of: int  # test images there are

    @classmethod
    def read(cls, view: View, encoder: Encoder) -> Sample:
        """The test images with the lowest key hash, as the encoder prepares them if its size is the frozen one's."""
        rows, size = view.comparison.split.test, view.images.stores[0].spec.size
        hashes = np.array([image_hash("", key) for key in view.images.rows["key"].take(rows).to_pylist()], np.uint64)
        chosen = np.sort(np.argsort(hashes, kind="stable")[: view.settings.images])
        prepare = encoder.prepare if encoder.spec.size == size else None
        pixels, kept = read_pictures(view.images, rows[chosen], size=size, workers=_workers(view), prepare=prepare)
        return cls(pixels, chosen[kept], [int(h) for h in hashes[chosen[kept]]], len(chosen) - len(kept), len(rows))

    def __len__(self) -> int:
        return len(self.at)

    @property
    def told(self) -> str:
        """Which images were left out, in words."""
        unread = f", {self.unread:,} of which could not be read" if self.unread else ""
        return f"of {self.of:,} test images, {len(self) + self.unread:,} with the lowest key hash{unread}"

    def resamples(self, view: View) -> Resamples:
        """Draws of these images; of all test images where all are corrupted."""
        split = view.comparison.split
        return Resamples(units=split.units[split.test][self.at], n_train=len(split.train), seed=view.comparison.seed)


def _workers(view: View) -> int:
    return view.embedding.workers or core_count()


def _hits(view: View, encoder: Encoder, sample: Sample, versions: Sequence[tuple[str, int]]) -> tuple[np.ndarray, Hits]:
    """Which images the head is right on: as they are, and in every version."""
    split = view.comparison.split
    truth, seed, progress = split.labels[split.test][sample.at], view.comparison.seed, view.embedding.progress
    todo, found = [("", 0), *versions], []
    with threadpool_limits(limits=1, user_api="blas"), one_thread_each(_workers(view)) as lanes:
        for done, (name, severity) in enumerate(todo):
            progress("robustness", done, len(todo), f"{name} {severity}" if name else CLEAN)
            make = _maker(sample, name, severity, seed=seed)
            features = encoded(encoder, make, len(sample), lanes)
            said = view.probed.classify(features, sample.at) if len(sample) else np.zeros((0, split.n_classes))
            found.append((said.argmax(axis=1) == truth).astype(np.float64))
    progress("robustness", len(todo), len(todo))
    return found[0], dict(zip(versions, found[1:], strict=True))


def _maker(sample: Sample, name: str, severity: int, *, seed: int) -> Make:
    def make(number: int) -> np.ndarray:
        pixels: np.ndarray = sample.pixels[number]
        if not name:
            return pixels
        return corrupt(pixels, name, severity, draws(seed, sample.hashes[number], name, severity))

    return make


def encoded(encoder: Encoder, make: Make, count: int, lanes: ThreadPoolExecutor) -> np.ndarray:
    """Features [count, d] of pictures that are made batch by batch, several batches at once; float16 as in a store."""
    size, edge = encoder.batch_size, encoder.spec.size
    turn = nullcontext() if encoder.parallel else Lock()  # an accelerator takes one batch at a time

    def look(start: int) -> np.ndarray:
        batch, numbers = np.zeros((size, edge, edge, 3), np.uint8), range(start, min(start + size, count))
        for place, number in zip(batch, numbers, strict=False):
            place[...] = _resized(make(number), edge)
        with turn:
            return encoder.encode(batch)[: len(numbers)].astype(np.float16)

    parts = list(lanes.map(look, range(0, count, size)))
    return np.concatenate(parts) if parts else np.zeros((0, encoder.spec.dim), np.float16)


def _resized(pixels: np.ndarray, edge: int) -> np.ndarray:
    if len(pixels) == edge:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((edge, edge), Image.Resampling.BICUBIC))


def _summarized(clean: np.ndarray, hits: Hits, names: Sequence[str], severities: Sequence[int]) -> list[PerImage]:
    """Every figure of corrupted images, by its value per image."""
    single = [
        PerImage(condition=f"{name} {severity}", metric="linear", values=values, unit=ACCURACY, detail=True)
        for (name, severity), values in hits.items()
    ]
    weights = -100 * slope_weights([0, *severities])
    means = {name: np.mean([hits[name, severity] for severity in severities], axis=0) for name in names}
    slopes = {name: weights @ [clean, *(hits[name, severity] for severity in severities)] for name in names}
    means[ALL], slopes[ALL] = (np.mean(list(of.values()), axis=0) for of in (means, slopes))
    summaries = [figure for name in means for figure in _summary(name, means[name], slopes[name], clean)]
    return [PerImage(condition=CLEAN, metric="linear", values=clean, unit=ACCURACY), *single, *summaries]


def _summary(name: str, mean: np.ndarray, slope: np.ndarray, clean: np.ndarray) -> list[PerImage]:
    shared: dict[str, Any] = {"condition": name, "detail": name != ALL}
    return [
        PerImage(metric="linear", values=mean, unit=ACCURACY, **shared),
        PerImage(metric="retained", values=mean, unit=RETAINED, per=clean, is_share=False, **shared),
        PerImage(metric="slope", values=slope, unit=SLOPE, is_share=False, lower_is_better=True, **shared),
    ]
