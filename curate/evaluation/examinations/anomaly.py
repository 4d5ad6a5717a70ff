"""Anomaly: how well defects stand out to who has seen only normal training images, and never a defect's label.

    neighbors      mean distance to the two nearest normal images, features at length 1
    gaussian       Mahalanobis distance to the normal images, covariance shrunk as Ledoit and Wolf say
    patch-memory   the strangest place of the image: PatchCore on the arm's network (``_patches``)

Each is a condition with auroc, average_precision, and recall and false_reject at a threshold, for which a fifth of the
normal training images is held out where that is enough (19 for 5%; else all are remembered, and there is no threshold).
The line to beat is the patch memory of the frozen public encoder: published, and without any training.

It makes sense where one class is in order and whatever else may come is not; then it tells what can be found before
defects are collected. It also runs on balanced classes, where it asks how foreign the others are to one of them. An arm
that was trained with labels (finetuned, supervised) has seen defects all the same. A patch memory finds only defects
that still show at the encoder's resolution.

Cost per arm: 2,000 normal images and all test images pass the network once; a memory of 2,000 patches takes seconds,
comparing an image of 256 patches with it about .01 s. Memory: 40,000 patches and 512 images.

Source: Bergman et al. 2020, "Deep nearest neighbor anomaly detection"; Rippel et al. 2021, "Modeling the distribution
of normal data in pre-trained deep features for anomaly detection"; Ledoit and Wolf 2004; Roth et al. 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from curate.evaluation._knn import unit_rows
from curate.evaluation._pictures import read_pictures
from curate.evaluation._view import Figure, View
from curate.evaluation.examinations._detection import (
    FALSE_REJECT,
    Question,
    Scored,
    against_normal,
    figures,
    images_needed,
    missing,
    normal_class,
    stand_out,
    why_no_threshold,
)
from curate.evaluation.examinations._feature_maps import FeatureMaps
from curate.evaluation.examinations._gaussian import Gaussian
from curate.evaluation.examinations._patches import POOL, PatchMemory, patch_features, remember
from embeddings.neighbors import nearest
from embeddings.pipeline.batches import core_count

K = 2
LIMITS = {"memory": 2_000, "held_out": 1_000}  # images whose places are looked at
ESTIMATED = 10_000  # images that the Gaussian is fitted to
READ = 512  # images held at once
METRICS = ("auroc", "average_precision", "recall", FALSE_REJECT)


@dataclass(frozen=True, kw_only=True)
class NormalImages:
    """Training images in order, by row of the labeled set: those that are remembered, and those held out."""

    memory: np.ndarray
    held_out: np.ndarray
    n_found: int  # that could be held out


def examine(view: View) -> list[Figure]:
    """AUROC, average precision, recall and false rejects of each way to score what is not normal.

    Raises:
        UnknownNameError: no image has the label that was named as normal.
    """
    split = view.comparison.split
    normal = normal_class(split, view.settings.normal)
    images, in_order = normal_images(view, normal), split.labels[split.test] == normal
    no_memory = "" if len(images.memory) else f"the training part has no image of {split.facts['class_names'][normal]}"
    asked: list[Question | Figure] = []
    for name, score in METHODS.items():
        found = no_memory or score(view, images)
        if isinstance(found, str):
            asked += [missing(name, metric, found) for metric in METRICS]
        else:
            above = why_no_threshold(view) or _rejected(found, images, view.settings.reject)
            asked += against_normal(name, found[1], in_order, above, known=np.isfinite(found[1]))
    return figures(view.comparison.resamples, asked)


def normal_images(view: View, normal: int) -> NormalImages:
    """The first held-out part's images of a class are held out if a threshold can be set on them, else none."""
    split = view.comparison.split
    in_order = split.labels[split.train] == normal
    fit, held = (part[in_order[part]] for part in split.held_out[0])
    if not len(fit) or len(held) < images_needed(view.settings.reject):
        n_found = len(held) if len(fit) else 0
        return NormalImages(memory=split.train[in_order], held_out=held[:0], n_found=n_found)
    return NormalImages(memory=split.train[fit], held_out=split.train[held], n_found=len(held))


