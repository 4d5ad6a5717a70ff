"""What is finished is read, what has changed is measured again, and nothing in between."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import safetensors.numpy
from test_evaluate import QUALITY, Gallery, spec_of

import curate
import embeddings
from curate.evaluation import (
    _arm_result,
    _comparison,
    _images,
    _intervals,
    _kept,
    _label_equivalents,
    arms,
    evaluate,
)
from curate.evaluation._kept import Kept, NoMemory
from curate.evaluation.examinations import _over_draws
from curate.evaluation.settings import Settings
from curate.pretraining import trained_on
from embeddings import files
from embeddings.errors import ForeignFolderError
from embeddings.pipeline.locks import locked


@dataclass(frozen=True)
class Pair:
    left: object
    right: object


@dataclass(frozen=True)
class Stranger:
    left: object


def kept(folder, **document):
    return Kept(folder, (Pair,)).on(lambda: document)


def refuse():
    raise AssertionError("it was made again")


def same(a, b):
    """Equal values of equal types, arrays to the bit."""
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    elif isinstance(a, Pair):
        same((a.left, a.right), (b.left, b.right))
    elif isinstance(a, dict):
        assert list(a) == list(b)
        same(list(a.values()), list(b.values()))
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            same(one, other)
    elif isinstance(a, pa.Table):
        assert a.schema == b.schema
        assert a.equals(b)
    else:
        assert a == b


VALUES = [
    None,
    [True, 3, -0.0, 0.1 + 0.2, 1e-320, float("inf"), "ä%s"],
    (1, [2, (3,)], {}),
    {("a", 1): {"x": None}, "b": ()},
    Pair(np.arange(6.0)[::-2], {"nested": Pair(np.zeros((0, 3), np.float32), np.array([True, False]))}),
    np.arange(12, dtype=np.int64).reshape(3, 4).T,
    pa.table({"key": pa.array(["a", None]), "n": pa.array([1, 2], pa.int32())}),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_is_found_again_as_it_was(tmp_path, value):
    same(kept(tmp_path)("it", lambda: value), value)
    same(kept(tmp_path)("it", refuse), value)


def test_numbers_of_numpy_come_back_as_plain_ones_and_equal_arrays_are_written_once(tmp_path):
    kept(tmp_path)("it", lambda: [np.float64(0.1), np.int64(3), np.bool_(True)])
    same(kept(tmp_path)("it", refuse), [0.1, 3, True])
    kept(tmp_path / "many")("it", lambda: [np.arange(1000.0) for _ in range(50)])
    (path,) = (tmp_path / "many").iterdir()
    assert path.stat().st_size < 3 * 8000


def test_it_is_found_under_the_same_name_documents_and_code_alone(tmp_path, monkeypatch):
    memory, made = kept(tmp_path, seed=0), []

    def make():
        made.append(1)
        return len(made)

    assert [memory("a", make), memory("a", make), memory("b", make), memory("a", make)] == [1, 1, 2, 1]
    assert [kept(tmp_path, seed=1)("a", make), memory.on(lambda: {"arm": 1})("a", make)] == [3, 4]
    monkeypatch.setattr(_kept, "code_digest", lambda: "another line")
    assert kept(tmp_path, seed=0)("a", make) == 5
    assert NoMemory().on(refuse)("a", make) == 6


def test_the_code_is_that_of_both_packages_and_of_the_libraries(monkeypatch):
    read, digest_file = set(), files.digest_file
    monkeypatch.setattr(files, "digest_file", lambda path: read.add(path) or digest_file(path))
    code = _kept.code_digest.__wrapped__
    found = code()
    assert found == _kept.code_digest()
    assert len(found) == 64
    roots = [Path(package.__file__).parent for package in (curate, embeddings)]
    assert read == {path for root in roots for path in root.rglob("*.py")}
    installed = _kept.version
    digests = []
    for told in ("2.0", "2.1", "2.1+cpu"):  # torch as it was built for one device is no other torch
        monkeypatch.setattr(_kept, "version", lambda name, told=told: told if name == "torch" else installed(name))
        digests.append(code())
    assert digests[0] != digests[1] == digests[2]
    monkeypatch.setattr(files, "digest_file", lambda path: digest_file(path) + "-" * (path.name == "schedule.py"))
    assert code() != digests[2]


def test_what_nobody_asked_for_is_forgotten_and_nothing_else(tmp_path):
    kept(tmp_path, labels="old")("arm", lambda: 1)
    (tmp_path / "note.txt").touch()
    memory = Kept(tmp_path, ())
    assert memory.on(lambda: {"labels": "new"})("arm", lambda: 2) == 2
    memory.forget_others()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".safetensors", ".txt"]
    assert kept(tmp_path, labels="new")("arm", refuse) == 2


def test_arrays_of_any_byte_order_are_found_again(tmp_path):
    value = Pair(np.arange(3, dtype=">f8"), np.array([True]))
    kept(tmp_path)("it", lambda: value)
    found = kept(tmp_path)("it", refuse)
    assert found.left.tolist() == [0, 1, 2]
    assert found.left.dtype == "<f8"
    same(found.right, value.right)


@pytest.mark.parametrize("tree", ["[" * 100_000 + "]" * 100_000, '{"Pair": []}', "{}"], ids=["deep", "list", "empty"])
def test_a_tree_that_nobody_wrote_is_made_anew(tmp_path, tree, caplog):
    kept(tmp_path)("it", lambda: 1)
    (path,) = tmp_path.iterdir()
    facts = {"schema": _kept.SCHEMA, "tree": tree, "sha256": files.digest_bytes(tree.encode())}
    path.write_bytes(safetensors.numpy.save({}, metadata=facts))
    assert kept(tmp_path)("it", lambda: 2) == 2
    assert "made anew" in caplog.text


@pytest.mark.parametrize("harm", ["cut", "emptied", "a flipped bit of an array", "a flipped bit of the tree"])
def test_a_damaged_file_is_made_anew_with_a_warning(tmp_path, harm, caplog):
    value = Pair(np.arange(100.0), "a text in the tree")
    kept(tmp_path)("it", lambda: value)
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    at = data.index(b"text in the tree") if harm.endswith("tree") else len(data) - 5
    data[at] ^= 1
    path.write_bytes({"cut": bytes(data[:-8]), "emptied": b""}.get(harm, bytes(data)))
    same(kept(tmp_path)("it", lambda: value), value)
    assert "made anew" in caplog.text
    same(kept(tmp_path)("it", refuse), value)


def test_what_cannot_be_kept_is_refused_and_leaves_no_file(tmp_path):
    with pytest.raises(TypeError, match="A Stranger cannot be kept"):
        kept(tmp_path)("it", lambda: [Stranger(1)])
    assert not list(tmp_path.iterdir())


def test_a_process_killed_between_two_results_leaves_the_rest_to_the_next(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from curate.evaluation._kept import Kept\n"
        "memory = Kept(Path(sys.argv[1]), ()).on(lambda: {'seed': 0})\n"
        "for i in range(4):\n"
        "    memory(f'arm {i}', lambda: [i] if i < 2 else os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=os.environ, check=False)
    assert ended.returncode == -signal.SIGKILL
    made, memory = [], Kept(tmp_path, ()).on(lambda: {"seed": 0})
    assert [memory(f"arm {i}", lambda i=i: made.append(i) or [i]) for i in range(4)] == [[0], [1], [2], [3]]
    assert made == [2, 3]


@pytest.fixture
def gallery(monkeypatch):
    """Labeled vectors, encoders that are never built, and few resamples, which cost the most here."""
    stand_in = Gallery()
    monkeypatch.setattr(_images, "as_store", stand_in.as_store)
    monkeypatch.setattr(_arm_result.registry, "encoder_spec", spec_of)
    for module in (_intervals, _over_draws):
        monkeypatch.setattr(module, "DRAWS", 40)
    monkeypatch.setattr(_label_equivalents, "SUBSETS", 2)
    stand_in.add("set", 60)
    return stand_in


def write_runs(folder):
    """Folders of three runs."""
    for noise in (1, 2, 3):
        run = {"schema": "curate.run/1", "samples_seen": 1000}
        files.write_json(folder / f"run-{noise}" / "run.json", run)
        (folder / f"run-{noise}" / "backbone.safetensors").write_bytes(b"weights")
    return {f"arm{noise}": folder / f"run-{noise}" for noise in (1, 2, 3)}


@pytest.fixture
def runs(tmp_path):
    return write_runs(tmp_path)


@pytest.fixture
def probed(monkeypatch):
    """Every set of features that was probed, as they come."""
    found, probe = [], _comparison.Comparison.probe

    def counted(self, features):
        found.append(features)
        return probe(self, features)

    monkeypatch.setattr(_comparison.Comparison, "probe", counted)
    return found


ALSO = {"also": ("labels", "rare"), "settings": Settings(seeds=2, fractions=(20.0, 100.0))}


def whole(report):
    """A report with its tables."""
    return report.to_json(), report.predictions.to_pylist(), report.label_lists.to_pylist()


def test_a_second_call_measures_nothing_and_says_the_same_to_the_bit(gallery, runs, tmp_path, monkeypatch):
    fresh = evaluate(runs, {"set": "set"}, **ALSO)
    first = evaluate(runs, {"set": "set"}, **ALSO, kept=tmp_path / "kept")
    for module, name in ((arms, "check_leaks"), (arms, "examine"), (_comparison.Comparison, "probe")):
        monkeypatch.setattr(module, name, lambda *_, **__: refuse())
    again = evaluate(runs, {"set": "set"}, **ALSO, kept=tmp_path / "kept")
    assert whole(fresh) == whole(first) == whole(again)
    for name, report in (("fresh", fresh), ("again", again)):
        report.save(tmp_path / name)
    written = [{p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("fresh", "again")]
    assert written[0] == written[1]
    assert len(written[0]) == 3


def test_a_call_that_was_stopped_goes_on_and_a_new_arm_is_measured_alone(gallery, runs, tmp_path, probed):
    fresh = evaluate(runs, {"set": "set"}, **ALSO)

    def stop(stage, done, total, note=""):
        if note.startswith("arm2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(runs, {"set": "set"}, **ALSO, kept=tmp_path / "kept", progress=stop)
    for left in (2, 0):
        probed.clear()
        gallery.calls.clear()
        again = evaluate(runs, {"set": "set"}, **ALSO, kept=tmp_path / "kept")
        assert len(probed) == left
        embedded = {encoder for _, encoder in gallery.calls}
        assert embedded == {"lite0", *(f"run:{run}" for run in list(runs.values())[3 - left :])}
        assert whole(fresh) == whole(again)


def test_one_call_at_a_time_works_in_a_folder_and_takes_away_what_killed_ones_left(gallery, tmp_path):
    folder = tmp_path / "kept"
    folder.mkdir()
    cut = folder / ".0123-arm.safetensors.abcd1234.part"
    cut.touch()
    other = ExitStack()
    other.enter_context(locked(folder))
    waited = []

    def wait(stage, done, total, note=""):
        if "another process" in note:
            waited.append(cut.exists())  # the other process may be writing it
            other.close()

    evaluate({}, {"set": "set"}, kept=folder, progress=wait)
    assert waited == [True]
    cut.touch()

    def look(stage, done, total, note=""):
        with pytest.raises(ForeignFolderError), locked(folder):
            pass
        seen.append(cut.exists())

    seen = []
    evaluate({}, {"set": "set"}, kept=folder, progress=look)
    assert seen
    assert not any(seen)
    assert all(path.suffix == ".safetensors" for path in folder.iterdir())
    evaluate({}, {"set": "set"}, kept=folder, seed=1)
    with locked(folder):
        pass


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder of three runs and what was kept of their evaluation."""
    folder = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch:
        gallery.__wrapped__(patch)
        evaluate(write_runs(folder), {"set": "set"}, kept=folder / "kept")
    return folder


