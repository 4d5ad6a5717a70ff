"""One cell of a study, computed: the run that pretrains on a saved selection. A plain function of JSON arguments."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curate import pretraining
from curate.experiments._grid import Cell
from curate.results import Run, Selection
from embeddings.progress import Progress, silent

SELECTIONS, RUNS = "selections", "runs"


def run_cell(
    folder: Path,
    *,
    selection: str,
    run: str,
    device: str = "auto",
    progress: Progress = silent,
    knobs: Sequence[str] = (),
    **settings: Any,
) -> Run:
    """Pretrains on a selection; continues an unfinished run, and returns a finished one.

    Args:
        folder: of the task; the other two are relative to it, so that a study can be moved.
        selection: folder of the selection.
        run: folder of the run.
        device: where to train.
        progress: told of each step.
        knobs: NAME=VALUE of the method and of the run.
        **settings: method, init, backbone, samples and seed, as of ``pretrain``.
    """
    source, out = (Path(os.path.normpath(folder / place)) for place in (selection, run))
    known = pretraining.read_knobs(knobs, method=settings["method"], init=settings["init"])
    chosen, options = Selection.open(source), {"device": device, **settings, **known}
    return pretraining.pretrain(chosen, out=out, progress=progress, **options)


def arguments_of(cell: Cell, *, up: str, init: str, knobs: Sequence[str], seed: int) -> dict[str, Any]:
    """What ``run_cell`` takes for a cell, as JSON.

    Args:
        cell: which.
        up: from the task's folder to that of the target's results.
        init: where the weights come from, with a whole path.
        knobs: the cell's, with whole paths.
        seed: the file's, for a cell without one of its own.
    """
    return {
        "selection": f"{up}/{SELECTIONS}/{cell.draw.name}",
        "run": f"{up}/{RUNS}/{cell.name}",
        "method": cell.method,
        "init": init,
        "backbone": cell.backbone,
        "samples": cell.samples,
        "seed": seed if cell.seed is None else cell.seed,
        "knobs": list(knobs),
    }
