"""Images decoded at every visit: the same run as from kept ones, stand-ins for those that fail, and what is kept."""

import json
import logging
import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from shard_files import write
from together import together

from curate.exports.originals import open_sources
from curate.pretraining import loop, plan, pretrain, require_most_images, streaming, supply
from curate.pretraining.execution import Execution
from curate.pretraining.images import load_images
from curate.pretraining.run_folder import RUN
from curate.pretraining.streaming import Failures, ImageStream
from curate.pretraining.supply import Footprint, Waiting, open_images
from curate.pretraining.trainer import Trainer
from curate.results import Run
from embeddings.errors import ForeignFolderError, PartialError, TrainingError, UsageError
from embeddings.pictures.tiles import Box, tile_uri
from embeddings.progress import silent

N, SAMPLES = 16, 42  # 11 steps of at most 4


def stream(chosen, folder, edge=10, **options):
    return ImageStream(chosen.rows(), open_sources(chosen), folder, edge=edge, **options)


def run(chosen, out, **options):
    return pretrain(chosen, out=out, **{"samples": SAMPLES, "batch": 4, "device": "cpu", "cache": 0, **options})


def weights(run):
    return load_file(run.path / "backbone.safetensors")


def assert_equal_weights(one, two):
    first, second = weights(one), weights(two)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def ring(found, row):
    """The rows that follow one by hash within its stage, written out plainly."""
    stages, hashes = found.facts.stages.tolist(), found.facts.hashes.tolist()
    members = sorted((hashes[i], i) for i in range(len(hashes)) if stages[i] == stages[row])
    place = members.index((hashes[row], row))
    return [i for _, i in members[place + 1 :] + members[:place]]


@pytest.fixture(scope="module")
def chosen(select, pictures, tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for path, data in pictures(N, classes=("",), size=(24, 20)).items():
        (root / path).write_bytes(data)
    return select(root)


@pytest.fixture(scope="module")
def kept(chosen, tmp_path_factory):
    """A run from images that were decoded once."""
    return run(chosen, tmp_path_factory.mktemp("kept") / "run", cache=1)


@pytest.fixture
def breakable(select, image_folder, pictures):
    """A selection in two stages, and the folder of its images."""
    root = image_folder(pictures(N, classes=("",), size=(24, 20)))
    found = select(root)
    stages = pa.array(np.arange(N) % 2, pa.int32())
    place = found.table.schema.get_field_index("stage")
    return replace(found, table=found.table.set_column(place, "stage", stages)), root


# ---------------------------------------------------------------------------------------------- the same as kept ones


@pytest.mark.parametrize("workers", [1, 3, None])
def test_pixels_are_those_of_the_kept_images(chosen, tmp_path, workers):
    found = stream(chosen, tmp_path / "s", workers=workers)
    block = load_images(chosen.rows(), open_sources(chosen), tmp_path / "k", edge=10, progress=silent)
    rows = np.array([3, 0, 15, 3, 8])
    assert np.array_equal(found.read(rows), block.read(rows))
    assert found.read(rows).shape == (5, 3, 10, 10)
    assert np.array_equal(found.facts.hashes, block.facts.hashes)
    assert len(found) == N
    assert len(found.errors) == 0
    assert found.read(np.array([], np.int64)).shape == (0, 3, 10, 10)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_streamed_run_ends_in_the_same_weights(chosen, kept, tmp_path, workers):
    found = run(chosen, tmp_path / "run", workers=workers)
    assert_equal_weights(found, kept)
    assert (found.path / "curves.jsonl").read_bytes() == (kept.path / "curves.jsonl").read_bytes()
    assert found.facts["streamed"]
    assert not kept.facts["streamed"]
    assert not (found.path / "images").exists()


def files_of(root, made):
    for path, data in made.items():
        (root / path).write_bytes(data)
    return root


def tar_of(root, made):
    return write(root / "web.tar", made)


def parquet_of(root, made):
    table = pa.table({"key": list(made), "image": [{"bytes": data, "path": path} for path, data in made.items()]})
    pq.write_table(table, root / "t.parquet", row_group_size=5)
    return root / "t.parquet"


def list_of(root, made):
    (files_of(root, made) / "list.txt").write_text("\n".join(made))
    return root / "list.txt"


def saved_of(root, made):
    """What save_to_disk of the datasets library writes."""
    (root / "saved").mkdir()
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": "train"}
    (root / "saved" / "state.json").write_text(json.dumps(state))
    (root / "saved" / "dataset_info.json").write_text(json.dumps({"features": {"image": {"_type": "Image"}}}))
    table = pa.table({"image": [{"bytes": data, "path": None} for data in made.values()]})
    with pa.ipc.new_stream(root / "saved" / "data-00000-of-00001.arrow", table.schema) as file:
        file.write_table(table)
    return root / "saved"


def arrays_of(root, made):
    (root / "all").mkdir()
    files_of(root / "all", made)
    return f"torchvision:ImageFolder@{root}"


KINDS = pytest.mark.parametrize("make", [files_of, tar_of, parquet_of, list_of, saved_of, arrays_of])


@KINDS
@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"x" * 3000)])
def test_a_source_of_any_kind_that_goes_away_is_told_in_words(select, pictures, tmp_path, make, damage):
    root = tmp_path / "data"
    root.mkdir()
    found = stream(select(make(root, pictures(N, classes=("",), size=(24, 20)))), tmp_path / "s")
    wanted = found.read(np.array([3]))
    for path in [path for path in root.rglob("*") if path.is_file()]:
        damage(path)
    try:
        again = found.read(np.array([3]))
    except TrainingError as error:
        told = error.message
    else:
        told = "16 images in a row cannot be read" if np.array_equal(again, wanted) else ""  # the file is still open
    assert "16 images in a row cannot be read" in told
    assert len(found.errors) == 0


