"""Whole runs on a few small images: what they write, how they stop, and that they go on bit for bit."""

import itertools
import json
import math
import os
import signal
import threading
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from curate.exports.originals import open_sources
from curate.pretraining import loop, pretrain
from curate.pretraining.augment.draws import VIEW_DRAWS, draw, uniforms
from curate.pretraining.augment.views import augment
from curate.pretraining.curves import read_curves
from curate.pretraining.execution import Execution
from curate.pretraining.heap import resident_heap
from curate.pretraining.images import load_images
from curate.pretraining.methods import simclr
from curate.pretraining.sample import Seen
from curate.pretraining.settings import resolve_settings
from curate.pretraining.trainer import Trainer
from curate.results import Run
from embeddings.encoders.networks import build_network
from embeddings.encoders.torch_encoder import Placement
from embeddings.errors import ForeignFolderError, TooFewImagesError, TrainingError, UsageError
from embeddings.progress import silent

SAMPLES = 42  # 11 steps of at most 4


def run(selection, out, **options):
    return pretrain(selection, out=out, **{"samples": SAMPLES, "batch": 4, "device": "cpu", **options})


def tensors(folder):
    return load_file(folder / "backbone.safetensors")


def assert_same_run(one, two):
    assert (one / "curves.jsonl").read_bytes() == (two / "curves.jsonl").read_bytes()
    first, second = tensors(one), tensors(two)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.fixture(scope="module")
def selection(select, pictures, tmp_path_factory):
    """Sixteen small images in a folder."""
    root = tmp_path_factory.mktemp("images")
    for path, data in pictures(16, classes=("",), size=(24, 20)).items():
        (root / path).write_bytes(data)
    return select(root)


