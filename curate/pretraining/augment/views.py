"""One random view of a batch: crop, flip, turn, color, gray, blur, solarize, in the papers' order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from curate.pretraining.augment.color import jitter, solarize, to_gray
from curate.pretraining.augment.draws import Draws
from curate.pretraining.augment.geometry import crop_resize, gaussian_blur, quarter_turn
from curate.pretraining.augment.transfer import on_device


def augment(images: torch.Tensor, draws: Draws, *, size: int) -> torch.Tensor:
    """The views that ``draws`` describes, float32 [n, 3, size, size] in 0..1, of images uint8 [n, 3, H, W]."""
    views = crop_resize(images, draws.box, draws.flip, size=size)
    for turns in (1, 2, 3):
        _change(views, draws.turns == turns, partial(quarter_turn, turns=turns))
    jitter(views, draws.jitter, draws.order)
    sigma = draws.sigma[np.flatnonzero(draws.sigma)]
    _change(views, draws.gray, to_gray)
    _change(views, draws.sigma > 0, lambda some: gaussian_blur(some, on_device(sigma, some.device)))
    _change(views, draws.solarize, solarize)
    return views


def _change(views: torch.Tensor, drawn: np.ndarray, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Changes the views that were drawn (bool [n]), in place."""
    rows = np.flatnonzero(drawn)
    if len(rows):
        at = on_device(rows, views.device)
        views[at] = change(views[at])
