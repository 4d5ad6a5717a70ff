"""Geometry of the report's figures: positions in per cent of their box, as plain numbers that the templates draw.

Drawn as inline SVG with relative positions, so that a figure fills any width while its text keeps its size.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from curate.reporting import accuracies
from curate.reporting.findings import steps_tried
from curate.reporting.sentences import ordered_metrics
from curate.reporting.wording import Figure

MOST_NAMED = 24  # in a legend
COLORS = 9  # classes c0 to c8 of the style sheet; "ct" is the target, "cx" everything beyond
FULL_WIDTH_INDEX = 50.0
LEAST_GAP = 0.1  # of an axis, between the tick at its end and the next


@dataclass(frozen=True)
class Scale:
    """A linear axis from ``low`` to ``high`` with its ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """Position in per cent of the axis, held to its ends."""
        return round(min(100.0, max(0.0, 100 * (value - self.low) / (self.high - self.low))), 2)

    def interval(self, figure: Figure) -> dict[str, float | None]:
        """Positions of a figure's value and interval ends; None where it has none."""
        return {k: None if figure[k] is None else self.at(figure[k]) for k in ("value", "low", "high")}

    @property
    def decimals(self) -> int:
        """Digits behind the point that tell two ticks apart."""
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else 1.0
        return max(0, -math.floor(math.log10(step) + 1e-9))


def fitted_scale(values: Iterable[float | None], *, steps: int = 5) -> Scale:
    """A scale that holds all values and ends on ticks of 1, 2 or 5 times a power of ten."""
    known = [v for v in values if v is not None and math.isfinite(v)] or [0.0]
    low, high = min(known), max(known)
    if high - low < 1e-9 * max(1.0, abs(low), abs(high)):
        low, high = low - 0.5, high + 0.5
    step = _round_step((high - low) / steps)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(i * step, 10) for i in range(first, last + 1))
    return Scale(ticks[0], ticks[-1], ticks)


def span_scale(low: float, high: float, *, steps: int = 4) -> Scale:
    """A scale from ``low`` to ``high``, both with a tick, and round ticks between them that keep clear of both."""
    step = _round_step((high - low) / steps)
    inner = (i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1))
    clear = LEAST_GAP * (high - low)
    return Scale(low, high, (low, *(tick for tick in inner if low + clear < tick < high - clear), high))


def pool_chart(shift: Mapping[str, Any], limits: Mapping[str, float]) -> dict[str, Any]:
    """The index of every pool as a dot with its interval, over the bands near, middle and far and the floor."""
    figures = [pool["index"] for pool in shift["pools"]]
    floor = shift["floor_index"]
    ends = [f[k] for f in [*figures, *([floor] if floor else [])] for k in ("value", "low", "high") if f[k] is not None]
    low, high = min([0.0, *ends]), max([FULL_WIDTH_INDEX, *ends])
    margin = 0.02 * (high - low)
    scale = Scale(low - margin, high + margin, (0.0, limits["near"], limits["middle"], FULL_WIDTH_INDEX))
    edges = [0.0, scale.at(limits["near"]), scale.at(limits["middle"]), 100.0]
    return {
        "scale": scale,
        "bands": [
            {"name": n, "start": a, "width": b - a}
            for n, (a, b) in zip(("near", "middle", "far"), pairwise(edges), strict=True)
        ],
        "floor": scale.interval(floor) if floor else None,
        "rows": [{"pool": pool, **scale.interval(pool["index"])} for pool in shift["pools"]],
    }