def neighbor_scores(view: View, images: NormalImages) -> Scored:
    """Mean distance to the two nearest normal images, features at length 1."""
    unit = unit_rows(view.features[images.memory])

    def score(rows: np.ndarray) -> np.ndarray:
        if not len(rows):
            return np.zeros(0)
        squared, _ = nearest(unit_rows(view.features[rows]), unit, min(K, len(unit)))
        return np.asarray(np.sqrt(squared).mean(axis=1))

    return score(images.held_out), score(view.comparison.split.test)


def gaussian_scores(view: View, images: NormalImages) -> Scored:
    """Mahalanobis distance to the normal images, in the span of their features and outside it."""
    gaussian = Gaussian.of(view.features[spread(images.memory, ESTIMATED)])
    held_out, test = images.held_out, view.comparison.split.test
    return gaussian.distances(view.features[held_out]), gaussian.distances(view.features[test])


def patch_scores(view: View, images: NormalImages) -> Scored | str:
    """Distance of the strangest place to the places of normal images, or why there is none."""
    maps = FeatureMaps.of(view.eye())
    if maps is None:
        return f"the encoder of {view.arm} has no feature maps"
    memory, held_out = (spread(rows, LIMITS[name]) for name, rows in vars(images).items() if name in LIMITS)
    quota, pool = max(1, POOL // len(memory)), []
    for at, patches in _patches(view, maps, memory):
        pool += [_some(own, quota, seed=i) for i, own in zip(at.tolist(), patches, strict=True)]
    if not pool:
        return "none of the normal training images can be read"
    remembered = remember(np.concatenate(pool))
    held, test = (_compared(view, maps, remembered, rows) for rows in (held_out, view.comparison.split.test))
    return held[np.isfinite(held)], test


def spread(rows: np.ndarray, limit: int) -> np.ndarray:
    """At most ``limit`` of some rows, evenly spaced."""
    at = np.linspace(0, len(rows) - 1, min(limit, len(rows))).astype(np.int64)
    return np.asarray(rows[at])


METHODS: dict[str, Callable[[View, NormalImages], Scored | str]] = {
    "neighbors": neighbor_scores,
    "gaussian": gaussian_scores,
    "patch-memory": patch_scores,
}


def _rejected(scored: Scored, images: NormalImages, reject: float) -> np.ndarray | str:
    """Which test images are rejected [m], or why that cannot be said."""
    held_out, test = scored
    known = held_out if len(images.held_out) else np.zeros(images.n_found)  # too few to be held out
    return stand_out([(known, test)], reject)


def _compared(view: View, maps: FeatureMaps, memory: PatchMemory, rows: np.ndarray) -> np.ndarray:
    """Scores [n] of the images of some rows; NaN of those that cannot be read."""
    scores = np.full(len(rows), np.nan)
    for at, patches in _patches(view, maps, rows):
        scores[at], _ = memory.scores(patches)
    return scores


def _patches(view: View, maps: FeatureMaps, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions [k] in ``rows`` and patches [k, P, D] of the images that can be read, batch by batch."""
    encoder, embedding = maps.encoder, view.embedding
    size, workers = encoder.spec.size, embedding.workers or core_count()
    for start in range(0, len(rows), READ):
        embedding.progress("anomaly", start, len(rows), f"places of images by {view.arm}")
        block = rows[start : start + READ]
        pixels, at = read_pictures(view.images, block, size=size, workers=workers, prepare=encoder.prepare)
        for first in range(0, len(at), encoder.batch_size):
            part = slice(first, first + encoder.batch_size)
            yield start + at[part], patch_features(maps(pixels[part]))


def _some(patches: np.ndarray, n: int, *, seed: int) -> np.ndarray:
    """At most n of an image's patches [P, D], drawn by its place in the set."""
    if len(patches) <= n:
        return patches
    drawn = np.random.default_rng(seed).choice(len(patches), n, replace=False)
    return np.asarray(patches[np.sort(drawn)])
