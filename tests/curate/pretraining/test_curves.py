import errno

import pytest

from curate.pretraining.curves import MAX_ROWS, Curves, read_curves
from embeddings.errors import StorageError


def fill(curves, steps, first=0):
    for step in range(first, steps):
        if curves.wants(step):
            curves.append({"samples_seen": 10 * (step + 1), "loss": 1.0})


def test_short_runs_log_every_step_and_read_back(tmp_path):
    curves = Curves(tmp_path / "c.jsonl", steps=5)
    fill(curves, 5)
    assert [row["samples_seen"] for row in read_curves(tmp_path / "c.jsonl")] == [10, 20, 30, 40, 50]
    assert read_curves(tmp_path / "c.jsonl") == curves.rows


def test_long_runs_are_thinned_and_keep_the_last_step(tmp_path):
    curves = Curves(tmp_path / "c.jsonl", steps=2501)
    fill(curves, 2501)
    assert len(curves.rows) <= MAX_ROWS
    assert curves.rows[-1]["samples_seen"] == 25_010


def test_a_restart_forgets_what_came_after_the_checkpoint(tmp_path):
    path = tmp_path / "c.jsonl"
    fill(Curves(path, steps=9), 7)
    curves = Curves(path, steps=9, samples_seen=40)
    assert [row["samples_seen"] for row in curves.rows] == [10, 20, 30, 40]
    fill(curves, 9, first=4)
    assert [row["samples_seen"] for row in read_curves(path)] == [10 * i for i in range(1, 10)]


def test_a_line_cut_off_by_a_crash_is_dropped(tmp_path):
    path = tmp_path / "c.jsonl"
    fill(Curves(path, steps=3), 3)
    path.write_text(path.read_text()[:-4])
    assert len(read_curves(path)) == 2
    assert len(Curves(path, steps=3, samples_seen=30).rows) == 2


def test_no_space_is_said_in_words(tmp_path, monkeypatch):
    curves = Curves(tmp_path / "c.jsonl", steps=3)

    def refuse(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(tmp_path), "open", refuse)
    with pytest.raises(StorageError, match="No space left"):
        curves.append({"samples_seen": 1, "loss": 1.0})
