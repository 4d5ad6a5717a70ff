"""The application that every command joins, and the flags that several have."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from embeddings.errors import ForeignFolderError, StorageError, UsageError

EXIT_CODES = (
    "Exit codes: 0 done; 1 failure (disk, crash); 2 usage; 3 a gate failed; 4 too many images failed; 130 interrupted."
)
app = App(
    name="curate",
    help="Measure distribution shift, select pretraining images under a budget, pretrain, and see whether it paid.",
    help_epilogue=EXIT_CODES,
    version=lambda: metadata.version("curate-pretraining"),
    suppress_keyboard_interrupt=False,  # Ctrl-C has an exit code of its own
)

Encoder = Annotated[str | None, Parameter(env_var="CURATE_ENCODER")]
Pools = Annotated[list[str] | None, Parameter(negative="")]
Sources = Annotated[list[str] | None, Parameter(negative="")]


def refuse_foreign(out: Path | None, marker: str) -> None:
    """Refuses an output folder that holds something else than what is marked so, or cannot be written.

    Raises:
        ForeignFolderError, StorageError: as it says.
    """
    from embeddings import files

    if out is not None:
        require_place(out)
        files.refuse_foreign(out, (marker,))


def require_out(out: Path | None) -> Path:
    """The place for the results; asked for last, so that all else that is wrong is told first.

    Raises:
        UsageError: none was given.
    """
    if out is None:
        raise UsageError("No --out was given.", hint="Say --out PATH, where the results go, or --dry-run.")
    return out


def require_place(out: Path) -> None:
    """Refuses a folder that cannot be made or written, before any work is done for it.

    Raises:
        ForeignFolderError: a file stands there, or above it.
        StorageError: no permission, or a disk that is read only.
    """
    from embeddings import files

    whole = out.absolute()
    try:
        above = next(path for path in (whole, *whole.parents) if path.exists())
    except OSError as error:
        raise files.storage_error(out, error) from None
    if not above.is_dir():
        raise ForeignFolderError(f"{out} cannot be a folder: {above} is a file.", hint="Choose another --out.")
    if not os.access(above, os.W_OK | os.X_OK):
        hint = "Check the permissions, or choose another --out."
        raise StorageError(f"Cannot write {out}: no permission to write to {above}.", hint=hint)
