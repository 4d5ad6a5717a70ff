"""One backbone over several tasks: what it gains on average, where it gains least, and from which task on it pays.

    mean gain         mean over the labeled sets of the paired difference in linear accuracy to the frozen encoder;
                      it speaks of these sets, not of others like them
    labels saved      on one set, n - (labels with which the arm is as accurate as the frozen encoder with all n)
    pays from task k  the least k with  k x mean labels saved x label price >= hours x hour price

The half-widths of the sets' intervals are added in squares only if the report's predictions show that no two sets have
a test key in common; else (one set of images under two kinds of labels, say) they are averaged, which holds however
the sets depend on each other.

Labels saved come from the report's label fractions (``--also labels``): the arm's own accuracies by number of labels,
made monotone, are read at its accuracy less the gain, and less the ends of the gain's interval. Where the arm loses
they are negative, by the frozen encoder's curve: its label-equivalents less n. Without fractions a better arm saves an
unknown number; what lies off a curve is not claimed. Pretraining is paid once, labels for every task; preparing images
is not counted. An interval that holds both gain and loss leaves the question undecided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from curate.eval_report import ArmScore, EvalReport
from curate.evaluation._intervals import LEVEL, NORMAL_95
from curate.evaluation._label_equivalents import labels_needed
from curate.numerals import amount, between, signed
from curate.results import Estimate

METRIC = "linear"
PAYS, NEVER, UNDECIDED, UNKNOWN = "pays", "never", "undecided", "unknown"
HOUR = 3_600.0


@dataclass(frozen=True, kw_only=True)
class Shared:
    """One pretrained backbone over the labeled sets of a report."""

    arm: str
    tasks: tuple[str, ...]  # labeled sets
    gain: Estimate  # mean over tasks
    worst: str  # the task it gains least on; "" if there is no gain to compare
    worst_gain: Estimate
    hours: float | None  # of pretraining
    cost: float | None  # money, once for all tasks
    cost_per_task: float | None
    saved: Estimate  # labels per task, mean over tasks
    pays: str  # pays, never, undecided or unknown
    pays_from: Estimate  # number of tasks

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        estimates = {n: getattr(self, n).to_json() for n in ("gain", "worst_gain", "saved", "pays_from")}
        return {**asdict(self), "tasks": list(self.tasks), **estimates}

    def lines(self) -> list[str]:
        """Gain and cost, one sentence each."""
        sets = f"{len(self.tasks)} tasks" if len(self.tasks) > 1 else f"one task ({self.tasks[0]})"
        least = f"; least on {self.worst}, {_points(self.worst_gain)}" if self.worst and len(self.tasks) > 1 else ""
        gains = f"{self.arm}: {_points(self.gain)} against the frozen public encoder on {sets}{least}."
        return [gains, f"{self.arm}: {self._payment()}."]

    def _payment(self) -> str:
        if self.cost is None or self.cost_per_task is None or self.pays == UNKNOWN:
            return f"whether it pays is not known: {self.pays_from.reason}"
        told = f"pretraining cost {amount(self.cost)}, {amount(self.cost_per_task)} a task"
        saved = f"it saves {self.saved} labels a task"
        if self.pays == PAYS:
            return f"{told}; {saved} and pays from task {self.pays_from} on"
        if self.pays == NEVER:
            return f"{told}; {saved} and never pays at this gain"
        return f"{told}; {saved}, so whether it ever pays is undecided"


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Every run of a report over all its labeled sets."""

    arms: tuple[Shared, ...]
    label_price: float | None
    hour_price: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        prices = {"label_price": self.label_price, "hour_price": self.hour_price}
        return {"arms": [arm.to_json() for arm in self.arms], **prices}

    def lines(self) -> list[str]:
        """All arms in sentences."""
        return [line for arm in self.arms for line in arm.lines()]


