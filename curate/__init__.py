"""Decisions about pretraining data: measure the shift, select under a budget, pretrain, see whether it paid.

report = curate.score("inspection/", {"web": "web/"})
chosen = curate.select("inspection/", {"web": "web/"}, budget=5_000)
run = curate.pretrain(chosen, samples=200_000, out="runs/a")
result = curate.evaluate({"near": run}, {"inspection": "labeled/"})
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embeddings.on_first_use import on_first_use

if TYPE_CHECKING:
    from curate.eval_report import EvalReport
    from curate.evaluation import evaluate
    from curate.pretraining import plan, pretrain
    from curate.results import Estimate, Run, Selection, ShiftReport
    from curate.scoring import score
    from curate.selection import select

# Loaded on first use: importing torch takes seconds, and `curate --help` should not.
_HOMES = {
    "Estimate": "curate.results",
    "EvalReport": "curate.eval_report",
    "Run": "curate.results",
    "Selection": "curate.results",
    "ShiftReport": "curate.results",
    "evaluate": "curate.evaluation",
    "plan": "curate.pretraining",
    "pretrain": "curate.pretraining",
    "score": "curate.scoring",
    "select": "curate.selection",
}

__all__ = [
    "Estimate",
    "EvalReport",
    "Run",
    "Selection",
    "ShiftReport",
    "evaluate",
    "plan",
    "pretrain",
    "score",
    "select",
]
__getattr__, __dir__ = on_first_use(__name__, _HOMES)
