"""An evaluation in sentences: what the frozen public encoder reads, and for every run whether it beat that."""

from __future__ import annotations

from curate.eval_report import ArmScore, EvalReport
from curate.results import Estimate
from embeddings.errors import UnknownNameError

METRIC = "linear"


def verdicts(report: EvalReport) -> list[str]:
    """Per labeled set one sentence on what there is to beat, then one per run."""
    lines = []
    for labeled, facts in report.labeled.items():
        scores = [s for s in report.scores if s.labeled == labeled]
        frozen = next(s for s in scores if s.kind == "frozen")
        sizes = f"{facts['n_train']:,} training and {facts['n_test']:,} test images, {facts['classes']:,} classes"
        read = ", ".join(f"{name} {_interval(frozen.metrics[name])}" for name in (METRIC, "knn"))
        lines.append(f"{labeled}: the frozen public encoder reads {read} ({sizes}).")
        lines += [f"{labeled}: {verdict(report, s.arm, labeled)}" for s in scores if s.kind == "run"]
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
    return f"; the frozen encoder needs {count} labels for as much, of {labels.n[0]:,}"


def _interval(estimate: Estimate, *, signed: bool = False) -> str:
    value = _number(estimate, signed=signed)
    if estimate.low is None or estimate.high is None:
        return value
    sign = "+" if signed else ""
    return f"{value} [{estimate.low:{sign}.3f}, {estimate.high:{sign}.3f}]"


def _number(estimate: Estimate, *, signed: bool = False) -> str:
    return f"{estimate.value:{'+' if signed else ''}.3f}"
