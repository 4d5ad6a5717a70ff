"""The types that flow between the steps: numbers with error bars, reports, selections, runs, evaluations.

Every type converts to plain JSON (``to_json``) and, where it lives in a folder, reads back from it (``open``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import result_cards
from embeddings import files
from embeddings.errors import CorruptError, SourceError, UsageError

FAR = "far"  # code of the images of a selection's far part
SAME = "same"  # code of images drawn from pools that cannot be told from the target
TARGET = "target"  # the name of the target among sources; no pool may have it


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its uncertainty. A figure without an interval carries None in ``low``, ``high`` and ``se``."""

    value: float | None
    low: float | None = None
    high: float | None = None
    se: float | None = None
    level: float = 0.95
    n: tuple[int, int] = (0, 0)  # images of the pool, images of the target
    unit: str = ""
    lower_is_closer: bool = True
    method: str = ""
    seed: int | None = None
    null: float | None = None  # what this figure would read if pool and target were the same distribution
    reason: str = ""  # why value is None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        return {**asdict(self), "n": list(self.n)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Estimate:
        """Reads what ``to_json`` wrote."""
        return cls(**{**document, "n": tuple(document["n"])})

    def __str__(self) -> str:
        if self.value is None:
            return f"n/a ({self.reason})"
        return f"{self.value:.4g}" if self.low is None else f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g})"

    def _repr_html_(self) -> str:
        return result_cards.estimate_card(self).html()


@dataclass(frozen=True, kw_only=True)
class PoolScore:
    """One pool of a ShiftReport."""

    name: str
    rank: int
    verdict: str  # same, near, middle, far, unclear, copies
    n: int
    index: Estimate  # 0 = as near as the target is to itself, 50 = as far as its own total variance
    metrics: dict[str, Estimate]
    action: str = ""  # what to do with it: use, repair, use part, use last, leave out, add images, look
    tied_with: tuple[str, ...] = ()  # pools whose order relative to this one is not settled
    before_next: float | None = None  # probability that it is nearer than the pool ranked next; None for the last
    notes: tuple[str, ...] = ()  # what other measures add to the verdict, in words
    facts: dict[str, Any] = field(default_factory=dict)  # source address, digest, profile
    findings: dict[str, Any] = field(default_factory=dict)  # explanations that were asked for, by name

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        metrics = {k: v.to_json() for k, v in self.metrics.items()}
        lists = {"tied_with": list(self.tied_with), "notes": list(self.notes)}
        return {**asdict(self), **lists, "index": self.index.to_json(), "metrics": metrics}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> PoolScore:
        """Reads what ``to_json`` wrote."""
        metrics = {k: Estimate.from_json(v) for k, v in document["metrics"].items()}
        lists = {"tied_with": tuple(document["tied_with"]), "notes": tuple(document.get("notes", ()))}
        return cls(**{**document, **lists, "index": Estimate.from_json(document["index"]), "metrics": metrics})

    def __repr__(self) -> str:
        return result_cards.pool_card(self).text()

    def _repr_html_(self) -> str:
        return result_cards.pool_card(self).html()


