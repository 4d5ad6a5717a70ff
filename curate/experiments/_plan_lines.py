"""What a file of arms would do, in words: its steps and sizes, and its cells with what the run of each takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from curate.experiments._grid import Cell
from curate.numerals import counted

if TYPE_CHECKING:
    from curate.experiments.prices import Price

SHOWN = 40  # cells


def head_lines(plan: Mapping[str, Any]) -> list[str]:
    """Steps, pools and budget, and how large a study is."""
    limits = ", ".join(f"{name} {value}" for name, value in plan["limits"].items())
    pools = counted(len(plan["pools"]), "pool")
    head = f"Steps: {', '.join(plan['steps'])}; {pools}, budget: {limits or 'that of each arm'}."
    if "cells" not in plan:
        return [head]
    sizes = f"{plan['selections']:,} selections, {plan['runs']:,} runs, {plan['samples']:,} samples in all."
    return [head, f"{counted(len(plan['targets']), 'target')}, {sizes}"]


def cell_lines(runs: Sequence[tuple[Cell, str]], price: Price | None) -> list[str]:
    """The cells and, where they are priced, the time that each takes.

    Args:
        runs: cells, each with the name of its run in the price.
        price: of all of them.
    """
    many = len({cell.target for cell, _ in runs}) > 1
    shown = []
    for cell, name in runs[:SHOWN]:
        target, takes = f"{cell.target}: " if many else "", f", {price.of_run(name)}" if price else ""
        how = f"{cell.draw.select}, {cell.method} from {cell.init}, C = {cell.samples:,}"
        shown.append(f"  {target}{cell.name}: {how}{takes}")
    return shown + ([f"  ... and {len(runs) - SHOWN:,} more"] if len(runs) > SHOWN else [])