def step_chart(factors: Mapping[str, Any], chart: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of one pool's chart of repairs, on the axis of the chart of pools."""
    scale: Scale = chart["scale"]
    return [{**row, **scale.interval(row["index"])} for row in steps_tried(factors)]


def accuracy_chart(labeled: Mapping[str, Any]) -> dict[str, Any]:
    """Leading accuracy and k-NN accuracy of every arm, and the frozen encoder's as the line to beat."""
    scores = labeled["scores"]
    columns = ordered_metrics(scores)
    shown = columns[:1] + [m for m in columns[1:] if m == "knn"]
    figures = [s["metrics"][m] for s in scores for m in shown if m in s["metrics"]]
    scale = fitted_scale(f[k] for f in figures for k in ("value", "low", "high"))
    rows = [
        {
            "score": s,
            "color": accuracies.color(s, scores),
            "marks": [{"metric": m, **scale.interval(s["metrics"][m])} for m in shown if m in s["metrics"]],
        }
        for s in scores
    ]
    frozen = next((s["metrics"].get(metric) for s in scores for metric in columns[:1] if s["kind"] == "frozen"), None)
    to_beat = None if not frozen or frozen["value"] is None else scale.at(frozen["value"])
    tuned = accuracies.tuned_public(scores)
    level = tuned["metrics"].get(columns[0], {}).get("value") if tuned else None
    levels = {"to_beat": to_beat, "tuned": None if level is None else scale.at(level)}
    return {"scale": scale, "columns": columns, "metrics": shown, "rows": rows, **levels}


def loss_chart(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Loss against samples seen, one line per run, and the chance values; None if no run has a curve."""
    drawn = [(number, run) for number, run in enumerate(runs) if run["curve"]]
    if not drawn:
        return None
    chances = sorted({round(run["chance"], 4) for _, run in drawn if run["chance"] is not None})
    x = fitted_scale([0.0, *(run["curve"][-1][0] for _, run in drawn)], steps=4)
    y = fitted_scale([*chances, *(loss for _, run in drawn for _, loss in run["curve"])], steps=4)
    colors, legend = _run_colors(runs, [run["name"] for _, run in drawn])
    lines = [
        {"name": run["name"], "color": colors[run["name"]], "points": _points(x, y, run["curve"])} for _, run in drawn
    ]
    return {
        "x": x,
        "y": y,
        "lines": lines,
        "legend": legend,
        "chances": [{"value": c, "at": round(100 - y.at(c), 2)} for c in chances],
    }


def probe_chart(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Probe's accuracy against samples seen, one line per run, and the frozen encoder's; None if no run has a probe."""
    drawn = [(number, run, run["probe"]) for number, run in enumerate(runs) if run.get("probe")]
    if not drawn:
        return None
    frozen = {(probe["encoder"], round(probe["frozen"]["accuracy"], 4)) for _, _, probe in drawn}
    x = fitted_scale([0.0, *(seen for _, _, probe in drawn for seen, _ in probe["points"])], steps=4)
    y = fitted_scale([*(v for _, v in frozen), *(v for _, _, probe in drawn for _, v in probe["points"])], steps=4)
    colors, legend = _run_colors(runs, [run["name"] for _, run, _ in drawn])
    lines = [
        {"name": run["name"], "color": colors[run["name"]], "points": _points(x, y, probe["points"])}
        for _, run, probe in drawn
    ]
    levels = [{"name": name, "value": v, "at": round(100 - y.at(v), 2)} for name, v in sorted(frozen)]
    return {"x": x, "y": y, "lines": lines, "legend": legend, "frozen": levels}


def supply_chart(supply: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Distance to the target as images are taken from the pools, with its 95% band and the knee.

    The axis begins where the first image of a pool was taken, not at zero: before it nothing is measured. None without
    two known points.
    """
    told = supply or {}
    pairs = zip(told.get("n") or [], told.get("distance") or [], strict=False)
    known = [(n, figure) for n, figure in pairs if figure and figure.get("value") is not None]
    if len(known) < 2:
        return None
    curve = told.get("curve") or {"first": known[0][0], "own": 0}
    x = span_scale(curve["first"], known[-1][0])
    y = fitted_scale([0.0, *(figure.get(key) for _, figure in known for key in ("value", "low", "high"))], steps=4)
    banded = [(n, figure) for n, figure in known if None not in (figure.get("low"), figure.get("high"))]
    edge = [(n, f["low"]) for n, f in banded] + [(n, f["high"]) for n, f in reversed(banded)]
    return {
        "x": x,
        "y": y,
        "points": _points(x, y, [(n, figure["value"]) for n, figure in known]),
        "band": _points(x, y, edge) if len(banded) > 1 else "",
        "zero": round(100 - y.at(0.0), 2),
        "knee": _knee(told.get("knee"), x),
        "begins": known[0][0],
        "unit": known[0][1].get("unit", ""),
        "own": curve["own"],
        "own_first": curve["own"] == curve["first"],
    }


def comparison_chart(comparison: Mapping[str, Any]) -> dict[str, Any] | None:
    """Index of every method under every encoder, the selecting one on top; None where nothing was measured."""
    rows = [
        (contender, [(name, contender["readings"][name]["index"]) for name in comparison["encoders"]])
        for contender in comparison["contenders"]
        if all(name in contender["readings"] for name in comparison["encoders"])
    ]
    ends = [index[key] for _, marks in rows for _, index in marks for key in ("value", "low", "high")]
    if not any(end is not None for end in ends):
        return None
    scale = fitted_scale([0.0, *ends])
    step = 100 / (len(comparison["encoders"]) + 1)
    return {
        "scale": scale,
        "colors": {name: color_class(i) for i, name in enumerate(comparison["encoders"])},
        "rows": [
            {
                "contender": contender,
                "marks": [
                    {"encoder": name, "y": round(step * (i + 1), 1), **scale.interval(index)}
                    for i, (name, index) in enumerate(marks)
                ],
            }
            for contender, marks in rows
        ],
    }


def composition(counts: Mapping[str, int], colors: Mapping[str, str]) -> list[dict[str, Any]]:
    """Segments of a stacked bar in the order of the colors; ``start`` and ``share`` in per cent."""
    total, done, segments = sum(counts.values()), 0, []
    for name, color in colors.items():
        if n := counts.get(name, 0):
            start, share = round(100 * done / total, 3), round(100 * n / total, 3)
            segments.append({"name": name, "n": n, "start": start, "share": share, "color": color})
            done += n
    return segments


def source_colors(summary: Mapping[str, Any]) -> dict[str, str]:
    """One color class per source, the same in every figure: the target's own, then pools by rank, then the others."""
    ranked = [pool["name"] for pool in (summary["shift"] or {"pools": []})["pools"]]
    others = sorted({name for selection in summary["selections"] for name in selection["counts"]})
    names = [name for name in dict.fromkeys([*ranked, *others]) if name != "target"]
    return {"target": "ct", **{name: color_class(i) for i, name in enumerate(names)}}


def color_class(number: int) -> str:
    """Style class of the number-th thing in a figure."""
    return f"c{number}" if number < COLORS else "cx"


def _run_colors(runs: Sequence[Mapping[str, Any]], drawn: Sequence[str]) -> tuple[dict[str, str], list[dict[str, str]]]:
    """A color for every run, and the legend of those drawn; of more runs than colors, one for every arm of a study."""
    names = [str(run["name"]) for run in runs]
    kind = {name: name if len(names) <= COLORS else name.partition("~")[0] for name in names}
    colors = {kind_: color_class(i) for i, kind_ in enumerate(dict.fromkeys(kind.values()))}
    counts = Counter(kind[name] for name in drawn)
    legend = [{"name": k if n == 1 else f"{k}, {n} runs", "color": colors[k]} for k, n in counts.items()]
    return {name: colors[kind[name]] for name in names}, legend if len(legend) <= MOST_NAMED else []


def _points(x: Scale, y: Scale, places: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x.at(a):g},{round(100 - y.at(b), 2):g}" for a, b in places)


def _knee(knee: Mapping[str, Any] | None, x: Scale) -> dict[str, Any] | None:
    """Where near images run out, and the interval of that; its upper end may lie beyond the figure."""
    if not knee or knee.get("n") is None:
        return None
    at = x.at(knee["n"])
    low, high = (at if knee.get(end) is None else x.at(knee[end]) for end in ("low", "high"))
    return {"at": at, "start": low, "width": round(high - low, 2), "n": knee["n"]}


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
