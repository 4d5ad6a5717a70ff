"""Further examinations of the arms as tables: a row for each condition and metric, a column for each arm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from curate.reporting.wording import NOTHING, Figure, number, with_interval

LOPSIDED = 0.5  # the shorter side of an interval as a share of half its width, below which it is told in full

# examination -> its title, and how to read it
EXAMINATIONS = {
    "labels": ("Few labels", "Accuracy with a part of the training labels; lists are nested, and alike for all arms."),
    "rare": (
        "Rare classes",
        "One class against the rest, and all against what is in order (the largest class, or normal=LABEL). Recall: "
        "where 5% of what is in order may be rejected (reject=0.05), by a threshold set on held-out training images.",
    ),
    "anomaly": (
        "Anomalies, from normal images only",
        "No label of a defect was used; normal is the largest class, or normal=LABEL.",
    ),
    "robustness": (
        "Corrupted images",
        "Accuracy on test images under 15 corruptions, the share of it that is retained, and the slope: points lost "
        "per step of severity (lower is better).",
    ),
    "noise": ("Wrong labels", "Accuracy where some training labels are drawn anew."),
    "groups": ("Groups", "Accuracy by group, and how well the group can be read from the features."),
}


SHORT = {"average_precision": "avg. precision", "false_reject": "false rejects"}  # of a metric, where room is scarce
ARMS = 12  # columns: references first, then the most accurate runs


class Row(NamedTuple):
    """One condition and metric: what each arm reads, in the order of the arms."""

    condition: str
    metric: str
    findings: list[dict[str, Any] | None]
    detail: bool  # summed up by another row

    @property
    def name(self) -> str:
        """Both, as a table's first column has it."""
        return f"{self.condition} {SHORT.get(self.metric, self.called)}".strip()

    @property
    def called(self) -> str:
        """The metric in words."""
        return "AUROC" if self.metric == "auroc" else self.metric.replace("_", " ")


class Examination(NamedTuple):
    """One examination of one labeled set."""

    about: str
    title: str
    lead: str
    arms: list[str]
    kinds: list[str]  # of the arms
    rows: list[Row]

    @property
    def summary(self) -> list[Row]:
        """The rows that no other sums up."""
        return [row for row in self.rows if not row.detail]

    @property
    def details(self) -> list[Row]:
        """The rows that others sum up."""
        return [row for row in self.rows if row.detail]


def examinations(labeled: Mapping[str, Any]) -> list[Examination]:
    """Every further examination of a labeled set of a summary, in the order in which they were made."""
    scores = _shown([score for score in labeled["scores"] if score.get("findings")])
    names = dict.fromkeys(finding["about"] for score in scores for finding in score["findings"])
    return [_examination(name, scores) for name in names]


def _shown(scores: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The arms that have a column, in their order."""

    def place(score: Mapping[str, Any]) -> tuple[bool, float]:
        value = score["metrics"].get("linear", {}).get("value")
        return score["kind"] in ("run", "finetuned"), -(value or 0.0)

    kept = sorted(range(len(scores)), key=lambda row: place(scores[row]))[:ARMS]
    return [scores[row] for row in sorted(kept)]


def reading(finding: Mapping[str, Any] | None) -> str:
    """A figure with half the width of its interval."""
    return NOTHING if finding is None else with_half_width(finding["estimate"])


def gain(finding: Mapping[str, Any] | None) -> str:
    """The paired difference to the frozen encoder with its interval; empty where there is none."""
    found = (finding or {}).get("against_frozen")
    return with_interval(found, 3, plus=True) if found and found["value"] is not None else ""


def with_half_width(figure: Figure) -> str:
    """The value with half the width of its interval, 0.734 ±0.021; a lopsided one in full, 1.000 (0.914 to 1.000)."""
    value, low, high = (figure[name] for name in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return number(value, 3)
    if _is_lopsided(value, low, high):
        return with_interval(figure, 3)
    return f"{number(value, 3)} ±{number((high - low) / 2, 3)}"


def half_width(figure: Figure) -> str:
    """The value with half the width of its interval; of a lopsided one with its wider side, 1.000 ±0.086."""
    value, low, high = (figure[name] for name in ("value", "low", "high"))
    if value is None or low is None or high is None or not _is_lopsided(value, low, high):
        return with_half_width(figure)
    return f"{number(value, 3)} ±{number(max(high - value, value - low), 3)}"


def text_rows(
    examination: Examination, show: Callable[[Figure], str] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of ready strings."""
    write = show or with_half_width
    cells = [
        [NOTHING if finding is None else write(finding["estimate"]) for finding in row.findings]
        for row in examination.summary
    ]
    rows = [[row.name, *of_row] for row, of_row in zip(examination.summary, cells, strict=True)]
    return ["", *examination.arms], rows


def _examination(name: str, scores: Sequence[Mapping[str, Any]]) -> Examination:
    of_arms = [{(f["condition"], f["metric"]): f for f in score["findings"] if f["about"] == name} for score in scores]
    places = dict.fromkeys(place for findings in of_arms for place in findings)
    rows = []
    for condition, metric in places:
        found = [findings.get((condition, metric)) for findings in of_arms]
        rows.append(Row(condition, metric, found, any(f["detail"] for f in found if f)))
    title, lead = EXAMINATIONS.get(name, (name.capitalize(), ""))
    some = "" if len(scores) < ARMS else f"At most {ARMS} arms are shown, references and the most accurate runs."
    arms, kinds = ([score[key] for score in scores] for key in ("arm", "kind"))
    return Examination(name, title, f"{lead} {some}".strip(), arms, kinds, rows)


def _is_lopsided(value: float, low: float, high: float) -> bool:
    return min(high - value, value - low) < (high - low) / 2 * LOPSIDED
