"""pretrain, augmentations, evaluate: train on them, and see whether it paid."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from curate.cli.application import Encoder, Sources, app, refuse_foreign, require_out
from curate.printable import printable
from curate.session import Session, Shared, open_session, parse_named


@app.command
def pretrain(
    *,
    selection: Path,
    samples: str,
    out: Path | None = None,
    method: str = "simclr",
    backbone: str | None = None,
    init: str = "scratch",
    knobs: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    explain: Annotated[bool, Parameter(negative="")] = False,
    shared: Shared | None = None,
) -> None:
    """Pretrain a backbone on a selection, under a budget of samples seen.

    Args:
        selection: Folder that `curate select` wrote.
        samples: C, the images processed in all (E = C / N follows), or hours=2 (of GPU), or money=20,rate=2.5.
        out: Folder of the run; the same command continues or reuses it; only --explain and a dry run do without.
        method: simclr, mocov3, byol, barlow, vicreg, dino, mae or distill (from a frozen encoder).
        backbone: tiny-resnet, tiny-vit, resnet18, resnet50, vit-s, lite0, timm:NAME, ... (default: the method's; lite0
            with public).
        init: scratch, public (the packaged Lite0 weights) or run:DIR.
        knobs: NAME=VALUE, repeated: any knob that --explain lists, such as batch=64, size=64, augmentation=inspection,
            order=ramp, recipe=paper.
        explain: Print the resolved recipe beside the published one, and the plan; train nothing.
        shared: Flags of every command.
    """
    from curate import evaluation, pretraining
    from curate.pretraining.spend import resolve
    from curate.pretraining.watch import require_watchable
    from curate.reporting import text
    from curate.results import Selection

    with open_session(shared) as session:
        options = {"method": method, "backbone": backbone, "init": init, "seed": session.seed, "device": session.device}
        options |= {"workers": session.shared.workers}
        wanted: dict[str, Any] = options | pretraining.read_knobs(knobs or [], method=method, init=init)
        if explain:
            found = pretraining.explain(selection, samples=samples, **wanted)
            table = text.TextTable("Recipe", found.header(), found.rows())
            session.show({"schema": "curate.explain/1", **found.to_json()}, found.lines(), [table])
            return
        if session.shared.dry_run:
            plan = pretraining.plan(selection, samples=samples, **wanted)
            session.show({"schema": "curate.plan/1", **plan.to_json()}, plan.lines())
            return
        if out is None:
            resolve(Selection.open(selection), samples=samples, **wanted)  # says what else is wrong
            require_watchable(**wanted)
        out = require_out(out)
        run = pretraining.pretrain(selection, samples=samples, out=out, progress=session.progress, **wanted)
    over_time = evaluation.trajectory(run).lines() if run.facts.get("probe") else []
    arm = shlex.quote(f"{out.resolve().name}={out}")
    asked = f"Did it pay? curate evaluate --arm {arm} --labeled NAME=TRAIN"
    session.show(run.facts, [*over_time, f"Run: {out}", asked], [text.run_table(run)])
    pretraining.require_most_images(run)


@app.command
def augmentations(
    *,
    labeled: Sources = None,
    out: Path | None = None,
    encoder: Encoder = None,
    shared: Shared | None = None,
) -> None:
    """Tell what each augmentation would destroy of the labels, and which preset to pretrain with.

    Args:
        labeled: NAME=TRAIN, repeated: a labeled set; of TRAIN::TEST only the first part is looked at.
        out: Folder for augmentations.json.
        encoder: The frozen encoder that looks at the views (default lite0; lite0@64 is four times as fast).
        shared: Flags of every command.
    """
    from curate.evaluation import audit_augmentations
    from curate.reporting.text import TextTable
    from embeddings import files

    with open_session(shared) as session:
        sets, name = session.labeled(labeled), session.encoder(encoder)
        if session.shared.dry_run:
            session.show_sources({title: _parts(address)["train"] for title, address in sets.items()})
            return
        refuse_foreign(out, "augmentations.json")
        audits = [
            audit_augmentations(address, name=title, encoder=name, seed=session.seed, **session.embedding)
            for title, address in sets.items()
        ]
    document = {"schema": "curate.augmentations/1", "sets": [audit.to_json() for audit in audits]}
    if out is not None:
        files.write_json(out / "augmentations.json", document)
    tables = [TextTable(f"Labels of {printable(audit.name)}", audit.header(), audit.rows()) for audit in audits]
    session.show(document, [line for audit in audits for line in audit.lines()], tables)


@app.command
def evaluate(
    *,
    labeled: Sources = None,
    arm: Sources = None,
    out: Path | None = None,
    also: Sources = None,
    knobs: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    split_by: str | None = None,
    encoder: Encoder = None,
    allow_unequal: Annotated[bool, Parameter(negative="")] = False,
    shared: Shared | None = None,
) -> None:
    """Compare runs with the frozen public encoder on labeled images.

    Args:
        labeled: NAME=TRAIN[::TEST], repeated: a labeled set; without TEST, 30% is held out by group.
        arm: NAME=DIR, repeated: a run of `curate pretrain`.
        out: Folder for evaluate.json, predictions.parquet and report.html.
        also: Further examinations, or all: references (the encoder fine-tuned, and a network trained on the labels
            alone), finetune (every run too), labels (1, 5, 10, 100% of them), rare (defects), anomaly (from normal
            images only), robustness (15 corruptions), noise (in labels), groups.
        knobs: NAME=VALUE, repeated: reject=0.05, normal=LABEL, costs=FILE, fractions=1,10,100, label_price=0.5,
            shift.NAME=SOURCE, ...
        split_by: Column (part, lot, camera) whose values are never cut by a split.
        encoder: The frozen public encoder to beat (default lite0).
        allow_unequal: Compare runs that saw unequal numbers of samples.
        shared: Flags of every command.
    """
    from curate import evaluation, reporting
    from curate.reporting import text

    with open_session(shared) as session:
        sets = session.labeled(labeled)
        names, settings = evaluation.find_examinations(also or ()), evaluation.read_settings(knobs or ())
        evaluation.require_heeded(knobs or (), names)
        arms = parse_named(arm or [], "--arm")
        if session.shared.dry_run:
            _show_plan(session, sets, [session.encoder(encoder), *arms], names)
            return
        refuse_foreign(out, "evaluate.json")
        report = evaluation.evaluate(
            arms,
            sets,
            encoder=session.encoder(encoder),
            also=names,
            settings=settings,
            split_by=split_by,
            allow_unequal=allow_unequal,
            seed=session.seed,
            **session.embedding,
        )
        shared_cost = evaluation.transfer(report, label_price=settings.label_price, hour_price=settings.hour_price)
        is_told = len(sets) > 1 or settings.hour_price is not None
        lines = [*evaluation.verdicts(report), *(shared_cost.lines() if is_told else [])]
        lines += [] if arms else _what_next(names)
        if out is not None:
            report.save(out)
            lines.append(f"Report: {reporting.refresh(out)}")
    tables = [text.evaluation_table(report), *text.examination_tables(report)]
    session.show({**report.to_json(), "transfer": shared_cost.to_json()}, lines, tables)


def _show_plan(session: Session, sets: Mapping[str, str], arms: Sequence[str], examinations: Sequence[str]) -> None:
    """What an evaluation would look at; the first of the arms is the frozen encoder."""
    sources = {f"{n} {p}": a for n, s in sets.items() for p, a in _parts(s).items()}
    told = [f"Arms: frozen {', '.join([arms[0], 'its untrained twin', *arms[1:]])}."]
    told += [f"Further examinations: {', '.join(examinations)}."] if examinations else []
    session.show_sources(sources, told)


def _what_next(examinations: Sequence[str]) -> list[str]:
    """After an evaluation without runs: what it was, and the commands that go on from it."""
    told = "No run was compared: these are the figures that a pretrained network has to beat by more than the noise."
    run = "curate pretrain --selection FOLDER --samples NUMBER --out RUN, then this command with --arm NAME=RUN"
    more = "--also references (fine-tuning), labels (fewer of them), rare or anomaly (defects), groups, robustness"
    return [told, f"Next: {run}.", *([] if examinations else [f"More to learn without a run: {more}."])]


def _parts(labeled: str) -> dict[str, str]:
    train, _, test = labeled.partition("::")
    return {"train": train, "test": test} if test else {"train": train}