@KINDS
def test_every_kind_of_source_trains(select, pictures, tmp_path, make):
    root = tmp_path / "data"
    root.mkdir()
    found = select(make(root, pictures(N, classes=("",), size=(24, 20))))
    both = [run(found, tmp_path / f"cache-{cache}", cache=cache, samples=8) for cache in (0, 1)]
    assert_equal_weights(*both)
    assert [one.facts["errors"] for one in both] == [0, 0]
    assert [one.facts["unique_images"] for one in both] == [8, 8]


def test_tiles_train(select, pictures, tmp_path):
    root = files_of(tmp_path, pictures(4, classes=("",), size=(24, 24)))
    found = select(root)
    boxes = [Box(x, y, 12, 12) for x in (0, 12) for y in (0, 12)]
    uris = [tile_uri(f"{i:03d}.png", box) for i in range(4) for box in boxes]
    table = found.rows().take(np.repeat(np.arange(4), 4))
    for name, values in (("uri", uris), ("key", uris)):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    found = replace(found, table=table, sources={"pool": f"{root}#tiles:12"})
    both = [run(found, tmp_path / f"cache-{cache}", cache=cache, samples=8) for cache in (0, 1)]
    assert_equal_weights(*both)
    picture = np.asarray(Image.open(root / "001.png"))[12:, :12].transpose(2, 0, 1)
    order = sorted(range(N), key=lambda i: uris[i])
    assert np.array_equal(stream(found, tmp_path / "s", edge=12).read(np.array([order.index(5)]))[0], picture)


# ---------------------------------------------------------------------------------------------------------- stand-ins


def test_the_next_readable_image_of_the_stage_by_hash_stands_in(breakable, tmp_path):
    chosen, root = breakable
    before = stream(chosen, tmp_path / "before").read(np.arange(N))
    found = stream(chosen, tmp_path / "s")
    row = 6
    nearest, second = ring(found, row)[:2]
    (root / f"{row:03d}.png").write_bytes(b"no image")
    assert np.array_equal(found.read(np.array([1, row, 2])), before[[1, nearest, 2]])
    (root / f"{nearest:03d}.png").unlink()
    assert np.array_equal(found.read(np.array([row])), before[[second]])
    assert {chosen.rows()["stage"][i].as_py() for i in (row, nearest, second)} == {0}
    errors = {row["key"]: row["reason"] for row in found.errors.to_pylist()}
    assert errors.keys() == {f"{row:03d}.png", f"{nearest:03d}.png"}
    assert "cannot be read" in errors[f"{nearest:03d}.png"]


