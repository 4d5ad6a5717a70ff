"""Images that are not trained on: which ones they are, what is told of them, and that training does not notice."""

import math
import os
import socket
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from curate.exports.originals import open_sources
from curate.pretraining import loop, pretrain, unseen, watch
from curate.pretraining.curves import read_curves
from curate.pretraining.execution import Execution
from curate.pretraining.images import load_images
from curate.pretraining.knobs import read_knobs
from curate.pretraining.sample import Sample
from curate.pretraining.settings import resolve_settings
from curate.pretraining.trainer import Trainer
from curate.pretraining.unseen import Unseen, find_unseen, losses
from curate.results import LEFT_OUT, SELECTION
from embeddings.progress import silent

SAMPLES = 40  # 10 steps of 4
POOL, CHOSEN = 40, 16


@pytest.fixture(scope="module")
def selection(select, pictures, tmp_path_factory):
    """The first sixteen of forty small images in a folder."""
    root = tmp_path_factory.mktemp("images")
    for path, data in pictures(POOL, classes=("",), size=(24, 20)).items():
        (root / path).write_bytes(data)
    return select(root).truncate(CHOSEN)


def shorten(patch):
    patch.setattr(unseen, "PER_IMAGE", 1)
    patch.setattr(unseen, "VISITS", 1)
    patch.setattr(watch, "TIMES", 3)


@pytest.fixture
def short(monkeypatch):
    """Runs of a few steps are worth a look, at three of them."""
    shorten(monkeypatch)


def run(selection, out, **options):
    return pretrain(selection, out=out, **{"samples": SAMPLES, "batch": 4, "size": 28, "device": "cpu", **options})


def find(selection, folder, samples=10_000):
    block = load_images(selection.rows(), open_sources(selection), folder / "images", edge=35, progress=silent)
    return find_unseen(selection, block, folder / "images", samples=samples, edge=35), block


def keys(folder):
    return pq.read_table(folder / "images" / "unseen.parquet")["key"].to_pylist()


def without(selection, names):
    """The selection with some images left out for a reason."""
    rows = [{"source": "pool", "key": name, "code": "license", "reason": "r", "because_of": ""} for name in names]
    return replace(selection, left_out=pa.Table.from_pylist(rows, schema=LEFT_OUT))


def test_they_are_neither_selected_nor_left_out(selection, tmp_path):
    banned = [f"{i:03d}.png" for i in range(CHOSEN, CHOSEN + 8)]
    found, block = find(without(selection, banned), tmp_path)
    assert (len(found.unseen), len(found.seen)) == (16, 16)  # all that are left
    chosen = set(selection.rows()["key"].to_pylist())
    assert len(set(keys(tmp_path))) == 16
    assert not set(keys(tmp_path)) & (chosen | set(banned))
    assert set(found.seen.hashes) <= set(block.facts.hashes)
    assert not set(found.unseen.hashes) & set(block.facts.hashes)
    assert found.facts() == {"images": 16, "sources": {"pool": 16}}
    assert (found.seen.visits == unseen.VISIT).all()


@pytest.mark.parametrize(("samples", "count"), [(799, 0), (800, 8), (1_250, 12), (1 << 20, 16)])
def test_as_many_as_a_run_is_long(selection, tmp_path, samples, count):
    found, _ = find(selection, tmp_path, samples)
    if count:
        assert len(found.unseen) == len(found.seen) == count  # 24 are left: one batch of the 16
    else:
        assert "too few for it to be worth a look: it takes 800" in found


