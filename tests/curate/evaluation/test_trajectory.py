"""trajectory: readings, stages and verdicts from constructed runs."""

from __future__ import annotations

import json
import re

import pytest

from curate.evaluation._trajectory import trajectory
from curate.results import Run

SE = 0.01
HALF = 1.959964 * SE * 2**0.5


@pytest.fixture
def run_of(tmp_path):
    def _run_of(readings, *, stage_samples=(700, 300), order="stages", batch=20, samples=1000):
        rows = [{"samples_seen": seen, "loss": 1.0} for seen in range(batch, samples + 1, batch)]
        for seen, value in readings.items():
            rows[seen // batch - 1] |= {"probe": value, "probe_se": SE}
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "curves.jsonl").write_text(text, encoding="utf-8")
        told = {name: {"accuracy": value, "se": SE} for name, value in (("start", 0.3), ("frozen", 0.8))}
        facts = {
            "samples_seen": samples,
            "batch": batch,
            "stage_samples": list(stage_samples),
            "config": {"order": order},
            "probe": {**told, "images": 500},
        }
        return Run(path=tmp_path, facts=facts)

    return _run_of


TENTHS = dict(zip(range(100, 1001, 100), (0.4, 0.5, 0.6, 0.62, 0.64, 0.65, 0.66, 0.66, 0.665, 0.67), strict=True))


def test_every_stage_has_its_gain_and_its_gain_per_thousand(run_of):
    near, far = trajectory(run_of(TENTHS), names=("near", "far")).stages
    assert (near.name, near.samples, far.name, far.samples) == ("near", 700, "far", 300)
    assert near.gain.value == pytest.approx(0.36)
    assert near.marginal.value == pytest.approx(0.36 / 0.7)
    assert (near.gain.low, near.gain.high) == (pytest.approx(0.36 - HALF), pytest.approx(0.36 + HALF))
    assert far.gain.value == pytest.approx(0.01)
    assert far.marginal.se == pytest.approx(SE * 2**0.5 / 0.3)
    assert (near.verdict, far.verdict) == ("helped", "inside the noise")


def test_points_are_the_readings_with_their_stages(run_of):
    found = trajectory(run_of(TENTHS))
    assert [p.samples_seen for p in found.points] == [0, *TENTHS]
    assert [p.accuracy for p in found.points] == [0.3, *TENTHS.values()]
    assert [p.stage for p in found.points] == ["", *["stage 1 of 2"] * 7, *["stage 2 of 2"] * 3]
    assert found.frozen == 0.8


def test_a_stage_that_hurts_is_said_to(run_of):
    falling = {**TENTHS, 1000: 0.5}
    found = trajectory(run_of(falling))
    assert [stage.verdict for stage in found.stages] == ["helped", "hurt"]
    assert re.search(r"points \(−[\d.]+ to −[\d.]+\), −[\d.]+ per 1,000, hurt$", str(found.stages[1]))  # noqa: RUF001
    assert (
        found.lines()[-1]
        == "Early against late: stage 1 of 2 is the last stage that raised the probe beyond the noise."
    )


def test_the_batch_that_crosses_an_edge_belongs_to_the_stage_it_ends(run_of):
    readings = {120: 0.4, 720: 0.6, 960: 0.7}  # of batches that cross 110, 705 and 950
    near, far = trajectory(run_of(readings, stage_samples=(705, 295))).stages
    assert near.gain.value == pytest.approx(0.3)
    assert far.gain.value == pytest.approx(0.1)
    assert "readings at 720 and 960 samples" in far.gain.method


def test_a_stage_between_two_readings_says_so(run_of):
    stages = trajectory(run_of({500: 0.5, 1000: 0.6}, stage_samples=(500, 100, 400))).stages
    assert [stage.verdict for stage in stages] == ["helped", "unknown", "unknown"]
    assert "between two readings" in stages[1].gain.reason
    assert "between two readings" in str(stages[1])


@pytest.mark.parametrize(
    ("order", "stage_samples"), [("stages", (1000,)), ("mixed", (1000,)), ("ramp", (500, 500)), ("reversed:1", (1000,))]
)
def test_without_stages_that_follow_each_other_two_halves_are_told(order, stage_samples, run_of):
    found = trajectory(run_of(TENTHS, order=order, stage_samples=stage_samples))
    assert [(stage.name, stage.samples) for stage in found.stages] == [("first half", 500), ("second half", 500)]
    assert found.stages[0].gain.value == pytest.approx(0.34)
    assert found.stages[1].gain.value == pytest.approx(0.03)


def test_shares_and_reversed_stages_are_stages_in_the_order_of_training(run_of):
    found = trajectory(run_of(TENTHS, order="reversed:0.7,0.3"))
    assert [stage.samples for stage in found.stages] == [700, 300]


def test_names_that_do_not_fit_are_not_used(run_of):
    assert trajectory(run_of(TENTHS), names=("one",)).stages[0].name == "stage 1 of 2"


def test_nothing_gained_is_said(run_of):
    assert "no stage raised" in trajectory(run_of(dict.fromkeys(TENTHS, 0.3))).lines()[-1]


@pytest.mark.parametrize("facts", [{"probe": None}, {}])
def test_a_run_without_a_probe_names_the_flag(facts, tmp_path):
    found = trajectory(Run(path=tmp_path, facts=facts))
    assert (found.points, found.stages) == ((), ())
    assert "--set probe=LABELED" in found.lines()[0]


def test_the_document_is_plain_json(run_of):
    document = json.loads(json.dumps(trajectory(run_of(TENTHS)).to_json(), allow_nan=False))
    assert document["stages"][0]["verdict"] == "helped"
    assert document["points"][1]["accuracy"] == 0.4
