"""A summary as Markdown: the sentences and the main tables, for an issue, a chat or a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from curate.reporting.sentences import ordered_metrics
from curate.reporting.wording import decimals_for, number, percent, points, span, with_error

Row = Sequence[str]


def render_markdown(summary: dict[str, Any]) -> str:
    """The report's words and tables, without pictures."""
    parts = ["# Curation report", *map(_escaped, summary["headline"])]
    if summary["shift"] and summary["shift"]["pools"]:
        parts += ["## Pools", _pools(summary["shift"])]
    if summary["selections"]:
        parts += ["## Selections", _selections(summary["selections"])]
    if summary["runs"]:
        parts += ["## Runs", _runs(summary["runs"])]
    for labeled in (summary["evaluation"] or {"labeled": []})["labeled"]:
        parts += [f"## Accuracies on {_escaped(labeled['name'])}", _accuracies(labeled)]
    return "\n\n".join(parts) + "\n"


def _pools(shift: dict[str, Any]) -> str:
    decimals = decimals_for(p["metrics"]["frechet"]["se"] for p in shift["pools"] if "frechet" in p["metrics"])
    header = ("rank", "pool", "verdict", "index", "95% interval", "distance ± SE", "images", "order open against")
    rows = [
        (
            str(p["rank"]),
            p["name"],
            p["verdict"],
            number(p["index"]["value"], 1),
            span(p["index"], 1),
            with_error(p["metrics"]["frechet"], decimals) if "frechet" in p["metrics"] else "",
            number(p["n"]),
            ", ".join(p["tied_with"]),
        )
        for p in shift["pools"]
    ]
    return _table(header, rows)


def _selections(selections: Sequence[dict[str, Any]]) -> str:
    rows = [
        (s["name"], str(s["method"]), number(s["n"]), ", ".join(f"{k} {v:,}" for k, v in s["counts"].items()))
        for s in selections
    ]
    return _table(("selection", "method", "images", "by source"), rows)


def _runs(runs: Sequence[dict[str, Any]]) -> str:
    rows = [
        (
            r["name"],
            str(r["method"]),
            number(r["unique_images"]),
            number(r["epochs"], 1),
            number(r["samples_seen"]),
            number(r["diversity"], 3),
            r["health"]["verdict"] if r["health"] else "",
        )
        for r in runs
    ]
    return _table(("run", "method", "N", "E", "C", "D", "health"), rows)


def _accuracies(labeled: dict[str, Any]) -> str:
    metrics = ordered_metrics(labeled["scores"])
    rows = [[s["arm"], *(_accuracy(s, metric) for metric in metrics)] for s in labeled["scores"]]
    return _table(["arm", *metrics], rows)


def _accuracy(score: dict[str, Any], metric: str) -> str:
    """78.7% (+3.1 points against frozen: +1.2 to +5.0)."""
    figure, gain = score["metrics"].get(metric), score["against_frozen"].get(metric)
    if figure is None:
        return ""
    difference = f" ({points(gain['value'])}: {span(gain, 1, scale=100, plus=True)})" if gain else ""
    return percent(figure["value"]) + difference


def _table(header: Row, rows: Iterable[Row]) -> str:
    lines = [[_escaped(cell) for cell in line] for line in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(text: str) -> str:
    """The text with nothing in it that Markdown or HTML would act on."""
    return re.sub(r"([\\`*_\[\]<>|#&])", r"\\\1", " ".join(text.split()))
