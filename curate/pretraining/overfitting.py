"""Does it get worse on what it is not trained on? By a probe, or by the loss of unseen images beside that of seen ones.

A probe decides because it reads what the run is for: its last two readings, on average, are worse than the best one by
more than its standard error. Else unseen images do (``unseen``), in one of two ways that must hold at the last two
looks. Their loss lies more than ERRORS of the difference's standard errors above its lowest, while that of training
images lies below what it was there. Or, since the start, it fell by less than 1 - BY_HEART of what theirs fell, by
LIKELY standard errors: where views vary much, the unseen loss stands still rather than rises. What a network has
learned lies below the chance loss; the way down to it, long for MAE, tells nothing of images and does not count.
With neither, ``healthy`` does not exclude overfitting.

What a share means, measured on emoji at 32 pixels from scratch, C = 4,000, standard errors in brackets. 16 images:
SimCLR .52 (.13), MAE .41 (.09), distillation .30 (.06), BYOL .06 (.05), VICReg none. 64: MAE .15 (.12), SimCLR none.
600, each seen less than seven times: MAE .29 (.12), SimCLR .16 (.26). So less than BY_HEART can be chance or a pool's
own level, and above it 64 unseen images rarely are enough to be sure: such a run is told what share it may be. In none
of them did a probe of other emoji fall beyond its error: it is no proof of harm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from curate.pretraining.trends import ERRORS, TOLERANCE, Found, Row, by_stage, first, mean, onset, smooth

LEAST_LOOKS = 3  # at unseen images
BY_HEART = 1 / 3  # share of the fall of the loss that only training images have
LIKELY = 2.0  # standard errors above it


@dataclass(frozen=True)
class Learned:
    """How far below start and chance the losses of training and of unseen images lie, and the errors of that."""

    seen: float
    seen_error: float  # 0 where all training images are looked at
    unseen: float
    unseen_error: float
    least: float = 0.0  # that training images must have gained to count

    @classmethod
    def between(cls, start: Row, look: Row, chance: float) -> Learned:
        """From the look before the first step to another; ``chance`` is the training images' chance loss there."""
        (seen, seen_error), (unseen, error) = (change(look, start, name) for name in ("seen", "unseen"))
        trivial = max(0.0, start["seen_loss"] - chance)
        seen_error *= math.sqrt(1 - start["seen_share"])
        least = TOLERANCE * (start["seen_loss"] - trivial)
        return cls(seen - trivial, seen_error, unseen - trivial, error, least)

    @property
    def share(self) -> float | None:
        """Of what training images gained, what unseen ones did not; above 1 if they lost, None if it is but noise."""
        return 1 - self.unseen / self.seen if self.seen > max(ERRORS * self.seen_error, self.least) else None

    @property
    def error(self) -> float:
        """Standard error of the share."""
        return math.hypot(self.unseen_error, self.unseen / self.seen * self.seen_error) / self.seen

    def is_by_heart(self) -> bool:
        """True if the share is likely above BY_HEART."""
        missing = (1 - BY_HEART) * self.seen - self.unseen
        error = math.hypot((1 - BY_HEART) * self.seen_error, self.unseen_error)
        return self.share is not None and missing > LIKELY * error


def worse_probe(rows: Sequence[Row], start: Row | None) -> Found:
    """The last two readings, on average, are worse than the best one by more than its standard error."""
    read = [row for row in rows if "probe" in row]
    if len(read) < 2 or all(smooth(stage, "loss")[-1] >= first(stage) for stage in by_stage(rows)):
        return None
    best = max([*([start] if start and "probe" in start else []), *read], key=lambda row: row["probe"])
    last = (read[-1]["probe"] + read[-2]["probe"]) / 2
    if best is read[-1] or best["probe"] - last <= best["probe_se"]:
        return None
    words = f"The probe fell from {best['probe']:.1%} (standard error {best['probe_se']:.1%}) to {last:.1%}"
    if best is start:
        return "forgetting", int(rows[0]["step"]), f"{words} since before the first step, while the loss fell."
    return "overfitting", int(best["step"]), f"{words} while the loss fell."


