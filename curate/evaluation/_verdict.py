"""An evaluation in sentences: what the frozen public encoder reads, and for every run whether it beat that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from curate.eval_report import ArmScore, EvalReport, Pair
from curate.evaluation._label_equivalents import amount
from curate.results import Estimate
from embeddings.errors import UnknownNameError

METRIC = "linear"
LEAKED = 0.01  # share of test images known from training that is worth a warning
ALPHA = 0.05


def verdicts(report: EvalReport) -> list[str]:
    """Per labeled set one sentence on what there is to beat, then one per run, then whether one run is the best."""
    lines = []
    for labeled, facts in report.labeled.items():
        scores = [s for s in report.scores if s.labeled == labeled]
        frozen = next(s for s in scores if s.kind == "frozen")
        sizes = f"{facts['n_train']:,} training and {facts['n_test']:,} test images, {facts['classes']:,} classes"
        read = ", ".join(f"{name} {_interval(frozen.metrics[name])}" for name in (METRIC, "knn"))
        lines.append(f"{labeled}: the frozen public encoder reads {read} ({sizes}).")
        lines += [f"{labeled}: {warning}" for warning in (*_missing(facts), *_leaks(facts))]
        lines += [f"{labeled}: {verdict(report, s.arm, labeled)}" for s in scores if s.kind == "run"]
        lines += [f"{labeled}: {sentence}" for sentence in _best_run(report, labeled)]
    return lines


def verdict(report: EvalReport, arm: str, labeled: str) -> str:
    """Whether an arm beat the frozen public encoder in linear accuracy, in one sentence.

    Raises:
        UnknownNameError: the report has no such arm on this labeled set.
    """
    scores = {s.arm: s for s in report.scores if s.labeled == labeled}
    if arm not in scores:
        raise UnknownNameError("arm", arm, scores)
    score = scores[arm]
    frozen = next(s for s in scores.values() if s.kind == "frozen")
    gain = score.against_frozen.get(METRIC)
    if gain is None or gain.value is None:
        return f"{arm} is what the others are compared with."
    figures = f"{METRIC} {_number(score.metrics[METRIC])} against {_number(frozen.metrics[METRIC])}"
    return f"{arm} {_outcome(gain)} ({figures}, difference {_interval(gain, signed=True)}){_labels(score)}."


def _missing(facts: dict[str, Any]) -> list[str]:
    """A warning where test images cannot be named rightly, because no training image has their class."""
    missing = facts.get("classes_missing_in_train") or 0
    return [f"careful: {missing:,} of {facts['classes']:,} classes have no training image."] if missing else []


def _leaks(facts: dict[str, Any]) -> list[str]:
    """A warning where the test part is known from training."""
    known = facts.get("near_duplicates_in_train") or 0
    if not known or known < LEAKED * facts["n_test"]:
        return []
    return [f"careful: {known:,} of {facts['n_test']:,} test images are nearly the same picture as a training image."]


def _best_run(report: EvalReport, labeled: str) -> list[str]:
    """Whether the best of several runs is surely better than the next, in one sentence."""
    if left_out := report.labeled[labeled].get("runs_not_paired"):
        return [f"{left_out} runs are too many to compare every two of them; whether one is the best is not told."]
    runs = [
        s for s in report.scores if s.labeled == labeled and s.kind == "run" and s.metrics[METRIC].value is not None
    ]
    if len(runs) < 2:
        return []
    best, second = (s.arm for s in sorted(runs, key=lambda s: -(s.metrics[METRIC].value or 0))[:2])
    pairs = [p for p in report.pairs if p.labeled == labeled and {p.first, p.second} == {best, second}]
    return [_compared(pair, best, second) for pair in pairs]


def _compared(pair: Pair, best: str, other: str) -> str:
    gap = pair.difference if pair.first == best else _reversed(pair.difference)
    figures = f"difference {_interval(gap, signed=True)}, corrected McNemar p {pair.p_holm:.2g}"
    is_sure = gap.low is not None and gap.low > 0 and pair.p_holm < ALPHA
    told = f"{best} is surely better than {other}" if is_sure else f"{best} and {other} cannot be told apart"
    return f"of the runs, {told} ({figures})."


def _reversed(gap: Estimate) -> Estimate:
    """The difference the other way around."""
    value, low, high = (None if end is None else -end for end in (gap.value, gap.high, gap.low))
    return replace(gap, value=value, low=low, high=high)


def _outcome(gain: Estimate) -> str:
    if gain.low is None or gain.high is None:
        return "cannot be judged against the frozen public encoder: the difference has no interval"
    if gain.low > 0:
        return "beats the frozen public encoder"
    if gain.high < 0:
        return "does not beat the frozen public encoder"
    return "is not to be told from the frozen public encoder, the difference being inside the noise"


def _labels(score: ArmScore) -> str:
    labels = score.label_equivalents
    if labels is None:
        return ""
    count = labels.reason if labels.value is None else f"about {labels.value:,.0f}"
    return f"; the frozen encoder needs {count} labels for as much, of {labels.n[0]:,}{_cost(score.label_cost)}"


def _cost(cost: Estimate | None) -> str:
    """What the labels cost: ``, which cost 280``."""
    if cost is None:
        return ""
    return f", which cost {cost.reason if cost.value is None else amount(cost.value)}"


def _interval(estimate: Estimate, *, signed: bool = False) -> str:
    value = _number(estimate, signed=signed)
    if estimate.low is None or estimate.high is None:
        return value
    sign = "+" if signed else ""
    return f"{value} [{estimate.low:{sign}.3f}, {estimate.high:{sign}.3f}]"


def _number(estimate: Estimate, *, signed: bool = False) -> str:
    return f"{estimate.value:{'+' if signed else ''}.3f}"
