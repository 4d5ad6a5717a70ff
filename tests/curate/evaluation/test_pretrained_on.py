"""Test images that a run was pretrained on are counted, told, and refused where they are most of them."""

from __future__ import annotations

import pyarrow as pa
import pytest
from test_evaluate import Gallery

from curate.evaluation import _images, evaluate, verdicts
from curate.evaluation._pretrained_on import SEEN, count_pretrained_on, require_mostly_new
from curate.evaluation.settings import Settings
from curate.pretraining.trained_on import NAME, TRAINED_ON
from embeddings import files
from embeddings.errors import CorruptError, UsageError

TEST = [f"t{i:03d}" for i in range(20)]


def listed(folder, *digests):
    """A run's table; digests are pairs (sha256, pixels)."""
    rows = [{"source": "pool", "key": "k", "sha256": file, "pixels": picture} for file, picture in digests]
    files.write_table(folder / NAME, TRAINED_ON.empty_table().from_pylist(rows, schema=TRAINED_ON))
    return folder


def rows_of(*digests):
    """Rows of a store, as far as they matter; digests are triples (sha256, pixels, file)."""
    columns = zip(*digests, strict=True)
    return pa.table(
        {name: pa.array(c, pa.string()) for name, c in zip(("sha256", "pixels", "file"), columns, strict=True)}
    )


def run_in(folder, *digests):
    files.write_json(folder / "run.json", {"schema": "curate.run/1", "samples_seen": 1000, "config": {}})
    return listed(folder, *digests)


@pytest.fixture
def gallery(monkeypatch):
    stand_in = Gallery()
    stand_in.add("train")
    stand_in.add("test", n=len(TEST), prefix="t")
    monkeypatch.setattr(_images, "as_store", stand_in.as_store)
    return stand_in


@pytest.mark.parametrize(
    ("run", "count"),
    [
        ([], 0),
        ([("x", "y")], 0),
        ([("s1", "y")], 1),  # the same file
        ([("x", "p2"), ("x", "p3")], 2),  # the same picture in another file
        ([("f3", "y")], 1),  # the image that the test image was cut from
        ([("s1", "p1"), ("s1", "p2")], 2),  # one image counts once
        ([("s1", None), (None, "p2")], 2),
        ([("s1", "y"), (None, None)], 1),  # at least
        ([("x", "y"), (None, None)], None),
        ([(None, None)], None),
    ],
)
def test_files_and_pictures_are_counted(tmp_path, run, count):
    rows = rows_of(("s1", "p1", None), ("s2", "p2", None), ("s3", "p3", "f3"), (None, None, None))
    assert count_pretrained_on(listed(tmp_path, *run), rows) == count


def test_what_a_folder_does_not_tell(tmp_path):
    rows = rows_of(("s1", "p1", None))
    assert count_pretrained_on(tmp_path, rows) is None
    (tmp_path / NAME).write_bytes(b"no table")
    with pytest.raises(CorruptError):
        count_pretrained_on(tmp_path, rows)


@pytest.mark.parametrize("count", [None, 0, 10, 11])
def test_more_than_half_is_refused(count):
    if count != 11:
        require_mostly_new("near", "set", count, 20)
        return
    with pytest.raises(UsageError, match="'near' was pretrained on 11 of 20 test images of 'set'") as caught:
        require_mostly_new("near", "set", count, 20)
    assert "--exclude" in caught.value.hint


def test_it_is_a_fact_and_a_sentence_of_that_arm_alone(gallery, tmp_path):
    old = tmp_path / "old-2"
    files.write_json(old / "run.json", {"schema": "curate.run/1", "samples_seen": 1000, "config": {}})
    runs = {
        "near": run_in(tmp_path / "near-1", *((f"test{key}", None) for key in TEST[:3]), ("traink000", "x")),
        "apart": run_in(
            tmp_path / "apart-1", ("traink001", "traink001"), ("x", "y")
        ),  # training images are not counted
        "old": old,
    }
    report = evaluate(runs, {"set": "train::test"})
    assert {s.arm: s.facts.get(SEEN, "-") for s in report.scores} == {
        "frozen:lite0": "-",
        "untrained:lite0": "-",
        "near": 3,
        "apart": 0,
        "old": None,
    }
    told = "set: careful: near was pretrained on 3 of 20 test images (without labels), so its figures may be too good."
    assert [line for line in verdicts(report) if "pretrained" in line] == [told]


def test_a_run_that_knows_most_test_images_is_refused_before_it_is_embedded(gallery, tmp_path):
    run = run_in(tmp_path / "near-1", *((None, f"test{key}") for key in TEST[:11]))
    with pytest.raises(UsageError, match="'near' was pretrained on 11 of 20 test images of 'set'"):
        evaluate({"near": run}, {"set": "train::test"})
    assert gallery.calls == [("train", "lite0"), ("test", "lite0")]


def test_of_folds_the_report_reminds_of_it_where_it_is_not_known(gallery, tmp_path):
    run = run_in(tmp_path / "near-1", ("x", "y"))
    sets, settings = {"set": gallery.add("few", n=60)}, Settings(folds=2)
    reminder = "Every labeled image was tested"
    assert not any(line.startswith(reminder) for line in verdicts(evaluate({"near": run}, sets, settings=settings)))
    listed(run, ("x", "y"), (None, None))
    assert verdicts(evaluate({"near": run}, sets, settings=settings))[-1].startswith(reminder)
