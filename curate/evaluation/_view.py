"""How one arm sees one labeled set: what a further examination takes, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from curate.evaluation._comparison import Comparison, Probed
from curate.evaluation._images import Embedding, LabeledImages
from curate.evaluation._intervals import Measured, Resamples
from curate.evaluation.settings import Settings
from curate.results import Estimate
from embeddings.encoders import Encoder


@dataclass(frozen=True, kw_only=True)
class View:
    """One arm on one labeled set, its classifier fitted."""

    arm: str
    kind: str  # frozen, finetuned, supervised, untrained or run
    eye: Callable[[], Encoder]  # the network, for images that are not embedded yet
    features: np.ndarray  # [n, d] of all rows of ``images``
    comparison: Comparison  # split and resamples, the same for all arms
    probed: Probed  # probabilities on the test images; ``classify`` names other features
    images: LabeledImages
    embedding: Embedding
    settings: Settings
    saw_labels: bool = False  # whether the network was trained on the labels of all training images


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of an examination.

    A ``Measured`` one is on the comparison's resamples of the test images, and gets its interval and its paired
    difference to the frozen encoder from them; an Estimate is told as it is.
    """

    condition: str
    metric: str
    found: Measured | Estimate
    unit: str = ""  # of a measured one
    is_share: bool = True  # a measured share of images, whose interval at 0 or 1 is Clopper and Pearson's
    lower_is_better: bool = False
    detail: bool = False  # one of many that a mean or a slope sums up: left to the page and the files
    null: float | None = None  # of a measured one: what it would read if there were nothing to find
    resamples: Resamples | None = None  # of a measured one, where they are not the comparison's
    note: str = ""  # of a measured one: what else its method is
