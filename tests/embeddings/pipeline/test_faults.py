"""What must not stop an embedding, or lose or double an image: dead workers, second writers, changes, interrupts."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from test_pipeline import ToyEncoder, same

from embeddings import files
from embeddings.errors import CurateError, ForeignFolderError, PartialError, SourceError
from embeddings.pipeline import as_store, embed, loading, shards
from embeddings.pipeline.locks import locked
from embeddings.pipeline.processes import Worker
from embeddings.sources import open_source
from embeddings.sources.folder import FolderSource
from embeddings.store import EmbeddingStore

PREPARE = """
import os, signal, time
from dataclasses import dataclass
import numpy as np
import pyarrow as pa
from PIL import Image

@dataclass(frozen=True)
class Prepare:
    '''Squashes to 4x4; images of a color that stands for trouble end or hang the worker.'''
    log: str

    def __call__(self, image):
        with open(self.log, "a") as file:
            file.write(f"{os.getpid()}\\n")
        color = image.getpixel((0, 0))
        if color == (1, 2, 3):
            os.kill(os.getpid(), signal.SIGKILL)
        if color == (1, 2, 4):
            time.sleep(60)
        return np.asarray(image.resize((4, 4), Image.Resampling.BOX))
"""


class Traveling(ToyEncoder):
    """A toy whose preparation can be rebuilt in a worker process."""

    def __init__(self, prepare, **options):
        super().__init__(**options)
        self.prepare = prepare


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """A preparation that travels, with worker processes from the first image on; ``.log`` has a line per image."""
    (tmp_path / "prepare_for_test.py").write_text(PREPARE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("embeddings.pipeline.batches.PROCESSES_FROM", 1)
    from prepare_for_test import Prepare

    yield Prepare(str(tmp_path / "log"))
    sys.modules.pop("prepare_for_test")


@pytest.fixture
def reads(monkeypatch):
    """Uris that were read from folders, in this process."""
    found, read = [], FolderSource.read

    def recorded(self, uri):
        found.append(uri)
        return read(self, uri)

    monkeypatch.setattr(FolderSource, "read", recorded)
    return found


# Worker processes


def test_worker_processes_change_nothing(photos, prepare, tmp_path):
    wanted = embed(photos, encoder=ToyEncoder())
    same(embed(photos, encoder=Traveling(prepare), workers=2, out=tmp_path / "out"), wanted)
    pids = Path(prepare.log).read_text().split()
    assert len(pids) == 30
    assert str(os.getpid()) not in pids


@pytest.mark.parametrize(("color", "ending"), [((1, 2, 3), "was ended by SIGKILL"), ((1, 2, 4), "gave no answer")])
def test_an_image_that_ends_its_worker_is_an_error_and_costs_no_other(
    photos, prepare, tmp_path, monkeypatch, color, ending
):
    monkeypatch.setattr(loading, "PATIENCE_S", 4.0)  # a busy machine needs some for the good images too
    monkeypatch.setattr("embeddings.pipeline.batches.CHUNK", 1)
    Image.new("RGB", (9, 9), color).save(photos / "cat" / "0killer.png")
    store = embed(photos, encoder=Traveling(prepare), workers=2, out=tmp_path / "out")
    assert store.errors["key"].to_pylist() == ["cat/0killer.png"]
    assert ending in store.errors["reason"][0].as_py()
    (photos / "cat" / "0killer.png").unlink()
    wanted = embed(photos, encoder=ToyEncoder())
    assert store.column("key") == wanted.column("key")
    np.testing.assert_array_equal(np.asarray(store.vectors()), np.asarray(wanted.vectors()))


def _killer(prepare, killed):
    """A progress that kills the worker which prepared an image last, once."""

    def progress(stage, done, total, note):
        pids = Path(prepare.log).read_text().split() if done else []
        if not killed and pids:
            killed.append(int(pids[-1]))
            os.kill(killed[0], signal.SIGKILL)

    return progress


def test_an_image_alone_is_not_blamed_for_one_death(photos, prepare, monkeypatch):
    """A worker that the system ends with the last image of a table in hand."""
    monkeypatch.setattr("embeddings.pipeline.batches.CHUNK", 1)
    killed = []
    store = embed(photos, encoder=Traveling(prepare), workers=1, progress=_killer(prepare, killed))
    assert killed
    assert (len(store), len(store.errors)) == (30, 0)


def test_a_preparation_that_workers_cannot_import_runs_in_threads(photos, prepare, monkeypatch):
    monkeypatch.setattr(type(prepare), "__module__", "made_here")
    monkeypatch.setitem(sys.modules, "made_here", sys.modules["prepare_for_test"])
    store = embed(photos, encoder=Traveling(prepare))
    assert len(store) == 30
    assert set(Path(prepare.log).read_text().split()) == {str(os.getpid())}


def test_a_file_in_the_working_folder_does_not_pass_for_a_library(prepare, tmp_path, monkeypatch):
    (tmp_path / "fractions.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(tmp_path)])
    monkeypatch.chdir(tmp_path)
    Worker("fractions:Fraction", 1, 2).stop()
    assert not (tmp_path / "ran").exists()


def test_a_worker_killed_from_outside_loses_nothing(photos, prepare, tmp_path):
    """As by the system when memory is short: its images are simply loaded again."""
    killed = []
    store = embed(
        photos, encoder=Traveling(prepare), workers=1, out=tmp_path / "out", progress=_killer(prepare, killed)
    )
    assert killed
    assert (len(store), len(store.errors)) == (30, 0)


def test_no_worker_outlives_the_call(photos, prepare, tmp_path):
    with pytest.raises(RuntimeError, match="power cut"):
        embed(photos, encoder=Traveling(prepare, fail_after=3), workers=2, out=tmp_path / "out")
    for pid in set(Path(prepare.log).read_text().split()):
        _wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists() or _is_zombie(pid))


def _is_zombie(pid):
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"


def _wait_until(condition):
    for _ in range(1500):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("it did not come about")


# Two writers


def test_a_second_writer_is_refused_and_the_first_goes_on(photos, tmp_path):
    with locked(tmp_path / "out"), pytest.raises(ForeignFolderError, match="Another process is writing to"):
        embed(photos, encoder=ToyEncoder(), out=tmp_path / "out")
    assert len(embed(photos, encoder=ToyEncoder(), out=tmp_path / "out")) == 30


def test_a_finished_store_is_reused_while_somebody_holds_its_lock(photos, tmp_path):
    embed(photos, encoder=ToyEncoder(), out=tmp_path / "out")
    with locked(tmp_path / "out"):
        assert len(embed(photos, encoder=ToyEncoder(fail_after=0), out=tmp_path / "out")) == 30


def test_commands_that_want_the_same_source_wait_for_the_first(photos, tmp_path):
    """Below the work folder: the second finds what the first has made, and embeds nothing."""
    gate, encoders = threading.Event(), [ToyEncoder(), ToyEncoder()]

    class Slow(ToyEncoder):
        def encode(self, batch):
            gate.wait(10)
            return super().encode(batch)

    stores = {}
    first = threading.Thread(
        target=lambda: stores.update(a=as_store(photos, name="a", encoder=Slow(), work=tmp_path / "work"))
    )
    first.start()
    _wait_until(lambda: list((tmp_path / "work").rglob(shards.CLAIM)))
    second = threading.Thread(
        target=lambda: stores.update(b=as_store(photos, name="b", encoder=encoders[1], work=tmp_path / "work"))
    )
    second.start()
    gate.set()
    first.join()
    second.join()
    same(stores["a"], stores["b"])
    assert encoders[1].batches == 0


def test_a_plain_call_does_not_disturb_a_running_retry(photos, tmp_path):
    """The claim of the one that runs is not taken for a leftover."""
    embed(photos, encoder=ToyEncoder(), out=tmp_path / "out")
    (tmp_path / "out" / shards.CLAIM).write_text((tmp_path / "out" / "store.json").read_text())
    (tmp_path / "out" / "rows-00000-new~1.parquet").write_bytes(b"of the other process")
    with locked(tmp_path / "out"), pytest.raises(ForeignFolderError, match="Another process"):
        embed(photos, encoder=ToyEncoder(), out=tmp_path / "out")
    assert (tmp_path / "out" / "rows-00000-new~1.parquet").exists()
    embed(photos, encoder=ToyEncoder(fail_after=0), out=tmp_path / "out")  # left by one that was killed
    assert not (tmp_path / "out" / "rows-00000-new~1.parquet").exists()


def test_who_has_to_wait_is_told(tmp_path):
    said = []
    with locked(tmp_path / "out"):
        waiting = threading.Thread(target=lambda: _hold(tmp_path / "out", said))
        waiting.start()
        _wait_until(lambda: said)
    waiting.join()
    assert said == [f"Waiting for another process that writes to {tmp_path / 'out'}.", "mine"]


def _hold(folder, said):
    with locked(folder, announce=said.append):
        said.append("mine")


# Failed images, tried again


def test_failed_images_are_tried_again_when_asked(photos, tmp_path):
    whole = embed(photos, encoder=ToyEncoder())
    victim = photos / whole.column("uri")[12]
    data, times = victim.read_bytes(), victim.stat()
    victim.write_bytes(b"\0" * len(data))
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))
    broken = embed(photos, encoder=ToyEncoder(), out=tmp_path / "out")
    assert len(broken.errors) == 1
    victim.write_bytes(data)
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))  # nothing tells that it is whole again
    assert len(embed(photos, encoder=ToyEncoder(fail_after=0), out=tmp_path / "out").errors) == 1
    again = ToyEncoder()
    same(embed(photos, encoder=again, out=tmp_path / "out", retry_errors=True), whole)
    assert again.prepared == 1
    unharmed = ToyEncoder(fail_after=0)
    same(embed(photos, encoder=unharmed, out=tmp_path / "out", retry_errors=True), whole)
    same(embed(photos, encoder=unharmed, out=tmp_path / "out"), whole)


def test_an_interrupted_retry_leaves_the_old_store_and_goes_on(photos, tmp_path):
    names = embed(photos, encoder=ToyEncoder()).column("uri")
    held = {name: (photos / name).read_bytes() for name in (names[2], names[25])}
    for name in held:
        (photos / name).write_bytes(b"broken")
    embed(photos, encoder=ToyEncoder(), out=tmp_path / "out", max_errors=1.0)
    times = {name: (photos / name).stat().st_mtime_ns for name in held}
    for name, data in held.items():
        (photos / name).write_bytes(data[:6].ljust(6))
        os.utime(photos / name, ns=(times[name], times[name]))
    with pytest.raises(PartialError):  # still broken: the attempt is made, and the store stays usable
        embed(photos, encoder=ToyEncoder(), out=tmp_path / "out", retry_errors=True)
    store = EmbeddingStore.open(tmp_path / "out")
    assert (len(store), len(store.errors), store.facts["attempt"]) == (28, 2, 1)
    assert sum("~1" in path.name for path in (tmp_path / "out").glob("rows-*")) == 2


# Files that change


def test_untouched_files_are_not_read_when_others_change(photos, tmp_path, reads, pictures):
    embed(photos, encoder=ToyEncoder(), out=tmp_path / "out")
    reads.clear()
    new = pictures(40, seed=1)
    (photos / "aardvark.png").write_bytes(new["dog/001.png"])
    (photos / "dog" / "003.png").unlink()
    store = embed(photos, encoder=ToyEncoder(), out=tmp_path / "out")
    assert reads == ["aardvark.png"]
    same(store, embed(photos, encoder=ToyEncoder()))


def test_labels_of_untouched_files_follow_the_source(tmp_path, pictures, image_folder):
    folder = image_folder(pictures(6))
    (folder.parent / "t.csv").write_text("path,label\n" + "\n".join(f"photos/{k},x" for k in pictures(6)))
    embed(folder.parent / "t.csv", encoder=ToyEncoder(), out=tmp_path / "out")
    (folder.parent / "t.csv").write_text("path,label\n" + "\n".join(f"photos/{k},y" for k in pictures(6)))
    again = ToyEncoder()
    store = embed(folder.parent / "t.csv", encoder=again, out=tmp_path / "out")
    assert (set(store.column("label")), again.prepared) == ({"y"}, 0)


# Interrupted at the keyboard

COMMAND = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
sys.path.insert(0, {tests!r})
from embeddings.encoders import registry
from test_pipeline import ToyEncoder
class Slow(ToyEncoder):
    def encode(self, batch):
        time.sleep(1)
        return super().encode(batch)
registry.get_encoder.__globals__["_build_once"] = lambda *_, **__: Slow()
import embeddings.pipeline.entry as pipeline
pipeline.encoder_spec = lambda name: Slow().spec
from curate.cli import main
main(["embed", {source!r}, "--out", {out!r}, "--workers", "1"])
"""