@dataclass(frozen=True, kw_only=True)
class ShiftReport:
    """How far each pool is from the target, nearest first."""

    target: dict[str, Any]  # profile: n, sizes, colour, duplicates, classes, effective rank, digest
    encoder: dict[str, Any]
    pools: tuple[PoolScore, ...]
    floor: Estimate  # the headline distance between two halves of the target: what zero looks like at this n
    notes: tuple[str, ...] = ()  # where measures disagree about the order, in words
    findings: dict[str, Any] = field(default_factory=dict)  # explanations that were asked for, by name
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object, schema curate.score/1."""
        return {
            "schema": "curate.score/1",
            "target": self.target,
            "encoder": self.encoder,
            "pools": [p.to_json() for p in self.pools],
            "floor": self.floor.to_json(),
            "notes": list(self.notes),
            "findings": self.findings,
            "seed": self.seed,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ShiftReport:
        """Reads what ``to_json`` wrote."""
        pools = tuple(PoolScore.from_json(p) for p in document["pools"])
        known = {k: v for k, v in document.items() if k != "schema"}
        floor, notes = Estimate.from_json(document["floor"]), tuple(document.get("notes", ()))
        return cls(**{**known, "pools": pools, "floor": floor, "notes": notes})

    def save(self, folder: Path) -> None:
        """Writes score.json."""
        files.write_json(folder / "score.json", self.to_json())

    @classmethod
    def open(cls, folder: Path | str) -> ShiftReport:
        """Reads what ``save`` wrote.

        Raises:
            CorruptError: missing, or of an unknown schema.
        """
        return cls.from_json(read_document(Path(folder) / "score.json", "curate.score/1"))

    def __getitem__(self, name: str) -> PoolScore:
        return next(p for p in self.pools if p.name == name)

    @property
    def near(self) -> tuple[str, ...]:
        """Names of the pools judged same or near, nearest first."""
        return tuple(p.name for p in self.pools if p.verdict in ("same", "near"))

    def __repr__(self) -> str:
        return result_cards.report_card(self).text()

    def _repr_html_(self) -> str:
        return result_cards.report_card(self).html()


SELECTION = pa.schema(
    [
        ("source", pa.string()),  # name of the pool, or "target"
        ("key", pa.string()),
        ("uri", pa.string()),
        ("sha256", pa.string()),  # of the image as it was when it was selected
        ("pixels", pa.string()),  # of its decoded pixels: the same picture in another file has the same
        ("stage", pa.int32()),  # of training: 0 first
        ("rank", pa.int64()),  # 0 = taken first
        ("score", pa.float64()),  # the method's own, rounded to 1e-6
        ("target_key", pa.string()),  # nearest target image
        ("similarity", pa.float64()),  # cosine to it, centred on the pools
        ("duplicates", pa.int64()),  # how many candidates are this picture or nearly so, itself included
        ("duplicate_group", pa.string()),  # SOURCE/KEY, as ``because_of`` in LEFT_OUT; "" where it has no duplicate
        ("cost", pa.float64()),  # money
        ("repeats", pa.int32()),
        ("code", pa.string()),  # the kind of pick in one word
        ("reason", pa.string()),  # the same in words
    ]
)
LEFT_OUT = pa.schema(
    [
        ("source", pa.string()),
        ("key", pa.string()),
        ("code", pa.string()),  # duplicate, near-duplicate, excluded, contaminated or license
        ("reason", pa.string()),
        ("because_of", pa.string()),  # SOURCE/KEY of the image that keeps it out; a chosen one is its duplicate group
    ]
)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The chosen images in the order they were taken, and what was left out and why."""

    table: pa.Table  # schema SELECTION, sorted by rank
    left_out: (
        pa.Table
    )  # schema LEFT_OUT, sorted by (source, key); candidates that were merely not reached are not listed
    facts: dict[str, Any]  # method, seed, budget, stopped, encoder, digests: all of it digested
    sources: dict[str, str]  # name -> absolute address, to find the images again; not digested
    path: Path | None = None

    def __len__(self) -> int:
        return len(self.table)

    def rows(self) -> pa.Table:
        """One row per chosen image, schema SELECTION, sorted by rank."""
        return self.table

    def to_paths(self) -> list[str]:
        """Absolute address of every chosen image, in rank order.

        Raises:
            SourceError: a source is gone.
        """
        from embeddings.pictures.views import locator

        names, uris = self.table["source"].to_pylist(), self.table["uri"].to_pylist()
        place = {name: locator(self.sources[name]) for name in sorted(set(names))}
        return [place[name](uri) for name, uri in zip(names, uris, strict=True)]

    def truncate(self, n: int) -> Selection:
        """The n lowest ranks, without recomputation."""
        return Selection(
            table=self.table.slice(0, n),
            left_out=self.left_out,
            facts={**self.facts, "truncated": n},
            sources=self.sources,
        )

    def at_least(self, similarity: float) -> Selection:
        """The images whose nearest target image is at least so similar (cosine), without recomputation; ranks stay."""
        keep = pc.greater_equal(self.table["similarity"], similarity)
        facts = {**self.facts, "least_similarity": similarity}
        return Selection(table=self.table.filter(keep), left_out=self.left_out, facts=facts, sources=self.sources)

    def explain(self, key: str) -> list[str]:
        """Why images of this key (or SOURCE/KEY) were chosen or left out, one sentence each; nothing for other keys."""
        return [_chosen_words(row) for row in _of_key(self.table, key)] + [
            f"{row['source']}/{row['key']} was left out: {row['reason']}." for row in _of_key(self.left_out, key)
        ]

    @cached_property
    def digest(self) -> str:
        """sha256 over the chosen (source, key, stage, repeats) in rank order and the facts."""
        columns = [self.table[c].to_pylist() for c in ("source", "key", "stage", "repeats")]
        return files.digest([list(zip(*columns, strict=True)), self.facts])

    def counts(self) -> dict[str, int]:
        """Chosen images per source, largest first."""
        names, counts = np.unique(np.array(self.table["source"].to_pylist(), dtype=str), return_counts=True)
        return {str(names[i]): int(counts[i]) for i in np.argsort(-counts, kind="stable")}

    def save(self, folder: Path) -> Selection:
        """Writes selection.parquet, left_out.parquet and selection.json (last)."""
        files.write_table(folder / "selection.parquet", self.table)
        files.write_table(folder / "left_out.parquet", self.left_out)
        document = {"schema": "curate.selection/2", "digest": self.digest, "facts": self.facts, "sources": self.sources}
        files.write_json(folder / "selection.json", document)
        return Selection(table=self.table, left_out=self.left_out, facts=self.facts, sources=self.sources, path=folder)

    @classmethod
    def open(cls, path: Path | str) -> Selection:
        """Opens a saved selection.

        Raises:
            SourceError: no selection there.
            CorruptError: unfinished, of an unknown schema, or changed since it was written.
        """
        folder = Path(path)
        if not (folder / "selection.json").exists():
            raise SourceError(
                f"No selection in {str(folder)!r}: selection.json is missing.",
                hint="Give the folder that `curate select` wrote.",
            )
        document = read_document(folder / "selection.json", "curate.selection/2")
        table, left_out = (files.read_table(folder / f"{name}.parquet") for name in ("selection", "left_out"))
        facts, sources = document["facts"], document["sources"]
        selection = cls(table=_whole(table), left_out=left_out, facts=facts, sources=sources, path=folder)
        if selection.digest != document["digest"]:
            raise CorruptError(f"{folder} was changed after it was written.", hint="Select again.")
        return selection

    def __repr__(self) -> str:
        return result_cards.selection_card(self).text()

    def _repr_html_(self) -> str:
        return result_cards.selection_card(self).html()