def transfer(report: EvalReport, *, label_price: float | None = None, hour_price: float | None = None) -> Transfer:
    """What every run is worth over all labeled sets together.

    Args:
        report: Of one or more labeled sets; runs that differ between sets are taken where they are.
        label_price: Money for a label.
        hour_price: Money for an hour of pretraining as its run.json counts it, all devices together.

    Returns:
        Transfer, one entry per run, in the report's order. Gains in 0..1, above zero is better than the frozen encoder.
    """
    scores: dict[str, list[ArmScore]] = {}
    for score in report.scores:
        if score.kind == "run":
            scores.setdefault(score.arm, []).append(score)
    apart = share_no_image(report)
    arms = tuple(
        _shared(arm, found, apart=apart, label_price=label_price, hour_price=hour_price)
        for arm, found in scores.items()
    )
    return Transfer(arms=arms, label_price=label_price, hour_price=hour_price)


def _shared(
    arm: str, scores: Sequence[ArmScore], *, apart: bool, label_price: float | None, hour_price: float | None
) -> Shared:
    gains = {score.labeled: score.against_frozen[METRIC] for score in scores if METRIC in score.against_frozen}
    told = {name: gain.value for name, gain in gains.items() if gain.value is not None}
    worst = min(told, key=lambda name: told[name], default="")
    seconds = next((s for score in scores if (s := score.facts.get("seconds")) is not None), None)
    hours = None if seconds is None else seconds / HOUR
    cost = None if hours is None or hour_price is None else hours * hour_price
    saved = mean_estimate([labels_saved(score) for score in scores], unit="labels a task", apart=apart)
    pays, pays_from = pays_from_task(saved, cost, label_price)
    return Shared(
        arm=arm,
        tasks=tuple(score.labeled for score in scores),
        gain=mean_estimate(list(gains.values()), unit=f"mean difference of {METRIC} accuracy", apart=apart),
        worst=worst,
        worst_gain=gains.get(worst, Estimate(value=None, reason="no gain was measured")),
        hours=hours,
        cost=cost,
        cost_per_task=None if cost is None else cost / len(scores),
        saved=saved,
        pays=pays,
        pays_from=pays_from,
    )


def share_no_image(report: EvalReport) -> bool:
    """Whether the labeled sets are known to have no test key in common."""
    if len(report.labeled) < 2:
        return True
    if report.predictions is None:
        return False
    named = set(zip(*(report.predictions[c].to_pylist() for c in ("labeled", "key")), strict=True))
    return len(named) == len({key for _, key in named})


def mean_estimate(found: Sequence[Estimate], *, unit: str, apart: bool) -> Estimate:
    """The mean of several figures, its upper and lower half-widths from theirs; without them if one of them has none.

    Args:
        found: K figures, higher is better.
        unit: Of the mean.
        apart: Whether they are independent.
    """
    facts: dict[str, Any] = {"unit": unit, "lower_is_closer": False}
    lacking = [estimate.reason for estimate in found if estimate.value is None]
    if lacking or not found:
        return Estimate(value=None, reason=lacking[0] if lacking else "no task", **facts)
    k, values = len(found), [estimate.value or 0.0 for estimate in found]
    mean = float(np.mean(values))
    facts |= {"n": (sum(e.n[0] for e in found), sum(e.n[1] for e in found)), "value": mean}
    if any(estimate.low is None or estimate.high is None for estimate in found):
        return Estimate(method=f"mean over {k} fixed tasks; one has no interval", **facts)
    below = _together([v - (e.low or 0.0) for v, e in zip(values, found, strict=True)], apart=apart)
    above = _together([(e.high or 0.0) - v for v, e in zip(values, found, strict=True)], apart=apart)
    how = "that share no image" if apart else "that may share images: half-widths averaged"
    return Estimate(
        low=mean - below,
        high=mean + above,
        se=(below + above) / (2 * NORMAL_95),
        level=LEVEL,
        method=f"mean over {k} fixed tasks {how}",
        **facts,
    )


def _together(widths: Sequence[float], *, apart: bool) -> float:
    """Half-width of a mean."""
    return (math.hypot(*widths) if apart else sum(widths)) / len(widths)


