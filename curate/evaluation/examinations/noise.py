"""Label noise: linear accuracy on the test images when a share of the training labels is wrong.

    20%      linear    accuracy of a head that was fitted on labels of which 20% are wrong, mean over draws
    noise    slope     points of accuracy lost per 10% of noise, least squares from 0% on

A wrong label is drawn at random among the other classes of the training part. Draws are nested: an image that is noisy
at 10% is so at 20%, with the same label. The penalty is chosen anew on held-out training images, whose labels are as
noisy as the rest, as it would be in practice; test labels are as they are. Intervals cover the choice of test images.

Cost: one linear probe per share and draw, 9 with the defaults; nothing is embedded. A network that was itself fitted
on the labels has seen them without noise: it has no figures here.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from curate.evaluation._linear import Scaler, linear_probe
from curate.evaluation._view import Figure, View
from curate.evaluation.examinations._per_image import PerImage, figures, slope_weights
from curate.pretraining.augment.draws import image_hash, uniforms
from curate.results import Estimate

STREAM = 3000  # of the generator of draws
ACCURACY = "linear accuracy"
SLOPE = "points of linear accuracy lost per 10% of noise"
REASON = "the network was fitted on the labels as they are"


def examine(view: View) -> list[Figure]:
    """Accuracy at every share of wrong labels, and its slope."""
    percents = sorted({0.0, *view.settings.noise})
    resamples = view.comparison.resamples
    if view.saw_labels:
        lacking = Estimate(value=None, reason=REASON, **resamples.facts())
        places = [*((f"{percent:g}%", "linear") for percent in percents), ("noise", "slope")]
        return [Figure(condition=condition, metric=metric, found=lacking) for condition, metric in places]
    hits, scaler = [], Scaler.of(view.features[view.comparison.split.train])
    for done, percent in enumerate(percents):
        view.embedding.progress("noise", done, len(percents), f"{percent:g}% of the labels")
        hits.append(_hits(view, percent, scaler) if percent else view.probed.correct.astype(np.float64))
    view.embedding.progress("noise", len(percents), len(percents))
    slope = -100 * slope_weights([percent / 10 for percent in percents]) @ hits
    found = [
        PerImage(condition=f"{percent:g}%", metric="linear", values=values, unit=ACCURACY)
        for percent, values in zip(percents, hits, strict=True)
    ]
    last = PerImage(condition="noise", metric="slope", values=slope, unit=SLOPE, is_share=False, lower_is_better=True)
    return figures([*found, last], resamples, reason="")


def noisy_labels(labels: np.ndarray, percent: float, u: np.ndarray) -> np.ndarray:
    """Labels int64 [n] of which a percentage is wrong.

    Args:
        labels: Class numbers int64 [n]; two classes or more.
        percent: 0..100.
        u: Uniform numbers [n, 2]: images with the lowest first ones are noisy, the second decide what their label is.
    """
    classes, own = np.unique(labels, return_inverse=True)
    others = len(classes) - 1
    steps = 1 + np.minimum((u[:, 1] * others).astype(np.int64), others - 1)
    noisy = np.argsort(u[:, 0], kind="stable")[: round(percent / 100 * len(labels))]
    found = labels.copy()
    found[noisy] = classes[(own + steps)[noisy] % len(classes)]
    return found


def _hits(view: View, percent: float, scaler: Scaler) -> np.ndarray:
    """Share of the draws after which each test image is told right, [m]."""
    split = view.comparison.split
    train, test = view.features[split.train], view.features[split.test]
    keys = view.images.rows["key"].take(pa.array(split.train)).to_pylist()
    images = np.array([image_hash("", key) for key in keys], np.uint64)
    hits = []
    for draw in range(view.settings.seeds):
        u = uniforms(view.comparison.seed, images, np.full(len(images), draw), stream=STREAM, count=2)
        labels = noisy_labels(split.labels[split.train], percent, u)
        probe = linear_probe(train, labels, test, split.held_out, n_classes=split.n_classes, scaler=scaler)
        hits.append(probe.predicted == split.labels[split.test])
    return np.asarray(np.mean(hits, axis=0))
