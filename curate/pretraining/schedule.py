"""Which images at which step and at what learning rate, all counted in samples seen; there are no epochs.

The run is an endless stream of passes over the images, or one over those of each stage (curate.pretraining.stages),
every pass a seeded permutation, cut into ``steps`` nearly equal batches that add up to C exactly. So every image of a
stage is seen equally often, give or take one, no batch is dropped, none is a remnant, and step s is a pure function of
(seed, s): a restart needs no state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from curate.pretraining.augment.draws import ORDER_STREAM, uniforms
from curate.pretraining.stages import Order, Streams
from embeddings.errors import TooFewImagesError, UsageError

MIN_IMAGES = 8  # a quarter of them is then a batch of two
IN_STAGES = Order()


@dataclass(frozen=True)
class Images:
    """What the schedule must know of N images."""

    hashes: np.ndarray  # uint64 [N], of (source, key)
    repeats: np.ndarray  # int64 [N], of each in a pass
    stages: np.ndarray  # int64 [N]

    def __len__(self) -> int:
        return len(self.hashes)

    def part(self, rows: np.ndarray) -> Images:
        """Some of the images."""
        return Images(self.hashes[rows], self.repeats[rows], self.stages[rows])


@dataclass(frozen=True)
class Batch:
    """The images of one optimizer step."""

    step: int
    start: int  # samples seen before it
    rows: np.ndarray  # int64 [b]: rows of the image cache
    visits: np.ndarray  # int64 [b]: how often each of them was seen before

    @property
    def end(self) -> int:
        """Samples seen after it."""
        return self.start + len(self.rows)

    @property
    def middle(self) -> float:
        """Samples seen half way through it."""
        return self.start + len(self.rows) / 2


class Schedule:
    """The batches of a run over images with given hashes, repeats and stages."""

    def __init__(self, images: Images, *, samples: int, batch: int, seed: int, order: Order = IN_STAGES) -> None:
        """Schedules the images.

        Raises:
            TooFewImagesError: fewer than 8 images, in all or in a stage that is trained on by itself.
            UsageError: not even one batch of samples, or an order that the stages cannot have.
        """
        self._images, self._seed, self.samples = images, seed, samples
        self._streams = Streams(images.stages, images.repeats, samples=samples, order=order)
        self.batch = largest_batch(self._smallest(), samples=samples, wished=batch)
        self.steps = count_steps(samples, self.batch)
        self._pass = lru_cache(maxsize=2 * len(self._streams.rows))(self._draw_pass)

    def _smallest(self) -> int:
        """Images of the smallest stage that is trained on by itself."""
        sizes = [len(rows) for rows in self._streams.rows]
        if len(sizes) > 1 and min(sizes) < MIN_IMAGES:
            raise TooFewImagesError(
                f"A stage of {min(sizes)} images is too small to be trained on by itself: it takes {MIN_IMAGES}.",
                hint="Mix the stages (order mixed), or select more.",
            )
        return min(sizes)

    @property
    def images_per_pass(self) -> int:
        """Length of one pass over everything: the images with their repeats."""
        return int(self._images.repeats.sum())

    @property
    def unique_images(self) -> int:
        """How many different images the run sees: all of them, unless C ends within a stage's first pass."""
        counts = self._streams.counts()
        return sum(len(np.unique(self._pass(number, 0)[0][:count])) for number, count in enumerate(counts))

    @property
    def stage_samples(self) -> list[int]:
        """Samples of each stage that is trained on by itself, in the order of training."""
        return [int(count) for count in self._streams.counts()]

    def __getitem__(self, step: int) -> Batch:
        start, end = (s * self.samples // self.steps for s in (step, step + 1))
        rows, visits = np.empty(end - start, np.int64), np.empty(end - start, np.int64)
        streams, places = self._streams.at(np.arange(start, end))
        for stream in np.unique(streams):
            where = np.flatnonzero(streams == stream)
            rows[where], visits[where] = self._visit(int(stream), places[where])
        return Batch(step, start, rows, visits)

    def batches(self, first: int = 0) -> Iterator[Batch]:
        """All batches from step ``first`` on."""
        return (self[step] for step in range(first, self.steps))

    def _visit(self, stream: int, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row and visit of a stream's samples at some places [n]."""
        length = int(self._images.repeats[self._streams.rows[stream]].sum())
        numbers, places = np.divmod(places, length)
        parts = [(self._pass(stream, int(n)), places[numbers == n]) for n in np.unique(numbers)]
        rows = np.concatenate([order[at] for (order, _), at in parts])
        copies = np.concatenate([copy[at] for (_, copy), at in parts])
        return rows, numbers * self._images.repeats[rows] + copies

    def _draw_pass(self, stream: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows in the order of one pass over a stream, and which copy of the image each is.

        Sorted by (copy + u) / repeats: a plain shuffle of single images, with the copies of one image spread out.
        """
        images = self._streams.rows[stream]
        counts = self._images.repeats[images]
        rows = np.repeat(images, counts)
        copies = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        repeats = self._images.repeats[rows]
        visits = number * repeats + copies
        high, low = uniforms(self._seed, self._images.hashes[rows], visits, stream=ORDER_STREAM, count=2).T
        order = np.argsort((copies + high + low * 2.0**-32) / repeats, kind="stable")
        return rows[order], copies[order]


def count_steps(samples: int, batch: int) -> int:
    """Fewest steps whose nearly equal batches hold at most ``batch`` samples, but at least two each."""
    return max(1, min(math.ceil(samples / batch), samples // 2))


def largest_batch(n: int, *, samples: int, wished: int) -> int:
    """The wished batch size, or a quarter of the images if that is less, so that a batch is never most of the data.

    Raises:
        TooFewImagesError: fewer than 8 images.
        UsageError: not even one batch of samples.
    """
    if n < MIN_IMAGES:
        raise TooFewImagesError(
            f"Pretraining needs at least {MIN_IMAGES} images that can be read; there are {n}.",
            hint="Select more images.",
        )
    batch = min(wished, n // 4)
    if samples < batch:
        raise UsageError(
            f"{samples:,} samples are less than one batch of {batch:,}.",
            hint=f"Ask for at least {batch:,} samples, and for ten times as many to see whether it learns.",
        )
    return batch


def learning_rate_factor(share: float, *, warmup: float, floor: float = 0.0) -> float:
    """Factor of the peak learning rate at a share of C: linear up to 1 in ``warmup``, then half a cosine to ``floor``.

    A step uses the share at its middle, so neither the first nor the last one is wasted on zero.
    """
    if share < warmup:
        return share / warmup
    return cosine((share - warmup) / (1 - warmup), start=1.0, end=floor)


def cosine(share: float, *, start: float, end: float) -> float:
    """Half a cosine from ``start`` at share 0 to ``end`` at share 1."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))


def ramp(share: float, *, start: float, end: float, over: float) -> float:
    """A straight line from ``start`` at share 0 to ``end`` at the share ``over``; ``end`` from there on."""
    return end if share >= over else start + (end - start) * share / over
