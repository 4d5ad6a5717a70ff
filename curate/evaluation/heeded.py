"""Which knob is heeded by which examination: one that would change nothing is refused, not ignored."""

from __future__ import annotations

from collections.abc import Sequence

from curate.evaluation.settings import SHIFT
from curate.pretraining.knobs import split_pair
from embeddings.errors import UsageError

SHIFTS = "shifts"
TUNING = ("references", "finetune")
HEEDED: dict[str, tuple[str, ...]] = {  # field of Settings -> examinations; those that are always heeded are not here
    "seeds": ("labels", "noise"),
    "fractions": ("labels",),
    "samples": TUNING,
    "depth": TUNING,
    "starts": TUNING,
    "backbone": TUNING,
    "normal": ("rare", "anomaly"),
    "reject": ("rare", "anomaly"),
    "costs": ("rare",),
    "severities": ("robustness",),
    "corruptions": ("robustness",),
    "images": ("robustness",),
    "noise": ("noise",),
    "groups": ("groups",),
    SHIFTS: ("robustness",),
}


def require_heeded(pairs: Sequence[str], examinations: Sequence[str]) -> None:
    """Refuses NAME=VALUE texts that no examination asked for would look at.

    Raises:
        UsageError: as said.
    """
    for pair in pairs:
        name, _ = split_pair(pair)
        takers = HEEDED.get(SHIFTS if name.startswith(SHIFT) else name)
        if takers is not None and not set(takers) & set(examinations):
            one = "examination" if len(takers) == 1 else "examinations"
            raise UsageError(
                f"{name} changes nothing here: it is a knob of the {one} {' and '.join(takers)}.",
                hint=f"Add --also {takers[0]}, or leave it out.",
            )