def labels_saved(score: ArmScore) -> Estimate:
    """Labels of one set that an arm does without, at the frozen encoder's accuracy with all of them."""
    gain, equivalents = score.against_frozen.get(METRIC), score.label_equivalents
    if gain is None or gain.value is None or equivalents is None:
        return Estimate(value=None, reason=f"{score.labeled} has no paired gain")
    sizes, accuracy = _curve(score)
    value, low, high = (
        _saved(getattr(gain, end), getattr(equivalents, end), sizes, accuracy, gain.n[0])
        for end in ("value", "low", "high")
    )
    if value is None:
        told = f"by label-equivalents, {equivalents.reason or 'none'}"
        hint = f"takes label fractions up to 100, without folds (--also labels); {told}"
        return Estimate(value=None, reason=f"how many labels {score.arm} saves on {score.labeled} {hint}")
    is_whole = low is not None and high is not None
    return Estimate(
        value=value,
        low=low if is_whole else None,
        high=high if is_whole else None,
        n=gain.n,
        unit="labels",
        lower_is_closer=False,
        method="the arm's accuracy by number of labels where it gains, the frozen encoder's where it loses",
    )


def pays_from_task(saved: Estimate, cost: float | None, label_price: float | None) -> tuple[str, Estimate]:
    """From which task on a cost is earned, and whether that is settled.

    Args:
        saved: Labels a task.
        cost: Money, once.
        label_price: Money for a label.

    Returns:
        pays (the whole interval earns), never (none of it), undecided, or unknown with a reason; and the number of
        tasks, whose upper end is open (None) unless the whole interval earns.
    """
    lacking = _unknown(saved, cost, label_price)
    if lacking or cost is None or label_price is None or saved.value is None:
        return UNKNOWN, Estimate(value=None, reason=lacking)
    worths = {name: (getattr(saved, name) or 0.0) * label_price for name in ("value", "low", "high")}
    tasks = {name: max(1, math.ceil(cost / worth)) if worth > 0 else None for name, worth in worths.items()}
    verdict = NEVER if worths["high"] <= 0 else PAYS if worths["low"] > 0 else UNDECIDED
    reasons = {
        NEVER: "no label is saved",
        UNDECIDED: "the interval of the labels saved holds gain and loss",
    }
    return verdict, Estimate(
        value=tasks["value"] if verdict == PAYS else None,
        low=tasks["high"],
        high=tasks["low"],
        unit="tasks",
        method=f"{amount(cost)} for pretraining, {amount(label_price)} a label",
        reason=reasons.get(verdict, ""),
    )


def _unknown(saved: Estimate, cost: float | None, label_price: float | None) -> str:
    """What is not known; "" if nothing."""
    if cost is None:
        return "what an hour of pretraining costs (hour_price), or how long it took, was not given"
    if label_price is None:
        return "what a label costs (label_price) was not given"
    if saved.value is None:
        return saved.reason
    return "the labels saved have no interval" if saved.low is None or saved.high is None else ""


def _curve(score: ArmScore) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of labels, ascending, and the arm's accuracy with them, from the label fractions."""
    found = {
        finding.estimate.n[0]: finding.estimate.value
        for finding in score.findings
        if finding.about == "labels" and finding.metric == METRIC and finding.estimate.value is not None
    }
    sizes = sorted(found)
    return np.array(sizes, np.int64), np.array([found[size] for size in sizes])


def _saved(
    gain: float | None, equivalents: float | None, sizes: np.ndarray, accuracy: np.ndarray, n: int
) -> float | None:
    """Labels saved at a gain, of n; None where the curve that tells them is not known.

    Args:
        gain: Accuracy above the frozen encoder's.
        equivalents: Labels of the frozen encoder at that accuracy.
        sizes: Of the arm's own curve [s], which may be empty.
        accuracy: [s].
        n: Labels.
    """
    if gain is None:
        return None
    if gain < 0:
        return None if equivalents is None else min(0.0, equivalents - n)
    if not len(sizes) or sizes[-1] != n:
        return None
    needed = labels_needed(sizes, accuracy, float(accuracy[-1]) - gain)
    return float(n - max(needed, float(sizes[0])))  # what is below the curve is not claimed


def _points(gain: Estimate) -> str:
    """A difference of accuracies in points, with its interval."""
    if gain.value is None:
        return f"gain unknown ({gain.reason})"
    told = signed(100 * gain.value)
    ends = between(gain.low, gain.high, 1, scale=100, plus=True)
    return f"{told} points ({ends})" if ends else f"{told} points"