def test_not_where_images_are_seen_seldom(selection, tmp_path, monkeypatch):
    monkeypatch.setattr(unseen, "VISITS", 10_000 // CHOSEN + 1)
    assert find(selection, tmp_path)[0] == f"no image is seen {unseen.VISITS} times: too seldom to be learned by heart"


def test_of_few_training_images_there_are_several_batches_of_unseen_ones(selection, tmp_path):
    found, _ = find(selection.truncate(10), tmp_path)
    assert (len(found.seen), len(found.unseen), found.share) == (10, 30, 1.0)
    assert len(set(found.unseen.hashes)) == 30


def test_pools_are_looked_at_as_they_were_selected(select, pictures, tmp_path):
    """Twelve of one pool and four of another; the target's own images are never looked at."""
    parts, sources = [], {}
    for number, (name, count) in enumerate({"a": 12, "b": 4, "target": 8}.items()):
        root = tmp_path / name
        root.mkdir()
        for path, data in pictures(30, classes=("",), seed=number).items():
            (root / path).write_bytes(data)
        one = select(root)
        column = pa.array([name] * 30, pa.string())
        parts.append(one.table.set_column(0, "source", column).slice(0, count))
        sources[name] = str(root)
    chosen = replace(one, table=pa.concat_tables(parts).cast(SELECTION), sources=sources)
    found, block = find(chosen, tmp_path, samples=1_600)
    assert found.sources == {"a": 12, "b": 4}
    assert len(found.seen) == 16
    assert len(set(found.seen.hashes) - set(block.facts.hashes)) == 0


def test_where_there_are_none_it_says_why(select, selection, tmp_path):
    everything = select(selection.sources["pool"])
    assert find(everything, tmp_path / "all")[0].startswith("the pools hold 0 whole images at hand")
    tiled = replace(selection, sources={"pool": selection.sources["pool"] + "#tiles:16"})
    assert find(tiled, tmp_path / "tiled")[0].startswith("the pools hold 0 whole images at hand")
    few = without(selection, [f"{i:03d}.png" for i in range(CHOSEN, POOL - 7)])
    assert "the pools hold 7 whole images" in find(few, tmp_path / "few")[0]


def test_a_pool_that_cannot_be_listed_is_no_reason_to_stop(selection, tmp_path, monkeypatch):
    def gone(*_):
        raise unseen.CurateError("The pool is gone.")

    monkeypatch.setattr(unseen, "_others", gone)
    assert find(selection, tmp_path)[0] == "The pool is gone."


def test_a_run_that_goes_on_looks_at_the_same_ones(select, pictures, tmp_path):
    root = tmp_path / "pool"
    root.mkdir()
    for path, data in pictures(POOL, classes=("",)).items():
        (root / path).write_bytes(data)
    chosen = select(root).truncate(CHOSEN)
    first, _ = find(chosen, tmp_path)
    for path, data in pictures(9, classes=("",), seed=1).items():
        (root / f"new-{path}").write_bytes(data)
    again, _ = find(chosen, tmp_path)
    assert np.array_equal(again.unseen.hashes, first.unseen.hashes)
    assert np.array_equal(again.unseen.pixels, first.unseen.pixels)


def trainer(selection, method="simclr", **options):
    return Trainer(resolve_settings(selection, samples=100, method=method, **options), Execution(device="cpu"))


def batch(trainer, n, seed=0):
    edge = trainer.settings.backbone.stored_edge
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 3, edge, edge), dtype=np.uint8)
    return Sample(pixels, np.arange(n, dtype=np.uint64) * np.uint64(77), np.full(n, unseen.VISIT))


@pytest.mark.parametrize("method", ["simclr", "dino", "mae", "byol"])
def test_the_loss_is_that_of_a_training_step_and_training_does_not_notice(selection, method):
    made = trainer(selection, method)
    made.step(batch(made, 6, seed=1), share=0.2, batch=6)
    before = {name: tensor.clone() for name, tensor in made.learner.state_dict().items()}
    chance = torch.get_rng_state()
    sample = batch(made, 9)
    found = losses(made, sample, share=0.3, batch=9, parts=4)
    assert len(found) == 5
    assert len(set(found)) == 5
    assert torch.equal(torch.get_rng_state(), chance)
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.learner.state_dict().items())
    assert found[0] == pytest.approx(made.step(sample, share=0.3, batch=9).loss, abs=1e-6)


def test_without_a_part_is_the_loss_of_the_others(selection):
    """Of a transformer and MAE's loss, which look at each image by itself."""
    made = trainer(selection, "mae")
    sample = batch(made, 8)
    _, *parts = losses(made, sample, share=0.0, batch=8, parts=4)
    for number, found in enumerate(parts):
        rows = np.delete(np.arange(8), slice(2 * number, 2 * number + 2))
        kept = Sample(sample.pixels[rows], sample.hashes[rows], sample.visits[rows])
        assert losses(made, kept, share=0.0, batch=6, parts=2)[0] == pytest.approx(found, rel=1e-5)


def test_batches_count_alike(selection):
    made = trainer(selection)
    sample = batch(made, 12)
    halves = [losses(made, sample.part(rows), share=0.0, batch=6) for rows in (slice(0, 6), slice(6, 12))]
    assert losses(made, sample, share=0.0, batch=6) == pytest.approx(np.mean(halves, axis=0).tolist())


