"""An evaluation in sentences: what the frozen public encoder reads, and for every run whether it beat that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from curate.eval_report import ArmScore, EvalReport, Pair
from curate.evaluation._cross_fitting import remarks_on_folds, sizes_in_words
from curate.evaluation._pretrained_on import warning
from curate.numerals import amount, number, one_of, within
from curate.results import Estimate
from embeddings.errors import UnknownNameError

METRIC = "linear"
LEAKED = 0.01  # share of test images known from training that is worth a warning
ALPHA = 0.05
WORTH = 0.1  # accuracy that a public encoder has learned; an interval that excludes as much casts doubt on the labels
CONTROLS = ("frozen", "untrained")
TUNED = "finetuned:"


def verdicts(report: EvalReport) -> list[str]:
    """Per labeled set one sentence on what there is to beat, then one per arm, then whether one run is the best.

    Without a run: what the public encoder has learned, against an untrained network. A run that was fine-tuned is set
    against the fine-tuned public encoder, where both were compared.
    """
    lines = []
    for labeled, facts in report.labeled.items():
        scores = [s for s in report.scores if s.labeled == labeled]
        frozen = next(s for s in scores if s.kind == "frozen")
        read = ", ".join(f"{name} {_interval(frozen.metrics[name])}" for name in (METRIC, "knn"))
        lines.append(f"{labeled}: the frozen public encoder reads {read}; {sizes_in_words(facts)}.")
        lines += [f"{labeled}: {told}" for told in _missing(facts)]
        known = leaks(facts)
        known += [told for s in scores for told in warning(s.arm, s.kind, s.facts, facts["n_test"])]
        lines += [f"{labeled}: careful: {told}." for told in known]
        runs = [s for s in scores if s.kind == "run"]
        lines += [] if runs else [f"{labeled}: {_learned(s)}" for s in scores if s.kind == "untrained"]
        lines += [f"{labeled}: {_of_arm(report, s, scores)}" for s in scores if s.kind not in CONTROLS]
        lines += [f"{labeled}: {sentence}" for sentence in _best_run(report, labeled)]
    return [*lines, *remarks_on_folds(report)]


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
    name = _called(score, scores.values())
    return (
        f"{name} {_outcome(gain)}: {figures}, difference {_interval(gain, signed=True)}{_labels(score)}"
        f"{_by_neighbors(score, gain)}."
    )


def _by_neighbors(score: ArmScore, gain: Estimate) -> str:
    """What k-NN says, where that is settled and another thing than what the linear probe says."""
    other = score.against_frozen.get("knn")
    if other is None or other.low is None or other.high is None or not (other.low > 0 or other.high < 0):
        return ""
    if _outcome(other) == _outcome(gain):
        return ""
    return f"; by k-NN it is surely {'better' if other.low > 0 else 'worse'}: {_interval(other, signed=True)}"


def _of_arm(report: EvalReport, score: ArmScore, scores: Sequence[ArmScore]) -> str:
    """Whether an arm beat what it has to beat."""
    tuned = next((s for s in scores if s.kind == "finetuned" and not _run_of(s, scores)), None)
    if tuned is not None and _run_of(score, scores):
        for pair in report.pairs:
            if pair.labeled == score.labeled and {pair.first, pair.second} == {score.arm, tuned.arm}:
                return _compared(pair, {s.arm: _called(s, scores) for s in (score, tuned)})
    return verdict(report, score.arm, score.labeled)


def _called(score: ArmScore, scores: Iterable[ArmScore]) -> str:
    """An arm in a sentence."""
    if score.kind == "supervised":
        return "a network trained on the labels alone"
    if score.kind != "finetuned":
        return score.arm
    run = _run_of(score, scores)
    return f"fine-tuned {run}" if run else "the fine-tuned public encoder"


def _run_of(score: ArmScore, scores: Iterable[ArmScore]) -> str:
    """Which run a fine-tuned network was before; empty for the others, the public encoder among them."""
    name = score.arm.removeprefix(TUNED)
    return name if score.kind == "finetuned" and any(s.kind == "run" and s.arm == name for s in scores) else ""


def _learned(untrained: ArmScore) -> str:
    """What the public encoder's weights are worth: the difference to a network without them.

    Where it may be nothing, the labels are doubted only if it is surely below WORTH; else test images are too few.
    """
    gain = untrained.against_frozen.get(METRIC)
    figures = f"an untrained network reads {METRIC} {_number(untrained.metrics[METRIC])}"
    if gain is None or gain.value is None:
        return f"{figures}."
    worth = _reversed(gain)
    told = f"{figures}, so what the public encoder has learned is worth {_interval(worth, signed=True)} here"
    if worth.low is None or worth.low > 0:
        return f"{told}."
    if worth.high is None or worth.high >= WORTH:
        return f"{told}: the test images are too few to tell it from nothing."
    return f"careful: {told}, not to be told from nothing. Do the labels belong to the images?"


def _missing(facts: dict[str, Any]) -> list[str]:
    """A warning where test images cannot be named rightly, because no training image has their class."""
    missing = facts.get("classes_missing_in_train") or 0
    has = one_of(missing, "has", "have")
    return [f"careful: {missing:,} of {facts['classes']:,} classes {has} no training image."] if missing else []


def leaks(facts: Mapping[str, Any]) -> list[str]:
    """A warning where the test part is known from training, in a clause."""
    known = facts.get("near_duplicates_in_train") or 0
    if not known or known < LEAKED * facts["n_test"]:
        return []
    return [f"{known:,} of {facts['n_test']:,} test images are nearly the same picture as a training image"]


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
    return [f"of the runs, {_compared(pair, {best: best, second: second})}" for pair in pairs]


def _compared(pair: Pair, names: Mapping[str, str]) -> str:
    """Whether the better of two arms, by what they are called, surely is that."""
    is_turned = (pair.difference.value or 0.0) < 0
    gap = _reversed(pair.difference) if is_turned else pair.difference
    best, other = (names[arm] for arm in ((pair.second, pair.first) if is_turned else (pair.first, pair.second)))
    figures = f"difference {_interval(gap, signed=True)}, corrected McNemar p {pair.p_holm:.2g}"
    is_sure = gap.low is not None and gap.low > 0 and pair.p_holm < ALPHA
    told = f"{best} is surely better than {other}" if is_sure else f"{best} and {other} cannot be told apart"
    return f"{told}: {figures}."


def _reversed(gap: Estimate) -> Estimate:
    """The difference the other way around."""
    value, low, high = (None if end is None else -end for end in (gap.value, gap.high, gap.low))
    return replace(gap, value=value, low=low, high=high)


def _outcome(gain: Estimate) -> str:
    if gain.low is None or gain.high is None:
        return "cannot be judged against the frozen public encoder, the difference having no interval"
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
    return within(estimate.value, estimate.low, estimate.high, 3, plus=signed)


def _number(estimate: Estimate) -> str:
    return number(estimate.value, 3)
