"""The groups examination on stores made for it: what is compared, what is not and why, and what it recommends."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from curate.evaluation._comparison import Comparison
from curate.evaluation._images import Embedding, LabeledImages
from curate.evaluation._intervals import Measured
from curate.evaluation._split import split_labeled
from curate.evaluation._view import View
from curate.evaluation.examinations import as_findings
from curate.evaluation.examinations._group_reading import MOST, Grouped, read_groups, read_within
from curate.evaluation.examinations.groups import FEWEST, examine
from curate.evaluation.settings import Settings
from embeddings.spec import EncoderSpec
from embeddings.store import ROWS, EmbeddingStore

N = 400
SPEC = EncoderSpec(name="made", dim=8, size=32, preprocessing="none", weights="none")


def made(labels, lines, *, hard=(), units=None, seed=0, trace=0.0):
    """A store whose class is in the first features, except where a line is hard, and whose line is in the last ones."""
    rng, n = np.random.default_rng(seed), len(labels)
    features = rng.standard_normal((n, 8))
    easy = ~np.isin(lines, hard)
    features[np.arange(n), np.unique(labels, return_inverse=True)[1]] += np.where(easy, 6.0, 0.5)
    if trace:
        features[np.arange(n), 5 + np.unique(lines, return_inverse=True)[1]] += trace
    columns = {field.name: pa.nulls(n, field.type) for field in ROWS}
    columns["key"] = pa.array([f"k{i:04d}" for i in range(n)])
    columns["label"] = pa.array([str(label) for label in labels])
    columns["sha256"] = columns["pixels"] = columns["key"]
    columns["meta"] = pa.array([json.dumps({} if line is None else {"line": str(line)}) for line in lines])
    if units is not None:
        columns["group"] = pa.array([str(unit) for unit in units])
    rows = pa.table(columns, schema=ROWS)
    return EmbeddingStore(spec=SPEC, rows=rows, vectors=features.astype(np.float32), facts={"source": "made"})


def view_of(store, groups="line", seed=0):
    images = LabeledImages(name="made", stores=[store])
    comparison = Comparison(split=split_labeled(images.rows), frozen_features=store.vectors()[:], seed=seed)
    return View(
        arm="frozen:made",
        kind="frozen",
        eye=lambda: None,
        features=comparison.frozen_features,
        comparison=comparison,
        probed=comparison.frozen,
        images=images,
        embedding=Embedding(),
        settings=Settings(groups=groups),
    )


def found(view):
    figures = {("groups", f.condition, f.metric): f for f in examine(view)}
    return {(f.condition, f.metric): f.estimate for f in as_findings(figures, None, view.comparison.resamples)}


@pytest.fixture
def labels():
    return np.arange(N) % 3


@pytest.fixture
def lines():
    """Line c is a tenth of the images."""
    return np.random.default_rng(1).permutation(np.repeat(["a", "b", "c"], [200, 160, 40]))


def test_a_hard_rare_line_is_found_and_a_weight_recommended(labels, lines):
    view = view_of(made(labels, lines, hard=("c",)))
    told = found(view)
    split, test = view.comparison.split, view.comparison.split.test
    right = view.probed.probabilities.argmax(axis=1) == split.labels[test]
    rates = {line: right[lines[test] == line].mean() for line in "abc"}
    for line, rate in rates.items():
        estimate = told[f"line={line}", "linear"]
        assert estimate.value == pytest.approx(rate)
        assert estimate.low <= rate <= estimate.high
        assert estimate.n == (len(split.train), (lines[test] == line).sum())
    assert told["line", "gap"].value == pytest.approx(max(rates.values()) - rates["c"])
    assert 0 < told["line", "gap"].null < told["line", "gap"].low
    assert told["line", "gap_p"].value < 0.01
    assert told["line", "worst"].value == pytest.approx(rates["c"])
    assert told["line", "worst"].method.endswith("the worst group is c")
    assert told["line", "weight"].value == 4.5  # 4.5 x 0.1 is a third of 4.5 x 0.1 + 0.9
    assert told["line", "weight"].unit == "curate select --weight line:c=4.5"


def test_where_the_gap_may_be_noise_no_weight_is_recommended(labels, lines):
    """How often p is small where lines are alike, is for test_group_gaps to tell: one case in twenty."""
    told = found(view_of(made(labels, lines, hard=("a", "b", "c"))))
    assert told["line", "gap_p"].value > 0.05
    assert told["line", "weight"].value is None
    assert "noise" in told["line", "weight"].reason


def test_a_large_hard_line_is_hard_and_not_rare(labels, lines):
    told = found(view_of(made(labels, lines, hard=("a",))))
    assert told["line", "weight"].value is None
    assert "hard, not rare" in told["line", "weight"].reason


def test_a_line_that_is_all_right_has_the_interval_of_its_own_size(labels, lines):
    told = found(view_of(made(labels, lines)))
    small, large = told["line=c", "linear"], told["line=a", "linear"]
    assert (small.value, large.value) == (1.0, 1.0)
    assert small.low == pytest.approx(1 - (1 - 0.025 ** (1 / small.n[1])))
    assert small.low < large.low < 1


def test_a_line_with_one_class_has_an_accuracy_and_no_standardized_gap_where_no_class_is_common(lines):
    labels = np.where(lines == "c", 2, np.arange(N) % 2)
    told = found(view_of(made(labels, lines)))
    assert told["line=c", "linear"].value is not None
    assert "every group" in told["line", "standardized_gap"].reason
    assert "every group" in told["line=c", "standardized"].reason


def test_the_line_is_read_as_far_as_it_is_in_the_features(labels, lines):
    plain, traced = (found(view_of(made(labels, lines, trace=t))) for t in (0.0, 5.0))
    share = (lines == "a").mean()
    for metric in ("readable", "readable_in_class"):
        assert plain["line", metric].null == pytest.approx(share, abs=0.06)
        assert plain["line", metric].value == pytest.approx(plain["line", metric].null, abs=0.06)
        assert traced["line", metric].value > 0.95
        assert traced["line", metric].low > traced["line", metric].null


def test_a_line_that_follows_from_the_class_is_read_over_all_and_not_within_classes(labels):
    rng = np.random.default_rng(2)
    lines = np.where(rng.random(N) < 0.85, np.where(labels == 0, "a", "b"), np.where(labels == 0, "b", "a"))
    told = found(view_of(made(labels, lines)))
    assert told["line", "readable"].low > told["line", "readable"].null
    within = told["line", "readable_in_class"]
    assert within.null == pytest.approx(0.85, abs=0.04)
    assert within.low <= within.null


def test_labels_as_groups_cannot_be_read_within_classes(labels, lines):
    told = found(view_of(made(labels, lines), groups="label"))
    assert told["label", "readable"].value > 0.95
    assert "two groups" in told["label", "readable_in_class"].reason


def test_images_without_a_line_are_not_compared(labels, lines):
    lines = [None if i % 4 == 0 else line for i, line in enumerate(lines)]
    view = view_of(made(labels, lines))
    told = found(view)
    kept = [i for i in view.comparison.split.test if lines[i] == "b"]
    assert told["line=b", "linear"].n[1] == len(kept)
    assert not any("None" in condition for condition, _ in told)


def test_small_groups_are_named_with_their_units(labels, lines):
    lines = lines.astype(object)
    lines[:3] = "rare"
    told = found(view_of(made(labels, lines)))
    assert "rare" in told["line", "linear"].reason
    assert f"fewer than {FEWEST}" in told["line", "linear"].reason
    assert ("line=rare", "linear") not in told


@pytest.mark.parametrize(
    ("lines", "groups", "reason"),
    [
        (["a"] * N, "line", "1 of 1 value of line reached 10 test units"),
        ([None] * N, "line", "No column 'line'"),
        (range(N), "line", "400 values for 400 images: it tells things, not groups"),
        (["a"] * N, "lime", "No column 'lime'"),
        (["a"] * N, None, "No labeled image has a group. Name a column"),
    ],
)
def test_what_cannot_be_compared_says_why(lines, groups, reason, labels):
    ((place, estimate),) = found(view_of(made(labels, list(lines)), groups=groups)).items()
    assert place[1] == "gap"
    assert estimate.value is None
    assert reason in estimate.reason


def test_groups_that_a_column_was_named_for_have_its_name(labels):
    view = view_of(made(labels, ["a"] * N, units=np.arange(N) // 8), groups=None)
    ((place, estimate),) = found(replace(view, images=replace(view.images, grouped_by="lot"))).items()
    assert place == ("lot", "gap")
    assert estimate.reason.startswith("0 of 50 values of lot reached 10 test units")


def test_a_source_group_that_names_each_thing_is_no_group(labels, lines):
    store = made(labels, lines, units=np.arange(N) // 2)
    ((_, estimate),) = found(view_of(store, groups=None)).items()
    assert "it tells things, not groups. Name a column with the knob groups=COLUMN" in estimate.reason


def test_groups_that_a_split_keeps_whole_are_judged_by_their_images(labels):
    units = np.arange(N) // 40  # ten lots of 40: a few of them are tested
    told = found(view_of(made(labels, units, units=units), groups=None))
    tested = [estimate for (_, metric), estimate in told.items() if metric == "linear" and estimate.value is not None]
    assert [estimate.n[1] for estimate in tested] == [40] * len(tested)
    assert len(tested) == 3
    assert told["group", "gap"].low is not None


def test_units_not_images_make_the_interval(labels):
    lines = np.repeat(np.array(["a", "b"]), N // 2)
    single = found(view_of(made(labels, lines, hard=("a", "b"))))["line=a", "linear"]
    labels = np.repeat(np.arange(N // 4) % 3, 4)
    store = made(labels, lines, hard=("a", "b"), units=np.arange(N) // 4)
    copied = EmbeddingStore(
        spec=SPEC, rows=store.rows(), vectors=store.vectors()[np.arange(N) // 4 * 4], facts=store.facts
    )
    grouped = found(view_of(copied))["line=a", "linear"]
    assert grouped.high - grouped.low > 1.5 * (single.high - single.low)


def test_the_same_seed_gives_the_same_and_another_one_other_exchanges(labels, lines):
    store = made(labels, lines, hard=("a", "b", "c"))
    first, again, other = (found(view_of(store, seed=seed)) for seed in (0, 0, 1))
    assert first == again
    assert first["line", "gap"].null != other["line", "gap"].null
    assert first["line", "gap"].value == other["line", "gap"].value


def test_every_measured_figure_can_be_compared_with_the_frozen_encoders(labels, lines):
    view = view_of(made(labels, lines, hard=("c",)))
    figures = {("groups", f.condition, f.metric): f for f in examine(view)}
    pairs = {f.metric: f.against_frozen for f in as_findings(figures, figures, view.comparison.resamples)}
    for metric in ("linear", "worst", "gap", "readable"):
        assert pairs[metric].value == 0
        assert pairs[metric].low == -pairs[metric].high
        assert (pairs[metric].high == 0) == (metric == "gap")  # shares that agree may differ on the next images
    assert {f.metric for f in figures.values() if isinstance(f.found, Measured) and f.lower_is_better} == {
        "gap",
        "standardized_gap",
        "readable",
        "readable_in_class",
    }


def test_constant_features_read_no_group():
    groups, labels = np.arange(60) % 2, np.arange(60) % 3
    images = Grouped.draw(groups, labels, np.arange(60), seed=0)
    reading = read_groups(np.ones((60, 4)), images)
    assert reading.chance == 0.5
    assert reading.hits.mean() <= 0.5
    assert read_within(np.ones((60, 4)), images, least=5) is not None
    assert read_within(np.ones((60, 4)), images, least=50) is None


def test_at_most_so_many_images_are_read_and_units_stay_whole():
    n = MOST + 502  # units of 3
    units = np.arange(n) // 3
    images = Grouped.draw(np.arange(n) % 2, np.zeros(n, np.int64), units, seed=0)
    assert MOST - 3 < len(images.rows) <= MOST
    assert (np.unique(images.units, return_counts=True)[1] == 3).all()
    assert all(len(set(images.parts[images.units == unit])) == 1 for unit in images.units[:30])
