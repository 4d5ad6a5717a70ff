"""Selections and runs of a study, one row each."""

from __future__ import annotations

from collections.abc import Mapping

from curate.experiments._grid import Draw
from curate.experiments._target_study import Drawn
from curate.reporting.text import NEW, TextTable
from curate.reporting.wording import number
from curate.results import Run


def selections_table(drawn: Drawn, failed: Mapping[Draw, str]) -> TextTable:
    """What was selected from where, and why there is nothing or less than was asked for."""
    rows = []
    for draw, (chosen, _) in drawn.items():
        stopped = chosen.facts["stopped"]
        origin = ", ".join(f"{name} {n:,}" for name, n in chosen.counts().items())
        rows.append([draw.name, f"{len(chosen):,}", origin, stopped["reason"] if stopped else ""])
    rows += [[draw.name, "0", "", reason] for draw, reason in failed.items()]
    return TextTable("Selections", ["selection", "images N", "from", "why no more"], rows)


def runs_table(runs: Mapping[str, Run]) -> TextTable:
    """What the runs really did."""
    rows = []
    for name, run in runs.items():
        facts = run.facts
        loss = f"{number(facts['loss_first'], 3)} to {number(facts['loss_last'], 3)}"
        size = [f"{facts['unique_images']:,}", f"{facts['samples_seen']:,}", number(facts["diversity"], 4)]
        stopped = facts.get("stopped")
        health = facts["health"]["verdict"] + (f"; stopped early: {stopped['reason']}" if stopped else "")
        rows.append([name, *size, loss, health])
    return TextTable(
        f"Runs\nD = N / C: the share {NEW}.", ["cell", "images N", "samples C", "D = N / C", "loss", "health"], rows
    )
