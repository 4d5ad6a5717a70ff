"""run, demo, report, doctor: everything at once, told, and what works here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from curate import terminal
from curate.cli.application import Encoder, app
from curate.experiments.steps import Step
from curate.session import Session, Shared, open_session
from embeddings.errors import CurateError, TasksFailedError

Shown = tuple[dict[str, Any], list[str], list[Any]]  # document, lines and tables


@app.command
def run(
    file: Path,
    /,
    *,
    out: Path | None = None,
    until: Step = "evaluate",
    encoder: Encoder = None,
    shared: Shared | None = None,
) -> None:
    """Run a file of arms: score, select, pretrain, evaluate, report; continues where it stopped.

    Args:
        file: The curate.toml.
        out: Folder of all results (default runs/NAME-OF-THE-FILE).
        until: Stop after score, select, pretrain or evaluate.
        encoder: What embeds the images and is the frozen encoder to beat (default lite0).
        shared: Flags of every command.
    """
    from dataclasses import replace

    shared = replace(shared or Shared(), config=file)
    with open_session(shared) as session:
        found, failure = _run_file(session, out or Path("runs") / file.stem, until, encoder)
    session.show(*found)
    if failure:
        raise failure


@app.command
def demo(
    *,
    out: Path = Path("curate-demo"),
    until: Step = "evaluate",
    encoder: Encoder = None,
    shared: Shared | None = None,
) -> None:
    """Run everything on a small real data set that comes with the package.

    Args:
        out: Folder of all results.
        until: Stop after score, select (about a minute), pretrain or evaluate.
        encoder: What embeds the images and is the frozen encoder to beat (default lite0).
        shared: Flags of every command.
    """
    from dataclasses import replace

    from curate.demo import demo_folder

    shared = shared or Shared()
    work = shared.work or out / "work"
    with open_session(replace(shared, config=demo_folder() / "curate.toml", work=work)) as session:
        found, failure = _run_file(session, out, until, encoder)
    session.show(*found)
    if failure:
        raise failure


@app.command
def report(folder: Path, /, *, shared: Shared | None = None) -> None:
    """Write report.html and report.json from whatever results a folder holds.

    Args:
        folder: Folder of a score, selection, run, evaluation, or of `curate run`.
        shared: Flags of every command.
    """
    from curate import reporting

    with open_session(shared) as session:
        summary = reporting.summarize_folder(folder)
        page = folder / "report.html" if session.shared.dry_run else reporting.refresh(folder)
    session.show(reporting.without_images(summary), [*reporting.headline(summary), f"Report: {page}"])


@app.command
def doctor(*, shared: Shared | None = None) -> None:
    """Tell what works on this machine, and the command that mends what does not.

    Exits with 1 if something that every command needs is broken.

    Args:
        shared: Flags of every command.
    """
    from curate.doctor import as_table, examine, to_json, verdict
    from curate.probes import PROBLEM

    with open_session(shared) as session:
        findings = examine(session.work, progress=session.progress)
    if session.shared.json:
        terminal.print_json(to_json(findings))
    else:
        terminal.result_console().print(as_table(findings))
        terminal.print_lines(["", verdict(findings)])
    if any(finding.state == PROBLEM for finding in findings):
        sys.exit(CurateError.exit_code)


def _run_file(session: Session, out: Path, until: Step, encoder: str | None) -> tuple[Shown, TasksFailedError | None]:
    """Executes the session's file of arms; what came out and which runs failed is told once its progress is gone."""
    from curate import experiments, reporting
    from curate.experiments import analysis, finished
    from curate.reporting.study_text import study_screen
    from embeddings import files

    assert session.config is not None
    study = experiments.Study(
        config=session.config,
        out=out,
        encoder=session.encoder(encoder),
        seed=session.seed,
        until=until,
        device=session.device,
    )
    if session.shared.dry_run:
        return (study.plan(), study.plan_lines(), []), None
    before = finished.standing(study.folders)
    tables: list[Any] = []
    failure = None
    try:
        tables += study.execute(**session.embedding)
    except TasksFailedError as error:
        if not (out / analysis.FILE).exists():
            raise
        failure = error  # the others are evaluated
    idle = finished.in_words(before, finished.standing(study.folders))
    page = reporting.refresh(out)
    summary = files.read_json(out / "report.json")
    parts = [f"Report of {name}: {found.out / page.name}" for name, found in study.targets.items() if found.out != out]
    told, results = summary["headline"], (summary["study"] or {}).get("results")
    if results is not None:
        told, tables = told[1:], [*tables, *study_screen(results)]
    return (summary, [*idle, *told, *parts, f"Report: {page}"], tables), failure
