"""Every result of a study as one plain dict (schema ``curate.report/1``): all that the report says, in any format.

    schema, headline [3], limits {near, middle}, versions
    shift       ShiftReport as JSON; the floor also as an index; pools and target each with a ``gallery``; ``shown``:
                the images that explanations name, by source (None without pictures)
    selections  [{name, n, counts, method, budget, stopped, by_source, parts, limits, wishes, shares, left_out, supply,
                sheets, rejected, digest, ...}]
    comparisons [{name, encoders, contenders, judges, words, notes, ...}]: Comparison as JSON, by folder
    runs        [{name, method, unique_images N, epochs E, samples_seen C, diversity D, health, curve, chance, stopped,
                probe {images, classes, encoder, frozen, start, end, points}, ...}]
    evaluation  {labeled: [{name, facts, scores, pairs}], samples_seen}
    study       {results: study-results.json or None, targets: [{name, page}]}; None where there is none
    part_of     {page, words}: the study of several targets that this is one of, else None
    images      name -> data URI (not in report.json);  missing  name -> why there is none

A gallery or sheet is ``{pictures: [{key, image, ...}], problem}``, ``image`` being a name in images or missing; what is
shown of a source is ``{pictures: {key: image}, problem}``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from curate.comparison import Comparison
from curate.eval_report import EvalReport
from curate.reporting.accuracies import beside
from curate.reporting.findings import pictured as explained
from curate.reporting.selections import PICTURED, comparison_part, pictured, selection_part
from curate.reporting.sentences import headline
from curate.reporting.thumbnails import Album
from curate.results import Run, Selection, ShiftReport
from curate.scoring import MIDDLE, NEAR, shift_index

SCHEMA = "curate.report/1"
CURVE_POINTS = 200
MANY_CURVES, FEWER_POINTS = 20, 50  # beyond so many runs, points of each
MANY_BYTES = 2_000_000  # of all pictures, where there are more selections than that
PACKAGES = ("curate-pretraining", "numpy", "torch", "timm", "pillow")


def summarize(
    *,
    shift: ShiftReport | None = None,
    selections: Mapping[str, Selection] | None = None,
    comparisons: Mapping[str, Comparison] | None = None,
    runs: Mapping[str, Run] | None = None,
    evaluation: EvalReport | None = None,
    study: Mapping[str, Any] | None = None,
    part_of: Mapping[str, Any] | None = None,
    thumbnails: bool = True,
) -> dict[str, Any]:
    """One plain dict of everything that was measured; the same input gives the same dict.

    Args:
        shift: How far the pools are from the target.
        selections: Name -> what was selected.
        comparisons: Name -> methods of selection side by side.
        runs: Arm -> finished pretraining run.
        evaluation: Accuracies by arm.
        study: What a study over these runs says (``study.study_part``).
        part_of: The study of several targets that this is one of.
        thumbnails: Read pictures from the sources; at most 6 MB of them, smaller or fewer beyond.

    Returns:
        JSON-serializable dict; see the module for its keys. Nothing given is nothing said: absent parts are None or [].
    """
    album = Album() if thumbnails else None
    points = CURVE_POINTS if len(runs or {}) <= MANY_CURVES else FEWER_POINTS
    summary: dict[str, Any] = {
        "schema": SCHEMA,
        "limits": {"near": NEAR, "middle": MIDDLE},
        "shift": _shift(shift, album) if shift else None,
        "selections": _selections(selections or {}, album),
        "comparisons": [comparison_part(name, c) for name, c in (comparisons or {}).items()],
        "runs": [_run(name, run, points) for name, run in (runs or {}).items()],
        "evaluation": _evaluation(evaluation) if evaluation else None,
        "study": study,
        "part_of": part_of,
        "versions": _versions(),
    }
    limit = {"limit": MANY_BYTES} if len(selections or {}) > PICTURED else {}
    summary["images"], summary["missing"] = album.develop(**limit) if album else ({}, {})
    return {**summary, "headline": headline(summary)}


def without_images(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary as report.json holds it: all of it but the pictures themselves."""
    return {key: value for key, value in summary.items() if key != "images"}


