"""Knobs of an arm that say a place (``probe=labeled/``, ``teacher=run:earlier``): relative to the file.

A probe is looked at before anything is embedded: its run may come hours later.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from curate.config_tables import located, with_selectors
from curate.experiments._grid import Cell
from curate.pretraining.knobs import split_pair
from embeddings.errors import ConfigError, UsageError

PROBE, TEACHER, RUN = "probe", "teacher", "run:"


def located_knobs(pairs: Sequence[str], root: Path) -> list[str]:
    """NAME=VALUE texts, their paths relative to the folder ``root`` made whole; whole ones as they are written."""
    return [_located(pair, root) for pair in pairs]


def require_probes(cells: Iterable[Cell], root: Path) -> None:
    """Refuses a probe that no run can be watched by; lists its images, embeds none.

    Args:
        cells: whose runs are yet to be trained.
        root: the file's folder.

    Raises:
        ConfigError: its source is not there, or holds no images with labels, or too few of them.
    """
    arms = {dict(map(split_pair, cell.set)).get(PROBE, ""): cell.arm for cell in cells}
    for address, arm in arms.items():
        if not address:
            continue
        from curate.pretraining.probe import require_probe  # loads torch

        try:
            require_probe(_address(address, root))
        except UsageError as error:
            raise ConfigError(f"Arm {arm!r}: {error.message}", hint=error.hint) from error


def _located(pair: str, root: Path) -> str:
    name, value = split_pair(pair)
    if name == PROBE and value:
        return f"{name}={_address(value, root)}"
    if name == TEACHER and value.startswith(RUN):
        return f"{name}={RUN}{located(value.removeprefix(RUN), root)}"
    return pair


def _address(text: str, root: Path) -> str:
    return text if Path(text).is_absolute() else with_selectors(text, root)
