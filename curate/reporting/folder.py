"""From a folder of results to a report in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curate.comparison import FILE as COMPARISON
from curate.comparison import Comparison
from curate.eval_report import EvalReport
from curate.reporting.html import render_html
from curate.reporting.markdown import render_markdown
from curate.reporting.study import FILE as STUDY
from curate.reporting.study import study_part, target_folders
from curate.reporting.study_words import says
from curate.reporting.summary import summarize, without_images
from curate.results import Run, Selection, ShiftReport
from embeddings import files
from embeddings.errors import SourceError, UsageError

SCORE, SELECTION, RUN, EVALUATION = "score.json", "selection.json", "run.json", "evaluate.json"


def summarize_folder(folder: Path | str) -> dict[str, Any]:
    """``summarize`` of every finished result in a folder, at any depth.

    Selections, comparisons and runs are named after their folders. Of several scores or evaluations the one nearest
    the top counts. Of a study with several targets it is what the study says; each target's folder has its own results.

    Raises:
        SourceError: no result there.
        UsageError: two different scores or evaluations at the same depth.
        CorruptError: a result that does not read back.
    """
    root = Path(folder)
    study = study_part(root)
    if study and study["targets"]:
        return summarize(study=study)
    found = {name: _find(root, name) for name in (SCORE, SELECTION, COMPARISON, RUN, EVALUATION)}
    if not any(found.values()) and not study:
        wanted = f"{SCORE}, {SELECTION}, {COMPARISON}, {RUN}, {EVALUATION} or {STUDY}, at any depth"
        raise SourceError(f"No result in {str(root)!r}; wanted {wanted}.", hint="Give a folder that a command wrote.")
    score, evaluation = _topmost(found[SCORE]), _topmost(found[EVALUATION])
    return summarize(
        shift=ShiftReport.open(score) if score else None,
        selections={name: Selection.open(path) for name, path in _named(root, found[SELECTION]).items()},
        comparisons={name: Comparison.open(path) for name, path in _named(root, found[COMPARISON]).items()},
        runs={name: Run.open(path) for name, path in _named(root, found[RUN]).items()},
        evaluation=EvalReport.open(evaluation) if evaluation else None,
        study=study,
        part_of=_whole(root),
    )


def write_report(folder: Path | str, summary: dict[str, Any]) -> Path:
    """Writes report.json, report.md and report.html, each atomically; returns the path of the last.

    All three say the same; the pictures are in the HTML only.

    Raises:
        StorageError: the folder cannot be written.
    """
    root = Path(folder)
    files.write_json(root / "report.json", without_images(summary))
    for name, text in (("report.md", render_markdown(summary)), ("report.html", render_html(summary))):
        with files.atomic_path(root / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return root / "report.html"


def refresh(folder: Path | str) -> Path:
    """Makes the report of a folder anew from the results now in it; returns the path of report.html.

    Of a study with several targets the report of every target, too.

    Raises:
        As ``summarize_folder`` and ``write_report``.
    """
    for target in target_folders(Path(folder)):
        write_report(target, summarize_folder(target))
    return write_report(folder, summarize_folder(folder))


def _whole(root: Path) -> dict[str, str] | None:
    """Of one target's folder: the study of several targets around it."""
    whole = root.resolve().parent
    if root.resolve() not in target_folders(whole):
        return None
    study = study_part(whole)
    return {"page": "../report.html", "words": says(study)} if study else None


def _find(root: Path, name: str) -> list[Path]:
    """Folders below ``root`` that hold a file of this name, sorted; hidden ones are left out."""
    folders = sorted(path.parent for path in root.rglob(name))
    return [f for f in folders if not any(part.startswith(".") for part in f.relative_to(root).parts)]


def _topmost(folders: Sequence[Path]) -> Path | None:
    depth = min((len(folder.parts) for folder in folders), default=0)
    top = [folder for folder in folders if len(folder.parts) == depth]
    if len(top) > 1:
        raise UsageError(
            f"More than one study here: {', '.join(map(str, top[:3]))}.", hint="Give the folder of one of them."
        )
    return top[0] if top else None


def _named(root: Path, folders: Sequence[Path]) -> dict[str, Path]:
    """Folders by their own names, or by their paths below ``root`` where two share a name."""
    names = [folder.resolve().name for folder in folders]
    paths = [folder.relative_to(root).as_posix() for folder in folders]
    return {n if names.count(n) == 1 else p: folder for n, p, folder in zip(names, paths, folders, strict=True)}