def _shift(report: ShiftReport, album: Album | None) -> dict[str, Any]:
    document = report.to_json()
    total_variance = report.target.get("total_variance")
    return {
        **document,
        "target": {**document["target"], "gallery": _gallery(report.target, album)},
        "pools": [
            {**pool, "gallery": _gallery(scored.facts, album)}
            for pool, scored in zip(document["pools"], report.pools, strict=True)
        ],
        "shown": _shown(document, album) if album else None,
        "floor_index": None if total_variance is None else shift_index(report.floor, total_variance).to_json(),
    }


def _shown(document: Mapping[str, Any], album: Album) -> dict[str, Any]:
    """The images that explanations name, by source."""
    sources = {"target": document["target"].get("source")}
    sources |= {pool["name"]: pool["facts"].get("source") for pool in document["pools"]}
    return {name: album.by_key(str(sources[name] or ""), keys) for name, keys in explained(document).items()}


def _gallery(facts: Mapping[str, Any], album: Album | None) -> dict[str, Any] | None:
    return album.sample(str(facts.get("source") or "")) if album else None


def _selections(selections: Mapping[str, Selection], album: Album | None) -> list[dict[str, Any]]:
    """Every selection; of many only some with pictures."""
    shown = pictured(list(selections))
    return [selection_part(name, s, album if name in shown else None) for name, s in selections.items()]


def _run(name: str, run: Run, most: int) -> dict[str, Any]:
    facts, curve = run.facts, run.curves()
    config = facts.get("config", {})
    unique, samples = facts["unique_images"], facts["samples_seen"]
    points = [[row["samples_seen"], row["loss"]] for row in curve if math.isfinite(row["loss"])]
    chances = [row["chance_loss"] for row in curve if row.get("chance_loss") is not None]
    return {
        "name": name,
        **{key: facts.get(key, config.get(key)) for key in ("method", "backbone", "init", "seed", "batch")},
        "unique_images": unique,
        "samples_seen": samples,
        "epochs": samples / unique,
        "diversity": unique / samples,
        "health": facts.get("health"),
        "warnings": facts.get("warnings", []),
        "curve": _thinned(points, most),
        "chance": chances[-1] if chances else None,
        "stopped": facts.get("stopped"),
        "probe": _probe(facts.get("probe"), curve),
        "selection": facts.get("selection") or config.get("selection"),
    }


def _probe(facts: Mapping[str, Any] | None, curve: Sequence[Mapping[str, float]]) -> dict[str, Any] | None:
    """The probe's facts with its readings as points (samples seen, accuracy), the one before training first."""
    if facts is None:
        return None
    read = [[row["samples_seen"], row["probe"]] for row in curve if "probe" in row]
    return {**facts, "points": [[0, facts["start"]["accuracy"]], *read]}


def _thinned(points: Sequence[Any], most: int) -> list[Any]:
    """At most ``most`` of the points, evenly spaced, first and last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def _evaluation(report: EvalReport) -> dict[str, Any]:
    scores = [score.to_json() for score in report.scores]
    names = list(dict.fromkeys([*report.labeled, *(s["labeled"] for s in scores)]))
    seen = {s["facts"].get("samples_seen") for s in scores if s["kind"] == "run"} - {None}
    return {
        "labeled": [
            {
                "name": n,
                "facts": report.labeled.get(n, {}),
                "scores": beside([s for s in scores if s["labeled"] == n]),
                "pairs": [pair.to_json() for pair in report.pairs if pair.labeled == n],
            }
            for n in names
        ],
        "samples_seen": sorted(seen),  # one value: the arms were compared at equal C
        "seed": report.seed,
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
