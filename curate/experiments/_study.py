"""A file of arms, executed: score once, select and pretrain per arm at the same budget, evaluate together.

Every step writes into its own folder below ``out`` and returns at once if it is there already, so the same command
continues where it stopped:

    study.json    protocol.json    TARGET/score.json    TARGET/selections/DRAW/    TARGET/runs/CELL/
    tasks/TARGET/CELL/    TARGET/cells.json    TARGET/evaluated/    TARGET/evaluate.json
    study-results.json    results.parquet

A file with one target has no folder TARGET; one without a grid has a cell per arm, and ends with evaluate.json.
study.json holds the configuration, protocol.json what the study is to decide; others are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.config import Config, GridConfig, StudyConfig
from curate.evaluation.examinations import find_examinations
from curate.evaluation.heeded import require_heeded
from curate.experiments._cell_checks import check_cells, check_samples
from curate.experiments._grid import Cell, expand, written
from curate.experiments._knob_places import require_probes
from curate.experiments._parts import evaluation_parts, examination_settings
from curate.experiments._plan_lines import cell_lines, head_lines
from curate.experiments._tables import runs_table, selections_table
from curate.experiments._target_study import Drawn, TargetStudy
from curate.experiments.analysis import analyze
from curate.experiments.cells import run_cell
from curate.experiments.forecast import EXPLORES, Forecast, earlier_noise, forecast
from curate.experiments.named import named
from curate.experiments.protocol import Protocol, read_protocol, require_runs, require_same_study, write_protocol
from curate.experiments.queue import run_all
from curate.experiments.steps import STEPS, Step
from curate.experiments.task import Task
from curate.pretraining.run_folder import RUN
from curate.printable import printable
from curate.reporting.text import (
    TextTable,
    comparison_table,
    evaluation_table,
    run_table,
    score_table,
    selection_table,
)
from curate.results import Run, check_pool_names
from embeddings import files
from embeddings.encoders.registry import encoder_spec
from embeddings.errors import ConfigError, TasksFailedError
from embeddings.progress import Progress, silent

if TYPE_CHECKING:
    from curate.experiments.prices import Price

__all__ = ["STEPS", "Step", "Study", "evaluation_parts"]

RUN_CELL = "curate.experiments.cells:run_cell"
STUDY, TASKS = "study.json", "tasks"
UNSAID = ("devices", "hour_price")  # change no result


@dataclass(frozen=True, kw_only=True)
class Study:
    """One file of arms and where its results go."""

    config: Config
    out: Path
    encoder: str = "lite0"
    seed: int = 0
    until: Step = "evaluate"
    device: str = "auto"  # which the plan prices

    def __post_init__(self) -> None:
        self._check_names()
        check_samples(self.cells, self.config.grid)
        self._require_tables()
        if self._reaches("select"):
            for study in self.targets.values():
                study.check_wishes()

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """One for each run."""
        return expand(self.config)

    @cached_property
    def is_grid(self) -> bool:
        """Whether this is a study, with a queue and a table of cells, and not just a file of arms."""
        config = self.config
        return config.grid is not None or config.protocol is not None or len(self._names) > 1

    @cached_property
    def targets(self) -> dict[str, TargetStudy]:
        """The study of each target, by name."""
        return {name: self._for_target(name, alone=len(self._names) == 1) for name in self._names}

    @property
    def _names(self) -> list[str]:
        return list(dict.fromkeys(cell.target for cell in self.cells)) or list(self.config.all_targets)

    @property
    def folders(self) -> list[Path]:
        """Where the results of each target stand."""
        return [study.out for study in self.targets.values()]

    def plan(self) -> dict[str, Any]:
        """What ``execute`` would do and what the runs would take, as plain JSON.

        Raises:
            ForeignFolderError: ``out`` holds another study.
            ConfigError: a probe that no run can be watched by.
        """
        self._require_own()
        self._require_probes()
        price = {"price": self._price.to_json()} if self._is_priced else {}
        return self._document() | price | ({"forecast": self._forecast.to_json()} if self._forecast else {})

    def _document(self) -> dict[str, Any]:
        """The configuration."""
        config = self.config
        target = next(iter(self.targets.values())).config if len(self.targets) == 1 else config
        return {
            "schema": "curate.run-plan/1",
            "steps": [step for step in STEPS if self._reaches(step)],
            "encoder": self.encoder,
            "seed": self.seed,
            "target": target.target_address if len(self.targets) == 1 else None,
            "pools": target.pool_addresses,
            "evaluate": target.labeled_addresses,
            "budget": config.budget.most_images if config.budget else None,
            "limits": config.budget.to_json() if config.budget else {},
            "terms": {name: terms.to_json() for name, terms in target.terms.items()},
            "weights": dict(config.weights),
            "arms": [written(arm) for arm in config.arms],
            **(self._grid_plan() if self.is_grid else {}),
        }

    def plan_lines(self) -> list[str]:
        """The plan in words."""
        price = self._price if self._is_priced else None
        runs = [(cell, self._task(cell).name) for cell in self.cells]
        told = [*(price.lines() if price else []), *(self._forecast.lines() if self._forecast else [])]
        told += [EXPLORES] if self.is_grid and self._protocol.is_exploratory else []
        return [*head_lines(self._document()), *cell_lines(runs, price), *told, "Nothing was done (--dry-run)."]

    def execute(
        self, *, work: Path, device: str = "auto", workers: int | None = None, progress: Progress = silent
    ) -> list[TextTable]:
        """Runs whatever is not done yet; returns the results as tables.

        Raises:
            UsageError: a wish that the sources cannot carry, before anything is embedded.
            ForeignFolderError: ``out`` holds another study.
            TasksFailedError: some cells of a grid failed; the others are done, and evaluated if every target has one.
        """
        if self._reaches("select"):
            for study in self.targets.values():
                study.require_possible()
        self._require_probes()
        self._claim()
        embedding = {"work": work, "device": device, "workers": workers, "progress": progress}
        tables: list[TextTable] = []
        drawn: dict[str, Drawn] = {}
        for name, study in self.targets.items():
            found, drawn[name] = self._prepare(study, embedding)
            tables += self._titled(name, found)
        if self._reaches("pretrain"):
            runs, failure = self._pretrain(drawn, device, progress)
            tables += self._run_tables(runs)
            if self._reaches("evaluate"):
                reports = {name: study.evaluate(runs[name], embedding) for name, study in self.targets.items()}
                if self.is_grid:
                    analyze(self.out)
                else:
                    tables += map(evaluation_table, reports.values())
            if failure:
                raise failure
        return tables

    def _prepare(self, study: TargetStudy, embedding: dict[str, Any]) -> tuple[list[TextTable], Drawn]:
        """Score and selections of a target."""
        report = study.score(embedding)
        tables = [score_table(report)]
        if not self._reaches("select"):
            return tables, {}
        drawn, failed = study.select(report, embedding)
        if self.is_grid:
            study.save_cells(drawn, failed)
            return [*tables, selections_table(drawn, failed)], drawn
        for chosen, comparison in drawn.values():
            told = comparison is not None and not comparison.reason
            tables += [selection_table(chosen)] + ([comparison_table(comparison)] if comparison and told else [])
        return tables, drawn

    def _pretrain(
        self, drawn: Mapping[str, Drawn], device: str, progress: Progress
    ) -> tuple[dict[str, dict[str, Run]], TasksFailedError | None]:
        """The run of every cell that has a selection, by target and cell, and how others of a grid failed."""
        cells, failure = [cell for cell in self.cells if cell.draw in drawn[cell.target]], None
        for name, study in self.targets.items():
            study.require_own_runs(drawn[name])
        if self.is_grid:
            cells, failure = self._train(cells, device, progress)
        runs: dict[str, dict[str, Run]] = {name: {} for name in self.targets}
        for cell in cells:
            study = self.targets[cell.target]
            runs[cell.target][cell.name] = (
                Run.open(study.run_folder(cell)) if self.is_grid else self._run_here(cell, device, progress)
            )
        return runs, failure

    def _train(
        self, cells: Sequence[Cell], device: str, progress: Progress
    ) -> tuple[list[Cell], TasksFailedError | None]:
        """Trains cells of a grid: those that are done, and how the others failed; fails where a target has none."""
        tasks, failure = [self._task(cell) for cell in cells], None
        try:
            run_all(tasks, devices=self._devices(device), folder=self.out, progress=progress)
        except TasksFailedError as error:
            failure = error
        failed = failure.failed if failure else {}
        reasons = [failed.get(task.name, "") for task in tasks]
        for name, study in self.targets.items():
            told = zip(cells, reasons, strict=True)
            study.tell_ended({cell.name: reason for cell, reason in told if cell.target == name})
        done = [cell for cell, reason in zip(cells, reasons, strict=True) if not reason]
        if failure and {cell.target for cell in done} != {cell.target for cell in cells}:
            raise failure
        return done, failure

    def _run_here(self, cell: Cell, device: str, progress: Progress) -> Run:
        def told(stage: str, done: int, total: int, note: str = "") -> None:
            progress(f"{stage} {cell.name}", done, total, note if total else f"{cell.name}: {note}")

        study = self.targets[cell.target]
        with named(cell.name):
            return run_cell(study.out, device=device, progress=told, **study.arguments(cell, "."))

    def _task(self, cell: Cell) -> Task:
        study = self.targets[cell.target]
        folder = Path(TASKS) / study.out.relative_to(self.out) / cell.name
        up = "/".join([".."] * len(folder.parts)) + "/" + study.out.relative_to(self.out).as_posix()
        name = cell.name if study.out == self.out else f"{cell.target}/{cell.name}"
        arguments = study.arguments(cell, up)
        return Task(
            name=name, folder=folder, function=RUN_CELL, arguments=arguments, product=f"{arguments['run']}/{RUN}"
        )

    def _devices(self, device: str) -> list[str]:
        """Where cells are computed: on the device asked for, else on those of the file."""
        given = self.config.study.devices if self.config.study else ()
        return list(given) if given and device == "auto" else device.split(",")

    def _for_target(self, name: str, *, alone: bool) -> TargetStudy:
        return TargetStudy(
            config=self.config.for_target(name),
            cells=tuple(cell for cell in self.cells if cell.target == name),
            out=self.out if alone else self.out / name,
            encoder=self.encoder,
            seed=self.seed,
            is_grid=self.is_grid,
        )

    def _claim(self) -> None:
        """Makes the folder this study's own, or refuses one of another configuration."""
        document = self._require_own()
        if not (self.out / STUDY).exists():
            files.write_json(self.out / STUDY, document)
        if self.is_grid:
            write_protocol(self._protocol, files.digest(document), self.out)

    def _require_own(self) -> dict[str, Any]:
        """What study.json holds or is to hold; refuses a folder of another configuration."""
        document = {key: value for key, value in self._document().items() if key != "steps"}
        if not (self.out / STUDY).exists():
            files.refuse_foreign(self.out, ())
            return document
        found = files.read_json(self.out / STUDY)
        if "labeled" not in found:
            document.pop("labeled", None)  # begun by a version that did not tell it
        require_same = require_same_study if self.is_grid else files.require_same_config
        require_same(self.out, found, document)
        return document

    @cached_property
    def _protocol(self) -> Protocol:
        arms = [arm.name for arm in self.config.arms]
        return read_protocol(self.config.protocol, arms=arms, labeled=self.config.evaluate)

    def _grid_plan(self) -> dict[str, Any]:
        """What a study's plan says beyond that of a file of arms."""
        config = self.config
        tables = {"grid": config.grid, "study": config.study}
        return {
            "targets": {name: study.config.target_address for name, study in self.targets.items()},
            **({"labeled": self._labeled} if len(self.targets) > 1 else {}),
            **{name: _said(table) for name, table in tables.items() if table},
            "protocol": self._protocol.to_json(),
            "cells": [cell.to_json() for cell in self.cells],
            "selections": sum(len(study.draws) for study in self.targets.values()),
            "runs": len(self.cells),
            "samples": sum(cell.samples for cell in self.cells),
        }

    @property
    def _labeled(self) -> dict[str, dict[str, str]]:
        """Which labeled sets each target's runs are evaluated on."""
        return {name: study.config.labeled_addresses for name, study in self.targets.items()}

    @property
    def _is_priced(self) -> bool:
        return self._reaches("pretrain")

    @cached_property
    def _price(self) -> Price:
        from curate.experiments.prices import price  # loads torch

        tasks, study = [self._task(cell) for cell in self.cells], self.config.study
        hour_price = study.hour_price if study else None
        devices = self._devices(self.device) if self.is_grid else [self.device]
        return price(tasks, devices=devices, folder=self.out, hour_price=hour_price)

    @cached_property
    def _forecast(self) -> Forecast | None:
        """What the primary contrast will be able to tell; None without one, and where no run is left to be done."""
        if not (self.is_grid and self._is_priced and self._reaches("evaluate") and self._price.runs):
            return None
        cells = [self.targets[cell.target].told(cell) for cell in self.cells]
        targets = {name: study.config.target_address for name, study in self.targets.items()}
        noise, source = earlier_noise(self.out, targets, self._protocol, cells)
        folds = examination_settings(self.config).folds
        return forecast(self._protocol, cells, self._labeled, folds=folds, earlier=noise, source=source)

    def _run_tables(self, runs: Mapping[str, Mapping[str, Run]]) -> list[TextTable]:
        if not self.is_grid:
            return [run_table(run) for by_name in runs.values() for run in by_name.values()]
        return [table for name, found in runs.items() for table in self._titled(name, [runs_table(found)])]

    def _titled(self, name: str, tables: Sequence[TextTable]) -> list[TextTable]:
        """Tables of one of several targets say which."""
        if len(self.targets) == 1:
            return list(tables)
        return [table._replace(title=f"{printable(name)}. {table.title}") for table in tables]

    def _require_tables(self) -> None:
        config = self.config
        has_budget = config.budget or all(cell.draw.images for cell in self.cells)
        needs: list[tuple[Step, object, str]] = [
            ("select", config.arms, "[[arms]] tables"),
            ("select", has_budget, "[budget] table"),
        ]
        for name, study in self.targets.items():
            of = f" for target {name}" if len(self.targets) > 1 else ""
            needs += [("score", study.config.pools, f"[pools.NAME] tables{of}")]
            needs += [("evaluate", study.config.evaluate, f"[evaluate.NAME] tables{of}")]
        for step, holds, missing in needs:
            if self._reaches(step) and not holds:
                raise ConfigError(f"The file has no {missing}.", hint=f"Add them, or stop before {step} with --until.")

    def _require_probes(self) -> None:
        """Refuses a probe of a run that is yet to be trained, before anything is embedded."""
        if self._reaches("pretrain"):
            left = [cell for cell in self.cells if not (self.targets[cell.target].run_folder(cell) / RUN).exists()]
            require_probes(left, self.config.root)

    def _check_names(self) -> None:
        """Every name, before anything is computed."""
        check_pool_names(self.config.pools)
        encoder_spec(self.encoder)
        if self.cells:
            require_runs(self._protocol, [self.targets[cell.target].told(cell) for cell in self.cells])
        asked = self.config.study or StudyConfig()
        require_heeded(asked.set, find_examinations(asked.also))
        examination_settings(self.config)
        check_cells(self.cells)

    def _reaches(self, step: Step) -> bool:
        return STEPS.index(step) <= STEPS.index(self.until)


def _said(table: GridConfig | StudyConfig) -> dict[str, list[Any]]:
    """What a table says of the results, as JSON."""
    return {name: list(values) for name, values in vars(table).items() if values and name not in UNSAID}