@pytest.fixture(scope="module")
def whole(selection, tmp_path_factory):
    """A run without interruption."""
    return run(selection, tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(autouse=True)
def _few_checkpoints(monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINTS", 4)


def test_what_a_run_writes(whole, selection):
    names = "README.md backbone.json backbone.safetensors checkpoints config.json curves.jsonl errors.parquet run.json"
    assert sorted(p.name for p in whole.path.iterdir()) == [*names.split(), "trained_on.parquet"]
    assert pq.read_table(whole.path / "trained_on.parquet")["key"].equals(selection.rows()["key"])
    facts = Run.open(whole.path).facts
    assert facts == whole.facts
    assert facts["schema"] == "curate.run/1"
    assert (facts["unique_images"], facts["samples_seen"], facts["steps"]) == (16, SAMPLES, 11)
    assert facts["epochs_equivalent"] == SAMPLES / 16
    assert facts["diversity"] == 16 / SAMPLES
    assert facts["selection"] == selection.digest == facts["config"]["selection"]
    assert facts["health"]["verdict"] != "diverged"
    assert facts["config"]["recipe"]["temperature"] == simclr.RECIPES["scratch"].temperature
    assert str(whole.path.parent) not in json.dumps(facts)
    curves = whole.curves()
    assert [row["samples_seen"] for row in curves] == [SAMPLES * s // 11 for s in range(1, 12)]
    losses = [row["loss"] for row in curves]  # 11 of them: the first one, and the mean of the last half
    assert (facts["loss_first"], facts["loss_last"]) == (losses[0], pytest.approx(np.mean(losses[-5:])))
    ends = f"The loss went from {facts['loss_first']:.3f} to {facts['loss_last']:.3f}"
    assert f"{ends} (means of the first 1 and the last 5 of the logged steps); its" in facts["health"]["detail"]
    sizes = np.diff([0] + [row["samples_seen"] for row in curves])
    assert [row["chance_loss"] for row in curves] == [math.log(2 * b - 1) for b in sizes]


def test_backbone_has_the_networks_own_names_and_learned(whole):
    scratch = build_network("tiny-resnet", seed=0).module.state_dict()
    found = tensors(whole.path)
    assert found.keys() == scratch.keys()
    assert not torch.equal(found["0.weight"], scratch["0.weight"])


def test_the_same_command_again_returns_at_once(whole, selection, monkeypatch):
    monkeypatch.setattr(loop, "Trainer", None)
    assert run(selection, whole.path).facts == whole.facts


def test_two_runs_are_equal_bit_for_bit(whole, selection, tmp_path):
    run(selection, tmp_path / "again")
    assert_same_run(whole.path, tmp_path / "again")


def test_seeds_differ(whole, selection, tmp_path):
    run(selection, tmp_path / "other", seed=1)
    assert not torch.equal(tensors(whole.path)["0.weight"], tensors(tmp_path / "other")["0.weight"])


@pytest.mark.parametrize("depth", [0, 1, 5])
def test_reading_ahead_does_not_change_the_run(whole, selection, tmp_path, monkeypatch, depth):
    monkeypatch.setattr(loop, "READ_AHEAD", depth)
    run(selection, tmp_path / "other")
    assert_same_run(whole.path, tmp_path / "other")


def test_neither_the_row_order_nor_where_the_images_lie_changes_the_run(whole, select, image_table, pictures, tmp_path):
    chosen = select(image_table(pictures(16, classes=("",), size=(24, 20))))
    run(chosen, tmp_path / "table")
    assert_same_run(whole.path, tmp_path / "table")


def interrupt(monkeypatch, at, error):
    plain, calls = Trainer.step, []

    def step(self, sample, *, share, **sizes):
        calls.append(share)
        if share and len([c for c in calls if c]) == at:  # the steps that estimate the time have share 0
            raise error
        return plain(self, sample, share=share, **sizes)

    monkeypatch.setattr(Trainer, "step", step)


@pytest.mark.parametrize("at", [1, 2, 6, 11])
def test_killed_at_any_step_it_goes_on_bit_for_bit(whole, selection, tmp_path, monkeypatch, at):
    out = tmp_path / "killed"
    interrupt(monkeypatch, at, RuntimeError("power cut"))
    with pytest.raises(RuntimeError, match="power cut"):
        run(selection, out)
    assert not (out / "run.json").exists()
    monkeypatch.undo()
    run(selection, out)
    assert_same_run(whole.path, out)


def test_a_run_begun_on_a_cpu_does_not_go_on_in_bfloat16(selection, tmp_path, monkeypatch):
    out = tmp_path / "killed"
    interrupt(monkeypatch, 8, RuntimeError("power cut"))
    with pytest.raises(RuntimeError, match="power cut"):
        run(selection, out)
    monkeypatch.undo()
    monkeypatch.setattr(Placement, "choose", lambda *_: Placement(torch.device("cpu"), "bfloat16"))  # as a GPU does
    with pytest.raises(ForeignFolderError, match="precision 'float32'"):
        run(selection, out)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_answered_with_a_checkpoint(whole, selection, tmp_path, monkeypatch, number):
    monkeypatch.setattr(loop, "CHECKPOINTS", 1)
    handler, out = signal.getsignal(number), tmp_path / "stopped"

    def stop(stage, done, total, note=""):
        if stage == "pretrain" and done > 14:
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        run(selection, out, progress=stop)
    assert signal.getsignal(number) is handler
    assert len(list((out / "checkpoints").glob("*.json"))) == 1
    seen = []
    run(selection, out, progress=lambda stage, done, total, note="": seen.append(done) if stage == "pretrain" else None)
    assert seen[0] > 15  # the steps before are not taken again
    assert_same_run(whole.path, out)


def test_runs_outside_of_the_main_thread(selection, tmp_path):
    thread = threading.Thread(target=run, args=(selection, tmp_path / "thread"))
    thread.start()
    thread.join()
    assert (tmp_path / "thread" / "run.json").exists()


def test_a_truncated_checkpoint_falls_back(whole, selection, tmp_path, monkeypatch, caplog):
    out = tmp_path / "damaged"
    interrupt(monkeypatch, 8, RuntimeError("power cut"))
    with pytest.raises(RuntimeError):
        run(selection, out)
    monkeypatch.undo()
    newest = max((out / "checkpoints").glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:1000])
    run(selection, out)
    assert newest.stem in caplog.text
    assert_same_run(whole.path, out)


def test_a_folder_of_another_run_is_refused_with_the_field_and_both_values(whole, selection, tmp_path):
    with pytest.raises(ForeignFolderError, match=r"seed is 0 there, 7 here"):
        run(selection, whole.path, seed=7)
    with pytest.raises(ForeignFolderError, match=r"selection is '\w{64}' there"):
        run(selection.truncate(12), whole.path)
    with pytest.raises(ForeignFolderError, match=r"recipe\.temperature is 0\.\d+ there, 0\.7 here"):
        run(selection, whole.path, config=replace(simclr.RECIPES["scratch"], temperature=0.7))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(ForeignFolderError, match="holds no pretraining run"):
        run(selection, tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_going_on_from_a_run(whole, selection, tmp_path):
    second = run(selection, tmp_path / "second", init=f"run:{whole.path}", samples=8)
    assert second.facts["config"]["init"] == "run"
    assert len(second.facts["config"]["init_weights"]) == 64
    assert not [w for w in second.facts["warnings"] if "scratch" in w]
    difference = tensors(second.path)["0.weight"] - tensors(whole.path)["0.weight"]
    assert 0 < difference.abs().max() < 0.1


def test_lite0_trains_on_from_its_public_weights(selection, tmp_path):
    found = run(selection, tmp_path / "lite0", init="public", size=32, samples=8)
    public = build_network("lite0", init="public").module.state_dict()
    trained = tensors(found.path)
    assert trained.keys() == public.keys()
    assert not torch.equal(trained["conv_stem.weight"], public["conv_stem.weight"])
    torch.testing.assert_close(trained["conv_stem.weight"], public["conv_stem.weight"], atol=0.02, rtol=0)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_its_checkpoints(selection, tmp_path):
    training = replace(simclr.RECIPES["scratch"].training, optimizer="sgd", learning_rate=1e30, batch=4, warmup=0.9)
    wild = replace(simclr.RECIPES["scratch"], training=training)
    with pytest.raises(TrainingError, match="diverged"):
        run(selection, tmp_path / "wild", config=wild)
    assert not (tmp_path / "wild" / "run.json").exists()
    assert all(math.isfinite(row["loss"]) for row in read_curves(tmp_path / "wild" / "curves.jsonl"))


def test_a_bad_image_is_left_out_and_listed(select, image_folder, pictures, tmp_path):
    root = image_folder(pictures(17))
    chosen = select(root)
    broken = sorted(root.rglob("*.png"))[3]
    broken.write_bytes(b"broken")
    found = run(chosen, tmp_path / "run")
    assert (found.facts["unique_images"], found.facts["errors"]) == (16, 1)
    errors = pq.read_table(tmp_path / "run" / "errors.parquet")
    assert errors["key"].to_pylist() == [broken.relative_to(root).as_posix()]


@pytest.mark.parametrize(("kept", "error"), [(0, TrainingError), (5, TooFewImagesError)])
def test_too_few_good_images_leave_nothing_behind(select, image_folder, pictures, tmp_path, kept, error):
    root = image_folder(pictures(12))
    chosen = select(root)
    for path in sorted(root.rglob("*.png"))[kept:]:
        path.write_bytes(b"broken")
    with pytest.raises(error):
        run(chosen, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_bad_wishes_leave_nothing_behind(selection, tmp_path):
    for wish in ({"samples": 3}, {"method": "none"}, {"backbone": "vgg"}, {"size": 33}, {"init": f"run:{tmp_path}"}):
        with pytest.raises(UsageError):
            run(selection, tmp_path / "run", **wish)
    with pytest.raises(UsageError):
        run(replace(selection, sources={}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_reads_a_saved_selection(whole, selection, tmp_path):
    selection.save(tmp_path / "chosen")
    run(str(tmp_path / "chosen"), tmp_path / "again")
    assert_same_run(whole.path, tmp_path / "again")


def test_after_step_is_called_with_the_share_of_the_budget(selection, tmp_path, monkeypatch):
    shares = []
    monkeypatch.setattr(simclr.SimCLR, "after_step", lambda self, share: shares.append(share), raising=False)
    run(selection, tmp_path / "run")
    edges = np.array([SAMPLES * s // 11 for s in range(12)])
    assert [s for s in shares if s] == pytest.approx(((edges[1:] + edges[:-1]) / 2 / SAMPLES).tolist())


def naive_run(selection, folder, seed=0):
    """The same training written out plainly; shares only the views, the network and torch's AdamW with it."""
    settings = resolve_settings(selection, samples=SAMPLES, batch=4, seed=seed)
    config, learner = settings.recipe, Trainer(settings, Execution(device="cpu")).learner
    block = load_images(selection.rows(), open_sources(selection), folder, edge=40, progress=silent)
    weights = [p for p in learner.parameters() if p.ndim > 1]
    others = [p for p in learner.parameters() if p.ndim < 2]
    groups = [{"params": weights, "weight_decay": config.training.weight_decay}, {"params": others, "weight_decay": 0}]
    optimizer = torch.optim.AdamW(groups)
    passes = []
    for visit in range(3):
        high, low = uniforms(seed, block.facts.hashes, np.full(16, visit), stream=0, count=2).T
        passes += [(row, visit) for row in np.argsort(high + low * 2.0**-32)]
    edges = [SAMPLES * s // 11 for s in range(12)]
    for start, end in itertools.pairwise(edges):
        rows, visits = np.array(passes[start:end]).T
        share, warmup = (start + end) / 2 / SAMPLES, config.training.warmup
        cosine = (1 + math.cos(math.pi * (share - warmup) / (1 - warmup))) / 2
        for group in optimizer.param_groups:
            group["lr"] = (
                config.training.learning_rate * (4 / 256) ** 0.5 * (share / warmup if share < warmup else cosine)
            )
        batches = []
        for view, preset in enumerate(simclr.views(config)):
            u = uniforms(seed, block.facts.hashes[rows], visits, stream=view + 1, count=VIEW_DRAWS)
            pixels = augment(torch.from_numpy(block.read(rows)), draw(preset, u, stored=40, size=32), size=32)
            mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
            batches.append((255 * pixels - mean) / std)
        optimizer.zero_grad()
        learner.loss(learner.project(learner.encode(Seen(batches, None, seed)).parts), share=share).backward()
        optimizer.step()
    return learner.backbone.state_dict()


def test_trajectory_equals_a_plainly_written_loop(whole, selection, tmp_path):
    wanted, found = naive_run(selection, tmp_path / "naive"), tensors(whole.path)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_memory_setting_is_put_back_after_an_error():
    def fail():
        with resident_heap():
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    with resident_heap():
        assert torch.ones(1 << 20).sum() == 1 << 20
