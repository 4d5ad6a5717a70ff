"""The output folder of a selection: reused if it holds the same one, refused if it holds anything else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from curate.results import Selection
from embeddings import files
from embeddings.errors import CorruptError, ForeignFolderError

MARKER = "selection.json"
PARTS = (MARKER, "selection.parquet", "left_out.parquet")
REPORTS = ("score.json", "comparison.json", "report.html", "report.json", "report.md")  # may stand beside them


def find_selection(folder: Path, request: dict[str, Any], sources: dict[str, str]) -> Selection | None:
    """The selection of this very request in the folder; None if there is none yet, or an unfinished one.

    Raises:
        ForeignFolderError: another selection (names the first field that differs), a damaged one, or other files.
    """
    if refuse_foreign(folder):
        return None
    try:
        found = Selection.open(folder)
    except CorruptError as error:
        raise ForeignFolderError(error.message, hint="Choose another --out, or delete this folder.") from None
    wanted = {**request, "truncated": None, "least_similarity": None}
    if difference := files.first_difference({name: found.facts.get(name) for name in wanted}, wanted):
        raise ForeignFolderError(
            f"{folder} holds another selection: {difference}.",
            hint="Choose another --out, or give the settings of the selection in it.",
        )
    return found if found.sources == sources else replace(found, sources=sources).save(folder)


def refuse_foreign(folder: Path) -> bool:
    """True if a selection can be written there, False if there is one.

    Raises:
        ForeignFolderError: other files.
    """
    if (folder / MARKER).exists():
        return False
    if folder.is_file():
        raise ForeignFolderError(f"{folder} is a file.", hint="Choose a new folder for --out.")
    foreign = [name for name in files.list_names(str(folder)) if name not in (*PARTS, *REPORTS)]
    if foreign:
        raise ForeignFolderError(
            f"{folder} is not empty and holds no selection ({foreign[0]}).", hint="Choose a new folder for --out."
        )
    return True
