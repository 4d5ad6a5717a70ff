"""analyze(folder): what a study found, from what it wrote: its claims, the series of its figures, one tidy table.

Reads cells.json, evaluate.json with its predictions, score.json and the selections of every target; writes
study-results.json and results.parquet. Nothing is computed that training or encoding would take.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curate.experiments.claims import REFERENCES, Claim, make_claims
from curate.experiments.matching import Evidence
from curate.experiments.prediction import prediction
from curate.experiments.protocol import Protocol, open_protocol
from curate.experiments.questions import SETTING, shapes, which_wins
from curate.experiments.statistics import Draws, Effect, effect
from curate.experiments.tidy import Cell, TargetResults, results_table, write_results
from embeddings import files
from embeddings.errors import UsageError

FILE = "study-results.json"
SCHEMA = "curate.study/1"
CELLS = "cells.json"


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What a study says: its claims, the primary one first, and the series of its figures."""

    protocol: Protocol
    digest: str  # of protocol.json
    claims: tuple[Claim, ...]
    prediction: dict[str, Any] = field(default_factory=dict)  # Q3: does the score predict accuracy?
    figures: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def of(self, question: str) -> tuple[Claim, ...]:
        """The claims of one question."""
        return tuple(claim for claim in self.claims if claim.question == question)

    def lines(self) -> list[str]:
        """The claims in sentences, under a line on how they are to be taken."""
        matters, level = self.protocol.matters, self.protocol.level
        rule = f"A difference of {matters:g} matters; tests at {1 - level:.2g}, Holm within each family."
        kind = "Exploratory: no primary contrast was written down before the runs." if self.is_exploratory else rule
        told = [f"{claim.question}: {claim.sentence}" for claim in self.claims]
        return [kind, *([rule] if self.is_exploratory else []), *told, *self.prediction.get("lines", []), *self.notes]

    @property
    def is_exploratory(self) -> bool:
        """True where no primary contrast was written down."""
        return self.protocol.is_exploratory

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object, schema curate.study/1."""
        return {
            "schema": SCHEMA,
            "protocol": self.protocol.to_json(),
            "protocol_sha256": self.digest,
            "exploratory": self.is_exploratory,
            "claims": [claim.to_json() for claim in self.claims],
            "prediction": self.prediction,
            "figures": self.figures,
            "notes": list(self.notes),
            "lines": self.lines(),
        }

    def save(self, folder: Path) -> None:
        """Writes study-results.json."""
        files.write_json(folder / FILE, self.to_json())


def analyze(out: Path) -> Analysis:
    """Every claim of the study in a folder; study-results.json and results.parquet are written there.

    Args:
        out: The study's folder: of one target, or with a folder for each, in which cells.json and evaluate.json are.
            protocol.json in it says what is claimed; without it everything is exploratory.

    Raises:
        UsageError: no evaluated target, or an evaluation without predictions.
        CorruptError: a file does not read back.
    """
    protocol, digest = open_protocol(out)
    targets, notes = open_targets(out, protocol)
    if not targets:
        raise UsageError(f"{out} holds no evaluated study.", hint="Run it to its end: curate run FILE.")
    evidence = Evidence(targets=targets, protocol=protocol)
    found = Analysis(
        protocol=evidence.protocol,
        digest=digest,
        claims=(*make_claims(evidence), *which_wins(evidence), *shapes(evidence)),
        prediction=prediction(evidence),
        figures=figures(evidence),
        notes=tuple(notes),
    )
    write_results(results_table(targets, digest), out)
    found.save(out)
    return found


def figures(evidence: Evidence) -> dict[str, Any]:
    """Series ready to be drawn: accuracy by arm, and over D; references as levels. Intervals over seeds and images."""
    points = [_point(evidence, values, cells) for values, cells in _by_setting(evidence).items()]
    metric = evidence.protocol.metric
    return {
        "accuracy_by_arm": {"y": metric, "series": points, "references": _levels(evidence)},
        "accuracy_by_diversity": {"x": "D = N / C", "y": metric, "series": _curves(points)},
    }


def open_targets(out: Path, protocol: Protocol) -> tuple[tuple[TargetResults, ...], list[str]]:
    """The evaluated targets below a folder, and words on the others."""
    found, notes = [], []
    for path in sorted(place for place in (out / CELLS, *out.glob(f"*/{CELLS}")) if place.is_file()):
        cells = files.read_json(path)["cells"]
        for target in dict.fromkeys(str(cell.get("target")) for cell in cells):
            if not (path.parent / "evaluate.json").is_file():
                notes.append(f"{target} is not evaluated yet.")
                continue
            results = TargetResults.open(target, path.parent, cells)
            if protocol.labeled and not set(protocol.labeled) & set(results.report.labeled):
                notes.append(f"{target} has none of the labeled sets {', '.join(protocol.labeled)}.")
            else:
                found.append(results)
        lost = [cell["name"] for cell in cells if cell.get("reason")]
        notes += [f"{len(lost)} cells could not be selected for: {', '.join(lost[:3])}."] if lost else []
        broken = [cell["name"] for cell in cells if cell.get("failed")]
        notes += [f"{len(broken)} runs failed and are missing: {', '.join(broken[:3])}."] if broken else []
        ended = [cell["name"] for cell in cells if cell.get("stopped")]
        notes += (
            [f"{len(ended)} runs were stopped early and count as they are: {', '.join(ended[:3])}."] if ended else []
        )
    return tuple(found), notes


def _by_setting(evidence: Evidence) -> dict[tuple[Any, ...], list[Cell]]:
    found: dict[tuple[Any, ...], list[Cell]] = defaultdict(list)
    for cell in evidence.cells:
        found[tuple(cell.facts.get(name) for name in ("arm", *SETTING))].append(cell)
    return found


def _point(evidence: Evidence, values: Sequence[Any], cells: Sequence[Cell]) -> dict[str, Any]:
    """One arm in one setting, targets averaged."""
    at = dict(zip(("arm", *SETTING), values, strict=True))
    sizes = [float(cell.realized or cell.budget or 0) for cell in cells]
    images = sum(sizes) / len(sizes) if all(sizes) else None
    where = {name: (value,) for name, value in at.items()}
    gain = evidence.against(where, "frozen")
    return {
        **at,
        "realized_images": images,
        "diversity": images / at["samples"] if images and at["samples"] else None,
        "targets": sorted({cell.target for cell in cells}),
        **_accuracy_bar(evidence, evidence.draws(cells)),
        "gain": _bar(evidence, gain.conditions) if gain.conditions else None,
    }


def _levels(evidence: Evidence) -> list[dict[str, Any]]:
    names = [target.target for target in evidence.targets]
    found = {kind: evidence.reference(kind, names) for kind in ("untrained", *REFERENCES)}
    return [{"kind": kind, **_accuracy_bar(evidence, draws)} for kind, draws in found.items() if draws]


def _curves(points: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Points of one arm and setting that differ in N alone, by D."""
    curves: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    names = ("arm", *SETTING[1:])
    for point in points:
        if point["diversity"] is not None:
            curves[tuple(point[name] for name in names)].append(point)
    return [
        {**dict(zip(names, values, strict=True)), "points": [_on_curve(p) for p in sorted(found, key=_diversity)]}
        for values, found in curves.items()
        if len(found) > 1
    ]


def _diversity(point: Mapping[str, Any]) -> float:
    return float(point["diversity"])


def _on_curve(point: Mapping[str, Any]) -> dict[str, Any]:
    return {name: point[name] for name in ("diversity", "realized_images", "value", "low", "high", "gain")}


def _bar(evidence: Evidence, draws: Sequence[Draws]) -> dict[str, Any]:
    """A difference with its interval."""
    found: Effect = effect(draws, matters=evidence.protocol.matters, level=evidence.protocol.level)
    return {name: getattr(found, name) for name in ("value", "low", "high", "seeds", "units", "reason")}


def _accuracy_bar(evidence: Evidence, draws: Sequence[Draws]) -> dict[str, Any]:
    """An accuracy with its interval, which has no end below 0 or above 1."""
    found = _bar(evidence, draws)
    return found | {name: min(max(found[name], 0.0), 1.0) for name in ("low", "high") if found[name] is not None}
