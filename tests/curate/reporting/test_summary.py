"""One dict of everything: plain, complete, the same for the same input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report_examples import arm_score, eval_report, frozen_scores, pool_score, run_in, selection_of, shift_report

from curate.reporting import headline, summarize, without_images
from curate.results import Run, ShiftReport
from curate.scoring import shift_index


def test_plain_json_and_deterministic(study: dict[str, Any]) -> None:
    summary = summarize(**study)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summarize(**study) == summary
    assert summary["headline"] == headline(summary)
    assert headline(without_images(summary)) == summary["headline"]


def test_nothing_given_is_nothing_said() -> None:
    summary = summarize()
    assert [summary[k] for k in ("shift", "selections", "runs", "evaluation", "images")] == [None, [], [], None, {}]


def test_the_floor_is_told_as_an_index_too(demo_shift: ShiftReport) -> None:
    floor = summarize(shift=demo_shift, thumbnails=False)["shift"]["floor_index"]
    assert floor == shift_index(demo_shift.floor, 600.0).to_json()
    assert floor["value"] == pytest.approx(100 * 3 / 603)


def test_scores_stand_as_they_were(study: dict[str, Any]) -> None:
    shift = summarize(**study)["shift"]
    assert [{k: v for k, v in p.items() if k != "gallery"} for p in shift["pools"]] == [
        p.to_json() for p in study["shift"].pools
    ]
    assert len(shift["pools"][0]["gallery"]["pictures"]) == 8


def test_without_thumbnails_no_source_is_touched(tmp_path: Path) -> None:
    report = shift_report([pool_score("gone", 5, rank=1, source=str(tmp_path / "gone"))])
    summary = summarize(shift=report, thumbnails=False)
    assert summary["shift"]["pools"][0]["gallery"] is None
    assert summary["images"] == summary["missing"] == {}


@pytest.mark.parametrize(
    ("n", "sheets"),
    [
        (0, {"all": []}),
        (36, {"all": list(range(36))}),
        (37, {"first": list(range(12)), "middle": list(range(12, 24)), "last": list(range(25, 37))}),
        (100, {"first": list(range(12)), "middle": list(range(44, 56)), "last": list(range(88, 100))}),
    ],
)
def test_contact_sheets(n: int, sheets: dict[str, list[int]]) -> None:
    selection = selection_of([("web", f"k{i}", f"k{i}.png") for i in range(n)], {"web": "nowhere"})
    found = summarize(selections={"s": selection})["selections"][0]["sheets"]
    assert {s["title"]: [p["rank"] for p in s["pictures"]] for s in found} == sheets


def test_selections_count_what_was_left_out() -> None:
    chosen = summarize(selections={"s": selection_of([("web", "a", "a")], {"web": ""})}, thumbnails=False)
    assert chosen["selections"][0]["left_out"] == [
        {"code": "duplicate", "reason": "exact duplicates", "n": 1, "sources": {"web": 1}},
        {"code": "excluded", "reason": "images also in an excluded source", "n": 1, "sources": {"web": 1}},
    ]


def test_runs_tell_their_budget(tmp_path: Path) -> None:
    run = summarize(runs={"a": run_in(tmp_path / "a")})["runs"][0]
    budget = {k: run[k] for k in ("unique_images", "samples_seen", "epochs", "diversity", "batch", "backbone")}
    assert budget == {
        "unique_images": 1_000,
        "samples_seen": 20_000,
        "epochs": 20.0,
        "diversity": 0.05,
        "batch": 256,
        "backbone": "tiny-resnet@32",
    }
    assert run["chance"] == pytest.approx(6.2363, abs=1e-4)


def test_long_and_broken_curves_are_thinned(tmp_path: Path) -> None:
    steps = [{"samples_seen": i, "loss": float(i)} for i in range(1_000)] + [
        {"samples_seen": 1_000, "loss": float("nan")}
    ]
    run = run_in(tmp_path / "a")
    (tmp_path / "a/curves.jsonl").write_text("".join(json.dumps(s) + "\n" for s in steps), encoding="utf-8")
    curve = summarize(runs={"a": Run.open(run.path)})["runs"][0]["curve"]
    assert len(curve) == 200
    assert curve[0] == [0, 0.0]
    assert curve[-1] == [999, 999.0]
    assert all(loss == seen for seen, loss in curve)


def test_accuracies_by_set_and_whether_compute_was_equal() -> None:
    scores = [*frozen_scores(), arm_score("a", 0.6), *frozen_scores(0.5, "parts"), arm_score("a", 0.4, labeled="parts")]
    evaluation = summarize(evaluation=eval_report(scores))["evaluation"]
    assert [(labeled["name"], len(labeled["scores"])) for labeled in evaluation["labeled"]] == [
        ("emoji", 3),
        ("parts", 3),
    ]
    assert evaluation["samples_seen"] == [20_000]
