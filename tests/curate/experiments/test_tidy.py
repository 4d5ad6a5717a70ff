import pyarrow as pa
import pytest
from study_examples import cell, drawn, shift_report, write_study

from curate.comparison import Comparison, Contender, Reading
from curate.experiments.tidy import FILE, RESULTS, TargetResults, results_table, write_results
from curate.results import Estimate
from embeddings import files

CELLS = [cell("near", seed=s) for s in (0, 1)] + [
    cell("far", seed=s, own=False, select="random", selection="random") for s in (0, 1)
]


@pytest.fixture
def results(tmp_path):
    right = drawn(CELLS, lambda one: 0.7, others={"finetuned:near~N500~s0": 0.8, "finetuned:lite0": 0.7})
    kinds = {"finetuned:near~N500~s0": "finetuned", "finetuned:lite0": "finetuned"}
    folder = write_study(tmp_path, CELLS, right, kinds=kinds)
    return TargetResults.open("mine", folder, CELLS)


def test_a_row_for_each_arm_set_and_metric(results):
    table = results_table([results], "abc")
    assert table.schema == RESULTS
    rows = table.to_pylist()
    assert len(rows) == 7 * 2
    assert {row["protocol"] for row in rows} == {"abc"}
    places = [(r["target"], r["labeled"], r["kind"], r["cell"], r["metric"]) for r in rows]
    assert places == sorted(places)
    (frozen,) = [r for r in rows if r["kind"] == "frozen" and r["metric"] == "linear"]
    assert (frozen["arm"], frozen["images"], frozen["against_frozen_value"]) == (None, None, None)
    (near,) = [r for r in rows if r["cell"] == "near~N500~s1" and r["metric"] == "linear"]
    assert (near["arm"], near["seed"], near["own"], near["select"], near["init"]) == (
        "near",
        1,
        True,
        "near-first",
        "public",
    )
    assert near["against_frozen_value"] == pytest.approx(near["value"] - frozen["value"])
    assert (near["label_equivalents"], near["label_equivalents_high"]) == (120.0, 150.0)
    (knn,) = [r for r in rows if r["cell"] == "near~N500~s1" and r["metric"] == "knn"]
    assert (knn["value"], knn["label_equivalents"], knn["against_frozen_value"]) == (0.5, None, None)


def test_a_run_fine_tuned_has_the_facts_of_its_cell_and_the_reference_has_none(results):
    tuned = [r for r in results_table([results]).to_pylist() if r["kind"] == "finetuned" and r["metric"] == "linear"]
    assert [(r["cell"], r["arm"]) for r in tuned] == [("finetuned:lite0", None), ("finetuned:near~N500~s0", "near")]


def test_what_was_asked_and_what_was_realized(results):
    files.write_json(
        results.folder / "runs" / "near~N500~s0" / "run.json", {"unique_images": 450, "samples_seen": 9_000}
    )
    rows = {r["cell"]: r for r in results_table([results]).to_pylist()}
    near, far = rows["near~N500~s0"], rows["far~N500~s0"]
    assert (near["budget"], near["images"], near["samples"], near["epochs"]) == (500, 450, 9_000, 20.0)
    assert (far["budget"], far["images"], far["samples"], far["epochs"]) == (500, 500, 10_000, 20.0)


def test_the_near_index_is_that_of_the_audit(results):
    figures = {name: Estimate(value=1.0) for name in ("distance", "mmd", "coverage")}
    reading = Reading(index=Estimate(value=12.5), **figures)
    contenders = tuple(Contender(method=m, n=3, readings={"lite0": reading}) for m in ("near-first", "random"))
    found = Comparison(encoder="lite0", seen=5, judging=5, contenders=contenders)
    found.save(results.folder / "selections" / "near-first")
    assert {r["near_index"] for r in results_table([results]).to_pylist() if r["arm"] == "near"} == {12.5}
    assert {r["near_index"] for r in results_table([results]).to_pylist() if r["arm"] != "near"} == {None}


def test_the_pools_index_is_the_mean_over_the_images(results):
    shift_report({"web": 10, "far": 40}).save(results.folder)
    table = pa.table({"source": ["web"] * 3 + ["far"] * 2 + ["target"] * 5})
    files.write_table(results.folder / "selections" / "near-first" / "selection.parquet", table)
    found = TargetResults.open("mine", results.folder, CELLS)
    rows = results_table([found]).to_pylist()
    assert {r["pools_index"] for r in rows if r["arm"] == "near"} == {(30 + 80) / 10}
    assert {r["pools_index"] for r in rows if r["arm"] != "near"} == {None}


def test_the_same_results_give_the_same_bytes(results, tmp_path):
    first, second = (write_results(results_table([results], "abc"), tmp_path / name) for name in ("one", "two"))
    assert first.name == FILE
    assert first.read_bytes() == second.read_bytes()
    assert files.read_table(first).schema == RESULTS
