"""Ridge classification of images that have several views: fast enough for dozens of fits in seconds.

The rows of an image's views all train where the image does, and are all tested where it is held out; what is
standardized is the features of the rows trained on. See ``curate.pretraining.ridge``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from curate.pretraining.ridge import Ridge

PENALTIES = (1.0, 0.1, 0.01, 1e-3, 1e-4)  # times d, strongest first; ties go to the stronger one

Folds = Sequence[tuple[np.ndarray, np.ndarray]]  # images to fit on, images held out


def fit_views(views: np.ndarray, labels: np.ndarray, n_classes: int) -> Ridge:
    """One fit per penalty to views [n, V, d] of images with class numbers [n]."""
    n, count, d = views.shape
    penalties = [d * penalty for penalty in PENALTIES]
    return Ridge.fit(views.reshape(n * count, d), np.repeat(labels, count), n_classes, penalties=penalties)


def fit_folds(views: np.ndarray, labels: np.ndarray, folds: Folds) -> list[Ridge]:
    """One fit per fold, without its held-out images."""
    n_classes = int(labels.max()) + 1
    return [fit_views(views[fit], labels[fit], n_classes) for fit, _ in folds]


def held_out_hits(models: Sequence[Ridge], views: np.ndarray, labels: np.ndarray, folds: Folds) -> np.ndarray:
    """Share of each image's views that are told right by the fit that did not see the image, [penalties, n]."""
    hits = np.zeros((len(PENALTIES), len(labels)))
    for model, (_, held) in zip(models, folds, strict=True):
        hits[:, held] = (model.predict(views[held]) == labels[held, None]).mean(axis=2)
    return hits