def test_the_ring_closes_and_every_image_of_the_stage_is_tried(breakable, tmp_path):
    chosen, root = breakable
    found, only = stream(chosen, tmp_path / "s"), 7
    wanted = found.read(np.array([only]))
    for row in range(1, N, 2):
        if row != only:
            (root / f"{row:03d}.png").write_bytes(b"")
    assert all(np.array_equal(found.read(np.array([row])), wanted) for row in range(1, N, 2))
    assert len(found.errors) == 7


def test_an_image_that_comes_back_is_used_again_and_stays_listed(breakable, tmp_path):
    chosen, root = breakable
    found, path = stream(chosen, tmp_path / "s"), root / "004.png"
    wanted, data = found.read(np.array([4])), path.read_bytes()
    path.unlink()
    assert not np.array_equal(found.read(np.array([4])), wanted)
    path.write_bytes(data)
    assert np.array_equal(found.read(np.array([4])), wanted)
    assert found.errors["key"].to_pylist() == ["004.png"]


def test_an_image_that_changed_has_a_stand_in(breakable, tmp_path):
    chosen, root = breakable
    data = {key: (root / key).read_bytes() for key in chosen.rows()["key"].to_pylist()}
    place = chosen.table.schema.get_field_index("sha256")
    digests = pa.array([streaming.files.digest_bytes(data[key]) for key in chosen.rows()["key"].to_pylist()])
    chosen = replace(chosen, table=chosen.table.set_column(place, "sha256", digests))
    found = stream(chosen, tmp_path / "s")
    wanted = found.read(np.array([ring(found, 2)[0]]))
    (root / "002.png").write_bytes(data["009.png"])  # a good image, but another one
    assert np.array_equal(found.read(np.array([2])), wanted)
    assert found.errors["reason"].to_pylist() == ["changed since it was selected"]


def test_a_source_that_is_gone_stops_the_run_and_blames_no_image(breakable, tmp_path):
    chosen, root = breakable
    found = stream(chosen, tmp_path / "s")
    for row in range(0, N, 2):
        (root / f"{row:03d}.png").unlink()
    with pytest.raises(TrainingError, match=r"8 images in a row cannot be read; the first, pool/000\.png: cannot be"):
        found.read(np.array([1, 0, 3]))
    assert len(found.errors) == 0


def test_patience_ends(breakable, tmp_path, monkeypatch):
    chosen, root = breakable
    found = stream(chosen, tmp_path / "s")
    monkeypatch.setattr(streaming, "PATIENCE", 3)
    for row in ring(found, 0)[:3]:
        (root / f"{row:03d}.png").unlink()
    found.read(np.array([ring(found, 0)[0]]))  # its third is there
    (root / "000.png").unlink()
    with pytest.raises(TrainingError, match="4 images in a row"):
        found.read(np.array([0]))


def break_at(monkeypatch, step, damage):
    """Does damage once the trainer has taken some steps; reading ahead is turned off so that it hits the next one."""
    plain, taken = Trainer.step, []

    def stepped(self, sample, *, share, **sizes):
        measured = plain(self, sample, share=share, **sizes)
        taken.append(share)
        if len([s for s in taken if s]) == step:
            damage()
        return measured

    monkeypatch.setattr(Trainer, "step", stepped)
    monkeypatch.setattr(loop, "READ_AHEAD", 0)


@pytest.mark.parametrize("workers", [1, 4])
def test_images_lost_in_the_middle_are_recorded_and_the_budget_is_kept(breakable, tmp_path, monkeypatch, workers):
    chosen, root = breakable
    break_at(monkeypatch, 4, lambda: [(root / name).unlink() for name in ("003.png", "010.png")])
    found = run(chosen, tmp_path / "run", workers=workers, samples=3 * SAMPLES, order="mixed")
    facts = Run.open(found.path).facts
    assert (facts["samples_seen"], facts["errors"], facts["unique_images"]) == (3 * SAMPLES, 2, N - 2)
    assert facts["diversity"] == (N - 2) / (3 * SAMPLES) == 1 / facts["epochs_equivalent"]
    assert sum(np.diff([0] + [row["samples_seen"] for row in found.curves()])) == 3 * SAMPLES
    errors = pq.read_table(found.path / "errors.parquet")
    assert errors["key"].to_pylist() == ["003.png", "010.png"]
    assert all("cannot be read" in reason for reason in errors["reason"].to_pylist())
    with pytest.raises(PartialError, match=r"2 of 16 selected images could not be read; the run trained on 14"):
        require_most_images(found)


