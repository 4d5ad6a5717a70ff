"""Further examinations of every arm, by name (``--also``): one file each, one contract.

An examination takes a View and returns Figures; the same conditions and metrics for every arm, so that each can stand
beside the frozen encoder's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module

from curate.eval_report import Finding
from curate.evaluation._intervals import Measured, Resamples
from curate.evaluation._view import Figure, View
from curate.results import Estimate
from embeddings.errors import UnknownNameError

Examination = Callable[[View], list[Figure]]

# name -> where the function ``examine`` is
EXAMINATIONS: dict[str, str] = {
    "labels": "curate.evaluation.examinations.labels",
    "robustness": "curate.evaluation.examinations.robustness",
    "noise": "curate.evaluation.examinations.noise",
    "groups": "curate.evaluation.examinations.groups",
    "rare": "curate.evaluation.examinations.rare",
    "anomaly": "curate.evaluation.examinations.anomaly",
}
FROM_NORMAL = ("rare", "anomaly")  # those that need to know which label is in order
REFERENCES, FINETUNE = "references", "finetune"
ROWS = (REFERENCES, FINETUNE)  # what adds arms instead of findings
ALL = "all"


def find_examinations(texts: Sequence[str]) -> tuple[str, ...]:
    """Names in the order of the table, from texts with commas.

    Raises:
        UnknownNameError: one that there is not.
    """
    known = (*ROWS, *EXAMINATIONS)
    wanted = [name.strip() for text in texts for name in text.split(",") if name.strip()]
    for name in wanted:
        if name not in (*known, ALL):
            raise UnknownNameError("examination", name, (*known, ALL))
    return known if ALL in wanted else tuple(name for name in known if name in wanted)


def require_normal(names: Sequence[str], normal: str | None, classes: Mapping[str, Sequence[str]]) -> None:
    """Refuses a label named as normal that no labeled set has; where one of several lacks it, see ``examine``.

    Args:
        names: Of the examinations.
        normal: The label; None: the largest class of each set.
        classes: Labels by labeled set.

    Raises:
        UnknownNameError: the sets and the labels near by are named.
    """
    if normal is None or not {*names} & {*FROM_NORMAL}:
        return
    known = {label for labels in classes.values() for label in labels}
    if normal not in known:
        raise UnknownNameError(f"normal label of {', '.join(map(repr, classes))}:", normal, known)


def examine(names: Sequence[str], view: View) -> dict[tuple[str, str, str], Figure]:
    """All figures of some examinations, by examination, condition and metric; a reason where the set lacks the label
    that was named as normal.
    """
    found = {}
    for name in names:
        examination: Examination = import_module(EXAMINATIONS[name]).examine
        for figure in _without_normal(name, view) or examination(view):
            found[name, figure.condition, figure.metric] = figure
    return found


def as_findings(
    figures: dict[tuple[str, str, str], Figure],
    frozen: dict[tuple[str, str, str], Figure] | None,
    resamples: Resamples,
) -> tuple[Finding, ...]:
    """Figures with their intervals, and with their differences to the frozen encoder's (None for its own)."""
    findings = []
    for place, figure in figures.items():
        about, condition, metric = place
        gain = _difference(figure, (frozen or {}).get(place), resamples)
        estimate = _estimate(figure, resamples)
        findings.append(
            Finding(
                about=about,
                condition=condition,
                metric=metric,
                estimate=estimate,
                against_frozen=gain,
                detail=figure.detail,
            )
        )
    return tuple(findings)


def _without_normal(name: str, view: View) -> list[Figure]:
    """The figure that says why, where an examination needs a label that the set has not; else nothing."""
    normal = view.settings.normal
    if name not in FROM_NORMAL or normal is None or normal in view.comparison.split.facts["class_names"]:
        return []
    reason = f"no image of {view.images.name} has the label {normal!r}, which normal= names"
    return [Figure(condition="", metric="auroc", found=Estimate(value=None, reason=reason))]


def _estimate(figure: Figure, resamples: Resamples) -> Estimate:
    if isinstance(figure.found, Estimate):
        return figure.found
    how = {"is_share": figure.is_share, "lower_is_better": figure.lower_is_better}
    estimate = (figure.resamples or resamples).estimate(figure.found, figure.unit, **how)
    return replace(estimate, null=figure.null, method=_method(estimate, figure))


def _difference(figure: Figure, frozen: Figure | None, resamples: Resamples) -> Estimate | None:
    if frozen is None or not isinstance(figure.found, Measured) or not isinstance(frozen.found, Measured):
        return None
    drawn = figure.resamples or resamples
    how = {"is_share": figure.is_share, "lower_is_better": figure.lower_is_better}
    gain = drawn.difference(figure.found, frozen.found, figure.unit, **how)
    return replace(gain, method=_method(gain, figure))


def _method(estimate: Estimate, figure: Figure) -> str:
    return f"{estimate.method}; {figure.note}" if figure.note else estimate.method
