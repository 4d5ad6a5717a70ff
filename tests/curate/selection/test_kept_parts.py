"""Finished parts: a killed search for near duplicates goes on, from its own parts only, to the same result."""

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
from selection_data import make_world
from test_near_duplicates import clumpy, copies, face, picture_store, run, store_of

from curate.selection import _near_duplicates as near
from curate.selection import _near_pairs, select
from curate.selection._folder import PARTS
from curate.selection._kept_parts import NAMES, NOTHING, STALE_S, KeptParts
from curate.selection._near_pairs import NearPairs
from embeddings.pipeline.locks import locked

N, LAST = 600, np.arange(560, 600)


class Killed(Exception):
    """What ends a run."""


@pytest.fixture
def small(monkeypatch):
    """Areas and parts of few images, so that there are some."""
    for module, name, value in SMALL:
        monkeypatch.setattr(module, name, value)


SMALL = ((near, "LEAF", 16), (near, "SAVED", 60), (_near_pairs, "EXACT", 50), (_near_pairs, "AREA", 60))


def search(work=None, *, seed=0, progress=lambda *_: None, order=None):
    return run(store_of(clumpy(N, seed=seed)), evaluation=LAST, work=work, progress=progress, order=order)


def as_lists(found):
    return found.kept_for.tolist(), found.cause.tolist(), found.facts


def kill_at(stage, done):
    def progress(at, count, total, note=""):
        if at == stage and count >= done:
            raise Killed

    return progress


def parts_in(work):
    return sorted(path.name for path in work.rglob("*.npz"))


class Counting:
    """Counts what is read or searched anew."""

    def __init__(self, monkeypatch):
        self.reads, self.settled, self.contaminated = 0, 0, 0
        of, leaf, contaminated = NearPairs.of.__func__, near._settle_leaf, near.contaminated

        def reading(cls, *args):
            self.reads += 1
            return of(cls, *args)

        def settling(pairs, rows, kept_for):
            self.settled += len(rows)
            leaf(pairs, rows, kept_for)

        def contaminating(*args):
            self.contaminated += 1
            return contaminated(*args)

        monkeypatch.setattr(NearPairs, "of", classmethod(reading))
        monkeypatch.setattr(near, "_settle_leaf", settling)
        monkeypatch.setattr(near, "contaminated", contaminating)


@pytest.mark.parametrize("done", [150, 300, 450])
def test_a_killed_search_goes_on_and_ends_the_same(small, tmp_path, monkeypatch, done):
    whole = as_lists(search())
    with pytest.raises(Killed):
        search(tmp_path, progress=kill_at(near.STAGE, done))
    assert parts_in(tmp_path) == ["areas.npz", "contaminated.npz", "settled.npz"]
    counts = Counting(monkeypatch)
    assert as_lists(search(tmp_path)) == whole
    assert (counts.reads, counts.contaminated) == (0, 0)
    assert 0 < counts.settled < N - done // 2
    assert parts_in(tmp_path) == ["near-duplicates.npz"]
    assert as_lists(search(tmp_path)) == whole
    assert counts.reads == 0


def test_a_process_that_is_killed_leaves_whole_parts_and_nothing_locked(tmp_path):
    script = (
        "import os, signal; from pathlib import Path; import numpy as np\n"
        "from curate.selection._kept_parts import KeptParts\n"
        f"parts = KeptParts(Path({str(tmp_path)!r}), 'work')\n"
        "with parts.held():\n"
        "    parts.write('part', {'a': np.arange(3)})\n"
        "    np.savez = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    parts.write('part', {'a': np.arange(4)})"
    )
    died = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    assert len(list(tmp_path.rglob(".part.npz.*.part"))) == 1
    parts = KeptParts(tmp_path, "work")
    with parts.held(lambda *_: pytest.fail("nobody is at work")):
        assert parts.read("part")["a"].tolist() == [0, 1, 2]
        assert parts_in(tmp_path) == ["part.npz"]
        assert list(tmp_path.rglob(".part.npz.*.part")) == []


