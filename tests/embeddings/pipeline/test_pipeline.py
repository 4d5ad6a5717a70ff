"""embed and as_store: what is embedded, what is kept, what is done again, and what is refused."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from embeddings import files
from embeddings.errors import (
    CorruptError,
    EncoderMismatchError,
    ForeignFolderError,
    PartialError,
    SourceError,
    StorageError,
    UnknownNameError,
    UsageError,
)
from embeddings.pipeline import as_store, embed, preview, shards
from embeddings.pipeline.batches import Embedder, core_count, one_thread_each, ordered
from embeddings.pipeline.clock import Clock
from embeddings.sources import LISTING, REJECTED, open_source
from embeddings.spec import EncoderSpec
from embeddings.store import ROWS, EmbeddingStore

POWER_CUT = RuntimeError("power cut")
SPEC = EncoderSpec(name="toy", dim=5, size=4, preprocessing="squash", weights="0" * 64)


class ToyEncoder:
    """Projects 4x4 pixels; counts what it is given, and can fail after some batches."""

    precision = "float32"
    parallel = True

    def __init__(self, *, spec=SPEC, batch_size=4, fail_after=None, error=POWER_CUT):
        self.spec, self.batch_size, self.fail_after, self.error = spec, batch_size, fail_after, error
        self.prepared = self.batches = 0
        self._lock = threading.Lock()
        self._weights = np.random.default_rng(0).normal(size=(48, spec.dim)).astype(np.float32) / 1000

    def prepare(self, image):
        with self._lock:
            self.prepared += 1
        return np.asarray(image.resize((4, 4), Image.Resampling.BOX))

    def encode(self, batch):
        assert batch.shape == (self.batch_size, 4, 4, 3)
        with self._lock:
            self.batches += 1
            if self.fail_after is not None and self.batches > self.fail_after:
                raise self.error
        return batch.reshape(len(batch), -1).astype(np.float32) @ self._weights


def contents(folder):
    """Bytes of every file, but for the log of speeds."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != shards.TIMINGS}


def same(first, second):
    assert first.rows().drop("stamp").equals(second.rows().drop("stamp"))
    np.testing.assert_array_equal(np.asarray(first.vectors()), np.asarray(second.vectors()))
    assert first.errors.equals(second.errors)
    assert first.digest == second.digest


# What comes out


def test_rows_and_vectors_of_every_image_in_key_order(photos, pictures):
    encoder = ToyEncoder()
    store = embed(photos, encoder=encoder)
    wanted = pictures(30)
    assert store.rows().schema == ROWS
    assert store.column("key") == sorted(wanted)
    assert store.column("label") == [key.split("/")[0] for key in sorted(wanted)]
    assert store.column("sha256") == [files.digest_bytes(wanted[key]) for key in sorted(wanted)]
    assert store.column("bytes") == [len(wanted[key]) for key in sorted(wanted)]
    assert set(zip(store.column("width"), store.column("height"), strict=True)) == {(16, 12)}
    assert (store.vectors().dtype, store.vectors().shape) == (np.float16, (30, 5))
    for i in (0, 17, 29):
        image = Image.open(photos / store.column("uri")[i]).convert("RGB")
        batch = np.stack([encoder.prepare(image)] * 4)
        np.testing.assert_array_equal(store.vectors()[i], encoder.encode(batch)[0].astype(np.float16))
    assert store.source == str(photos)


def test_on_disk_equals_in_memory(photos, tmp_path):
    kept = embed(photos, encoder=ToyEncoder(), out=tmp_path / "out")
    same(kept, embed(photos, encoder=ToyEncoder()))
    same(kept, EmbeddingStore.open(tmp_path / "out"))
    assert kept.path == tmp_path / "out"


@pytest.mark.parametrize("workers", [1, 3, 9])
@pytest.mark.parametrize("rows", [4, 7, 2048])
def test_workers_and_shard_size_change_nothing(photos, tmp_path, monkeypatch, workers, rows):
    wanted = embed(photos, encoder=ToyEncoder(), workers=2)
    monkeypatch.setattr(shards, "SHARD_ROWS", rows)
    same(embed(photos, encoder=ToyEncoder(), workers=workers, out=tmp_path / "out"), wanted)