def test_killed_with_bad_images_it_goes_on_bit_for_bit(breakable, tmp_path, monkeypatch):
    chosen, root = breakable
    (root / "005.png").write_bytes(b"broken")
    monkeypatch.setattr(loop, "CHECKPOINTS", 4)
    whole = run(chosen, tmp_path / "whole", workers=1)

    def fail():
        raise RuntimeError("power cut")

    break_at(monkeypatch, 7, fail)
    with pytest.raises(RuntimeError, match="power cut"):
        run(chosen, tmp_path / "killed", workers=3)
    monkeypatch.undo()
    again = run(chosen, tmp_path / "killed", workers=2)
    assert_equal_weights(whole, again)
    names = ("errors", "unique_images", "loss_first", "loss_last")
    assert [again.facts[name] for name in names] == [whole.facts[name] for name in names]
    assert whole.facts["errors"] == 1


def test_a_run_whose_source_went_away_goes_on_when_it_is_back(chosen, kept, breakable, tmp_path, monkeypatch):
    _, root = breakable
    one_stage = replace(chosen, sources={"pool": str(root)})
    monkeypatch.setattr(loop, "CHECKPOINTS", 4)
    break_at(monkeypatch, 7, lambda: root.rename(tmp_path / "away"))
    with pytest.raises(TrainingError, match="16 images in a row cannot be read"):
        run(one_stage, tmp_path / "run")
    (tmp_path / "away").rename(root)
    assert any((tmp_path / "run" / "checkpoints").iterdir())
    monkeypatch.undo()
    again = run(one_stage, tmp_path / "run")
    assert again.facts["errors"] == 0
    assert_equal_weights(again, kept)


TOGETHER = {"samples": 24, "precision": "float64", "order": "mixed"}


@pytest.mark.parametrize(("cache", "bad"), [(0, (2, 5)), pytest.param(1, (), marks=pytest.mark.slow)])
def test_two_processes_train_as_one(breakable, tmp_path, cache, bad):
    chosen, root = breakable
    for row in bad:
        (root / f"{row:03d}.png").write_bytes(b"broken")
    alone = run(chosen, tmp_path / "alone", cache=cache, **TOGETHER)
    chosen.save(tmp_path / "chosen")
    together(2, partial(run, tmp_path / "chosen", tmp_path / "both", cache=cache, **TOGETHER))
    both = Run.open(tmp_path / "both")
    assert (both.facts["errors"], both.facts["unique_images"]) == (len(bad), N - len(bad))
    assert both.facts["loss_last"] == pytest.approx(alone.facts["loss_last"], abs=1e-9)
    errors = [pq.read_table(one.path / "errors.parquet") for one in (both, alone)]
    assert errors[0].equals(errors[1])


def test_failures_survive_a_crash_in_the_middle_of_a_line(tmp_path, caplog):
    row = {"source": "pool", "key": "é\u2028.png", "uri": "a.png", "reason": "gone"}
    other = {**row, "key": "b.png"}
    with caplog.at_level(logging.WARNING):
        Failures(tmp_path).add([row, {**row, "reason": "later"}][:1])
    assert "é\u2028.png cannot be read (gone); others stand in" in caplog.text
    path = tmp_path / "failed-0.jsonl"
    path.write_text(path.read_text() + json.dumps(other)[:20])
    again = Failures(tmp_path)
    again.add([{**row, "reason": "later"}, other])
    (tmp_path / "failed-1.jsonl").write_text(json.dumps({**other, "reason": "of another process"}) + "\n")
    assert Failures(tmp_path).table().to_pylist() == [other, row]


