"""Results in small, as the other packages would return them: scores, selections, runs, accuracies."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.comparison import Comparison, Contender, Judge, Reading
from curate.eval_report import ArmScore, EvalReport
from curate.results import LEFT_OUT, SELECTION, Estimate, PoolScore, Run, Selection, ShiftReport

TOTAL_VARIANCE = 600.0
ENCODER = {"name": "lite0", "dim": 1280, "size": 128, "preprocessing": "squash", "weights": "ab" * 32, "license": "x"}


ACTIONS = {"same": "use", "near": "use", "middle": "use last", "unclear": "add images"}  # else leave it out


def verdict_of(index: float) -> str:
    return "near" if index < 20 else "middle" if index < 35 else "far"


def pool_score(
    name: str, index: float, *, rank: int, error: float = 1.0, verdict: str | None = None, **rest: Any
) -> PoolScore:
    """A pool at an index; distance and interval follow from it."""
    distance, se = TOTAL_VARIANCE * index / (100 - index), TOTAL_VARIANCE * error / 100
    n = (900, 469)
    metrics = {
        "frechet": Estimate(value=distance, low=distance - 2 * se, high=distance + 2 * se, se=se, n=n),
        "coverage": Estimate(value=0.9 - index / 60, low=0.1, high=0.95, n=n, lower_is_closer=False, null=0.97),
        "copies": Estimate(value=0.001, n=n, lower_is_closer=False, null=0.0),
        "frechet_full": Estimate(value=distance + 150, n=n, null=148.0),
    }
    figure = Estimate(value=index, low=index - 2 * error, high=index + 2 * error, n=n, null=0.0)
    facts = {"source": rest.pop("source", ""), "digest": "cd" * 32}
    verdict = verdict or verdict_of(index)
    rest = {"action": ACTIONS.get(verdict, "leave out"), **rest}
    return PoolScore(name=name, rank=rank, verdict=verdict, n=900, index=figure, metrics=metrics, facts=facts, **rest)


def shift_report(pools: Sequence[PoolScore], *, n: int = 469, source: str = "", **target: Any) -> ShiftReport:
    """A report on these pools; two halves of the target read -1 to 2."""
    profile = {
        "source": source,
        "digest": "ef" * 32,
        "n": n,
        "errors": 2,
        "sizes": {"width": [64.0, 64.0, 64.0], "height": [64.0, 64.0, 136.0]},
        "gray_share": 0.043,
        "duplicates": 3,
        "classes": {"People & Body": 190, "Objects": 150, "Flags": 129},
        "groups": None,
        "effective_rank": 87.31,
        "total_variance": TOTAL_VARIANCE,
        "carries": [
            {"measure": "ranking of pools", "ok": True, "why": "needs 20 images"},
            {"measure": "full-dimension Fréchet distance", "ok": False, "why": "needs 2,560 images (2 d)"},
        ],
    }
    floor = Estimate(value=3.0, low=-6.0, high=12.245, se=4.6, n=(235, 234))
    return ShiftReport(target={**profile, **target}, encoder=ENCODER, pools=tuple(pools), floor=floor)


def selection_of(rows: Sequence[tuple[str, str, str]], sources: Mapping[str, str], **facts: Any) -> Selection:
    """Chosen images from (source, key, uri)."""
    columns: dict[str, list[Any]] = {field.name: [] for field in SELECTION}
    for rank, (source, key, uri) in enumerate(rows):
        row = {"source": source, "key": key, "uri": uri, "stage": 0, "rank": rank, "score": 1.0, "target_key": "t"}
        row |= {
            "similarity": 0.9,
            "duplicates": 1,
            "cost": 1.0,
            "repeats": 1,
            "code": "near-first",
            "reason": f"nearest to t ({rank})",
        }
        for name, values in columns.items():
            values.append(row.get(name))
    left_out = pa.table(
        {
            "source": ["web", "web"],
            "key": ["a", "b"],
            "code": ["duplicate", "excluded"],
            "reason": ["duplicate of web/c", "also in excluded test/d"],
            "because_of": ["web/c", "test/d"],
        },
        schema=LEFT_OUT,
    )
    facts = {"method": "near-first", "seed": 0, "budget": len(rows), "stopped": None, **facts}
    return Selection(table=pa.table(columns, schema=SELECTION), left_out=left_out, facts=facts, sources=dict(sources))


def run_in(folder: Path, *, end: float = 3.4, verdict: str = "healthy", samples: int = 20_000) -> Run:
    """A finished run whose loss falls from chance to ``end``."""
    chance = math.log(2 * 256 - 1)
    steps = [
        {
            "samples_seen": samples * (i + 1) // 80,
            "loss": end + (chance - end) * math.exp(-i / 12),
            "chance_loss": chance,
        }
        for i in range(80)
    ]
    facts = {
        "schema": "curate.run/1",
        "config": {"method": "simclr", "backbone": "tiny-resnet", "size": 32, "init": "scratch", "seed": 0},
        "selection": "ab" * 32,
        "backbone": "tiny-resnet@32",
        "batch": 256,
        "warnings": ["1,000 images are few for training from scratch."],
        "unique_images": 1_000,
        "samples_seen": samples,
        "health": {"verdict": verdict, "detail": "The loss ends below its chance value."},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "curves.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps), encoding="utf-8")
    (folder / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    return Run.open(folder)


def accuracy(value: float, error: float = 0.02) -> Estimate:
    return Estimate(value=value, low=value - error, high=value + error, n=(469, 469), lower_is_closer=False)


def arm_score(
    arm: str, linear: float, *, gain: tuple[float, float] | None = None, labeled: str = "emoji", **rest: Any
) -> ArmScore:
    """Linear accuracy of an arm; ``gain`` is its interval against the frozen encoder."""
    difference = {} if gain is None else {"linear": Estimate(value=sum(gain) / 2, low=gain[0], high=gain[1])}
    metrics = {"knn": accuracy(linear - 0.03), "linear": accuracy(linear), "linear_balanced": accuracy(linear - 0.01)}
    rest = {"kind": "run", "facts": {"samples_seen": 20_000}, **rest}
    return ArmScore(arm=arm, labeled=labeled, metrics=metrics, against_frozen=difference, **rest)


def frozen_scores(linear: float = 0.756, labeled: str = "emoji") -> list[ArmScore]:
    return [
        arm_score("frozen:lite0", linear, kind="frozen", labeled=labeled, facts={}),
        arm_score("untrained:lite0", linear - 0.24, kind="untrained", labeled=labeled, facts={}, gain=(-0.28, -0.2)),
    ]


def eval_report(scores: Sequence[ArmScore]) -> EvalReport:
    names = dict.fromkeys(score.labeled for score in scores)
    facts = {
        "n_train": 469,
        "n_test": 470,
        "classes": 9,
        "class_names": list("abcdefghi"),
        "how": "the test part was given",
    }
    facts |= {"copies_left_out": 1, "groups_in_both": 0, "unlabeled_left_out": 0, "test_units": 468}
    return EvalReport(scores=tuple(scores), labeled={name: facts for name in names})


DEMO_POOLS = {
    "twitter": 6.0,
    "fluent": 12.0,
    "openmoji": 14.0,
    "clipart": 16.0,
    "line": 33.0,
    "garments": 38.0,
    "photos": 39.0,
    "digits": 45.0,
}


def reading(index: float, gain: tuple[float, float] | None = None, tied_with: Sequence[str] = ()) -> Reading:
    """An index with an interval of ±2; ``gain`` is the interval against random."""
    figure = Estimate(value=index, low=index - 2, high=index + 2, se=1.0, n=(100, 60))
    coverage = Estimate(value=0.8, low=0.7, high=0.9, n=(100, 60), lower_is_closer=False, null=0.97)
    versus = None if gain is None else Estimate(value=sum(gain) / 2, low=gain[0], high=gain[1])
    return Reading(
        index=figure, distance=figure, mmd=figure, coverage=coverage, against_random=versus, tied_with=tuple(tied_with)
    )


def contender(method: str, readings: Mapping[str, Reading], **rest: Any) -> Contender:
    """A method that chose 100 images, 60 of them from web."""
    diversity = Estimate(value=34.0, low=31.0, high=37.0, n=(100, 90), lower_is_closer=False)
    facts = {"n": 100, "counts": {"web": 60, "open": 40}, "diversity": diversity, **rest}
    return Contender(method=method, readings=dict(readings), **facts)


def comparison_of(*, names: Sequence[str] = ("near-first", "uniform"), **rest: Any) -> Comparison:
    """Two methods and random, under lite0 and a judge; another judge could not see anything."""
    near = {"lite0": reading(8.0, (-15.0, -9.0)), "color-texture": reading(9.0, (-4.0, 1.0), ["random"])}
    even = {"lite0": reading(22.0, (-1.0, 5.0), ["random"]), "color-texture": reading(11.0, (-1.0, 2.0), ["random"])}
    blind = {"lite0": reading(20.0, None, [names[1]]), "color-texture": reading(10.5, None, list(names))}
    judges = (
        Judge(name="color-texture", limits="hand-made features"),
        Judge(name="random", limits="an untrained network", reason="the images are gone"),
    )
    facts = {"judges": judges, "notes": ("Judges look at up to 1,000 images of a side.",), **rest}
    return Comparison(
        encoder="lite0",
        seen=61,
        judging=60,
        contenders=(
            contender(names[0], near, cost=12.0),
            contender("random", blind, cost=8.0),
            contender(names[1], even, cost=8.0, stopped="the pools are used up"),
            Contender(method="broken", reason="no labels here."),
        ),
        **facts,
    )
