"""Where the marks of a figure stand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_examples import arm_score, eval_report, frozen_scores, pool_score, shift_report

from curate.reporting import summarize
from curate.reporting.figures import (
    COLORS,
    Scale,
    accuracy_chart,
    composition,
    fitted_scale,
    loss_chart,
    pool_chart,
    source_colors,
)
from curate.results import Estimate

finite = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.lists(finite, min_size=1, max_size=8))
def test_a_fitted_scale_holds_its_values_on_round_ticks(values: list[float]) -> None:
    scale = fitted_scale(values)
    slack = 1e-6 * (scale.high - scale.low)
    assert scale.low - slack <= min(values)
    assert max(values) <= scale.high + slack
    assert 2 <= len(scale.ticks) <= 8
    step = np.diff(scale.ticks)
    assert np.allclose(step, step[0], rtol=1e-6)
    assert float(f"{step[0]:.0e}") == pytest.approx(step[0], rel=1e-6)
    assert f"{step[0]:.0e}"[0] in "125"


def test_fitted_scales_by_hand() -> None:
    assert fitted_scale([0.43, 0.776]).ticks == (0.4, 0.5, 0.6, 0.7, 0.8)
    assert fitted_scale([0.0, 20_000.0], steps=4).ticks == (0, 5_000, 10_000, 15_000, 20_000)
    assert fitted_scale([0.0, 100.0, None]).decimals == 0
    assert fitted_scale([0.43, 0.776]).decimals == 1


def test_positions_are_held_to_the_axis() -> None:
    scale = Scale(0.0, 50.0, (0.0, 50.0))
    assert [scale.at(v) for v in (-5, 0, 12.5, 50, 70)] == [0, 0, 25, 100, 100]
    missing = Estimate(value=None, reason="x").to_json()
    assert scale.interval(missing) == {"value": None, "low": None, "high": None}


def chart_of(*pools: Any) -> dict[str, Any]:
    summary = summarize(shift=shift_report(pools), thumbnails=False)
    return pool_chart(summary["shift"], summary["limits"])


def test_pool_chart_bands_meet_at_the_limits_and_fill_the_width() -> None:
    chart = chart_of(pool_score("a", 6, rank=1), pool_score("b", 40, rank=2))
    bands, scale = chart["bands"], chart["scale"]
    assert [b["name"] for b in bands] == ["near", "middle", "far"]
    assert bands[1]["start"] == scale.at(20)
    assert bands[2]["start"] == scale.at(35)
    assert sum(b["width"] for b in bands) == pytest.approx(100)
    assert chart["floor"]["low"] == scale.at(-1.0101)
    assert [row["pool"]["name"] for row in chart["rows"]] == ["a", "b"]
    assert chart["rows"][0]["value"] == scale.at(6)


def test_pool_chart_grows_beyond_50_and_below_0() -> None:
    scale = chart_of(pool_score("a", -4, rank=1), pool_score("b", 80, rank=2))["scale"]
    assert scale.low < -6
    assert scale.high > 82


def test_accuracy_chart_draws_the_line_to_beat_at_the_frozen_encoder() -> None:
    report = eval_report([*frozen_scores(), arm_score("near", 0.8, gain=(0.01, 0.02))])
    labeled = summarize(evaluation=report)["evaluation"]["labeled"][0]
    chart = accuracy_chart(labeled)
    assert chart["columns"] == ["linear", "linear_balanced", "knn"]
    assert chart["metrics"] == ["linear", "knn"]
    assert chart["to_beat"] == chart["scale"].at(0.756)
    assert [m["value"] for m in chart["rows"][2]["marks"]] == [chart["scale"].at(v) for v in (0.8, 0.77)]


def test_loss_chart_by_hand() -> None:
    runs = [
        {"name": "a", "curve": [[0, 6.0], [10, 5.0], [20, 4.0]], "chance": 6.0},
        {"name": "empty", "curve": [], "chance": None},
        {"name": "b", "curve": [[0, 6.0], [20, 5.0]], "chance": 6.00001},
    ]
    chart = loss_chart(runs)
    assert chart is not None
    assert [line["points"] for line in chart["lines"]] == ["0,0 50,50 100,100", "0,0 100,50"]
    assert [line["color"] for line in chart["lines"]] == ["c0", "c2"]  # a run keeps its color whatever the others have
    assert chart["chances"] == [{"value": 6.0, "at": 0.0}]
    assert loss_chart([runs[1]]) is None


def test_composition_by_hand() -> None:
    colors = {"target": "ct", "near": "c0", "far": "c1"}
    parts = composition({"far": 1, "target": 3}, colors)
    assert [(p["name"], p["start"], p["share"], p["color"]) for p in parts] == [
        ("target", 0.0, 75.0, "ct"),
        ("far", 75.0, 25.0, "c1"),
    ]
    assert composition({}, colors) == []


def test_sources_keep_their_colors_and_run_out_gracefully(demo_shift: Any) -> None:
    summary = summarize(shift=demo_shift, thumbnails=False)
    colors = source_colors(summary)
    assert colors["target"] == "ct"
    assert colors["twitter"] == "c0"
    assert len(set(colors.values())) == 9
    many = {"shift": None, "selections": [{"counts": {f"p{i:02d}": 1 for i in range(COLORS + 2)}}]}
    assert list(source_colors(many).values())[-2:] == ["cx", "cx"]