def test_ctrl_c_twice_leaves_a_store_that_continues(photos, tmp_path):
    script = COMMAND.format(tests=str(Path(__file__).parent), source=str(photos), out=str(tmp_path / "out"))
    running = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    _wait_until(lambda: (tmp_path / "out" / shards.CLAIM).exists() or running.poll() is not None)
    while running.poll() is None:  # an interrupt that falls into foreign code may be lost
        running.send_signal(signal.SIGINT)
        time.sleep(0.05)
    _, said = running.communicate(timeout=60)
    assert running.returncode in (130, -signal.SIGINT), said.decode()
    assert not (tmp_path / "out" / "store.json").exists()
    same(embed(photos, encoder=ToyEncoder(), out=tmp_path / "out"), embed(photos, encoder=ToyEncoder()))


# No space


@pytest.mark.skipif(not hasattr(os, "setsid"), reason="limits on file sizes are POSIX")
def test_a_full_disk_is_said_and_the_run_continues_afterwards(photos, tmp_path):
    """A limit on the size of files stands for the full disk: writing fails in the middle."""
    script = textwrap.dedent(f"""
        import resource, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_pipeline import ToyEncoder
        from embeddings.pipeline import embed
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))
        try:
            embed({str(photos)!r}, encoder=ToyEncoder(), out={str(tmp_path / "out")!r}, workers=1)
        except Exception as error:
            print(type(error).__name__, error)
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.decode().startswith("StorageError"), done
    assert not (tmp_path / "out" / "store.json").exists()
    same(embed(photos, encoder=ToyEncoder(), out=tmp_path / "out"), embed(photos, encoder=ToyEncoder()))


# Tiles


def test_tiles_are_rows_of_their_own_with_what_their_image_says(tmp_path):
    folder = tmp_path / "inspection" / "lot"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    Image.fromarray(pixels[:, :32]).save(folder / "b.png")
    address = f"{tmp_path / 'inspection'}#tiles:32"
    store = embed(address, encoder=ToyEncoder(), out=tmp_path / "out")
    assert store.column("parent") == ["lot/a.png"] * 4 + ["lot/b.png"] * 2
    assert store.column("key")[:4] == [
        f"lot/a.png#{box}" for box in ("0,0,32,32", "32,0,32,32", "0,8,32,32", "32,8,32,32")
    ]
    assert set(store.column("label")) == {"lot"}
    assert store.column("group") == store.column("parent")
    assert len(set(store.column("sha256"))) == 6
    pairs = dict(zip(store.column("key"), store.column("pixels"), strict=True))
    assert pairs["lot/a.png#0,0,32,32"] == pairs["lot/b.png#0,0,32,32"]
    for key, vector in zip(store.column("key"), np.asarray(store.vectors()), strict=True):
        left, top, width, height = map(int, key.split("#")[1].split(","))
        name = "a" if "a.png" in key else "b"
        tile = Image.open(folder / f"{name}.png").crop((left, top, left + width, top + height))
        encoder = ToyEncoder()
        wanted = encoder.encode(np.stack([encoder.prepare(tile)] * 4))[0].astype(np.float16)
        np.testing.assert_array_equal(vector, wanted)
    again = ToyEncoder()
    os.utime(folder / "a.png", (1, 1))  # hashed again, not embedded
    same(embed(address, encoder=again, out=tmp_path / "out"), embed(address, encoder=ToyEncoder()))
    assert again.prepared == 0


class Hot(ToyEncoder):
    """Gives what float16 cannot hold for the second picture of every batch."""

    def encode(self, batch):
        vectors = super().encode(batch)
        vectors[1] = 1e9
        return vectors


def test_an_image_of_which_a_tile_failed_is_embedded_again_whole(tmp_path):
    (tmp_path / "lot").mkdir()
    for name in "ab":
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (32, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "lot" / f"{name}.png")
    address = f"{tmp_path / 'lot'}#tiles:16"
    whole = embed(address, encoder=ToyEncoder())
    broken = embed(address, encoder=Hot(), out=tmp_path / "out", max_errors=1.0)
    assert (len(whole), len(broken), len(broken.errors)) == (16, 12, 4)
    same(embed(address, encoder=ToyEncoder(), out=tmp_path / "out", retry_errors=True), whole)


def test_tiles_without_a_group_stay_together_under_another_role(tmp_path, pictures, image_table):
    table = image_table(pictures(4, size=(32, 16)), lot=["1", None, "1", None])
    first, second, third, fourth = pictures(4)
    store = as_store(f"{table}#tiles:16,group:lot", name="t", encoder=ToyEncoder(), work=None)
    groups = dict(zip(store.column("parent"), store.column("group"), strict=True))
    assert groups == {first: "1", second: second, third: "1", fourth: fourth}


def test_views_of_stores_and_vectors_are_refused(photos, tmp_path):
    embed(photos, encoder=ToyEncoder(), out=tmp_path / "out")
    np.save(tmp_path / "clips.npy", np.eye(4))
    for address in (tmp_path / "out", tmp_path / "clips.npy"):
        with pytest.raises(SourceError, match="asks for a view of images"):
            as_store(f"{address}#tiles:16", name="a", encoder=None, work=None)


def test_an_encoder_that_breaks_its_word_is_named(photos):
    class Wide(ToyEncoder):
        def encode(self, batch):
            return np.tile(super().encode(batch), 2)

    with pytest.raises(CurateError, match=r"toy gives an array of shape \[4, 10\], wanted \[4, 5\]"):
        embed(photos, encoder=Wide())


def test_several_devices_do_not_reopen_a_source_of_the_user_s_own(photos):
    class Inverted(FolderSource):
        def read(self, uri):
            image, buffer = Image.open(photos / uri), io.BytesIO()
            Image.fromarray(255 - np.asarray(image)).save(buffer, "PNG")
            return buffer.getvalue()

    source = Inverted(open_source(str(photos)).address)
    found = embed(source, encoder="color-texture", device="cpu,cpu")
    same(found, embed(source, encoder="color-texture", device="cpu"))


def test_another_view_is_another_source(photos, tmp_path):
    embed(photos, encoder=ToyEncoder(), out=tmp_path / "out")
    with pytest.raises(ForeignFolderError, match="tiles:8"):
        embed(f"{photos}#tiles:8", encoder=ToyEncoder(), out=tmp_path / "out")


def test_a_changed_mask_embeds_again(photos, tmp_path):
    mask = np.zeros((12, 16), np.uint8)
    mask[:, :8] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    address = f"{photos}#roi:{tmp_path / 'mask.png'}"
    store = embed(address, encoder=ToyEncoder(), out=tmp_path / "out")
    assert set(store.column("width")) == {8}
    left = np.array(store.vectors())
    for path in photos.rglob("*.png"):
        os.utime(path, (1, 1))
    again = ToyEncoder()
    store = embed(address, encoder=again, out=tmp_path / "out")  # hashed again, not embedded, still the same part
    assert again.prepared == 0
    assert store.column("uri")[0].endswith(".png#xywh=0,0,8,12")
    Image.fromarray(255 - mask).save(tmp_path / "mask.png")
    right = embed(address, encoder=ToyEncoder(), out=tmp_path / "out")
    assert not np.array_equal(left, np.asarray(right.vectors()))


# Vectors of one's own


def test_vectors_become_a_store_by_the_same_call(tmp_path):
    array = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    array[7, 2] = np.nan
    np.save(tmp_path / "clips.npy", array)
    store = embed(tmp_path / "clips.npy", out=tmp_path / "out")
    assert (len(store), store.vectors().dtype, store.spec.size) == (29, np.float32, 0)
    assert store.errors["key"].to_pylist() == ["7"]
    np.testing.assert_array_equal(np.asarray(store.vectors()), array[[int(key) for key in store.column("key")]])
    same(as_store(str(tmp_path / "clips.npy"), name="clips", work=tmp_path / "work"), store)
    array[7, 2] = 0
    np.save(tmp_path / "clips.npy", array)
    assert len(embed(tmp_path / "clips.npy", out=tmp_path / "out")) == 30


def test_several_devices_give_the_store_of_one(photos, tmp_path):
    wanted = embed(photos, encoder="color-texture", out=tmp_path / "one", device="cpu")
    same(embed(photos, encoder="color-texture", out=tmp_path / "two", device="cpu,cpu"), wanted)
    timings = [json.loads(line) for line in (tmp_path / "two" / shards.TIMINGS).read_text().splitlines()]
    assert sum(entry["images"] for entry in timings) == 30


# What a person is told


def test_images_of_a_12_bit_camera_are_remarked_on_until_white_is_told(tmp_path):
    (tmp_path / "bits").mkdir()
    values = np.random.default_rng(0).integers(0, 4096, (4, 16, 16)).astype(np.uint16)
    for i, pixels in enumerate(values):
        Image.fromarray(pixels).save(tmp_path / "bits" / f"{i}.png")
    dark = embed(tmp_path / "bits", encoder=ToyEncoder())
    assert max(dark.column("peak")) == 16
    assert "4 images of 16 bits use no more than 4,369 of 65,536 values" in dark.notes()[0]
    told = embed(f"{tmp_path / 'bits'}#white:4095", encoder=ToyEncoder())
    assert max(told.column("peak")) >= 254
    assert not [note for note in told.notes() if "16 bits" in note]


def test_a_write_that_falls_short_is_a_full_disk(tmp_path):
    error = files.storage_error(tmp_path / "vectors.npy", OSError("640000 requested and 522176 written"))
    assert "No space left" in error.message


def test_files_without_a_stamp_are_read_again(photos, tmp_path):
    """As over HTTP from a server that tells neither tag nor time."""

    class Stampless(FolderSource):
        def listing(self):
            found = super().listing()
            stamps = pa.array([""] * len(found.images))
            images = found.images.set_column(found.images.schema.get_field_index("stamp"), "stamp", stamps)
            return replace(found, images=images)

    for value in (10, 200):
        Image.new("RGB", (8, 8), (value, value, value)).save(photos / "cat" / "000.bmp")
        source = Stampless(open_source(str(photos)).address)
        encoder = ToyEncoder()
        same(embed(source, encoder=encoder, out=tmp_path / "out"), embed(source, encoder=ToyEncoder()))
        assert encoder.prepared == (31 if value == 10 else 1)