@pytest.mark.parametrize(
    ("change", "measured"),
    [
        ("where runs and images lie", 0),
        ("one run fewer", 0),
        ("the weights of a run", 1),
        ("what a run says of itself", 1),
        ("the images that a run says it saw", 1),
        ("the untrained twin", 1),
        ("a label", 5),
        ("the frozen features", 5),
        ("the seed", 5),
        ("a knob", 5),
        ("the examinations", 5),
        ("folds", 5),
    ],
)
def test_what_has_changed_is_measured_again_and_no_more(
    gallery, begun, probed, tmp_path, monkeypatch, change, measured
):
    shutil.copytree(begun, tmp_path / "moved")
    runs = {f"arm{noise}": tmp_path / "moved" / f"run-{noise}" for noise in (1, 2, 3)}
    before = set((tmp_path / "moved" / "kept").iterdir())
    if change == "one run fewer":
        del runs["arm2"]
    options = _alter(change, gallery, runs, monkeypatch)
    report = evaluate(runs, {"set": "set"}, **options, kept=tmp_path / "moved" / "kept")
    assert len(probed) == measured
    assert len(report.scores) == 2 + len(runs)
    after = set((tmp_path / "moved" / "kept").iterdir())
    assert len(before - after) == {0: len(before) - len(after), 1: 1, 5: len(before)}[measured]


