"""The knobs of an evaluation and of its further examinations: ``folds=5``, ``reject=0.02``, ``fractions=1,10,100``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints

from curate.evaluation.corruptions.constants import CORRUPTIONS
from curate.pretraining.knobs import read_value, split_pair
from embeddings.errors import UnknownNameError, UsageError

SHIFT = "shift."  # shift.NAME=SOURCE: the same task under other conditions
MOST_FOLDS = 20


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Knobs of an evaluation; defaults serve a few hundred to a few thousand labeled images."""

    folds: int = 1  # cross-fitting: every labeled image is tested by probes of the other folds; 1: 30% are held out
    seeds: int = 3  # subsets of labels
    fractions: tuple[float, ...] = (1.0, 5.0, 10.0, 100.0)  # percent of the training labels
    label_price: float | None = None  # money for one label
    hour_price: float | None = None  # money for an hour of pretraining, all its devices together
    samples: int | None = None  # images seen in fine-tuning; None: a few epochs
    depth: str = "whole"  # what fine-tuning changes: head, last:N or whole
    starts: int = 1  # of fine-tuning, whose accuracies are averaged
    backbone: str | None = None  # network trained from scratch on the labels; None: the frozen encoder's
    normal: str | None = None  # label of the images that are in order; None: the largest class
    reject: float = 0.05  # share of the images in order that may be rejected
    costs: str | None = None  # CSV file: cost of naming an image of the row's label by the column's
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    corruptions: tuple[str, ...] = ()  # names; none: all 15
    images: int = 1_000  # test images that are corrupted, at most
    noise: tuple[float, ...] = (10.0, 20.0, 40.0)  # percent of the training labels drawn anew
    groups: str | None = None  # column of the groups; None: the source's group
    shifts: Mapping[str, str] = field(default_factory=dict)  # name -> labeled source

    def __post_init__(self) -> None:
        is_known = self.folds in range(1, MOST_FOLDS + 1)
        _require(is_known, "folds", self.folds, f"1 (one split), or 2 to {MOST_FOLDS}")
        _require(self.seeds >= 1, "seeds", self.seeds, "1 or more")
        _require(all(0 < f <= 100 for f in self.fractions), "fractions", self.fractions, "percents above 0 to 100")
        _require(0 < self.reject < 1, "reject", self.reject, "a share between 0 and 1")
        allowed = bool(self.severities) and all(1 <= s <= 5 for s in self.severities)
        _require(allowed, "severities", self.severities, "one or more of 1 to 5")
        for name in self.corruptions:
            if name not in CORRUPTIONS:
                raise UnknownNameError("corruption", name, tuple(CORRUPTIONS))
        _require(all(0 <= n <= 100 for n in self.noise), "noise", self.noise, "percents from 0 to 100")
        for name in ("label_price", "hour_price"):
            price = getattr(self, name)
            _require(price is None or 0 <= price < math.inf, name, price, "money, 0 or more")
        _require(self.images >= 1, "images", self.images, "1 or more")
        _require(self.starts >= 1, "starts", self.starts, "1 or more")
        _require(is_depth(self.depth), "depth", self.depth, "head, last:N or whole")
        _require(self.samples is None or self.samples >= 1, "samples", self.samples, "1 or more")


def read_settings(pairs: Sequence[str]) -> Settings:
    """Settings from NAME=VALUE texts; of a name that occurs twice the last one counts.

    Raises:
        UnknownNameError: no such knob.
        UsageError: no ``=``, a value of another type, or an impossible one.
    """
    named = dict(split_pair(pair) for pair in pairs)
    shifts = {name.removeprefix(SHIFT): named.pop(name) for name in list(named) if name.startswith(SHIFT)}
    hints = get_type_hints(Settings)
    known = [f.name for f in fields(Settings) if f.name != "shifts"]
    for name in named:
        if name not in known:
            raise UnknownNameError("knob of an evaluation", name, (*known, f"{SHIFT}NAME"))
    values: dict[str, Any] = {name: read_value(name, text, hints[name]) for name, text in named.items()}
    return Settings(**values, shifts=shifts)


def is_depth(text: str) -> bool:
    """Whether a text says what fine-tuning changes."""
    return re.fullmatch(r"head|whole|last:[1-9]\d*", text) is not None


def _require(holds: bool, name: str, found: object, wanted: str) -> None:
    if not holds:
        raise UsageError(f"{name} is {found}.", hint=f"Wanted: {wanted}.")