def test_an_encoder_that_takes_one_caller_at_a_time_is_called_by_one(photos):
    busy = threading.Semaphore(1)

    class Accelerator(ToyEncoder):
        parallel = False

        def encode(self, batch):
            assert busy.acquire(blocking=False), "two callers at once"
            time.sleep(0.002)
            busy.release()
            return super().encode(batch)

    same(embed(photos, encoder=Accelerator(), workers=6), embed(photos, encoder=ToyEncoder()))


def test_the_same_picture_in_two_containers_has_one_pixel_digest(image_folder, encode):
    array = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    folder = image_folder({"a.png": encode(array), "b.bmp": encode(array, "BMP")})
    store = embed(folder, encoder=ToyEncoder())
    assert len(set(store.column("pixels"))) == 1
    assert len(set(store.column("sha256"))) == 2


def test_progress_counts_to_the_end_and_shows_the_speed(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("embeddings.pipeline.clock.SETTLED_S", 0.0)
    calls = []
    embed(photos, encoder=ToyEncoder(), out=tmp_path / "out", progress=lambda *call: calls.append(call))
    assert [done for _, done, _, _ in calls][-1] == 30
    assert {(stage, total) for stage, _, total, _ in calls} == {("embed", 30)}
    assert calls[0][3] == "loading toy"
    assert re.search(r"images/s(, \d+% of the time waiting for (read|decode|encode|write))?$", calls[-1][3])
    entries = [json.loads(line) for line in (tmp_path / "out" / "timings.jsonl").read_text().splitlines()]
    assert [entry["images"] for entry in entries] == [8, 8, 8, 6]
    for entry in entries:
        assert set(entry["waiting"]) == {"read", "decode", "encode", "write"}
        assert all(0 <= share <= 1 for share in entry["waiting"].values())
        assert entry["images_per_second"] > 0


def test_a_name_and_a_real_encoder(photos, tmp_path):
    store = embed(str(photos), encoder="random", out=tmp_path / "out", device="cpu")
    assert (store.spec.name, store.vectors().shape) == ("random:0", (30, 512))
    assert np.isfinite(np.asarray(store.vectors(), dtype=np.float32)).all()
    assert len(np.unique(np.asarray(store.vectors()), axis=0)) == 30


def test_torch_s_own_thread_count_is_put_back():
    import torch

    with one_thread_each(2) as pool:
        assert pool.submit(torch.get_num_threads).result() == 1
    assert torch.get_num_threads() == 1  # conftest sets one
    torch.set_num_threads(2)
    with one_thread_each(2) as pool:
        pool.submit(torch.get_num_threads).result()
    assert torch.get_num_threads() == 2


def test_ordered_keeps_the_order_and_runs_only_so_far_ahead():
    started = []

    def task(i):
        started.append(i)
        time.sleep(0.001 * (i % 3))
        return i

    with one_thread_each(4) as pool:
        results = ordered(pool, task, range(100), ahead=5)
        assert next(results) == 0
        time.sleep(0.02)
        assert len(started) <= 7
        results.close()
    assert len(started) <= 7
    with one_thread_each(4) as pool:
        assert list(ordered(pool, task, range(50), ahead=5)) == list(range(50))


# Images that fail


@pytest.fixture
def damaged(pictures, image_folder):
    images = pictures(20)
    broken = sorted(images)[3:15:6]
    return image_folder({**images, **{key: b"not an image" for key in broken}, "empty.png": b""}), [
        *broken,
        "empty.png",
    ]


def test_bad_images_become_rows_with_their_reason(damaged, tmp_path):
    folder, broken = damaged
    store = embed(folder, encoder=ToyEncoder(), out=tmp_path / "out", max_errors=0.5)
    assert store.errors.schema == REJECTED
    assert store.errors["key"].to_pylist() == sorted(broken)
    assert all(store.errors["reason"].to_pylist())
    assert len(store) + len(store.errors) == 21
    assert not set(store.column("key")) & set(broken)
    same(store, embed(folder, encoder=ToyEncoder(), max_errors=0.5))


def test_too_many_failures_are_an_error_after_the_store_is_kept(damaged, tmp_path):
    folder, _ = damaged
    with pytest.raises(PartialError, match=r"3 of 21 images failed, allowed were 5.0%") as caught:
        embed(folder, encoder=ToyEncoder(), out=tmp_path / "out")
    assert caught.value.exit_code == 4
    assert str(tmp_path / "out") in caught.value.hint
    assert "empty.png" in caught.value.message
    assert len(EmbeddingStore.open(tmp_path / "out")) == 18
    again = ToyEncoder()
    with pytest.raises(PartialError):
        embed(folder, encoder=again, out=tmp_path / "out")
    assert again.prepared == 0
    assert len(as_store(tmp_path / "out", name="web", encoder=None)) == 18
    assert len(embed(folder, encoder=again, out=tmp_path / "out", max_errors=3 / 21)) == 18


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_nothing_decoded_leaves_no_store(image_folder, tmp_path, place):
    folder = image_folder({f"{i:02d}.png": b"no" for i in range(11)})
    out = tmp_path / "out" if place == "disk" else None
    with pytest.raises(PartialError, match="None of the 11 images"):
        embed(folder, encoder=ToyEncoder(), out=out, max_errors=1.0)
    assert not (tmp_path / "out").exists()


def test_rejections_while_listing_are_counted(tmp_path, pictures):
    images = pictures(4)
    table = pa.table({"key": ["a", "b", "c", "a"], "image": list(images.values())})
    pa.parquet = __import__("pyarrow.parquet").parquet
    pa.parquet.write_table(table, tmp_path / "t.parquet")
    listing = open_source(str(tmp_path / "t.parquet")).listing()
    store = embed(tmp_path / "t.parquet", encoder=ToyEncoder(), max_errors=1.0)
    assert len(listing.rejected) > 0
    assert len(store) + len(store.errors) == 4
    assert preview(tmp_path / "t.parquet")["rejected"] == len(listing.rejected)


def test_a_value_that_float16_cannot_hold_is_an_error_of_that_image(photos):
    class Hot(ToyEncoder):
        def encode(self, batch):
            vectors = super().encode(batch)
            vectors[0] *= 1e9
            return vectors

    store = embed(photos, encoder=Hot(), max_errors=1.0)
    assert len(store) == 22
    assert set(store.errors["reason"].to_pylist()) == {"the encoder gives a value that is not finite in float16"}


def test_an_image_that_vanishes_while_embedding_is_an_error(photos):
    source = open_source(str(photos))
    listing = source.listing()
    Path(photos / listing.images["uri"][5].as_py()).unlink()
    embedder, told = Embedder(source, ToyEncoder(), workers=1), []
    (part,) = embedder.parts([listing.images.slice(4, 4)], known=None, clock=Clock(), told=told.append)
    assert part.errors["key"].to_pylist() == [listing.images["key"][5].as_py()]
    assert (len(part.rows), part.records, told) == (3, 4, [4])


# Interrupted


@pytest.mark.parametrize("error", [POWER_CUT, KeyboardInterrupt(), StorageError("No space left")])
def test_an_interrupted_run_goes_on_where_it_stopped(photos, tmp_path, error):
    wanted = embed(photos, encoder=ToyEncoder(), out=tmp_path / "whole")
    with pytest.raises(type(error)):
        embed(photos, encoder=ToyEncoder(fail_after=5, error=error), out=tmp_path / "out", workers=1)
    with pytest.raises(CorruptError, match=r"store\.json is missing"):
        EmbeddingStore.open(tmp_path / "out")
    with pytest.raises(CorruptError, match="unfinished store"):
        as_store(tmp_path / "out", name="web", encoder=None)
    rest = ToyEncoder()
    same(embed(photos, encoder=rest, out=tmp_path / "out"), wanted)
    assert rest.prepared == 30 - 16  # two shards of eight were done
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_progress_of_a_continued_run_starts_where_it_stopped(photos, tmp_path):
    with pytest.raises(RuntimeError):
        embed(photos, encoder=ToyEncoder(fail_after=5), out=tmp_path / "out", workers=1)
    calls = []
    embed(photos, encoder=ToyEncoder(), out=tmp_path / "out", progress=lambda *call: calls.append(call))
    assert [done for _, done, _, _ in calls] == [0, 24, 30]


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from embeddings.pipeline import shards
from embeddings.pipeline import embed
from test_pipeline import ToyEncoder
shards.SHARD_ROWS = 8
def progress(stage, done, total, note):
    if done >= 20:
        os.kill(os.getpid(), signal.SIGKILL)
embed({source!r}, encoder=ToyEncoder(), out={out!r}, workers=2, progress=progress)
"""


def test_a_killed_process_leaves_only_whole_shards(photos, tmp_path):
    wanted = embed(photos, encoder=ToyEncoder(), out=tmp_path / "whole")
    script = KILLED.format(tests=str(Path(__file__).parent), source=str(photos), out=str(tmp_path / "out"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not (tmp_path / "out" / "store.json").exists()
    whole = [len(files.read_table(path)) for path in (tmp_path / "out").glob("rows-*")]
    rest = ToyEncoder()
    same(embed(photos, encoder=rest, out=tmp_path / "out"), wanted)
    assert rest.prepared == 30 - sum(whole)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_leftovers_of_a_killed_write_are_swept_away(photos, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".rows-00000.parquet.abcd1234.part").write_bytes(b"half")
    embed(photos, encoder=ToyEncoder(), out=tmp_path / "out")
    assert not list((tmp_path / "out").glob(".*.part"))


@pytest.mark.parametrize("kind", ["rows", "vectors"])
def test_a_damaged_store_is_mended_by_embedding_what_is_broken(photos, tmp_path, kind):
    (photos / "zebra.png").write_bytes(b"")  # an error, in another shard than the one that breaks
    wanted = embed(photos, encoder=ToyEncoder())
    embed(photos, encoder=ToyEncoder(), out=tmp_path / "out")
    before = contents(tmp_path / "out")
    path = sorted((tmp_path / "out").glob(f"{kind}-*"))[1]
    path.write_bytes(path.read_bytes()[:-20])
    mender = ToyEncoder()
    same(embed(photos, encoder=mender, out=tmp_path / "out"), wanted)
    assert contents(tmp_path / "out") == before
    assert mender.prepared == 8


@pytest.mark.parametrize(("n", "rows"), [(0, 8), (4096, 8), (4097, 16), (8192, 16), (1_000_000, 2048)])
def test_shards_grow_so_that_there_are_never_many(n, rows):
    assert shards.shard_rows(n) == rows  # from 8 on, here


# Reused


def forbid_reading(monkeypatch):
    monkeypatch.setattr("embeddings.sources.folder.FolderSource.read", lambda *_: pytest.fail("an image was read"))


def test_an_unchanged_source_is_not_read_again(photos, tmp_path, monkeypatch):
    wanted = embed(photos, encoder=ToyEncoder(), out=tmp_path / "out")
    before = contents(tmp_path / "out")
    forbid_reading(monkeypatch)
    same(embed(photos, encoder=ToyEncoder(fail_after=0), out=tmp_path / "out"), wanted)
    assert contents(tmp_path / "out") == before


def test_touched_files_are_hashed_again_but_not_embedded(photos, tmp_path):
    wanted = embed(photos, encoder=ToyEncoder())
    embed(photos, encoder=ToyEncoder(), out=tmp_path / "out")
    for path in photos.rglob("*.png"):
        os.utime(path, (1, 1))
    again = ToyEncoder()
    same(embed(photos, encoder=again, out=tmp_path / "out"), wanted)
    assert (again.prepared, again.batches) == (0, 0)
    assert len(list((tmp_path / "out").glob("rows-*"))) == 4  # the old shards are gone


def test_only_new_and_changed_images_are_embedded(photos, tmp_path, pictures):
    embed(photos, encoder=ToyEncoder(), out=tmp_path / "out")
    new = pictures(40, seed=1)
    (photos / "cat" / "000.png").write_bytes(new["cat/000.png"])  # changed
    (photos / "aardvark.png").write_bytes(new["dog/001.png"])  # added in front
    (photos / "dog" / "003.png").unlink()  # removed
    (photos / "cat" / "002.png").rename(photos / "cat" / "z.png")  # another key
    again = ToyEncoder()
    store = embed(photos, encoder=again, out=tmp_path / "out")
    assert again.prepared == 3
    same(store, embed(photos, encoder=ToyEncoder()))
    assert len(list((tmp_path / "out").glob("rows-*"))) == 4


def test_an_interrupted_update_leaves_the_old_store_whole(photos, tmp_path, pictures):
    old = embed(photos, encoder=ToyEncoder(), out=tmp_path / "out")
    rows, vectors = old.rows(), np.array(old.vectors())
    for path, data in pictures(30, seed=2).items():
        (photos / path).write_bytes(data)
    with pytest.raises(RuntimeError):
        embed(photos, encoder=ToyEncoder(fail_after=5), out=tmp_path / "out", workers=1)
    kept = EmbeddingStore.open(tmp_path / "out")
    assert kept.rows().equals(rows)
    np.testing.assert_array_equal(np.asarray(kept.vectors()), vectors)
    rest = ToyEncoder()
    same(embed(photos, encoder=rest, out=tmp_path / "out"), embed(photos, encoder=ToyEncoder()))
    assert rest.prepared == 14


def test_vectors_of_another_precision_are_not_carried_over(photos, tmp_path):
    embed(photos, encoder=ToyEncoder(), out=tmp_path / "out")
    os.utime(photos / "cat" / "000.png", (1, 1))
    rough = ToyEncoder()
    rough.precision = "bfloat16"
    embed(photos, encoder=rough, out=tmp_path / "out")
    assert rough.prepared == 30


def test_a_moved_source_is_recognized_by_its_content(photos, tmp_path):
    wanted = embed(photos, encoder=ToyEncoder())
    embed(photos, encoder=ToyEncoder(), out=tmp_path / "out")
    photos.rename(tmp_path / "elsewhere")
    store = embed(tmp_path / "elsewhere", encoder=ToyEncoder(fail_after=0), out=tmp_path / "out")
    same(store, wanted)
    assert store.source == str(tmp_path / "elsewhere")


def test_another_source_with_the_same_sizes_and_times_is_not_taken_for_it(tmp_path):
    """As of two archives unpacked with normalized times."""
    for name, value in (("first", 10), ("second", 200)):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8), (value, value, value)).save(tmp_path / name / "a.bmp")
        os.utime(tmp_path / name / "a.bmp", (1, 1))
    embed(tmp_path / "first", encoder=ToyEncoder(), out=tmp_path / "out")
    store = embed(tmp_path / "second", encoder=ToyEncoder(), out=tmp_path / "out")
    same(store, embed(tmp_path / "second", encoder=ToyEncoder()))


# Refused


def test_a_folder_of_something_else_is_left_alone(photos, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(ForeignFolderError, match=r"no store of ours: it holds thesis\.tex"):
        embed(photos, encoder=ToyEncoder(), out=tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.tex"]
    with pytest.raises(ForeignFolderError, match="is a file"):
        embed(photos, encoder=ToyEncoder(), out=tmp_path / "out" / "thesis.tex")


def test_images_as_output_folder_are_left_alone(photos):
    with pytest.raises(ForeignFolderError, match="cat, dog"):
        embed(photos, encoder=ToyEncoder(), out=photos)


@pytest.mark.parametrize("finished", [True, False])
def test_a_store_of_another_encoder_or_source_is_refused_with_the_field(photos, tmp_path, pictures, finished):
    first = ToyEncoder(fail_after=None if finished else 5)
    if finished:
        embed(photos, encoder=first, out=tmp_path / "out")
    else:
        with pytest.raises(RuntimeError):
            embed(photos, encoder=first, out=tmp_path / "out", workers=1)
    other = ToyEncoder(spec=replace(SPEC, weights="1" * 64))
    with pytest.raises(ForeignFolderError, match="encoder weights '000"):
        embed(photos, encoder=other, out=tmp_path / "out")
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "a.png").write_bytes(pictures(1)["cat/000.png"])
    with pytest.raises(ForeignFolderError, match=r"source '.*photos', wanted '.*others'"):
        embed(tmp_path / "others", encoder=ToyEncoder(), out=tmp_path / "out")


@pytest.mark.parametrize(("kind", "wanted"), [("nowhere", SourceError), ("empty", SourceError)])
def test_a_source_that_is_not_there_writes_nothing(tmp_path, kind, wanted):
    (tmp_path / "empty").mkdir()
    with pytest.raises(wanted):
        embed(tmp_path / kind, encoder=ToyEncoder(), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_limits_and_names_are_checked_before_anything_is_read(photos):
    with pytest.raises(UsageError, match="workers is 0"):
        embed(photos, encoder=ToyEncoder(), workers=0)
    with pytest.raises(UsageError, match="max_errors is 5"):
        embed(photos, encoder=ToyEncoder(), max_errors=5)
    with pytest.raises(UnknownNameError, match="lite0"):
        embed(photos, encoder="lite9")


# as_store


def test_a_source_is_embedded_once_below_work(photos, tmp_path, monkeypatch):
    first = as_store(str(photos), name="web", encoder=ToyEncoder(), work=tmp_path / "work")
    assert first.path.parent == tmp_path / "work" / "stores"
    assert first.path.name.startswith("photos-")
    forbid_reading(monkeypatch)
    monkeypatch.chdir(tmp_path)
    same(as_store(Path("photos"), name="target", encoder=ToyEncoder(fail_after=0), work=tmp_path / "work"), first)


def test_without_work_nothing_is_written(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = as_store(str(photos), name="web", encoder=ToyEncoder(), work=None)
    assert (len(store), store.path) == (30, None)
    assert [p.name for p in tmp_path.iterdir()] == ["photos"]


def test_roles_do_not_embed_again_and_selectors_do_once(tmp_path, pictures, image_table):
    lots, work = [str(i % 3) for i in range(12)], tmp_path / "work"
    table = image_table(pictures(12), lot=lots, shift=["day", "night"] * 6)
    first = ToyEncoder()
    plain = as_store(str(table), name="a", encoder=first, work=work)
    by_lot = as_store(f"{table}#label:lot,group:shift", name="a", encoder=first, work=work)
    assert first.prepared == 12
    assert by_lot.column("label") != plain.column("label") == [k.split("/")[0] for k in plain.column("key")]
    assert set(by_lot.column("label")) == {"0", "1", "2"}
    assert set(by_lot.column("group")) == {"day", "night"}
    assert by_lot.digest == plain.digest
    for address in (f"{table}#lot=1,shift=day", f"{table}#shift=day,lot=1", f"{table}#shift=day,lot=1,label:lot"):
        part = as_store(address, name="a", encoder=first, work=work)
        assert len(part) == 2
    assert first.prepared == 14
    assert sorted(p.name.rsplit("-", 1)[0] for p in (work / "stores").iterdir()) == ["photos", "photos-1-day"]


def test_encoders_do_not_share_a_folder(photos, tmp_path):
    other = ToyEncoder(spec=replace(SPEC, weights="1" * 64))
    stores = [as_store(str(photos), name="a", encoder=e, work=tmp_path) for e in (ToyEncoder(), other)]
    assert stores[0].path != stores[1].path


def test_the_folder_of_a_store_is_opened_with_selectors_and_roles(tmp_path, pictures, image_table):
    table = image_table(pictures(12), lot=[str(i % 3) for i in range(12)])
    embed(table, encoder=ToyEncoder(), out=tmp_path / "out")
    store = as_store(f"{tmp_path / 'out'}#lot=1,label:lot", name="a", encoder=ToyEncoder())
    assert set(store.column("label")) == {"1"}
    assert len(store) == 4
    assert len(as_store(tmp_path / "out", name="a", encoder=None)) == 12


def test_a_store_of_another_encoder_is_refused(photos, tmp_path):
    store = embed(photos, encoder=ToyEncoder(), out=tmp_path / "out")
    for thing in (store, tmp_path / "out"):
        with pytest.raises(EncoderMismatchError, match="web was embedded by toy, the encoder here is lite0"):
            as_store(thing, name="web", encoder="lite0")
        assert as_store(thing, name="web", encoder=None).digest == store.digest
        assert as_store(thing, name="web", encoder=ToyEncoder()).digest == store.digest


def test_arrays_pass_whatever_the_encoder(tmp_path):
    array = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    store = as_store(array, name="x")
    np.testing.assert_array_equal(store.vectors(), array)
    assert as_store(store, name="x", encoder="lite0") is store


def test_progress_names_the_source(photos):
    stages = set()
    as_store(photos, name="web", encoder=ToyEncoder(), work=None, progress=lambda stage, *_: stages.add(stage))
    assert stages == {"embed web"}


def test_preview_reads_no_image(photos, monkeypatch):
    forbid_reading(monkeypatch)
    assert preview(f"{photos}#label=cat") == {"source": f"{photos}#label=cat", "images": 15, "rejected": 0}


def test_the_lazy_names_of_the_package_hold(monkeypatch):
    import embeddings

    for name in embeddings.__all__ * 2:
        assert callable(getattr(embeddings, name))
    with pytest.raises(AttributeError, match="nothing"):
        embeddings.nothing  # noqa: B018
    code = "import embeddings, sys; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'pyarrow')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_listing_s_columns_are_those_of_the_rows():
    assert set(LISTING.names) - {"size", "stamp"} < set(ROWS.names)
    assert core_count() >= 1
