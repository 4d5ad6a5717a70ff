"""Further examinations of the arms as tables: a row for each condition and metric, a column for each arm.

Accuracies and the figures of examinations are written alike wherever they stand: 0.734 ±0.021, half the width of the
95% interval, in a table all of whose intervals are even; in any other table 0.920 (0.871 to 0.948) throughout. So no
cell says of a share that it may be below 0 or above 1. A row in which no arm has a figure is no row: why it has none is
told below the table, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from curate.evaluation._intervals import NO_INTERVAL
from curate.reporting.wording import NOTHING, Figure, in_one_line, number, with_interval

EVEN = 0.1  # how far the middle of an interval may lie off the value, as a share of half its width, to be told as ±
DECIMALS, TINY = 3, 1e-9
ALL_BUT = "all but "  # the normal class: how such a condition begins

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
    "noise": (
        "Wrong labels",
        "Accuracy where that share of the training labels is wrong, and the slope: points lost per 10% of wrong labels "
        "(lower is better). Intervals are over test images and draws of wrong labels together.",
    ),
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
        return f"{self.condition} {self.short}".strip()

    @property
    def short(self) -> str:
        """The metric where room is scarce."""
        return SHORT.get(self.metric, self.called)

    @property
    def called(self) -> str:
        """The metric in words."""
        return "AUROC" if self.metric == "auroc" else self.metric.replace("_", " ")

    @property
    def estimates(self) -> list[Figure]:
        """What the arms read, of those that have a finding."""
        return [finding["estimate"] for finding in self.findings if finding is not None]

    @property
    def has_figure(self) -> bool:
        """Whether any arm has one."""
        return any(estimate["value"] is not None for estimate in self.estimates)


class Examination(NamedTuple):
    """One examination of one labeled set."""

    about: str
    title: str
    lead: str
    arms: list[str]
    kinds: list[str]  # of the arms
    rows: list[Row]
    is_normal_named: bool = False  # whether normal=LABEL was given

    @property
    def summary(self) -> list[Row]:
        """The rows with a figure that no other sums up."""
        return [row for row in self.rows if row.has_figure and not row.detail]

    @property
    def details(self) -> list[Row]:
        """The rows with a figure that others sum up."""
        return [row for row in self.rows if row.has_figure and row.detail]


def examinations(labeled: Mapping[str, Any]) -> list[Examination]:
    """Every further examination of a labeled set of a summary, in the order in which they were made."""
    scores = _shown([score for score in labeled["scores"] if score.get("findings")])
    names = dict.fromkeys(finding["about"] for score in scores for finding in score["findings"])
    found = [_examination(name, scores) for name in names]
    return [one._replace(is_normal_named="normal" in labeled["facts"]) for one in found]


def _shown(scores: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The arms that have a column, in their order."""

    def place(score: Mapping[str, Any]) -> tuple[bool, float]:
        value = score["metrics"].get("linear", {}).get("value")
        return score["kind"] in ("run", "finetuned"), -(value or 0.0)

    kept = sorted(range(len(scores)), key=lambda row: place(scores[row]))[:ARMS]
    return [scores[row] for row in sorted(kept)]


def gain(finding: Mapping[str, Any] | None) -> str:
    """The paired difference to the frozen encoder with its interval; empty where there is none."""
    found = (finding or {}).get("against_frozen")
    return with_interval(found, 3, plus=True) if found and found["value"] is not None else ""


def writer(figures: Iterable[Figure | None]) -> Callable[[Figure | None], str]:
    """How the figures of one table are written: with ± where all their intervals are even, else all in full."""
    are_even = all(_is_even(figure) for figure in figures if figure is not None)

    def write(figure: Figure | None) -> str:
        if figure is None:
            return NOTHING
        return with_half_width(figure) if are_even else with_interval(figure, DECIMALS)

    return write


def rows_writer(rows: Iterable[Row]) -> Callable[[Figure | None], str]:
    """``writer`` for the cells of some rows."""
    return writer(estimate for row in rows for estimate in row.estimates)


def has_few_images(figure: Figure) -> bool:
    """Whether it has no interval because too few images were tested."""
    return str(figure["method"]).startswith(NO_INTERVAL)


def with_half_width(figure: Figure) -> str:
    """The value with half the width of its interval, 0.734 ±0.021."""
    value, low, high = (figure[name] for name in ("value", "low", "high"))
    half = "" if value is None or low is None or high is None else f" ±{number((high - low) / 2, DECIMALS)}"
    return f"{number(value, DECIMALS)}{half}"


def text_rows(examination: Examination, *, grouped: bool = False) -> tuple[list[str], list[list[str]]]:
    """Header and rows of ready strings; grouped, a condition is told in the first of its rows."""
    write, rows, before = rows_writer(examination.summary), [], None
    for row in examination.summary:
        name = f"  {row.short}" if grouped and row.condition == before else row.name
        rows.append([name, *(write(finding and finding["estimate"]) for finding in row.findings)])
        before = row.condition
    return ["", *examination.arms] if rows else [""], rows


def _examination(name: str, scores: Sequence[Mapping[str, Any]]) -> Examination:
    of_arms = [{(f["condition"], f["metric"]): f for f in score["findings"] if f["about"] == name} for score in scores]
    places = dict.fromkeys(place for findings in of_arms for place in findings)
    rows = []
    for condition, metric in places:
        found = [findings.get((condition, metric)) for findings in of_arms]
        rows.append(Row(_shown_as(condition), metric, found, any(f["detail"] for f in found if f)))
    title, lead = EXAMINATIONS.get(name, (name.capitalize(), ""))
    some = "" if len(scores) < ARMS else f"At most {ARMS} arms are shown, references and the most accurate runs."
    arms, kinds = ([score[key] for score in scores] for key in ("arm", "kind"))
    return Examination(name, title, f"{lead} {some}".strip(), arms, kinds, rows)


def _shown_as(condition: str) -> str:
    """A condition, in which a class or a group may have any name."""
    lead = ALL_BUT if condition.startswith(ALL_BUT) else ""
    return lead + in_one_line(condition.removeprefix(lead))


def _is_even(figure: Figure) -> bool:
    """Whether ± says what the interval says; of a share also that it stays between 0 and 1."""
    value, low, high = (figure[name] for name in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return True
    half = (high - low) / 2
    middle, reach = round(value, DECIMALS), round(half, DECIMALS)  # as they are written
    leaves = low >= 0 and high <= 1 and not reach - TINY <= middle <= 1 - reach + TINY
    return abs((high + low) / 2 - value) <= EVEN * half + 0.5 * 10**-DECIMALS and not leaves
