"""What is said of the kind of a shift: a factor, a repair, and all of them for one pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from curate.results import Estimate


@dataclass(frozen=True, kw_only=True)
class Factor:
    """What one step of preprocessing does to a pool's distance."""

    name: str
    step: str  # what one would do; "" where nothing was tried
    side: str  # "both", "pool", or ""
    fact: str  # what was measured of the pictures of the two sides
    differs: bool = True  # in this respect, by the fact; False: there is nothing to match, so nothing was tried
    after: Estimate  # headline distance after the step
    index: Estimate  # 100 F / (F + tr S) after the step
    fall: Estimate  # of 100 F / tr S, paired; its interval says whether the step does anything
    repaired: Estimate  # share of F / tr S that goes away; negative where the step does harm

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        return _fields(self)


@dataclass(frozen=True, kw_only=True)
class Repair:
    """Steps that repair the shift or a part of it, in the order in which they are carried out."""

    names: tuple[str, ...]
    steps: tuple[str, ...]
    after: Estimate  # headline distance after all of them
    repaired: Estimate  # share of F / tr S that goes away
    explains: bool  # True if so little is left that the shift is not one of content

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        return _fields(self)


@dataclass(frozen=True, kw_only=True)
class Factors:
    """A pool's distance split into what preprocessing repairs and content."""

    n: tuple[int, int]  # sampled images of the pool and of the target
    left_out: tuple[int, int]  # sampled images of both that could not be read or decoded, or have changed
    before: Estimate  # headline distance of the samples as they are
    index: Estimate  # 100 F / (F + tr S) of the samples as they are
    factors: tuple[Factor, ...] = ()  # one per factor, each step taken alone
    best: Repair | None = None  # None: no step repairs anything
    content: Estimate  # index after ``best``: what stays
    reason: str = ""  # why nothing could be measured

    @classmethod
    def unknown(cls, reason: str) -> Factors:
        """Nothing could be measured."""
        nothing = Estimate(value=None, reason=reason)
        return cls(n=(0, 0), left_out=(0, 0), before=nothing, index=nothing, content=nothing, reason=reason)

    @property
    def kind(self) -> str:
        """Names of the factors that explain the shift, joined by " + "; else "content", "none" or "unknown"."""
        if self.best and self.best.explains:
            return " + ".join(self.best.names)
        if self.before.value is None:
            return "unknown"
        return "none" if (self.before.low or 0.0) <= 0 else "content"

    def __getitem__(self, name: str) -> Factor:
        return next(f for f in self.factors if f.name == name)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        return {**_fields(self), "kind": self.kind}


def _fields(value: Factor | Repair | Factors) -> dict[str, Any]:
    """Every field in plain JSON."""
    return {name: _plain(item) for name, item in vars(value).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return value.to_json()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return _fields(value) if isinstance(value, Factor | Repair) else value