# ------------------------------------------------------------------------------------------------- what a run chooses


@pytest.mark.parametrize(("cache", "streamed"), [(0, True), (0.0000479, True), (0.000048, False), (20, False)])
def test_what_fits_is_kept(cache, streamed):
    footprint = Footprint.of(10, edge=40, execution=Execution(cache=cache))
    assert footprint.bytes == 10 * 3 * 40 * 40 == 48_000
    assert footprint.streamed is streamed


def test_the_plan_says_how_much_will_be_kept_and_reads_no_image(chosen, tmp_path):
    gone = replace(chosen, sources={"pool": str(tmp_path / "gone")})
    found = plan(gone, samples=100, batch=4)
    assert str(found).endswith("76.8 kB of decoded images on disk meanwhile")
    assert (found.to_json()["decoded_bytes"], found.to_json()["streamed"]) == (N * 3 * 40 * 40, False)
    streamed = plan(gone, samples=100, batch=4, cache=0)
    assert str(streamed).endswith("images decoded at each visit (76.8 kB in all, more than cache=0)")
    assert streamed.to_json()["streamed"]


@pytest.mark.parametrize("wrong", [{"cache": -1.0}, {"cache": float("nan")}, {"workers": 0}])
def test_wrong_wishes(wrong):
    with pytest.raises(UsageError, match="cannot be decoded by"):
        Execution(**wrong)


def test_a_begun_run_does_not_go_on_with_other_images(breakable, tmp_path, monkeypatch):
    chosen, root = breakable
    (root / "005.png").write_bytes(b"broken")  # left out of kept images, replaced in streamed ones
    monkeypatch.setattr(loop, "CHECKPOINTS", 4)

    def fail():
        raise RuntimeError("power cut")

    break_at(monkeypatch, 7, fail)
    with pytest.raises(RuntimeError, match="power cut"):
        run(chosen, tmp_path / "run")
    monkeypatch.undo()
    with pytest.raises(ForeignFolderError, match="was begun on 16 images, some of them others than the 15"):
        run(chosen, tmp_path / "run", cache=1)
    assert run(chosen, tmp_path / "run").facts["errors"] == 1


def test_before_the_first_checkpoint_the_cache_may_be_another(breakable, tmp_path):
    chosen, root = breakable
    (root / "005.png").write_bytes(b"broken")
    wanted = {"edge": 10, "progress": silent}
    for cache, n in ((1, N - 1), (0, N), (1, N - 1)):
        table, sources = chosen.rows(), open_sources(chosen)
        found = open_images(table, sources, tmp_path / "run", execution=Execution(cache=cache), **wanted)
        assert len(found.facts) == n


def test_two_processes_read_the_same_kept_images(chosen, tmp_path):
    opened = [
        load_images(chosen.rows(), open_sources(chosen), tmp_path / "k", edge=10, progress=silent) for _ in range(2)
    ]
    made = (tmp_path / "k" / "00000.npy").stat()
    found = {}

    def read(number):
        found[number] = opened[number].read(np.arange(N))

    threads = [threading.Thread(target=read, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.array_equal(found[0], found[1])
    assert (tmp_path / "k" / "00000.npy").stat().st_ino == made.st_ino


# --------------------------------------------------------------------------------------------------------- waiting


def test_waiting_counts_after_the_first_pass(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(supply.time, "perf_counter", lambda: now[0])

    def items(waits):
        for wait in waits:
            now[0] += wait
            yield wait

    def share(waits, works, after):
        waiting = Waiting(after=after)
        assert waiting.share is None
        for _, work in zip(waiting.over(items(waits)), works, strict=True):
            now[0] += work
        return waiting.share

    assert share([8, 1, 1], [2, 3, 3], after=1) == 0.25
    assert share([8, 1, 1], [2, 3, 5], after=0) == 0.5
    assert share([8, 1, 1], [2, 3, 5], after=5) == 0.5  # it ends within the first pass
    assert share([8, 1, 1], [2, 3, 5], after=-3) == 0.5  # it went on after it


def test_the_run_says_what_it_waited(kept):
    assert 0 <= json.loads((kept.path / RUN).read_text())["waiting_share"] <= 1
