"""A run's folder: whose it is, and what it says when the run is done.

config.json           what was asked for, fully resolved; written first, so that the folder has an owner
images/               the decoded images, or which of them failed while they were streamed, and those that are looked at
                      without being trained on; deleted at the end
errors.parquet        selected images that could not be read, with the reason
trained_on.parquet    the others, and those of the runs that this one started from, with their digests
curves.jsonl          one line per logged step
tensorboard/          the same as event files, if that was asked for
checkpoints/          the last states
backbone.safetensors  the trained network without heads, and backbone.json, how to use it
README.md             a model card
run.json              facts and verdict; written last
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curate.exports.originals import MAX_ERRORS
from curate.results import Run
from embeddings import files
from embeddings.errors import ForeignFolderError, PartialError

CONFIG, RUN = "config.json", "run.json"


def find_run(folder: Path, document: dict[str, Any], *, abort: bool = False) -> Run | None:
    """The finished run of this configuration in the folder; None if it is unfinished or not begun.

    Args:
        folder: of the run.
        document: its configuration.
        abort: whether a run that was stopped because it was ill counts as finished; else it goes on.

    Raises:
        ForeignFolderError: another configuration's run (names the first field that differs), or other files.
    """
    if (folder / CONFIG).exists():
        files.require_same_config(folder, files.read_json(folder / CONFIG), document)
        run = Run.open(folder) if (folder / RUN).exists() else None
        return None if run and run.facts.get("stopped") and not abort else run
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ForeignFolderError(
            f"{folder} is not empty and holds no pretraining run.", hint="Choose a new folder for --out."
        )
    return None


def require_most_images(run: Run) -> None:
    """Refuses to let pass unnoticed that a run had to do without more than a few of the images selected for it.

    Raises:
        PartialError: more than MAX_ERRORS of them could not be read; the run stays usable.
    """
    lost, used = run.facts["errors"], run.facts["unique_images"]
    if lost > MAX_ERRORS * (lost + used):
        raise PartialError(
            f"{lost:,} of {lost + used:,} selected images could not be read; the run trained on {used:,}.",
            hint=f"{run.path}/errors.parquet says why. Put them back and pretrain again, or select again.",
        )
