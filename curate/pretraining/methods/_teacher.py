"""A teacher: a second copy of the networks, whose weights are a moving average of the trained ones.

    t <- m t + (1 - m) w   after each optimizer step,   m = cosine from ``start`` at share 0 of C to 1 at its end

It begins as an exact copy of what the trained networks begin as, so that its first targets mean the same. Only
parameters are averaged. The teacher's batch norms normalize by the batch that passes, as the trained ones do, and keep
running statistics of their own, which no method reads; with ``keep_statistics`` they stay as they came. Everything is
in the state dict, and m is a function of the share alone, so a restart goes on exactly.

m counts per step: a run of few steps needs a smaller ``start`` (BYOL's code: .97 for 40 epochs, .99 for 100, .996 for
1000), or its teacher stays where it began.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from curate.pretraining.methods import Encoded
from curate.pretraining.sample import Seen
from curate.pretraining.schedule import cosine
from embeddings.errors import UsageError


class Teacher(nn.Module):
    """The moving average of a backbone and of the head on it, without gradient."""

    def __init__(self, backbone: nn.Module, head: nn.Module, *, start: float) -> None:
        super().__init__()
        self.backbone, self.head = copy.deepcopy(backbone), copy.deepcopy(head)
        self.requires_grad_(False)
        self.momentum = self._start = start

    @torch.no_grad()
    def encode(self, view: torch.Tensor) -> torch.Tensor:
        """Features [b, d] of a view."""
        features: torch.Tensor = self.backbone(view)
        return features

    @torch.no_grad()
    def project(self, features: torch.Tensor) -> torch.Tensor:
        """What the head makes of features [b, d]."""
        projections: torch.Tensor = self.head(features)
        return projections

    def follow(self, backbone: nn.Module, head: nn.Module, *, share: float) -> None:
        """Moves towards the networks it was made from, as far as the share of C says."""
        self.momentum = cosine(share, start=self._start, end=1.0)
        average = get_ema_multi_avg_fn(self.momentum)  # type: ignore[no-untyped-call]
        average(list(self.parameters()), [*backbone.parameters(), *head.parameters()], None)


class Siamese(nn.Module):
    """A learner that predicts, from one view, what its teacher makes of the other; how both compare is the method's.

    Backbone and projector have a teacher, the predictor has none. Each view passes on its own, so that batch norms see
    one view at a time, as in the papers.
    """

    coupled = True  # by the batch norms of its heads

    def __init__(
        self,
        backbone: nn.Module,
        projector: nn.Module,
        predictor: nn.Module,
        *,
        start: float,
        compare: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> None:
        super().__init__()
        self.backbone, self.projector, self.predictor = backbone, projector, predictor
        self.teacher = Teacher(backbone, projector, start=start)
        self._compare = compare  # predictions with the teacher's projections

    def encode(self, seen: Seen) -> Encoded:
        """Features of both views, then the teacher's of both, four times [b, d]."""
        online = [self.backbone(view) for view in seen.views]
        return Encoded((*online, *map(self.teacher.encode, seen.views)), torch.cat(online))

    def project(self, parts: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Predictions from both views, then the teacher's projections of both, four times [b, dim]."""
        predictions = [self.predictor(self.projector(features)) for features in parts[:2]]
        return *predictions, *map(self.teacher.project, parts[2:])

    def loss(self, parts: Sequence[torch.Tensor], *, share: float) -> torch.Tensor:
        """Each view's predictions compared with the other view's projections, both directions added."""
        first, second, *targets = parts
        return self._compare(first, targets[1]) + self._compare(second, targets[0])

    def after_step(self, share: float) -> None:
        """Moves the teacher."""
        self.teacher.follow(self.backbone, self.projector, share=share)

    def diagnostics(self) -> dict[str, float]:
        """The share of itself that the teacher kept at the last step."""
        return {"teacher_momentum": self.teacher.momentum}


def require_momentum(start: float) -> None:
    """Refuses a teacher that does not move, or moves away.

    Raises:
        UsageError: a momentum outside [0, 1).
    """
    if not 0 <= start < 1:
        raise UsageError(f"The teacher's momentum cannot be {start}; wanted at least 0 and less than 1.")
