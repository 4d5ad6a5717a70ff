"""Early against late: what the probe of a pretraining run read, stage by stage.

    gain of a stage       reading at its end - reading at its start
    marginal gain         the same per 1,000 samples seen

Stages are those of the run's order (near data first, external later); a run of one stage, or of a mixture, is told in
two halves. A stage is measured between the first and the last reading within it (the batch that crosses its end counts
as its own), told with the samples seen at each. Both readings are of the same images, so the error, which adds their
binomial ones as if they were not, is too large rather than too small. These are training images: the probe watches,
``curate evaluate`` judges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curate.evaluation._intervals import NORMAL_95
from curate.numerals import between, signed
from curate.results import Estimate, Run

PER = 1_000  # samples
ORDERED = ("stages", "reversed")
NO_PROBE = "the run has no probe; pretrain with --set probe=LABELED to have one"


@dataclass(frozen=True, kw_only=True)
class Point:
    """One reading of the probe."""

    samples_seen: int
    accuracy: float
    se: float
    stage: str  # in which the samples before it were seen; "" before training

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What one stage brought."""

    name: str
    samples: int
    gain: Estimate  # accuracy at its end less at its start, in 0..1
    marginal: Estimate  # per 1,000 samples

    @property
    def verdict(self) -> str:
        """helped, hurt, inside the noise or unknown."""
        if self.gain.value is None or self.gain.low is None or self.gain.high is None:
            return "unknown"
        return "helped" if self.gain.low > 0 else "hurt" if self.gain.high < 0 else "inside the noise"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        figures = {"gain": self.gain.to_json(), "marginal": self.marginal.to_json()}
        return {"name": self.name, "samples": self.samples, **figures, "verdict": self.verdict}

    def __str__(self) -> str:
        if self.gain.value is None or self.gain.low is None or self.gain.high is None:
            return f"{self.name} ({self.samples:,} samples): {self.gain.reason}"
        ends = between(self.gain.low, self.gain.high, 1, scale=100, plus=True)
        rate = signed(100 * (self.marginal.value or 0.0), 2)
        gain = f"{signed(100 * self.gain.value)} points ({ends}), {rate} per {PER:,}"
        return f"{self.name} ({self.samples:,} samples): {gain}, {self.verdict}"


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """A run's readings and stages; both empty, with a reason, where there is no probe."""

    points: tuple[Point, ...] = ()
    stages: tuple[Stage, ...] = ()
    frozen: float | None = None  # the frozen public encoder's reading
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        parts = {name: [part.to_json() for part in getattr(self, name)] for name in ("points", "stages")}
        return {**parts, "frozen": self.frozen, "reason": self.reason}

    def lines(self) -> list[str]:
        """Every stage in a line, and which of them still helped."""
        if self.reason:
            return [f"Early against late: {self.reason}."]
        helped = [stage.name for stage in self.stages if stage.verdict == "helped"]
        if not helped:
            told = "no stage raised the probe beyond the noise"
        else:
            told = f"{helped[-1]} is the last stage that raised the probe beyond the noise"
        return [*(f"{stage}." for stage in self.stages), f"Early against late: {told}."]


def trajectory(run: Run, *, names: Sequence[str] = ()) -> Trajectory:
    """What the probe read over the samples a run saw, and what every stage of it brought.

    Args:
        run: A finished one.
        names: Of its stages in the order of training; else they are numbered.
    """
    probe = run.facts.get("probe")
    if not probe:
        return Trajectory(reason=NO_PROBE)
    stages = _stages(run.facts, names)
    points = [_point(0, probe["start"]["accuracy"], probe["start"]["se"], stages)]
    for row in run.curves():
        if "probe" in row:
            points.append(_point(int(row["samples_seen"]), row["probe"], row["probe_se"], stages))
    told, start = [], 0
    for name, end in stages:
        inside = [p for p in points if start <= p.samples_seen < end + int(run.facts["batch"])]
        told.append(_stage(name, inside, end - start, int(probe["images"])))
        start = end
    return Trajectory(points=tuple(points), stages=tuple(told), frozen=probe["frozen"]["accuracy"])


def _stages(facts: Mapping[str, Any], names: Sequence[str]) -> list[tuple[str, int]]:
    """Name of every stage, and samples seen at its end."""
    seen = int(facts["samples_seen"])
    order = str(facts["config"].get("order", "mixed")).partition(":")[0]
    sizes = [int(size) for size in facts.get("stage_samples", ())]
    if order not in ORDERED or len(sizes) < 2:
        return [("first half", seen // 2), ("second half", seen)]
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    told = names if len(names) == len(sizes) else [f"stage {i + 1} of {len(sizes)}" for i in range(len(sizes))]
    return list(zip(told, ends, strict=True))


def _point(seen: int, accuracy: float, se: float, stages: Sequence[tuple[str, int]]) -> Point:
    stage = next((name for name, end in stages if seen <= end), stages[-1][0]) if seen else ""
    return Point(samples_seen=seen, accuracy=accuracy, se=se, stage=stage)


def _stage(name: str, inside: Sequence[Point], samples: int, images: int) -> Stage:
    facts: dict[str, Any] = {"unit": "probe accuracy", "lower_is_closer": False, "n": (images, images)}
    if len(inside) < 2:
        missing = Estimate(value=None, reason="it lies between two readings of the probe", **facts)
        return Stage(name=name, samples=samples, gain=missing, marginal=missing)
    first, last = inside[0], inside[-1]
    se = (first.se**2 + last.se**2) ** 0.5
    steps = (last.samples_seen - first.samples_seen) / PER
    method = f"readings at {first.samples_seen:,} and {last.samples_seen:,} samples; errors added as if not paired"

    def estimate(scale: float, unit: str) -> Estimate:
        value, half = (last.accuracy - first.accuracy) / scale, NORMAL_95 * se / scale
        ends = {"low": value - half, "high": value + half, "se": se / scale}
        return Estimate(value=value, **ends, method=method, **{**facts, "unit": unit})

    return Stage(
        name=name,
        samples=samples,
        gain=estimate(1.0, "gain in probe accuracy"),
        marginal=estimate(steps, f"gain in probe accuracy per {PER:,} samples"),
    )
