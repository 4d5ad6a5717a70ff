"""What the cells of a file are refused for, before anything is computed: unknown names, unequal numbers of samples."""

from __future__ import annotations

from collections.abc import Sequence

from curate import selection
from curate.config import GridConfig
from curate.experiments._grid import Cell
from curate.pretraining.knobs import read_knobs
from curate.pretraining.methods import METHODS
from embeddings.encoders.registry import encoder_spec
from embeddings.errors import ConfigError, UnknownNameError

INITS = ("scratch", "public")


def check_cells(cells: Sequence[Cell]) -> None:
    """Refuses what no cell may name.

    Raises:
        UnknownNameError: a method, network, encoder or start that is not there.
        UsageError: a knob that its method does not have.
    """
    for cell in {_named_by(cell): cell for cell in cells}.values():
        _check_cell(cell)


def check_samples(cells: Sequence[Cell], grid: GridConfig | None) -> None:
    """Arms compare at equal C only: at one C, or at those of the grid.

    Raises:
        ConfigError: as said.
    """
    samples = {cell.samples for cell in cells}
    if len(samples) > 1 and not samples <= set(grid.samples if grid else ()):
        raise ConfigError(
            f"The arms see unequal numbers of samples: {', '.join(f'{s:,}' for s in sorted(samples))}.",
            hint="Give every arm the same samples, or those of [grid]: arms compare at equal C only.",
        )


def _named_by(cell: Cell) -> tuple[object, ...]:
    """All that ``_check_cell`` looks at."""
    return cell.draw.select, cell.draw.encoder, cell.method, cell.backbone, cell.set, cell.init


def _check_cell(cell: Cell) -> None:
    if cell.draw.select not in selection.METHODS:
        raise UnknownNameError("selection method", cell.draw.select, selection.METHODS)
    if cell.method not in METHODS:
        raise UnknownNameError("pretraining method", cell.method, METHODS)
    if cell.backbone is not None:
        from embeddings.encoders.networks import require_network  # loads torch

        require_network(cell.backbone)
    if cell.draw.encoder is not None:
        encoder_spec(cell.draw.encoder)
    if cell.set:  # else nothing can be wrong, and methods load torch
        read_knobs(cell.set, method=cell.method, init=cell.init)
    if cell.init not in INITS and not cell.init.startswith("run:"):
        raise UnknownNameError("init", cell.init, (*INITS, "run:DIR"))