def _of_key(table: pa.Table, key: str) -> list[dict[str, Any]]:
    whole = pc.binary_join_element_wise(table["source"], table["key"], "/")
    found: list[dict[str, Any]] = table.filter(pc.or_(pc.equal(table["key"], key), pc.equal(whole, key))).to_pylist()
    return found


def _chosen_words(row: dict[str, Any]) -> str:
    cost = f"; it costs {row['cost']:,.4g}" if row["cost"] else ""
    copies = f"; it stands for {row['duplicates']} images nearly the same" if row["duplicates"] > 1 else ""
    nearest = f"its nearest target image is {row['target_key']} (cosine {row['similarity']:.2f})"
    return f"{row['source']}/{row['key']} was chosen, rank {row['rank']:,}: {row['reason']}; {nearest}{copies}{cost}."


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished pretraining run: a folder with config.json, curves.jsonl, checkpoints and backbone.safetensors."""

    path: Path
    facts: dict[str, Any]  # resolved config; selection digest; realised N, E, C, D; health verdict; seconds

    @classmethod
    def open(cls, path: Path | str) -> Run:
        """Opens a finished run.

        Raises:
            CorruptError: the run is not finished or does not read back.
        """
        folder = Path(path)
        return cls(path=folder, facts=read_document(folder / "run.json", "curate.run/1"))

    def curves(self) -> list[dict[str, float]]:
        """One entry per logged step: samples_seen, loss, learning rate, feature spread."""
        return [json.loads(line) for line in (self.path / "curves.jsonl").read_text(encoding="utf-8").splitlines()]

    def __repr__(self) -> str:
        return result_cards.run_card(self).text()

    def _repr_html_(self) -> str:
        return result_cards.run_card(self, drawn=True).html()


def check_pool_names(pools: Iterable[str]) -> None:
    """Refuses pool names that would be ambiguous.

    Raises:
        UsageError: empty, or ``target``.
    """
    for name in pools:
        if not name.strip() or name == TARGET:
            raise UsageError(
                f"{name!r} cannot name a pool.", hint="Choose another name; 'target' is the target itself."
            )


def _whole(table: pa.Table) -> pa.Table:
    """A selection's table with nulls in the columns that the version which wrote it did not have."""
    for number, column in enumerate(SELECTION):
        if column.name not in table.column_names:
            table = table.add_column(number, column, pa.nulls(len(table), column.type))
    return table


def read_document(path: Path, schema: str) -> dict[str, Any]:
    """A JSON document of ours with the schema it must have."""
    document: dict[str, Any] = files.read_json(path)
    if document.get("schema") != schema:
        raise CorruptError(
            f"{path} has schema {document.get('schema')!r}, wanted {schema!r}.",
            hint="It was written by another version; make it again.",
        )
    return document
