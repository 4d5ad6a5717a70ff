"""One random view of a batch: crop, flip, turn, color, gray, blur, solarize, in the papers' order."""

from __future__ import annotations

import numpy as np
import torch

from curate.pretraining.augment.color import jitter, solarize, to_gray
from curate.pretraining.augment.draws import Draws
from curate.pretraining.augment.geometry import crop_resize, gaussian_blur, quarter_turn


def augment(images: torch.Tensor, draws: Draws, *, size: int) -> torch.Tensor:
    """The views that ``draws`` describes, float32 [n, 3, size, size] in 0..1, of images uint8 [n, 3, H, W]."""
    views = crop_resize(images, draws.box, draws.flip, size=size)
    for turns in (1, 2, 3):
        rows = np.flatnonzero(draws.turns == turns)
        views[rows] = quarter_turn(views[rows], turns)
    jitter(views, draws.jitter, draws.order)
    gray, blurred, inverted = (np.flatnonzero(drawn) for drawn in (draws.gray, draws.sigma, draws.solarize))
    views[gray] = to_gray(views[gray])
    views[blurred] = gaussian_blur(views[blurred], torch.from_numpy(draws.sigma[blurred]).to(views.device))
    views[inverted] = solarize(views[inverted])
    return views
