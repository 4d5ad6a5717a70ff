"""The cells of a study for one of its targets: what is selected for them, and how their runs compare.

    score.json    selections/DRAW/    runs/CELL/    cells.json    evaluated/    evaluate.json

All cells have the same deduplication, and images of every evaluation's test part are kept out of every selection.
In a grid, selections go past the knee, so that N is what was asked for wherever a method has so many images; where it
has not, cells.json says how many it took. A selection of fewer images is made anew, not cut from a larger one: its
audit (what stopped it, what was spent, floors) is then its own. cells.json says how much of it the larger one holds.

A run that its watch stopped (``abort=true``) is done: it would stop there again. It is evaluated as it is, because to
leave out the runs that went ill would flatter their arms; cells.json says under ``stopped`` where it ended and why.

evaluated/ keeps what was measured of each arm on each labeled set, so that an evaluation that was stopped goes on where
it was, and a finished study reads its figures. What has changed meanwhile (labels, settings, a run, the code of this
project, the version of a library that computes) is measured again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from curate import evaluation, scoring, selection
from curate.comparison import Comparison
from curate.config import Config
from curate.eval_report import EvalReport
from curate.experiments._grid import Cell, Draw
from curate.experiments._knob_places import located_knobs
from curate.experiments._parts import evaluation_parts, examination_settings
from curate.experiments.cells import RUNS, SELECTIONS, arguments_of
from curate.pretraining.run_folder import CONFIG, RUN
from curate.results import TARGET, Run, Selection, ShiftReport
from curate.selection._path import Selector, Wish
from embeddings import files
from embeddings.errors import ForeignFolderError, TooFewImagesError, UsageError
from embeddings.pipeline import as_store
from embeddings.store import EmbeddingStore

CELLS, SCORE, EVALUATED = "cells.json", "score.json", "evaluated"
UNMET = (UsageError, TooFewImagesError)  # what the data cannot carry; all other kinds mean that something is wrong
Drawn = dict[Draw, tuple[Selection, Comparison | None]]


@dataclass(frozen=True, kw_only=True)
class TargetStudy:
    """A file as it is for one target, and the folder of its results."""

    config: Config
    cells: tuple[Cell, ...]
    out: Path
    encoder: str
    seed: int
    is_grid: bool = False

    @cached_property
    def draws(self) -> tuple[Draw, ...]:
        """Every selection that some cell needs, once."""
        return tuple(dict.fromkeys(cell.draw for cell in self.cells))

    def check_wishes(self) -> None:
        """Refuses budgets and shares that make no sense, before anything is opened.

        Raises:
            ConfigError: as said.
        """
        for draw in self.draws:
            self._wish(draw)

    def require_possible(self) -> None:
        """Refuses a wish that the sources cannot carry, before anything is embedded.

        Raises:
            UsageError, UnknownNameError, SourceError: as ``selection.require_possible``.
        """
        wishes: dict[str, tuple[Draw, list[str]]] = {}
        for draw in self.draws:  # methods that wish for the same are asked about at once
            key = replace(draw, select="", encoder=None, seed=None).name
            wishes.setdefault(key, (draw, []))[1].append(draw.select)
        for draw, methods in wishes.values():
            selection.require_possible(
                self.config.target_address, self.config.pool_addresses, methods=methods, **self._wish(draw)
            )

    def score(self, embedding: dict[str, Any]) -> ShiftReport:
        """How far the pools are, and score.json.

        Raises:
            ForeignFolderError: selections were made from other images.
        """
        config = self.config
        report = scoring.score(config.target_address, config.pool_addresses, encoder=self.encoder, **embedding)
        if (self.out / SELECTIONS).exists() and (self.out / SCORE).exists():
            files.require_same_config(self.out, _images(ShiftReport.open(self.out)), _images(report))
        report.save(self.out)
        return report

    def select(self, report: ShiftReport, embedding: dict[str, Any]) -> tuple[Drawn, dict[Draw, str]]:
        """Every selection, and of a grid those that could not be made, with the reason.

        Outside a grid each is set beside a random draw, and what cannot be made is refused.

        Raises:
            UsageError: as ``selection.select``; of a grid, what is no wish that the data cannot carry: another study's
                selections, a source or an extra that is gone.
        """
        found: Drawn = {}
        failed: dict[Draw, str] = {}
        for draw, selector in self._selectors(report, embedding):
            out = self.out / SELECTIONS / draw.name
            if not self.is_grid:
                found[draw] = selection.audited(selector, draw.select, out)
                continue
            try:
                found[draw] = selector.select(draw.select, out), None
            except UsageError as error:
                if type(error) not in UNMET:
                    raise
                failed[draw] = error.message
        return found, failed

    def arguments(self, cell: Cell, up: str) -> dict[str, Any]:
        """Those of ``run_cell``, ``up`` being the way from its folder to that of this target."""
        kind, _, folder = cell.init.partition(":")
        init = f"run:{self.config.located(folder)}" if kind == "run" else cell.init
        knobs = located_knobs(cell.set, self.config.root)
        return arguments_of(cell, up=up, init=init, knobs=knobs, seed=self.seed)

    def run_folder(self, cell: Cell) -> Path:
        """Where its run stands."""
        return self.out / RUNS / cell.name

    def require_own_runs(self, drawn: Drawn) -> None:
        """Refuses runs on other selections than those that stand here now.

        Raises:
            ForeignFolderError: as said.
        """
        for cell in self.cells:
            place = self.run_folder(cell) / CONFIG
            if cell.draw in drawn and place.exists():
                begun, wanted = str(files.read_json(place).get("selection")), drawn[cell.draw][0].digest
                if begun != wanted:
                    raise ForeignFolderError(
                        f"{place.parent} was begun on another selection: its digest is {begun[:12]}, that of "
                        f"{SELECTIONS}/{cell.draw.name} is {wanted[:12]}.",
                        hint="Choose a new folder for --out, or delete this run to train it anew.",
                    )

    def evaluate(self, runs: Mapping[str, Run], embedding: dict[str, Any]) -> EvalReport:
        """All runs on the target's labeled sets, and evaluate.json.

        Raises:
            UsageError: a run that nothing stopped saw another number of samples than it was to.
        """
        planned = {cell.name: cell.samples for cell in self.cells}
        ended = {name: run for name, run in runs.items() if not run.facts.get("stopped")}
        short = [name for name, run in ended.items() if run.facts["samples_seen"] != planned[name]]
        if short:
            raise UsageError(
                f"These runs did not see all their samples: {', '.join(short)}.",
                hint=f"Delete their folders below {self.out / RUNS} and give the same command again.",
            )
        study = self.config.study
        report = evaluation.evaluate(
            runs,
            self.config.labeled_addresses,
            encoder=self.encoder,
            also=study.also if study else (),
            settings=examination_settings(self.config),
            allow_unequal=True,  # several C are asked for, or a run was stopped
            seed=self.seed,
            kept=self.out / EVALUATED,
            **embedding,
        )
        report.save(self.out)
        return report

    def save_cells(self, drawn: Drawn, failed: Mapping[Draw, str]) -> None:
        """Writes cells.json: every cell, its realized N, and how far smaller selections are nested in larger ones."""
        rows = [
            {
                **self.told(cell),
                "asked": self._wish(cell.draw)["budget"].most_images,
                "realized": len(drawn[cell.draw][0]) if cell.draw in drawn else None,
                "reason": failed.get(cell.draw, ""),
                "run": f"{RUNS}/{cell.name}",
                "stopped": self._stopped(cell),
                "failed": "",
            }
            for cell in self.cells
        ]
        nested = list(_nested({draw: chosen for draw, (chosen, _) in drawn.items()}))
        files.write_json(self.out / CELLS, {"schema": "curate.cells/1", "cells": rows, "nested": nested})

    def told(self, cell: Cell) -> dict[str, Any]:
        """A cell as plain JSON, with the file's encoder and seed where it has none of its own."""
        seed = self.seed if cell.seed is None else cell.seed
        return {**cell.to_json(), "encoder": cell.draw.encoder or self.encoder, "seed": seed}

    def tell_ended(self, failed: Mapping[str, str]) -> None:
        """Completes cells.json by where runs were stopped, and by why cells failed."""
        document = files.read_json(self.out / CELLS)
        ends = {cell.name: {"stopped": self._stopped(cell), "failed": failed.get(cell.name, "")} for cell in self.cells}
        rows = [{**row, **ends[row["name"]]} for row in document["cells"]]
        files.write_json(self.out / CELLS, {**document, "cells": rows})

    def _stopped(self, cell: Cell) -> dict[str, Any] | None:
        """Where its run was stopped and why; None if it was not, or is not done."""
        place = self.run_folder(cell) / RUN
        found: dict[str, Any] | None = files.read_json(place).get("stopped") if place.exists() else None
        return found

    def _wish(self, draw: Draw) -> dict[str, Any]:
        budget = draw.budget(self.config.budget)
        terms = draw.terms(self.config.terms, budget)
        return {"budget": budget, "terms": terms, "weights": self.config.weights}

    def _selectors(self, report: ShiftReport, embedding: dict[str, Any]) -> Iterator[tuple[Draw, Selector]]:
        """Every draw with what selects for it; what wishes for the same selects from the same candidates."""
        for encoder in dict.fromkeys(draw.encoder or self.encoder for draw in self.draws):
            target, pools, exclude = self._stores(encoder, embedding)
            told = report if encoder == self.encoder else scoring.score(target, pools, encoder=encoder, **embedding)
            wishes: dict[Draw, list[Draw]] = {}
            for draw in self.draws:
                if (draw.encoder or self.encoder) == encoder:
                    wishes.setdefault(replace(draw, select="", encoder=None), []).append(draw)
            opened = selection.open_selector(
                target,
                pools,
                exclude=exclude,
                report=told,
                encoder=encoder,
                **self._wish(next(iter(wishes))),
                **embedding,
            )
            for wish, draws in wishes.items():
                seed = self.seed if wish.seed is None else wish.seed
                selector = opened.asking(Wish.of(**self._wish(wish), past_knee=self.is_grid, seed=seed))
                yield from ((draw, selector) for draw in draws)

    def _stores(
        self, encoder: str, embedding: dict[str, Any]
    ) -> tuple[EmbeddingStore, dict[str, EmbeddingStore], list[EmbeddingStore]]:
        """Target, pools and what must not be selected, seen by an encoder."""
        config, settings = self.config, {"encoder": encoder, **embedding}
        target = as_store(config.target_address, name=TARGET, **settings)
        pools = {name: as_store(address, name=name, **settings) for name, address in config.pool_addresses.items()}
        parts = evaluation_parts(config, **settings)
        return target, pools, [as_store(part, name="excluded", **settings) for part in parts]


def _images(report: ShiftReport) -> dict[str, Any]:
    """Digests of the images that a score is of."""
    return {TARGET: report.target.get("digest")} | {pool.name: pool.facts.get("digest") for pool in report.pools}


def _nested(chosen: Mapping[Draw, Selection]) -> Iterator[dict[str, Any]]:
    """For draws that differ in N alone: the share of the smaller that is in the next larger one."""
    sizes: dict[Draw, list[Draw]] = {}
    for draw in chosen:
        if draw.images is not None:
            sizes.setdefault(replace(draw, images=None), []).append(draw)
    for draws in sizes.values():
        ranked = sorted(draws, key=lambda draw: draw.images or 0)
        for small, large in pairwise(ranked):
            inner, outer = (_identities(chosen[draw]) for draw in (small, large))
            yield {"of": small.name, "in": large.name, "share": round(len(inner & outer) / max(len(inner), 1), 6)}


def _identities(chosen: Selection) -> set[tuple[str, str]]:
    return set(zip(chosen.table["source"].to_pylist(), chosen.table["key"].to_pylist(), strict=True))
