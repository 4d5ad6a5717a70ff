"""The results of a study as one tidy table: a row per cell, labeled set and metric; references as rows of their kind.

results.parquet has the columns of ``RESULTS``, rows sorted by all that tells them apart. N and C are those realised,
``budget`` is what was asked. ``near_index`` is the shift index of the chosen images to the target (0 = the target's own
images), where the selection was audited: measured, as the audit says, for one half of the target and against the other.
``pools_index`` is known without an audit: the mean index of the pools that the images came from, the target's own
counting 0, as the score read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate import comparison
from curate.eval_report import ArmScore, EvalReport
from curate.results import TARGET, Estimate, ShiftReport
from embeddings import files
from embeddings.errors import CurateError

FILE = "results.parquet"
REFERENCES = ("frozen", "untrained", "finetuned", "supervised")
_ESTIMATE = ("value", "low", "high", "se")

RESULTS = pa.schema(
    [
        ("target", pa.string()),
        ("kind", pa.string()),  # run, or a reference: frozen, untrained, finetuned, supervised
        ("cell", pa.string()),  # the run's name; of a reference its own; of a run fine-tuned finetuned:NAME
        ("arm", pa.string()),  # null for references
        ("select", pa.string()),
        ("own", pa.bool_()),  # whether the target's own images were candidates
        ("budget", pa.int64()),  # N that was asked
        ("images", pa.int64()),  # N: unique images trained on
        ("samples", pa.int64()),  # C: images seen in training
        ("epochs", pa.float64()),  # C / N
        ("method", pa.string()),
        ("init", pa.string()),
        ("backbone", pa.string()),
        ("encoder", pa.string()),  # whose features selected
        ("seed", pa.int64()),
        ("labeled", pa.string()),
        ("metric", pa.string()),
        *((name, pa.float64()) for name in _ESTIMATE),  # interval over test images
        *((f"against_frozen_{name}", pa.float64()) for name in _ESTIMATE[:3]),  # paired
        *((f"label_equivalents{name}", pa.float64()) for name in ("", "_low", "_high")),  # linear only
        ("near_index", pa.float64()),
        ("pools_index", pa.float64()),
        ("protocol", pa.string()),  # sha256
    ]
)
_ORDER = ("target", "labeled", "kind", "cell", "metric")


@dataclass(frozen=True)
class Cell:
    """One run for one target, as cells.json tells it; what it does not tell is null."""

    facts: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.facts.get(name)

    @property
    def key(self) -> tuple[str, str]:
        """Target and name, which are together a cell's own."""
        return str(self.facts.get("target")), str(self.facts["name"])

    @property
    def budget(self) -> int | None:
        """N as it was asked; None: what the file's budget says."""
        found: int | None = self.facts.get("images")
        return found


@dataclass(frozen=True, kw_only=True)
class TargetResults:
    """What a study wrote for one target: its folder, its cells and what they were found to be worth."""

    target: str
    folder: Path
    cells: tuple[Cell, ...]
    report: EvalReport

    @cached_property
    def by_name(self) -> dict[str, Cell]:
        """The cells by name."""
        return {cell.facts["name"]: cell for cell in self.cells}

    def run(self, cell: Cell) -> dict[str, Any]:
        """Facts of a cell's run; empty where its folder is gone."""
        path = self.folder / "runs" / cell.facts["name"] / "run.json"
        found: dict[str, Any] = files.read_json(path) if path.is_file() else {}
        return found

    def near_index(self, cell: Cell) -> float | None:
        """Shift index of what the cell's selection method chose, by the selecting encoder; None without an audit."""
        try:
            found = comparison.Comparison.open(self._selection(cell))
            return found[cell.select].readings[found.encoder].index.value
        except (CurateError, StopIteration, KeyError):
            return None

    def pools_index(self, cell: Cell) -> float | None:
        """Mean shift index of the pools that the cell's images came from; None where one is unknown."""
        score, path = self.score, self._selection(cell) / "selection.parquet"
        if score is None or not path.is_file():
            return None
        index = {TARGET: 0.0, **{pool.name: pool.index.value for pool in score.pools}}
        counts = pc.value_counts(files.read_table(path, ["source"])["source"]).to_pylist()
        known = [(index.get(found["values"]), found["counts"]) for found in counts]
        if not known or any(value is None for value, _ in known):
            return None
        return float(sum((value or 0.0) * n for value, n in known) / sum(n for _, n in known))

    @cached_property
    def score(self) -> ShiftReport | None:
        """How far the pools are; None where it was not kept."""
        return ShiftReport.open(self.folder) if (self.folder / "score.json").is_file() else None

    def _selection(self, cell: Cell) -> Path:
        return self.folder / "selections" / str(cell.selection or cell.select)

    @classmethod
    def open(cls, target: str, folder: Path, cells: Iterable[Mapping[str, Any]]) -> TargetResults:
        """Reads a target's folder.

        Raises:
            CorruptError: its evaluation is missing or of an unknown schema.
        """
        own = tuple(Cell(dict(cell)) for cell in cells if cell.get("target") == target)
        return cls(target=target, folder=folder, cells=own, report=EvalReport.open(folder))


def results_table(targets: Sequence[TargetResults], digest: str = "") -> pa.Table:
    """All results, schema RESULTS.

    Args:
        targets: What was written for each.
        digest: Of the protocol.
    """
    rows = [row for target in targets for row in _rows(target, digest)]
    rows.sort(key=lambda row: tuple(row[name] for name in _ORDER))
    return pa.Table.from_pylist(rows, schema=RESULTS)


def write_results(table: pa.Table, out: Path) -> Path:
    """Writes results.parquet."""
    files.write_table(out / FILE, table)
    return out / FILE


def _rows(of: TargetResults, digest: str) -> list[dict[str, Any]]:
    known = {name: _cell_columns(of, cell) for name, cell in of.by_name.items()}
    rows = []
    for score in of.report.scores:
        cell = known.get(score.arm.removeprefix("finetuned:"), {})
        base = {"target": of.target, "kind": score.kind, "cell": score.arm, "labeled": score.labeled, **cell}
        for metric in score.metrics:
            rows.append({**base, "metric": metric, **_figures(score, metric), "protocol": digest})
    return rows


def _cell_columns(of: TargetResults, cell: Cell) -> dict[str, Any]:
    run = of.run(cell)
    images, samples = run.get("unique_images", cell.budget), run.get("samples_seen", cell.samples)
    same = ("arm", "select", "own", "method", "init", "backbone", "encoder", "seed")
    return {
        **{name: cell.facts.get(name) for name in same},
        "budget": cell.budget,
        "images": images,
        "samples": samples,
        "epochs": samples / images if images and samples else None,
        "near_index": of.near_index(cell),
        "pools_index": of.pools_index(cell),
    }


def _figures(score: ArmScore, metric: str) -> dict[str, float | None]:
    figures = _columns(score.metrics[metric], "", _ESTIMATE)
    figures |= _columns(score.against_frozen.get(metric), "against_frozen_", _ESTIMATE[:3])
    labels = score.label_equivalents if metric == "linear" else None
    names = {"value": "label_equivalents", "low": "label_equivalents_low", "high": "label_equivalents_high"}
    return figures | {column: getattr(labels, name, None) for name, column in names.items()}


def _columns(estimate: Estimate | None, before: str, names: Sequence[str]) -> dict[str, float | None]:
    return {f"{before}{name}": getattr(estimate, name, None) for name in names}
