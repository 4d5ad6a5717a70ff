"""What stands below the table of a further examination: what is left out of it and why, and what it says.

It says it in one sentence: the frozen encoder's figure, and which arms surely differ from it. One figure stands for
each examination: what a user would decide on. A difference is settled where its paired 95% interval excludes zero. The
untrained twin is a control, and not told there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from curate.evaluation._intervals import MIN_UNITS
from curate.reporting.examined import ALL_BUT, Examination, Row, has_few_images
from curate.reporting.wording import amount, counted, listed, number, one_of, p_value, percent, with_interval

CONTROL = "untrained"
SURE = 0.05
ON_SHIFTS = 3  # told of
OPEN = "not settled, the interval holding zero"
CONDITIONS = {"rare": ("class", "classes"), "groups": ("group", "groups")}  # what a condition is
Finding = Mapping[str, Any]


def below(examination: Examination, *, is_whole: bool = False) -> list[str]:
    """All that is to be said below the table, each thing once; a page that has the details, too, is whole."""
    told, hidden = closing(examination), "" if is_whole else left_out(examination)
    why = [line for line in reasons(examination) if line.partition(": ")[2].rstrip(".") not in told]
    return [*filter(None, [hidden]), *why, *filter(None, [told])]


def left_out(examination: Examination) -> str:
    """Which rows are left to the page; empty where it has no more."""
    few = {row.condition for row in examination.details if any(map(has_few_images, row.estimates))}
    more = sum(row.condition not in few for row in examination.details)
    noun = CONDITIONS.get(examination.about, ("condition", "conditions"))
    told = [f"{counted(len(few), *noun)} with fewer than {MIN_UNITS} test units"] if few else []
    told += [counted(more, "further figure")] if more else []
    return f"Left to report.html, which --out writes: {listed(told)}." if told else ""


def closing(examination: Examination) -> str:
    """The sentence; why there is none, where the frozen encoder has no figure; empty for an unknown examination."""
    write = _WRITTEN.get(examination.about)
    told = write(examination) if write else ""
    return f"{told[0].upper()}{told[1:]}." if told else ""


def reasons(examination: Examination) -> list[str]:
    """Why figures are missing, each reason once with where it holds."""
    found: dict[str, list[Row]] = {}
    for row in examination.rows:
        for why in dict.fromkeys(str(f["reason"]) for f in row.estimates if f["value"] is None):
            found.setdefault(why, []).append(row)
    alone = len(examination.rows) == 1
    where = {why: "" if alone else f" for {listed(_places(examination, rows), most=4)}" for why, rows in found.items()}
    return [f"n/a{where[why]}: {why}" for why in found]


def _places(examination: Examination, rows: list[Row]) -> list[str]:
    """Names of the rows; a condition of which there are all has its own."""
    whole = {row.condition for row in rows} - {row.condition for row in examination.rows if row not in rows}
    return list(dict.fromkeys(row.condition if row.condition in whole else row.name for row in rows))


def _labels(examination: Examination) -> str:
    rows = [row for row in examination.summary if row.metric == "linear" and _value(examination, row) is not None]
    if not rows:
        return _why_not(examination)
    least, most = rows[0], rows[-1]
    told = f"with {least.condition} of the labels the frozen encoder reads {_reads(examination, least)}"
    if least is not most:
        told += f", with {most.condition} {_reads(examination, most)}"
    return told + _others(examination, least, f"with {least.condition}, ")


def _rare(examination: Examination) -> str:
    row = _first(examination, [("costs", "cost"), ("all but", "recall"), ("all but", "auroc")])
    if row is None:
        return _why_not(examination)
    value = _value(examination, row)
    if row.metric == "cost":
        saved = _figure(examination, "costs", "saved_over_accepting_all")
        less = "" if saved is None else f", {with_interval(saved, 3)} less than accepting all"
        told = f"by your costs the frozen encoder's decisions cost {amount(value)} an image{less}"
    elif row.metric == "recall":
        spent = _figure(examination, row.condition, "false_reject")
        at = "" if spent is None else f", rejecting {number(spent['value'], 3)} of what is in order"
        told = f"the frozen encoder finds {number(value, 3)} of {row.condition}{at}"
    else:
        told = f"the frozen encoder ranks what is {row.condition} before what is in order {_of_100(value)}"
    if row.condition.startswith(ALL_BUT):
        told += f", taking {row.condition.removeprefix(ALL_BUT)} for that"
        told += "" if examination.is_normal_named else " (normal=LABEL names another)"
    return told + _others(examination, row)


def _anomaly(examination: Examination) -> str:
    row = _first(examination, [(name, "auroc") for name in ("patch-memory", "neighbors", "gaussian")])
    if row is None:
        return _why_not(examination)
    ranked = f"ranks what is not in order before what is {_of_100(_value(examination, row))}"
    by = row.condition.replace("-", " ")
    return f"with no label of a defect, the frozen encoder's {by} {ranked}{_others(examination, row)}"


def _robustness(examination: Examination) -> str:
    row = _first(examination, [("all corruptions", "linear")])
    if row is None:
        return _why_not(examination)
    kept = _figure(examination, row.condition, "retained")
    share = "" if kept is None else f", {percent(kept['value'], 0)} of what it reads without"
    told = f"under corruptions the frozen encoder reads {_reads(examination, row)}{share}"
    drops = [
        f"on {found.condition.removeprefix('shift ')} it loses {with_interval(figure, 3)}"
        for found in examination.rows
        if found.metric == "drop" and (figure := _figure(examination, found.condition, "drop")) is not None
    ]
    return "; ".join([told + _others(examination, row), *drops[:ON_SHIFTS]])


def _noise(examination: Examination) -> str:
    row = _first(examination, [("noise", "slope")])
    if row is None:
        return _why_not(examination)
    found, others = _figure(examination, *row[:2]) or {}, _others(examination, row, decimals=1, unit=" points")
    is_open = found["low"] is not None and found["low"] <= 0 <= found["high"]
    lost = with_interval(found, 1) if is_open else number(found["value"], 1)
    told = f"every 10% of wrong labels costs the frozen encoder {lost} points"
    return f"{told}{f': {OPEN}' if is_open else ''}{others}"


def _groups(examination: Examination) -> str:
    row = _first(examination, [("", "standardized_gap"), ("", "gap")])
    if row is None:
        return _why_not(examination)
    mix = " at one mix of classes" if row.metric == "standardized_gap" else ""
    chance = _figure(examination, row.condition, f"{row.metric}_p")
    told = f"between groups of {row.condition} the frozen encoder's accuracy differs by {_reads(examination, row)}{mix}"
    if chance is not None:
        how = "more than chance makes" if chance["value"] <= SURE else "no more than chance may make"
        told += f", {how} (p {p_value(chance['value'])})"
    weight = _figure(examination, row.condition, "weight")
    more = "" if weight is None else f"; {weight['unit']} asks for more of the worst one"
    return told + _others(examination, row) + more


_WRITTEN: dict[str, Callable[[Examination], str]] = {
    "labels": _labels,
    "rare": _rare,
    "anomaly": _anomaly,
    "robustness": _robustness,
    "noise": _noise,
    "groups": _groups,
}


def _others(examination: Examination, row: Row, lead: str = "", *, decimals: int = 3, unit: str = "") -> str:
    """How the other arms stand to the frozen one in a figure: one with its figures, several by what is settled."""
    arms = [
        (name, finding)
        for name, kind, finding in zip(examination.arms, examination.kinds, row.findings, strict=True)
        if kind not in ("frozen", CONTROL) and finding is not None and finding["estimate"]["value"] is not None
    ]
    ways: dict[str, list[str]] = {}
    for name, finding in arms:
        ways.setdefault(_way(finding), []).append(name)
    if len(arms) == 1:
        ((name, finding),) = arms
        gain, way = finding["against_frozen"], next(iter(ways))
        settled = {"": "not judged"}.get(way, OPEN if way == "open" else f"{way}, and settled")
        known = gain is not None and gain["value"] is not None
        by = f", a difference of {with_interval(gain, decimals, plus=True)}{unit}" if known else ""
        return f"; {lead}{name} reads {number(finding['estimate']['value'], decimals)}{by}: {settled}"
    told = [
        f"{listed(names)} {one_of(len(names), 'is', 'are')} {word}"
        for way, word in (("better", "surely better"), ("worse", "surely worse"), ("open", "not told from it"))
        if (names := ways.get(way))
    ]
    return f"; {lead}{', '.join(told)}" if told else ""


def _way(finding: Finding) -> str:
    """better, worse or open; empty where there is no difference with an interval."""
    gain = finding["against_frozen"]
    if gain is None or gain["low"] is None or gain["high"] is None:
        return ""
    if gain["low"] <= 0 <= gain["high"]:
        return "open"
    return "better" if (gain["low"] > 0) != gain["lower_is_closer"] else "worse"


def _first(examination: Examination, places: list[tuple[str, str]]) -> Row | None:
    """The first of these rows, by the start of its condition and its metric, for which the frozen arm has a figure."""
    for condition, metric in places:
        for row in examination.rows:
            is_there = row.condition.startswith(condition) and row.metric == metric
            if is_there and _value(examination, row) is not None:
                return row
    return None


def _figure(examination: Examination, condition: str, metric: str) -> dict[str, Any] | None:
    """The frozen arm's figure in one row; None where it has none."""
    for row in examination.rows:
        if (row.condition, row.metric) == (condition, metric) and _value(examination, row) is not None:
            found: dict[str, Any] = (_frozen(examination, row) or {})["estimate"]
            return found
    return None


def _frozen(examination: Examination, row: Row) -> Finding | None:
    return next((f for kind, f in zip(examination.kinds, row.findings, strict=True) if kind == "frozen"), None)


def _value(examination: Examination, row: Row) -> float | None:
    finding = _frozen(examination, row)
    return None if finding is None else finding["estimate"]["value"]


def _reads(examination: Examination, row: Row) -> str:
    return number(_value(examination, row), 3)


def _of_100(share: float | None) -> str:
    """An area under a curve of detection as what it is the probability of."""
    return f"{number(None if share is None else 100 * share)} times of 100 (AUROC {number(share, 3)})"


def _why_not(examination: Examination) -> str:
    """That nothing was measured, and why."""
    found = [_frozen(examination, row) for row in examination.rows]
    why = next((f["estimate"]["reason"] for f in found if f is not None and f["estimate"]["reason"]), "")
    return f"not measured: {str(why).rstrip('.')}" if why else ""
