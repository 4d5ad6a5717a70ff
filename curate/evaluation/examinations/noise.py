"""Label noise: linear accuracy on the test images when a share of the training labels is wrong.

    20%      linear    accuracy of a head that was fitted on labels of which 20% are wrong, mean over draws
    noise    slope     points of accuracy lost per 10% of noise, least squares from 0% on

A wrong label is drawn at random among the other classes of the training part. Draws are nested: an image that is noisy
at 10% is so at 20%, with the same label. The penalty is chosen anew on held-out training images, whose labels are as
noisy as the rest, as it would be in practice; test labels are as they are. Intervals cover the choice of test images
and the draws of wrong labels together (``_over_draws``); every arm has the same draws, so differences are paired.

Cost: one linear probe per share and draw, 9 with the defaults; nothing is embedded. A network that was itself fitted
on the labels has seen them without noise: it has no figures here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from curate.evaluation._intervals import Resamples
from curate.evaluation._linear import Scaler, linear_probe
from curate.evaluation._view import Figure, View
from curate.evaluation.examinations._over_draws import over_draws
from curate.evaluation.examinations._per_image import slope_weights
from curate.numerals import counted
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
        hits.append(_hits(view, percent, scaler) if percent else view.probed.correct[None])
    view.embedding.progress("noise", len(percents), len(percents))
    accuracies = zip(percents, hits, strict=True)
    return [*(_accuracy(percent, right, resamples) for percent, right in accuracies), _slope(percents, hits, resamples)]


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


def _accuracy(percent: float, hits: np.ndarray, resamples: Resamples) -> Figure:
    """Accuracy at one share of wrong labels, from which test images are right after each draw [k, m]."""
    return Figure(
        condition=f"{percent:g}%",
        metric="linear",
        found=over_draws(hits, resamples),
        unit=ACCURACY,
        note=_note(len(hits)) if percent else "",
    )


def _slope(percents: Sequence[float], hits: Sequence[np.ndarray], resamples: Resamples) -> Figure:
    """Points lost per 10%: the slope of every image after every draw, which is linear in the accuracies."""
    k = max(map(len, hits))
    of_draw = np.stack([np.broadcast_to(right, (k, right.shape[1])) for right in hits], axis=1).astype(np.float64)
    lost = -100 * slope_weights([percent / 10 for percent in percents]) @ of_draw  # [k, m]
    return Figure(
        condition="noise",
        metric="slope",
        found=over_draws(lost, resamples, limits=None),
        unit=SLOPE,
        is_share=False,
        lower_is_better=True,
        note=_note(k) if len(percents) > 1 else "",
    )


def _note(draws: int) -> str:
    """What the interval covers besides the test images."""
    if draws == 1:
        return "of one draw of wrong labels, which the interval does not cover"
    return f"and over {counted(draws, 'draw')} of wrong labels"


def _hits(view: View, percent: float, scaler: Scaler) -> np.ndarray:
    """Which test images are told right after each draw, bool [draws, m]."""
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
    return np.array(hits)
