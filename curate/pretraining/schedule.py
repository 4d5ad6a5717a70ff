"""Which images at which step and at what learning rate, all counted in samples seen; there are no epochs.

The run is one endless stream of passes over the images, each pass a seeded permutation, cut into ``steps`` nearly equal
batches that add up to C exactly. So every image is seen floor(C / N) or ceil(C / N) times, no batch is dropped, none is
a remnant, and step s is a pure function of (seed, s): a restart needs no state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from curate.pretraining.augment.draws import ORDER_STREAM, uniforms
from embeddings.errors import TooFewImagesError, UsageError

MIN_IMAGES = 8  # a quarter of them is then a batch of two


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
    """The batches of a run over images with given hashes and repeats."""

    def __init__(self, images: np.ndarray, repeats: np.ndarray, *, samples: int, batch: int, seed: int) -> None:
        """Schedules ``images`` (hashes, uint64 [N]), each ``repeats`` times in a pass (int64 [N])."""
        self.samples, self.batch = samples, largest_batch(len(images), samples=samples, wished=batch)
        self.steps = count_steps(samples, self.batch)
        self._images, self._repeats, self._seed = images, repeats, seed
        self._pass = lru_cache(maxsize=2)(self._draw_pass)

    @property
    def images_per_pass(self) -> int:
        """Length of one pass: the images with their repeats."""
        return int(self._repeats.sum())

    @property
    def unique_images(self) -> int:
        """How many different images the run sees: all of them, unless C ends within the first pass."""
        rows, _ = self._pass(0)
        return len(np.unique(rows[: self.samples]))

    def __getitem__(self, step: int) -> Batch:
        start, end = (s * self.samples // self.steps for s in (step, step + 1))
        numbers, places = np.divmod(np.arange(start, end), self.images_per_pass)
        parts = [(n, self._pass(int(n)), places[numbers == n]) for n in np.unique(numbers)]
        rows = np.concatenate([order[at] for _, (order, _), at in parts])
        copies = np.concatenate([copy[at] for _, (_, copy), at in parts])
        return Batch(step, start, rows, numbers * self._repeats[rows] + copies)

    def batches(self, first: int = 0) -> Iterator[Batch]:
        """All batches from step ``first`` on."""
        return (self[step] for step in range(first, self.steps))

    def _draw_pass(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows in the order of one pass, and which copy of the image each is.

        Sorted by (copy + u) / repeats: a plain shuffle of single images, with the copies of one image spread out.
        """
        rows = np.repeat(np.arange(len(self._images)), self._repeats)
        copies = np.arange(len(rows)) - np.repeat(np.cumsum(self._repeats) - self._repeats, self._repeats)
        visits = number * self._repeats[rows] + copies
        high, low = uniforms(self._seed, self._images[rows], visits, stream=ORDER_STREAM, count=2).T
        order = np.argsort((copies + high + low * 2.0**-32) / self._repeats[rows], kind="stable")
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
            f"{samples} samples are less than one batch of {batch}.", hint=f"Ask for at least {10 * batch} samples."
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
