"""A file of arms, executed: score once, select and pretrain per arm at the same budget, evaluate together.

Every step writes into its own folder below ``out`` and returns at once if it is there already, so the same command
continues where it stopped:

    study.json    score.json    selections/SELECT/    runs/ARM/    evaluate.json

study.json holds the configuration; another one is refused.
Images of every evaluation's test part are kept out of every selection.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate import evaluation, pretraining, scoring, selection
from curate.comparison import Comparison
from curate.config import ArmConfig, Config
from curate.experiments.steps import STEPS, Step
from curate.pretraining.knobs import read_knobs
from curate.pretraining.methods import METHODS
from curate.reporting.text import (
    TextTable,
    comparison_table,
    evaluation_table,
    run_table,
    score_table,
    selection_table,
)
from curate.results import Run, Selection, ShiftReport, check_pool_names
from embeddings import files
from embeddings.encoders.networks import require_network
from embeddings.encoders.registry import encoder_spec
from embeddings.errors import ConfigError, UnknownNameError
from embeddings.pipeline import as_store
from embeddings.progress import Progress, silent
from embeddings.store import EmbeddingStore

STUDY = "study.json"
INITS = ("scratch", "public")


@dataclass(frozen=True, kw_only=True)
class Study:
    """One file of arms and where its results go."""

    config: Config
    out: Path
    encoder: str = "lite0"
    seed: int = 0
    until: Step = "evaluate"

    def __post_init__(self) -> None:
        needs: tuple[tuple[Step, object, str], ...] = (
            ("score", self.config.pools, "[pools.NAME] tables"),
            ("select", self.config.arms, "[[arms]] tables"),
            ("select", self.config.budget, "a [budget] table"),
            ("evaluate", self.config.evaluate, "[evaluate.NAME] tables"),
        )
        self._check_names()
        for step, holds, missing in needs:
            if self._reaches(step) and not holds:
                raise ConfigError(f"The file has no {missing}.", hint=f"Add them, or stop before {step} with --until.")

    def plan(self) -> dict[str, Any]:
        """What ``execute`` would do, as plain JSON."""
        config = self.config
        return {
            "schema": "curate.run-plan/1",
            "steps": [step for step in STEPS if self._reaches(step)],
            "encoder": self.encoder,
            "seed": self.seed,
            "target": config.target_address,
            "pools": config.pool_addresses,
            "evaluate": config.labeled_addresses,
            "budget": config.budget.most_images if config.budget else None,
            "limits": config.budget.to_json() if config.budget else {},
            "terms": {name: terms.to_json() for name, terms in config.terms.items()},
            "weights": dict(config.weights),
            "arms": [vars(arm) for arm in config.arms],
        }

    def plan_lines(self) -> list[str]:
        """The plan in words."""
        plan = self.plan()
        arms = [
            f"  {a['name']}: {a['select']}, {a['method']} from {a['init']}, C = {a['samples']:,}" for a in plan["arms"]
        ]
        limits = ", ".join(f"{name} {value}" for name, value in plan["limits"].items())
        return [
            f"Steps: {', '.join(plan['steps'])}; {len(plan['pools'])} pools, budget: {limits or 'not given'}.",
            *arms,
            "Nothing was done (--dry-run).",
        ]

    def execute(
        self, *, work: Path, device: str = "auto", workers: int | None = None, progress: Progress = silent
    ) -> list[TextTable]:
        """Runs every step up to ``until``; returns their tables."""
        self._require_possible()
        self._claim()
        embedding = {"work": work, "device": device, "workers": workers, "progress": progress}
        report = self._score(embedding)
        tables = [score_table(report)]
        if self._reaches("select"):
            audits = self._select(report, embedding)
            selections = {method: chosen for method, (chosen, _) in audits.items()}
            for chosen, comparison in audits.values():
                tables += [selection_table(chosen)] + ([] if comparison.reason else [comparison_table(comparison)])
        if self._reaches("pretrain"):
            runs = {arm.name: self._pretrain(arm, selections[arm.select], device, progress) for arm in self.config.arms}
            tables += [run_table(run) for run in runs.values()]
        if self._reaches("evaluate"):
            tables.append(self._evaluate(runs, embedding))
        return tables

    def _score(self, embedding: dict[str, Any]) -> ShiftReport:
        config = self.config
        report = scoring.score(config.target_address, config.pool_addresses, encoder=self.encoder, **embedding)
        report.save(self.out)
        return report

    def _require_possible(self) -> None:
        """Refuses a wish that the sources cannot carry, before anything is embedded."""
        config, budget = self.config, self.config.budget
        if not self._reaches("select") or budget is None:
            return
        selection.require_possible(
            config.target_address,
            config.pool_addresses,
            budget=budget,
            terms=config.terms,
            weights=config.weights,
            methods=[arm.select for arm in config.arms],
        )

    def _select(self, report: ShiftReport, embedding: dict[str, Any]) -> dict[str, tuple[Selection, Comparison]]:
        """One selection per distinct ``select`` of the arms, and what each is worth."""
        config, budget = self.config, self.config.budget
        assert budget is not None
        selector = selection.open_selector(
            config.target_address,
            config.pool_addresses,
            budget=budget,
            terms=config.terms,
            weights=config.weights,
            exclude=evaluation_parts(config, encoder=self.encoder, **embedding),
            encoder=self.encoder,
            report=report,
            seed=self.seed,
            **embedding,
        )
        folder = self.out / "selections"
        methods = dict.fromkeys(arm.select for arm in config.arms)
        return {method: selection.audited(selector, method, folder / method) for method in methods}

    def _pretrain(self, arm: ArmConfig, chosen: Selection, device: str, progress: Progress) -> Run:
        def named(stage: str, done: int, total: int, note: str = "") -> None:
            progress(f"{stage} {arm.name}", done, total, note)

        return pretraining.pretrain(
            chosen,
            samples=arm.samples,
            method=arm.method,
            backbone=arm.backbone,
            init=self._init(arm),
            seed=self.seed,
            out=self.out / "runs" / arm.name,
            progress=named,
            **{"device": device, **read_knobs(arm.set, method=arm.method, init=arm.init)},
        )

    def _evaluate(self, runs: dict[str, Run], embedding: dict[str, Any]) -> TextTable:
        sets = self.config.labeled_addresses
        report = evaluation.evaluate(runs, sets, encoder=self.encoder, seed=self.seed, **embedding)
        report.save(self.out)
        return evaluation_table(report)

    def _init(self, arm: ArmConfig) -> str:
        """Where an arm's weights come from; run:DIR is relative to the file."""
        kind, _, folder = arm.init.partition(":")
        return f"run:{self.config.located(folder)}" if kind == "run" else arm.init

    def _claim(self) -> None:
        """Makes the folder this study's own, or refuses one of another configuration."""
        document = {key: value for key, value in self.plan().items() if key != "steps"}
        if (self.out / STUDY).exists():
            files.require_same_config(self.out, files.read_json(self.out / STUDY), document)
        else:
            files.refuse_foreign(self.out, ())
            files.write_json(self.out / STUDY, document)

    def _check_names(self) -> None:
        """Every name and the equal budget, before anything is computed."""
        check_pool_names(self.config.pools)
        encoder_spec(self.encoder)
        for arm in self.config.arms:
            if arm.select not in selection.METHODS:
                raise UnknownNameError("selection method", arm.select, selection.METHODS)
            if arm.method not in METHODS:
                raise UnknownNameError("pretraining method", arm.method, METHODS)
            if arm.backbone is not None:
                require_network(arm.backbone)
            read_knobs(arm.set, method=arm.method, init=arm.init)
            if arm.init not in INITS and not arm.init.startswith("run:"):
                raise UnknownNameError("init", arm.init, (*INITS, "run:DIR"))
        samples = {arm.samples for arm in self.config.arms}
        if len(samples) > 1:
            raise ConfigError(
                f"The arms see unequal numbers of samples: {', '.join(f'{s:,}' for s in sorted(samples))}.",
                hint="Give every arm the same samples: arms compare at equal C only.",
            )

    def _reaches(self, step: Step) -> bool:
        return STEPS.index(step) <= STEPS.index(self.until)


def evaluation_parts(
    config: Config, *, encoder: str, work: Path | None, **embedding: Any
) -> list[str | EmbeddingStore]:
    """The images that a file's evaluations test on, those given and those held out: never to be selected."""
    parts: list[str | EmbeddingStore] = []
    for address in config.labeled_addresses.values():
        train, _, test = address.partition("::")
        if test:
            parts.append(test)
        else:
            store = as_store(train, name="labeled", encoder=encoder, work=work, **embedding)
            parts.append(evaluation.split_store(store)[1])
    return parts
