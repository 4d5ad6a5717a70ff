import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.eval_report import ArmScore, EvalReport
from curate.results import (
    LEFT_OUT,
    SELECTION,
    Estimate,
    PoolScore,
    Run,
    Selection,
    ShiftReport,
)
from embeddings.errors import CorruptError, SourceError

ESTIMATE = Estimate(value=6.0, low=5.0, high=7.0, se=0.5, n=(10, 20), unit="u", method="m", null=0.0)
MISSING = Estimate(value=None, reason="too few images")


def report():
    pools = tuple(
        PoolScore(
            name=name, rank=i, verdict=verdict, n=10, index=ESTIMATE, metrics={"frechet": ESTIMATE, "coverage": MISSING}
        )
        for i, (name, verdict) in enumerate([("a", "same"), ("b", "near"), ("c", "far"), ("d", "unclear")], 1)
    )
    return ShiftReport(target={"n": 20}, encoder={"name": "lite0"}, pools=pools, floor=MISSING)


def selection(n=5):
    columns = {f.name: pa.nulls(n, f.type) for f in SELECTION}
    columns |= {
        "source": pa.array(["web", "open", "web", "target", "web"][:n]),
        "key": pa.array([f"k{i}" for i in range(n)]),
        "uri": pa.array(["a/b.png", "#7", "c.png", "t.png", "d.png"][:n]),
        "rank": pa.array(np.arange(n)),
        "stage": pa.array(np.zeros(n, np.int32)),
        "repeats": pa.array(np.zeros(n, np.int32)),
    }
    sources = {"web": "/data/web", "open": "/data/open.parquet#half=B", "target": "/data/target"}
    return Selection(
        table=pa.table(columns, schema=SELECTION),
        left_out=LEFT_OUT.empty_table(),
        facts={"method": "random", "budget": n},
        sources=sources,
    )


def test_a_shift_report_survives_its_json_and_its_folder(tmp_path):
    original = report()
    assert ShiftReport.from_json(json.loads(json.dumps(original.to_json()))) == original
    original.save(tmp_path)
    assert ShiftReport.open(tmp_path) == original
    assert original.near == ("a", "b")
    assert original["c"].verdict == "far"


def test_the_documented_json_keys_are_there():
    document = report().to_json()
    assert document["schema"] == "curate.score/1"
    assert {"target", "encoder", "pools", "floor"} <= document.keys()
    assert {"name", "rank", "verdict", "n", "index", "metrics"} <= document["pools"][0].keys()
    assert {"value", "low", "high", "se", "level", "n", "unit", "lower_is_closer", "method", "seed"} <= document[
        "floor"
    ].keys()


def test_an_evaluation_survives_its_folder(tmp_path):
    score = ArmScore(
        arm="near", labeled="x", kind="run", metrics={"linear": ESTIMATE}, against_frozen={}, label_equivalents=MISSING
    )
    original = EvalReport(scores=(score,), labeled={"x": {"n_train": 3}})
    original.save(tmp_path)
    assert EvalReport.open(tmp_path) == original


def test_a_selection_survives_its_folder_and_notices_a_change(tmp_path):
    original = selection()
    saved = original.save(tmp_path)
    opened = Selection.open(tmp_path)
    assert opened.table.equals(original.table)
    assert opened.digest == saved.digest == original.digest
    assert opened.counts() == {"web": 3, "open": 1, "target": 1}
    original.truncate(4).save(tmp_path / "other")
    (tmp_path / "selection.parquet").write_bytes((tmp_path / "other" / "selection.parquet").read_bytes())
    with pytest.raises(CorruptError, match="changed after it was written"):
        Selection.open(tmp_path)


def test_a_selection_from_before_digests_were_kept_opens(tmp_path):
    selection().save(tmp_path)
    old = pq.read_table(tmp_path / "selection.parquet").drop_columns(["sha256"])
    pq.write_table(old, tmp_path / "selection.parquet")
    table = Selection.open(tmp_path).table
    assert table.schema.equals(SELECTION)
    assert table["sha256"].null_count == 5


def test_truncation_keeps_the_lowest_ranks():
    part = selection().truncate(2)
    assert part.rows()["rank"].to_pylist() == [0, 1]
    assert part.digest != selection().digest


def test_paths_point_to_files_and_rows(tmp_path, image_folder, image_table, pictures):
    image_folder({"a.png": b""}, name="web")
    image_folder({"a.png": b""}, name="target")
    image_table(pictures(2), name="open.parquet")
    sources = {"web": f"{tmp_path}/web", "open": f"{tmp_path}/open.parquet#half=B", "target": f"{tmp_path}/target"}
    assert replace(selection(), sources=sources).to_paths()[:4] == [
        f"{tmp_path}/web/a/b.png",
        f"{tmp_path}/open.parquet#7",
        f"{tmp_path}/web/c.png",
        f"{tmp_path}/target/t.png",
    ]
    with pytest.raises(SourceError, match="/data/open"):
        selection().to_paths()


def test_a_foreign_or_unfinished_folder_is_refused(tmp_path):
    for kind in (Selection, Run, EvalReport, ShiftReport):
        with pytest.raises(SourceError if kind is Selection else CorruptError, match="is missing"):
            kind.open(tmp_path)
    (tmp_path / "run.json").write_text('{"schema": "curate.run/9"}')
    with pytest.raises(CorruptError, match=r"curate\.run/9"):
        Run.open(tmp_path)


def test_an_estimate_says_what_it_knows():
    assert str(ESTIMATE) == "6 (5 to 7)"
    assert str(MISSING) == "n/a (too few images)"


def told():
    columns = selection(3).table
    given = {
        "similarity": pa.array([0.9, 0.5, 0.7]),
        "score": pa.array([0.1, 0.2, 0.3]),
        "target_key": pa.array(["t1", "t2", "t3"]),
        "duplicates": pa.array([2, 1, 1]),
        "cost": pa.array([0.0, 0.02, 1234.5]),
        "reason": pa.array(["random: drawn"] * 3),
    }
    for name, values in given.items():
        columns = columns.set_column(columns.schema.get_field_index(name), SELECTION.field(name), values)
    lost = {"source": "open", "key": "k0", "code": "duplicate"}
    left_out = [{**lost, "reason": "duplicate of web/k0", "because_of": "web/k0"}]
    return replace(selection(), table=columns, left_out=pa.Table.from_pylist(left_out, schema=LEFT_OUT))


def test_every_image_is_explained_by_key_or_by_source_and_key():
    chosen = "was chosen, rank 0: random: drawn; its nearest target image is t1 (cosine 0.90)"
    left_out = "open/k0 was left out: duplicate of web/k0."
    assert told().explain("k0") == [f"web/k0 {chosen}; it stands for 2 images nearly the same.", left_out]
    assert told().explain("open/k0") == [left_out]
    assert told().explain("k1")[0].endswith("(cosine 0.50); it costs 0.02.")
    assert told().explain("k") == []


def test_a_nearer_part_needs_no_new_selection():
    near = told().at_least(0.7)
    assert near.rows()["key"].to_pylist() == ["k0", "k2"]
    assert near.rows()["rank"].to_pylist() == [0, 2]
    assert near.facts["least_similarity"] == 0.7
    assert near.digest != told().digest
    assert near.truncate(1).rows()["key"].to_pylist() == ["k0"]
    assert len(told().at_least(0.95)) == 0
