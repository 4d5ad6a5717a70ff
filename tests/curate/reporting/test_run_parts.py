"""What reports say of a run: its probe beside the frozen encoder, why it was stopped, what to do about its health."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from report_examples import run_in

from curate.reporting import render_html, render_markdown, summarize
from curate.reporting.figures import probe_chart
from curate.reporting.text import run_table
from curate.results import Run

PROBE = {
    "images": 900,
    "classes": 3,
    "encoder": "lite0",
    "digest": "ab" * 32,
    "frozen": {"accuracy": 0.75, "se": 0.01},
    "start": {"accuracy": 0.5, "se": 0.017},
    "end": {"accuracy": 0.7, "se": 0.015},
}
STOPPED = {"reason": "not learning since step 3.", "at": 5_000, "saved": 0.75}
ILL = {"verdict": "not learning", "detail": "The loss stays.", "step": 3, "remedy": "Lower <it>."}


def watched(folder: Path, **more: Any) -> Run:
    """A run with a probe that was read half way and at the end."""
    run_in(folder)
    extra = {"epochs_equivalent": 20.0, "diversity": 0.05, "loss_first": 6.0, "loss_last": 3.4}
    (folder / "run.json").write_text(json.dumps(Run.open(folder).facts | extra | {"probe": PROBE} | more))
    rows = [json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()]
    rows[39] |= {"probe": 0.65, "probe_se": 0.016}
    rows[79] |= {"probe": 0.7, "probe_se": 0.015}
    (folder / "curves.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Run.open(folder)


def test_probe_chart_by_hand() -> None:
    one = {"encoder": "lite0", "frozen": {"accuracy": 0.6}, "points": [[0, 0.2], [10, 0.4], [20, 0.6]]}
    runs = [{"name": "none", "probe": None}, {"name": "a", "probe": one}]
    chart = probe_chart(runs)
    assert chart is not None
    assert [(line["name"], line["color"], line["points"]) for line in chart["lines"]] == [
        ("a", "c1", "0,100 50,50 100,0")
    ]
    assert chart["frozen"] == [{"name": "lite0", "value": 0.6, "at": 0.0}]
    assert probe_chart(runs[:1]) is None


def test_the_summary_has_the_readings_as_points(tmp_path: Path) -> None:
    part = summarize(runs={"a": watched(tmp_path / "a")})["runs"][0]
    assert part["probe"]["points"] == [[0, 0.5], [10_000, 0.65], [20_000, 0.7]]
    assert (part["probe"]["frozen"]["accuracy"], part["stopped"]) == (0.75, None)


def test_page_and_text_show_probe_stop_and_remedy(tmp_path: Path) -> None:
    run = watched(tmp_path / "a", stopped=STOPPED, health=ILL)
    summary = summarize(runs={"a": run})
    page = render_html(summary)
    for words in ("lite0, frozen: 75.0%", "Probe accuracy against samples seen", "Stopped at 5,000 samples: 75% of C"):
        assert words in page, words
    assert "Lower &lt;it&gt;." in page
    assert "| 70.0% (75.0%) |" in render_markdown(summary).replace("\\", "")
    rows = dict(run_table(run).rows)
    assert rows["probe"] == "50.0% to 70.0% (±1.5%) on 900; lite0 frozen 75.0%"
    assert rows["stopped"] == "at 5,000 samples, 75% of C saved; without abort=true it goes on"
    assert rows["what to do"] == "Lower <it>."


def test_a_run_without_a_probe_says_nothing_of_one(tmp_path: Path) -> None:
    summary = summarize(runs={"a": run_in(tmp_path / "a")})
    assert summary["runs"][0]["probe"] is None
    assert "Probe accuracy" not in render_html(summary)
