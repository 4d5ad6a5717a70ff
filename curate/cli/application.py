"""The application that every command joins, and the flags that several have."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

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
    """Refuses an output folder that holds something else than what is marked so.

    Raises:
        ForeignFolderError: it does.
    """
    from embeddings import files

    if out is not None:
        files.refuse_foreign(out, (marker,))
