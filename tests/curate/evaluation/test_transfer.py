"""transfer: arithmetic on constructed reports."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.eval_report import PREDICTIONS, ArmScore, EvalReport, Finding
from curate.evaluation._transfer import labels_saved, mean_estimate, pays_from_task, transfer
from curate.results import Estimate

N = 1000
CURVE = {10: 0.5, 100: 0.7, 1000: 0.9}  # a tenfold of labels is worth 0.2


def gain_of(value, low=None, high=None, n=N):
    return Estimate(value=value, low=low, high=high, n=(n, 300), lower_is_closer=False)


def score(labeled="a", gain=(0.1, 0.05, 0.15), *, curve=CURVE, equivalents=None, arm="near", seconds=7200.0):
    findings = tuple(
        Finding(about="labels", condition=f"{n / 10:g}%", metric="linear", estimate=Estimate(value=a, n=(n, 300)))
        for n, a in (curve or {}).items()
    )
    equivalents = equivalents or Estimate(value=None, low=float(N), reason=f"more than {N}")
    return ArmScore(
        arm=arm,
        labeled=labeled,
        kind="run",
        metrics={},
        against_frozen={"linear": gain_of(*gain)},
        label_equivalents=equivalents,
        findings=findings,
        facts={"samples_seen": 10, "seconds": seconds},
    )


def report_of(*scores, predictions=None):
    frozen = [ArmScore(arm="frozen:lite0", labeled=s.labeled, kind="frozen", metrics={}) for s in scores]
    return EvalReport(scores=(*frozen, *scores), labeled={s.labeled: {} for s in scores}, predictions=predictions)


def shared_of(*scores, **prices):
    (shared,) = transfer(report_of(*scores), **prices).arms
    return shared


def predictions_of(**keys):
    rows = [{"labeled": name, "arm": arm, "key": key} for name, ks in keys.items() for key in ks for arm in "xy"]
    return pa.Table.from_pylist(rows, schema=PREDICTIONS)


def test_sets_that_share_no_image_have_independent_errors():
    report = report_of(
        score("a", (0.1, 0.07, 0.14)),
        score("b", (0.02, -0.02, 0.05)),
        predictions=predictions_of(a=["1", "2"], b=["3"]),
    )
    (shared,) = transfer(report).arms
    assert shared.gain.value == pytest.approx(0.06)
    assert shared.gain.low == pytest.approx(0.06 - math.hypot(0.03, 0.04) / 2)
    assert shared.gain.high == pytest.approx(0.06 + math.hypot(0.04, 0.03) / 2)
    assert (shared.worst, shared.worst_gain.value) == ("b", 0.02)
    assert shared.tasks == ("a", "b")


@pytest.mark.parametrize("predictions", [None, predictions_of(a=["1", "2"], b=["2", "3"])])
def test_sets_that_may_share_images_gain_nothing_from_being_two(predictions):
    report = report_of(score("a", (0.1, 0.07, 0.14)), score("b", (0.02, -0.02, 0.05)), predictions=predictions)
    (shared,) = transfer(report).arms
    assert (shared.gain.low, shared.gain.high) == (pytest.approx(0.06 - 0.035), pytest.approx(0.06 + 0.035))
    assert "may share images" in shared.gain.method


def test_labels_saved_are_read_off_the_arms_own_curve():
    saved = labels_saved(score(gain=(0.2, 0.1, 0.4)))
    assert (saved.value, saved.high) == (pytest.approx(900), pytest.approx(990))
    assert saved.low == pytest.approx(1000 - 10**2.5)


def test_what_lies_below_the_curve_is_not_claimed():
    assert labels_saved(score(gain=(0.6, 0.5, 0.7))).value == 990


def test_an_arm_that_loses_saves_less_than_nothing_by_the_frozen_curve():
    equivalents = Estimate(value=700.0, low=500.0, high=900.0)
    saved = labels_saved(score(gain=(-0.05, -0.1, -0.01), curve=None, equivalents=equivalents))
    assert (saved.value, saved.low, saved.high) == (-300, -500, -100)


def test_an_interval_across_zero_takes_each_end_from_its_curve():
    equivalents = Estimate(value=None, low=800.0, reason="more than 1000")
    saved = labels_saved(score(gain=(0.1, -0.02, 0.2), equivalents=equivalents))
    assert saved.low == -200
    assert saved.value == pytest.approx(1000 - 10**2.5)
    assert saved.high == pytest.approx(900)


def test_without_fractions_a_better_arm_saves_an_unknown_number():
    saved = labels_saved(score(curve=None))
    assert saved.value is None
    assert "--also labels" in saved.reason
    assert "more than 1000" in saved.reason
    assert labels_saved(score(curve={10: 0.5, 100: 0.7})).value is None  # the curve ends before all labels


def test_a_loss_whose_interval_reaches_a_gain_is_not_called_a_loss_for_good():
    equivalents = Estimate(value=900.0, low=700.0, high=1000.0, reason="the interval goes on above 1,000")
    shared = shared_of(
        score(gain=(-0.01, -0.05, 0.03), curve=None, equivalents=equivalents), label_price=1.0, hour_price=1.0
    )
    assert shared.saved.value == -100
    assert shared.pays == "unknown"
    assert "no interval" in shared.pays_from.reason


def test_cost_is_the_hours_and_is_shared_by_the_tasks():
    shared = shared_of(score("a"), score("b"), score("c"), score("d"), hour_price=3.0)
    assert (shared.hours, shared.cost, shared.cost_per_task) == (2.0, 6.0, 1.5)
    assert "label_price" in shared.pays_from.reason


@pytest.mark.parametrize(
    ("saved", "cost", "verdict", "tasks"),
    [
        ((100, 50, 200), 999.0, "pays", (10, 5, 20)),
        ((100, 50, 200), 1000.0, "pays", (10, 5, 20)),
        ((100, 50, 200), 1001.0, "pays", (11, 6, 21)),
        ((100, 50, 200), 0.0, "pays", (1, 1, 1)),
        ((100, -50, 200), 1000.0, "undecided", (None, 5, None)),
        ((100, 0, 200), 1000.0, "undecided", (None, 5, None)),
        ((-100, -200, 50), 1000.0, "undecided", (None, 20, None)),
        ((-100, -200, -50), 1000.0, "never", (None, None, None)),
        ((0, 0, 0), 1000.0, "never", (None, None, None)),
    ],
)
def test_from_which_task_on_it_pays(saved, cost, verdict, tasks):
    told, estimate = pays_from_task(gain_of(*saved), cost, 1.0)
    assert (told, (estimate.value, estimate.low, estimate.high)) == (verdict, tasks)


@pytest.mark.parametrize(("cost", "price", "named"), [(None, 1.0, "hour_price"), (1.0, None, "label_price")])
def test_a_missing_price_is_named(cost, price, named):
    told, estimate = pays_from_task(gain_of(1, 1, 1), cost, price)
    assert (told, estimate.value) == ("unknown", None)
    assert named in estimate.reason


@given(st.floats(0.01, 1e6), st.floats(0.01, 1e4), st.floats(0.01, 100))
def test_the_first_task_that_pays_is_the_first(cost, saved, price):
    _, found = pays_from_task(gain_of(saved, saved, saved), cost, price)
    k = found.value
    assert k * saved * price >= cost * (1 - 1e-9)
    assert k == 1 or (k - 1) * saved * price < cost * (1 + 1e-9)


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8))
def test_a_mean_of_equal_errors_shrinks_with_the_root_of_their_number(found):
    estimates = [gain_of(v, v - below, v + above) for v, below, above in found]
    mean = mean_estimate(estimates, unit="x", apart=True)
    assert mean.value == pytest.approx(np.mean([v for v, _, _ in found]))
    assert mean.low <= mean.value <= mean.high
    below = np.sqrt(np.sum([(e.value - e.low) ** 2 for e in estimates])) / len(found)
    assert mean.value - mean.low == pytest.approx(below, abs=1e-9)


def test_one_task_without_a_figure_leaves_the_mean_without_one():
    lacking = Estimate(value=None, reason="no test images")
    assert mean_estimate([gain_of(1, 0, 2), lacking], unit="x", apart=True).reason == "no test images"
    assert mean_estimate([], unit="x", apart=True).reason == "no task"
    bare = mean_estimate([gain_of(1, 0, 2), gain_of(3)], unit="x", apart=True)
    assert (bare.value, bare.low) == (2, None)


def test_runs_stand_apart_and_references_are_left_out():
    found = transfer(report_of(score("a"), score("a", arm="far"), score("b")))
    assert [(shared.arm, shared.tasks) for shared in found.arms] == [("near", ("a", "b")), ("far", ("a",))]
    assert transfer(EvalReport(scores=(), labeled={})).arms == ()


@pytest.mark.parametrize(
    ("shared", "said"),
    [
        (shared_of(score(gain=(0.2, 0.1, 0.4)), label_price=1.0, hour_price=500.0), "pays from task 2 (2 to 2) on"),
        (shared_of(score(gain=(0.2, 0.1, 0.4)), label_price=1.0), "is not known: what an hour"),
        (shared_of(score(seconds=None), label_price=1.0, hour_price=1.0), "how long it took"),
        (
            shared_of(
                score(gain=(0.1, -0.02, 0.2), equivalents=Estimate(value=None, low=800.0, reason="more")),
                label_price=1.0,
                hour_price=1.0,
            ),
            "undecided",
        ),
    ],
)
def test_what_is_told_and_kept(shared, said):
    assert said in " ".join(shared.lines())
    assert shared.lines()[0].startswith("near: ")
    json.dumps(shared.to_json(), allow_nan=False)


def test_the_document_holds_prices_and_arms():
    found = transfer(report_of(score("a")), label_price=2.0, hour_price=3.0)
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert (document["label_price"], document["hour_price"], document["arms"][0]["cost"]) == (2.0, 3.0, 6.0)
    assert len(found.lines()) == 2