@pytest.mark.parametrize("part", ["areas", "contaminated", "settled", "near-duplicates"])
@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_part_is_made_again(small, tmp_path, part, damage):
    whole = as_lists(search())
    if part == "near-duplicates":
        search(tmp_path)
    else:
        with pytest.raises(Killed):
            search(tmp_path, progress=kill_at(near.STAGE, 300))
    (path,) = tmp_path.rglob(f"{part}.npz")
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 255
    path.write_bytes({"cut": bytes(data[: len(data) // 2]), "changed": bytes(data), "empty": b""}[damage])
    assert as_lists(search(tmp_path)) == whole


@pytest.mark.parametrize("change", ["images", "order", "rule", "version"])
def test_parts_of_another_request_are_not_used(small, tmp_path, monkeypatch, change):
    search(tmp_path)
    counts, options = Counting(monkeypatch), {}
    if change == "images":
        options["seed"] = 1
    elif change == "order":
        options["order"] = np.arange(559, -1, -1)
    elif change == "rule":
        monkeypatch.setattr(near, "LEAF", 17)
    else:
        monkeypatch.setattr("curate.selection._kept_parts.VERSION", "curate.selection-parts/0")
    found = as_lists(search(tmp_path, **options))
    assert counts.reads == 1
    assert found == as_lists(search(**options))


@pytest.mark.parametrize("gone", ["1.jpg", ""])
def test_what_was_found_without_pictures_is_not_believed_once_they_are_back(tmp_path, monkeypatch, gone):
    folder, work, x = tmp_path / "pictures", tmp_path / "work", np.random.default_rng(0).normal(size=(40, 24))
    folder.mkdir()
    tones = {"0.png": face((250, 220, 190)), "1.jpg": face((250, 220, 190)), "2.png": face((190, 140, 100))}
    vectors = np.vstack([x[:1], copies(x, np.arange(1), 0.4), copies(x, np.arange(1), 0.1, seed=1)])
    stores = store_of(x[1:]), picture_store(folder, tones, vectors)
    whole = as_lists(run(*stores))
    (folder / gone).rename(tmp_path / "away")
    without = as_lists(run(*stores, work=work))
    assert without[0] != whole[0]
    counts = Counting(monkeypatch)
    assert as_lists(run(*stores, work=work)) == without
    assert counts.reads == 0
    (tmp_path / "away").rename(folder / gone)
    assert as_lists(run(*stores, work=work)) == whole
    assert counts.reads == 1


def test_a_killed_select_does_not_search_again_for_near_duplicates(tmp_path, monkeypatch):
    world, work = make_world(), tmp_path / "work"

    def chosen(out, **options):
        settings = {"budget": 30, "exclude": world.exclude, "report": world.report, "work": None, **options}
        select(world.target, world.pools, out=tmp_path / out, **settings)
        return [(tmp_path / out / name).read_bytes() for name in PARTS]

    whole = chosen("whole")
    with pytest.raises(Killed):
        chosen("killed", work=work, progress=kill_at("select", 0))
    assert parts_in(work) == ["near-duplicates.npz"]
    counts = Counting(monkeypatch)
    assert chosen("killed", work=work) == whole
    assert counts.reads == 0


def test_without_a_work_folder_nothing_is_written(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    search()
    assert list(tmp_path.iterdir()) == []
    NOTHING.write("part", {"a": np.arange(3)})
    assert NOTHING.read("part") is None


def test_of_two_searches_at_once_one_waits_for_the_other(small, tmp_path, monkeypatch):
    whole, counts, begun, waits = as_lists(search()), Counting(monkeypatch), Event(), Event()

    def first(at, done, total, note=""):
        if at == near.STAGE:
            begun.set()
            assert waits.wait(60)

    def second(at, done, total, note=""):
        if at == "wait":
            waits.set()

    with ThreadPoolExecutor() as threads:
        mine = threads.submit(search, tmp_path, progress=first)
        assert begun.wait(60)
        theirs = threads.submit(search, tmp_path, progress=second)
        assert as_lists(mine.result()) == as_lists(theirs.result()) == whole
    assert counts.reads == 1
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["near-duplicates.npz"]


def aged(folder, seconds):
    """The folder, its files so much older."""
    for path in folder.iterdir():
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - seconds))
    return folder


def test_what_killed_searches_left_goes_after_a_week(small, tmp_path):
    with pytest.raises(Killed):
        search(tmp_path, seed=1, progress=kill_at(near.STAGE, 300))
    young = next(tmp_path.rglob("areas.npz")).parent
    (young / ".settled.npz.a1b2c3d4.part").write_bytes(b"half")
    old, live, done = (shutil.copytree(young, young.with_name(letter * 32)) for letter in "abc")
    (done / "near-duplicates.npz").write_bytes(b"killed before the rest went")
    aged(done, STALE_S + 60)
    aged(old, STALE_S + 60)
    aged(live, STALE_S + 60)
    aged(young, STALE_S - 3600)
    mine = tmp_path / "selections" / "mine"
    mine.mkdir()
    (mine / "areas.npz").write_bytes(b"mine")
    aged(mine, 2 * STALE_S)
    with locked(live):
        search(tmp_path, seed=0)
        assert (live / "areas.npz").exists()
    assert not old.exists()
    assert [path.name for path in done.iterdir()] == ["near-duplicates.npz"]
    assert {path.name for path in young.iterdir()} >= {"areas.npz", "settled.npz"}
    assert (mine / "areas.npz").read_bytes() == b"mine"
    search(tmp_path, seed=1)  # goes on, and leaves its result alone
    assert [path.name for path in young.iterdir()] == ["near-duplicates.npz"]


def test_a_part_that_holds_objects_is_not_read(tmp_path):
    parts = KeptParts(tmp_path, "a")
    parts.write("part", {"a": np.arange(3)})
    (path,) = tmp_path.rglob("part.npz")
    for value, is_read in ((np.arange(3), True), (np.array([{"b": 1}], object), False)):
        np.savez(path, **{NAMES: np.array(["a"]), "a": value})
        assert (parts.read("part") is not None) == is_read


def test_a_changed_byte_anywhere_is_noticed_or_harmless(tmp_path):
    parts = KeptParts(tmp_path, "a")
    parts.write("part", {"a": np.arange(5)})
    (path,) = tmp_path.rglob("part.npz")
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        found = parts.read("part")
        assert found is None or {k: v.tolist() for k, v in found.items()} == {"a": [0, 1, 2, 3, 4]}