def _alter(change, gallery, runs, monkeypatch):
    """Makes the change; returns the options of the next call."""
    keys, truth, named = gallery.labels["set"]
    if change == "a label":
        gallery.labels["set"] = keys, truth, [*named[:-1], "a" if named[-1] != "a" else "b"]
    elif change == "the frozen features":
        monkeypatch.setitem(QUALITY, "lite0", 1.5)
    elif change == "the weights of a run":
        (runs["arm2"] / "backbone.safetensors").write_bytes(b"others")
    elif change == "what a run says of itself":
        files.write_json(runs["arm2"] / "run.json", {"schema": "curate.run/1", "samples_seen": 1000, "seconds": 3.0})
    elif change == "the images that a run says it saw":
        files.write_table(runs["arm2"] / trained_on.NAME, trained_on.TRAINED_ON.empty_table())
    elif change == "the untrained twin":  # one of a name changes with the code alone, which is in every digest
        monkeypatch.setitem(QUALITY, "random", 6.0)
        frozen, twin = arms._references("lite0")
        monkeypatch.setattr(arms, "_references", lambda encoder: [frozen, replace(twin, encoder="random")])
    elif change == "where runs and images lie":
        plain = gallery.as_store
        monkeypatch.setattr(_images, "as_store", lambda *a, **k: _elsewhere(plain(*a, **k)))
    options = {"the seed": {"seed": 1}, "the examinations": {"also": ("rare",)}}
    knobs = {"a knob": {"settings": Settings(label_price=2.0)}, "folds": {"settings": Settings(folds=2)}}
    return {**options, **knobs}.get(change, {})


def _elsewhere(store):
    column = store.rows().schema.get_field_index("uri")
    store._rows = store.rows().set_column(column, "uri", pa.array([f"/new/{key}" for key in store.column("key")]))
    return store


def test_a_file_that_an_examination_reads_counts_by_what_is_in_it(gallery, tmp_path, probed):
    costs = tmp_path / "costs.csv"
    asked = {"also": ("rare",), "settings": Settings(costs=str(costs)), "kept": tmp_path / "kept"}
    lines = [",a,b,c,d", "a,0,1,1,1", "b,1,0,1,1", "c,1,1,0,1"]
    reports = []
    for last in ("d,1,1,1,0", "d,9,9,9,0"):
        costs.write_text("\n".join([*lines, last]))
        reports.append(evaluate({}, {"set": "set"}, **asked).to_json())
    assert len(probed) == 4
    assert reports[0] != reports[1]
