"""What goes wrong in a run, through the command line: one clear message each, and earlier checkpoints stay."""

import errno
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from curate.cli import main
from curate.pretraining import loop
from curate.pretraining.trainer import Trainer
from curate.results import Selection
from embeddings import files

SAMPLES = 40  # 10 steps of 4


@pytest.fixture
def chosen(select, image_folder, pictures, tmp_path):
    """``chosen(n)``: the folder of a saved selection of n images, and that of the images."""

    def _chosen(n):
        root = image_folder(pictures(n, classes=("",), size=(24, 20)), f"images{n}")
        return select(root).save(tmp_path / f"chosen{n}").path, root

    return _chosen


@pytest.fixture
def curate(capsys, monkeypatch, tmp_path):
    """``curate(selection, *words)`` -> (exit code, all that was printed on one line)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "CHECKPOINTS", 5)

    def run(selection, *words, samples=SAMPLES, out="run"):
        knobs = [part for word in ("size=28", "batch=4", *words) for part in ("--set", word)]
        with pytest.raises(SystemExit) as stopped:
            main(["pretrain", "--selection", str(selection), "--samples", str(samples), "--out", out, *knobs])
        told = capsys.readouterr()
        return stopped.value.code, re.sub(r"[\s│]+", " ", told.out + told.err)

    return run


def checkpoints(out="run"):
    return sorted(path.stem for path in (Path(out) / "checkpoints").glob("*.safetensors"))


def break_off(monkeypatch, at):
    """The process dies in a step."""
    plain, calls = Trainer.step, []

    def step(self, sample, *, share, **sizes):
        calls.append(share)
        if len([c for c in calls if c]) == at:
            raise RuntimeError("power cut")
        return plain(self, sample, share=share, **sizes)

    monkeypatch.setattr(Trainer, "step", step)


def test_a_selection_of_one_image(curate, chosen):
    code, said = curate(chosen(1)[0])
    assert code == 2
    assert "at least 8 images" in said
    assert "there are 1" in said
    assert not Path("run").exists()


def test_fewer_images_than_a_batch_train_in_smaller_ones(curate, chosen, caplog):
    code, _ = curate(chosen(12)[0], "batch=64")
    assert code == 0
    assert "batch is 3 instead of 64" in caplog.text
    assert json.loads(Path("run/run.json").read_text())["samples_seen"] == SAMPLES


def test_less_than_one_batch_of_samples(curate, chosen):
    code, said = curate(chosen(16)[0], samples=3)
    assert code == 2
    assert "3 samples are less than one batch of 4" in said
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("damage", "reason"), [("gone", "No such file|is gone|missing|not found"), ("other", "changed")]
)
def test_a_source_file_that_is_missing_or_has_changed(curate, chosen, encode, damage, reason):
    folder, root = chosen(30)
    hurt = sorted(root.rglob("*.png"))[3]
    whole = Selection.open(folder)
    digests = pa.array([files.digest_file(root / key) for key in whole.table["key"].to_pylist()])
    position = whole.table.column_names.index("sha256")
    table = whole.table.set_column(position, "sha256", digests)
    Selection(table=table, left_out=whole.left_out, facts=whole.facts, sources=whole.sources).save(folder)
    if damage == "gone":
        hurt.unlink()
    else:
        hurt.write_bytes(encode(np.zeros((20, 24, 3), np.uint8)))
    code, said = curate(folder)
    assert code == 0
    assert "1 of 30 selected images cannot be read" in said
    errors = pq.read_table("run/errors.parquet").to_pylist()
    assert [row["key"] for row in errors] == [hurt.name]
    assert re.search(reason, errors[0]["reason"])


def test_no_space_for_a_checkpoint_keeps_the_earlier_ones(curate, chosen, monkeypatch):
    folder, plain = chosen(16)[0], Path.write_bytes
    assert curate(folder, out="whole")[0] == 0

    def write(self, data):
        if len(checkpoints()) == 2 and "step-" in self.name:
            plain(self, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(self, data)

    monkeypatch.setattr(Path, "write_bytes", write)
    code, said = curate(folder)
    assert code == 1
    assert "No space left to write" in said
    assert "it continues" in said
    assert checkpoints() == ["step-000000002", "step-000000004"]
    monkeypatch.setattr(Path, "write_bytes", plain)
    assert curate(folder)[0] == 0
    assert_same("whole", "run")


def test_a_checkpoint_cut_in_half_is_told_and_the_one_before_taken(curate, chosen, monkeypatch, caplog):
    folder, plain = chosen(16)[0], Trainer.step
    assert curate(folder, out="whole")[0] == 0
    break_off(monkeypatch, 7)
    assert curate(folder)[0] == 1
    monkeypatch.setattr(Trainer, "step", plain)
    newest = Path("run/checkpoints") / f"{checkpoints()[-1]}.safetensors"
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    assert curate(folder)[0] == 0
    assert f"{newest.stem} does not read back" in caplog.text
    assert_same("whole", "run")


def test_a_loss_that_is_not_finite(curate, chosen):
    folder = chosen(16)[0]
    code, said = curate(folder, "optimizer=sgd", "learning_rate=1e30", "warmup=0.9")
    assert code == 1
    assert "diverged" in said
    assert "learning_rate" in said
    assert not Path("run/run.json").exists()


def assert_same(one, two):
    first, second = (load_file(Path(name) / "backbone.safetensors") for name in (one, two))
    assert all((first[name] == second[name]).all() for name in first)
