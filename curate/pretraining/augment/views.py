"""One random view of a batch: crop, flip, color, gray, blur, in SimCLR's order."""

from __future__ import annotations

import numpy as np
import torch

from curate.pretraining.augment.color import jitter, to_gray
from curate.pretraining.augment.draws import Draws
from curate.pretraining.augment.geometry import crop_resize, gaussian_blur


def augment(images: torch.Tensor, draws: Draws, *, size: int) -> torch.Tensor:
    """The views that ``draws`` describes, float32 [n, 3, size, size] in 0..1, of images uint8 [n, 3, H, W]."""
    views = crop_resize(images, draws.box, draws.flip, size=size)
    jitter(views, draws.jitter, draws.order)
    gray, blurred = np.flatnonzero(draws.gray), np.flatnonzero(draws.sigma)
    views[gray] = to_gray(views[gray])
    views[blurred] = gaussian_blur(views[blurred], torch.from_numpy(draws.sigma[blurred]).to(views.device))
    return views