@pytest.fixture(scope="module")
def looked(selection, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        return run(selection, tmp_path_factory.mktemp("looked") / "run")


def weights(run):
    return load_file(run.path / "backbone.safetensors")


def test_a_run_is_looked_at_at_shares_of_c_and_ends_in_the_same_weights(looked, selection, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "TIMES", 3)
    plain = run(selection, tmp_path / "plain")
    assert "too few for it to be worth a look" in plain.facts["unseen"]["reason"]
    facts, rows = looked.facts["unseen"], looked.curves()
    assert (facts["images"], facts["sources"]) == (16, {"pool": 16})
    assert facts["end"] == {"unseen": rows[-1]["unseen_loss"], "seen": rows[-1]["seen_loss"]}
    trivial = max(0.0, facts["start"]["seen"] - math.log(2 * 16 - 1))  # down to the chance loss of sixteen
    falls = [facts["start"][name] - facts["end"][name] - trivial for name in ("unseen", "seen")]
    assert facts["by_heart"] in (None, pytest.approx(1 - falls[0] / falls[1]))
    assert "overfitting would not show" not in looked.facts["health"]["detail"]
    one, two = weights(looked), weights(plain)
    assert all(torch.equal(one[name], two[name]) for name in one)
    extra = {"unseen_loss", "unseen_parts", "seen_loss", "seen_parts"}
    assert [{k: v for k, v in row.items() if k not in extra} for row in rows] == plain.curves()
    assert [row["samples_seen"] for row in rows if "unseen_loss" in row] == [16, 28, 40]
    assert all(len(row["unseen_parts"]) == 8 for row in rows if extra & row.keys())
    assert not (looked.path / "images").exists()


@pytest.mark.usefixtures("short")
def test_it_goes_on_bit_for_bit(looked, selection, tmp_path, monkeypatch):
    plain, steps = Trainer.step, []

    def step(self, sample, **wishes):
        steps.append(wishes["share"])
        if len([s for s in steps if s]) == 7:
            raise RuntimeError("power cut")
        return plain(self, sample, **wishes)

    monkeypatch.setattr(Trainer, "step", step)
    monkeypatch.setattr(loop, "CHECKPOINTS", 2)
    with pytest.raises(RuntimeError, match="power cut"):
        run(selection, tmp_path / "run")
    monkeypatch.setattr(Trainer, "step", plain)
    again = run(selection, tmp_path / "run")
    assert again.curves() == looked.curves()
    assert again.facts["unseen"] == looked.facts["unseen"]


@pytest.mark.usefixtures("short")
def test_neither_streaming_nor_threads_change_what_is_seen(looked, selection, tmp_path):
    assert run(selection, tmp_path / "run", cache=0, workers=3).curves() == looked.curves()


@pytest.mark.usefixtures("short")
def test_trackers_are_told_figures_only(selection, tmp_path, monkeypatch):
    told = []
    tracker = type("Told", (), {"log": lambda self, row: told.append(dict(row)), "close": lambda self: None})()
    monkeypatch.setattr("curate.pretraining.watch.find_tracker", lambda name: lambda folder, seen: tracker)
    found = run(selection, tmp_path / "run", samples=16, tracker="mine")
    assert told == [{k: v for k, v in row.items() if "_parts" not in k} for row in found.curves()]
    assert "unseen_loss" in told[-1]


TOGETHER = """
import sys, torch
from curate.pretraining import pretrain, unseen, watch
torch.set_num_threads(1)
unseen.PER_IMAGE, unseen.VISITS, watch.TIMES = 1, 1, 3
wishes = {"samples": 40, "batch": 4, "size": 28, "device": "cpu", "precision": "float64"}
pretrain(sys.argv[1], out=sys.argv[2], **wishes)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_two_processes_look_as_one(selection, tmp_path):
    alone = run(selection, tmp_path / "alone", precision="float64").curves()
    selection.save(tmp_path / "chosen")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TOGETHER, str(tmp_path / "chosen"), str(tmp_path / "both")]
    running = [subprocess.Popen(command, env=os.environ | shared | {"RANK": str(rank)}) for rank in range(2)]
    assert [process.wait(timeout=300) for process in running] == [0, 0]
    both = read_curves(tmp_path / "both" / "curves.jsonl")
    assert len(both) == len(alone) == 10
    for one, other in zip(both, alone, strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() & {"loss", "unseen_loss", "unseen_parts", "seen_loss"}:
            assert one[name] == pytest.approx(other[name], abs=1e-6), name


def fields(n):
    """Random colors on coarse and fine grids, some of them smooth: no two pictures have much in common."""
    rng = np.random.default_rng(0)
    for _ in range(n):
        cells = int(rng.integers(2, 14))
        colors = Image.fromarray(rng.integers(0, 256, (cells, cells, 3)).astype(np.uint8))
        smooth = rng.choice([Image.Resampling.NEAREST, Image.Resampling.BICUBIC])
        yield np.asarray(colors.resize((40, 40), Image.Resampling(int(smooth))))


@pytest.mark.slow
@pytest.mark.parametrize(("count", "verdict"), [(16, "overfitting"), (600, "healthy")])
def test_few_images_are_learned_by_heart(select, image_table, encode, tmp_path, monkeypatch, count, verdict):
    """And many are not. 16 at C = 2,500: .58 of the fall is theirs alone."""
    monkeypatch.setattr(unseen, "PER_IMAGE", 39)
    monkeypatch.setattr(unseen, "VISITS", 1)  # to tell that the many would not be taken for learned by heart either
    chosen = select(image_table({f"{i:04d}.png": encode(p) for i, p in enumerate(fields(700))}))
    knobs = read_knobs(["teacher=lite0@32", "augmentation=gray-small", "size=28"], method="distill", init="scratch")
    made = pretrain(
        chosen.truncate(count), samples=2_500, out=tmp_path / "run", device="cpu", method="distill", **knobs
    )
    assert made.facts["health"]["verdict"] == verdict, made.facts
    assert (made.facts["unseen"]["by_heart"] > 1 / 3) == (verdict == "overfitting")


def test_what_is_looked_at_is_counted_by_source():
    empty = Sample(np.zeros((3, 3, 2, 2), np.uint8), np.arange(3, dtype=np.uint64), np.zeros(3, np.int64))
    assert Unseen(empty, empty, Counter(a=2, b=1), 1.0).facts() == {"images": 3, "sources": {"a": 2, "b": 1}}
