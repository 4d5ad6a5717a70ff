"""Geometry of a study's figures: accuracy by arm with the references as levels, and accuracy over D = N / C."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from curate.reporting.figures import Scale, color_class, fitted_scale
from curate.reporting.study import REFERENCES, Results
from curate.reporting.wording import number

ROWS = 40  # arms and settings in the figure
TICKS = 6  # of D
LEAST_HEIGHT = 0.1  # of an axis of accuracies
DODGE = 0.7  # per cent of the width between curves, so that intervals do not cover each other
MARKS = {"images": "N", "samples": "C"}
SETTING = ("images", "samples", "method", "init", "backbone", "encoder")

Point = Mapping[str, Any]


def arm_chart(results: Results) -> dict[str, Any] | None:
    """A row for each arm and setting with its interval, references as levels; None without a known accuracy."""
    told = results["figures"].get("accuracy_by_arm") or {}
    series = [point for point in told.get("series", []) if point["value"] is not None]
    if not series:
        return None
    levels = _levels(told.get("references", []))
    scale = _accuracy_scale([*_ends(series), *(level["value"] for level in levels)])
    colors, varying = _colors(series), _varying(series)
    rows = [
        {
            "arm": point["arm"],
            "setting": _words(point, varying),
            "color": colors[point["arm"]],
            "point": point,
            **scale.interval(dict(point)),
        }
        for point in sorted(series, key=lambda p: list(colors).index(p["arm"]))
    ]
    placed = [{**level, "at": scale.at(level["value"])} for level in levels]
    return {"scale": scale, "rows": rows[:ROWS], "more": len(rows[ROWS:]), "levels": placed, "y": told["y"]}


def diversity_chart(results: Results) -> dict[str, Any] | None:
    """A curve for each arm and setting with several N; D on a logarithmic axis. None without curves."""
    told = results["figures"].get("accuracy_by_diversity") or {}
    curves = told.get("series", [])
    points = [point for curve in curves for point in curve["points"] if point["value"] is not None]
    if not points:
        return None
    references = (results["figures"].get("accuracy_by_arm") or {}).get("references", [])
    levels = [level for level in _levels(references) if level["kind"] in ("frozen", "finetuned")]
    y = _accuracy_scale([*_ends(points), *(level["value"] for level in levels)], steps=4)
    found = sorted({float(point["diversity"]) for point in points})
    x = Scale(math.log(found[0]) - 0.1, math.log(found[-1]) + 0.1, ())
    colors, varying = _colors(curves), _varying(curves)
    lines = [
        {
            "name": " ".join(filter(None, (curve["arm"], _words(curve, varying)))),
            "color": colors[curve["arm"]] if len(colors) == len(curves) else color_class(row),
            **_curve(curve["points"], x, y, dodge=DODGE * (row - (len(curves) - 1) / 2)),
        }
        for row, curve in enumerate(curves)
    ]
    ticks = found if len(found) <= TICKS else [found[round(i * (len(found) - 1) / (TICKS - 1))] for i in range(TICKS)]
    return {
        "y": y,
        "lines": lines,
        "ticks": [{"at": x.at(math.log(d)), "text": f"{d:.2g}"} for d in ticks],
        "levels": [{**level, "at": _down(y, level["value"])} for level in levels],
        "metric": told["y"],
    }


def _curve(points: Sequence[Point], x: Scale, y: Scale, *, dodge: float) -> dict[str, Any]:
    """Marks of a curve and the line through them."""
    marks = [
        {
            "x": round(x.at(math.log(point["diversity"])) + dodge, 2),
            "y": _down(y, point["value"]),
            "low": None if point["low"] is None else _down(y, point["low"]),
            "high": None if point["high"] is None else _down(y, point["high"]),
        }
        for point in points
        if point["value"] is not None
    ]
    return {"marks": marks, "points": " ".join(f"{m['x']:g},{m['y']:g}" for m in marks)}


def _accuracy_scale(values: Sequence[float | None], *, steps: int = 5) -> Scale:
    """A scale that holds all values; where they are all alike, a little below them, as no accuracy is above 1."""
    known = [value for value in values if value is not None]
    alike = [max(known) - LEAST_HEIGHT] if max(known) == min(known) else []
    return fitted_scale([*known, *alike], steps=steps)


def _levels(references: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """References with a value, in a fixed order."""
    known = {level["kind"]: level["value"] for level in references if level["value"] is not None}
    return [{"kind": kind, "name": name, "value": known[kind]} for kind, name in REFERENCES.items() if kind in known]


def _down(y: Scale, value: float) -> float:
    """Position from the top."""
    return round(100 - y.at(value), 2)


def _ends(points: Iterable[Point]) -> list[float | None]:
    return [point[key] for point in points for key in ("value", "low", "high")]


def _colors(points: Iterable[Point]) -> dict[str, str]:
    return {arm: color_class(i) for i, arm in enumerate(dict.fromkeys(point["arm"] for point in points))}


def _varying(points: Sequence[Point]) -> list[str]:
    """The parts of a setting in which the points differ."""
    return [name for name in SETTING if len({str(point.get(name)) for point in points}) > 1]


def _words(point: Point, names: Sequence[str]) -> str:
    told = [(MARKS.get(name, name), point.get(name)) for name in names]
    return ", ".join(f"{name} {number(v) if isinstance(v, int) else v}" for name, v in told if v is not None)
