"""A whole study to report on, and pictures to show in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_examples import (
    DEMO_POOLS,
    arm_score,
    comparison_of,
    eval_report,
    frozen_scores,
    pool_score,
    run_in,
    selection_of,
    shift_report,
)

from curate.results import ShiftReport


@pytest.fixture
def demo_shift() -> ShiftReport:
    """The eight pools of the demo, near to far, openmoji and clipart tied."""
    ties = {"openmoji": ("clipart",), "clipart": ("openmoji",)}
    pools = [
        pool_score(name, index, rank=rank, error=0.6 if index < 30 else 0.9, tied_with=ties.get(name, ()))
        for rank, (name, index) in enumerate(DEMO_POOLS.items(), 1)
    ]
    return shift_report(pools)


@pytest.fixture
def photos(image_folder: Callable[..., Path], pictures: Callable[..., dict[str, bytes]]) -> Path:
    """A folder of 40 small pictures in two classes."""
    return image_folder(pictures(n=40, size=(20, 14)))


@pytest.fixture
def study(photos: Path, tmp_path: Path) -> dict[str, Any]:
    """Everything ``summarize`` takes: pools with pictures, selections, a comparison, runs, accuracies on two sets."""
    source = str(photos)
    keys = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    near = pool_score("web", 8.0, rank=1, source=source)
    far = pool_score("open", 41.0, rank=2, source=source)
    sources = {"web": source, "open": source, "target": source}
    rows = [(("web", "target", "open")[i % 3], key, key) for i, key in enumerate(keys)]
    runs = {"near": run_in(tmp_path / "runs/near"), "random": run_in(tmp_path / "runs/random", end=3.1)}
    scores = [
        score
        for labeled, frozen in (("emoji", 0.756), ("parts", 0.559))
        for score in [
            *frozen_scores(frozen, labeled),
            *(arm_score(arm, frozen - 0.1, gain=(-0.13, -0.07), labeled=labeled) for arm in runs),
        ]
    ]
    return {
        "shift": shift_report([near, far], source=source),
        "selections": {
            "near": selection_of(rows, sources),
            "few": selection_of(rows[:5], sources, budget=9, stopped={"reason": "the pools are used up", "at": 5}),
        },
        "comparisons": {"near": comparison_of()},
        "runs": runs,
        "evaluation": eval_report(scores),
    }