def worse_unseen(rows: Sequence[Row], start: Row | None) -> Found:
    """Without a probe: the loss of unseen images rises while that of training images falls, or fell much less."""
    return None if _is_blind(rows) or _is_probed(rows) else _risen(_looks(rows)) or _by_heart(rows, start)


def by_heart(rows: Sequence[Row], start: Row) -> float | None:
    """Share of what was learned since the start that is learned by heart, at the last look; see ``Learned.share``."""
    found = learned(rows, start)
    return found[-1].share if found else None


def learned(rows: Sequence[Row], start: Row | None) -> list[Learned]:
    """What was learned at each look; nothing is known of runs that were not looked at before their first step."""
    if not start or "unseen_loss" not in start:
        return []
    chance = start.get("look_chance", math.inf) * mean([row["chance_loss"] for row in rows])
    return [Learned.between(start, look, chance) for look in _looks(rows)]


def doubt(rows: Sequence[Row], start: Row | None) -> str:
    """What a run that is found healthy leaves open of overfitting."""
    if _is_probed(rows):
        return ""
    if _is_blind(rows):
        return " Neither a probe nor unseen images were looked at, so overfitting would not show."
    last = next(iter(learned(rows, start)[-1:]), None)
    if last is None or last.share is None or last.share <= BY_HEART:
        return ""
    return (
        f" {min(1.0, last.share):.0%} of what was learned may be learned by heart (standard error {last.error:.0%}): "
        "too uncertain to call it overfitting."
    )


def _risen(looks: Sequence[Row]) -> Found:
    best, last = min(looks, key=lambda row: row["unseen_loss"]), looks[-2:]
    rises = [change(best, row, "unseen") for row in last]
    if any(value <= ERRORS * error for value, error in rises) or max(r["seen_loss"] for r in last) >= best["seen_loss"]:
        return None
    value, error = rises[-1]
    words = (
        f"The loss of images that are not trained on rose by {value:.3f} (standard error {error:.3f}) to "
        f"{last[-1]['unseen_loss']:.3f}, while that of images that are, seen likewise, fell from "
        f"{best['seen_loss']:.3f} to {last[-1]['seen_loss']:.3f}."
    )
    return "overfitting", int(best["step"]), words


def _by_heart(rows: Sequence[Row], start: Row | None) -> Found:
    found, looks = learned(rows, start), _looks(rows)
    holds = [one.is_by_heart() for one in found]
    if not start or not found or not all(holds[-2:]):
        return None
    words = (
        f"Since the start the loss of images that are trained on fell from {start['seen_loss']:.3f} to "
        f"{looks[-1]['seen_loss']:.3f}, that of others from {start['unseen_loss']:.3f} to "
        f"{looks[-1]['unseen_loss']:.3f}: {min(1.0, found[-1].share or 0.0):.0%} of what was learned is learned by "
        "heart."
    )
    return "overfitting", onset(looks, holds), words


def change(before: Row, after: Row, name: str) -> tuple[float, float]:
    """How much the loss of unseen or seen images rose between two looks, and its standard error: a paired jackknife."""
    parts = [b - a for a, b in zip(before[f"{name}_parts"], after[f"{name}_parts"], strict=True)]
    middle, count = mean(parts), len(parts)
    variance = (count - 1) / count * sum((part - middle) ** 2 for part in parts)
    return after[f"{name}_loss"] - before[f"{name}_loss"], math.sqrt(variance)


def _looks(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if "unseen_loss" in row]


def _is_blind(rows: Sequence[Row]) -> bool:
    return len(_looks(rows)) < LEAST_LOOKS


def _is_probed(rows: Sequence[Row]) -> bool:
    return any("probe" in row for row in rows)
