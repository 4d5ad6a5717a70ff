"""Runs that are looked at: probe, abort, trackers, export, card; none of it changes the weights."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from curate.pretraining import explain, features, loop, plan, pretrain, probe, trackers, watch
from curate.pretraining.curves import read_curves
from curate.pretraining.measure import Cost
from curate.pretraining.methods import default_recipe
from curate.pretraining.methods.mae import MAE
from curate.pretraining.trainer import Trainer
from embeddings.encoders.checkpoint import load_backbone
from embeddings.encoders.networks import build_network
from embeddings.encoders.torch_encoder import Placement
from embeddings.errors import (
    CorruptError,
    MissingExtraError,
    SourceError,
    TooFewImagesError,
    TrainingError,
    UnknownNameError,
    UsageError,
)

SAMPLES = 40  # 10 steps of 4


def run(selection, out, **options):
    return pretrain(selection, out=out, **{"samples": SAMPLES, "batch": 4, "size": 28, "device": "cpu", **options})


def weights(run):
    return load_file(run.path / "backbone.safetensors")


def assert_same(one, two):
    first, second = weights(one), weights(two)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def selection(select, pictures, tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for path, data in pictures(16, classes=("",), size=(24, 20)).items():
        (root / path).write_bytes(data)
    return select(root)


@pytest.fixture(scope="module")
def labeled(encode, tmp_path_factory):
    """Thirty bright and dark pictures in two folders, one of them without meaning for a class."""
    root, rng = tmp_path_factory.mktemp("labeled"), np.random.default_rng(0)
    for number in range(30):
        name = ("bright", "dark")[number % 2]
        (root / name).mkdir(exist_ok=True)
        level = 200 if name == "bright" else 40
        picture = rng.integers(level - 30, level + 30, (28, 28, 3)).astype(np.uint8)
        (root / name / f"{number}.png").write_bytes(encode(picture))
    return str(root)


@pytest.fixture(scope="module")
def plain(selection, tmp_path_factory):
    return run(selection, tmp_path_factory.mktemp("plain") / "run")


@pytest.fixture(scope="module")
def probed(selection, labeled, tmp_path_factory):
    return run(selection, tmp_path_factory.mktemp("probed") / "run", probe=labeled)


def test_a_probe_changes_nothing_but_what_is_told(plain, probed):
    assert_same(plain, probed)
    told = [{k: v for k, v in row.items() if not k.startswith("probe")} for row in probed.curves()]
    assert told == plain.curves()


def test_the_probe_is_read_at_ten_shares_and_told(probed, labeled):
    read = [row for row in probed.curves() if "probe" in row]
    assert [row["samples_seen"] for row in read] == [4 * i for i in range(1, 11)]
    facts = probed.facts["probe"]
    assert (facts["images"], facts["classes"], facts["encoder"]) == (30, 2, "lite0")
    assert facts["frozen"]["accuracy"] == 1  # bright or dark: anyone sees that
    assert facts["end"]["accuracy"] == read[-1]["probe"] > 0.9
    assert facts["end"]["se"] == pytest.approx(np.sqrt(read[-1]["probe"] * (1 - read[-1]["probe"]) / 30))
    assert labeled not in json.dumps(probed.facts)


def test_what_the_probe_sees_is_what_the_encoder_of_the_run_says(probed, selection):
    network, size = load_backbone(probed.path)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, size, size), dtype=np.uint8)
    found = features.features_of(network, pixels, Placement(torch.device("cpu"), "float32"))
    x = torch.from_numpy(pixels).float()
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (network.mean, network.std))
    with torch.inference_mode():
        wanted = network.module.eval()((x - mean) / std).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_with_a_probe_it_goes_on_bit_for_bit(probed, selection, labeled, tmp_path, monkeypatch):
    plain, steps = Trainer.step, []

    def step(self, sample, *, share, **sizes):
        steps.append(share)
        if len([s for s in steps if s]) == 7:
            raise RuntimeError("power cut")
        return plain(self, sample, share=share, **sizes)

    monkeypatch.setattr(Trainer, "step", step)
    monkeypatch.setattr(loop, "CHECKPOINTS", 2)
    with pytest.raises(RuntimeError, match="power cut"):
        run(selection, tmp_path / "run", probe=labeled)
    monkeypatch.setattr(Trainer, "step", plain)
    again = run(selection, tmp_path / "run", probe=labeled)
    assert_same(probed, again)
    assert again.curves() == probed.curves()
    assert again.facts["probe"] == probed.facts["probe"]


def test_mae_and_a_transformer_are_probed_too(selection, labeled, tmp_path):
    found = run(selection, tmp_path / "run", samples=8, method="mae", probe=labeled)
    assert 0 <= found.facts["probe"]["end"]["accuracy"] <= 1


def test_progress_shows_the_probe_beside_the_frozen_encoder(selection, labeled, tmp_path):
    notes = []
    run(selection, tmp_path / "run", samples=8, probe=labeled, progress=lambda *said: notes.append(str(said[-1])))
    assert any("probe" in note and "frozen 100.0%" in note for note in notes)


def test_probes_that_cannot_be_are_refused_before_anything_is_embedded(
    selection, image_folder, pictures, tmp_path, monkeypatch
):
    alike = image_folder({f"a/{name.replace('/', '-')}": data for name, data in pictures(24).items()}, "alike")
    few = image_folder(pictures(12), "few")
    flat = image_folder({name.rpartition("/")[2]: data for name, data in pictures(24).items()}, "flat")
    monkeypatch.setattr(probe, "as_store", lambda *_, **__: pytest.fail("embedded"))
    for source, error, words in (
        (alike, UsageError, "one label only"),
        (few, TooFewImagesError, "12 labeled images in"),
        (flat, UsageError, "none of its 24 images has a label"),
        (tmp_path / "absent", SourceError, "The probe's source: No folder or file"),
    ):
        with pytest.raises(error, match=words):
            run(selection, tmp_path / "run", probe=str(source))
        for ask in (plan, explain):
            with pytest.raises(error, match=words):
                ask(selection, samples=48, probe=str(source))
    assert not (tmp_path / "run").exists()


def slow(rate=1e-9):
    recipe = default_recipe("simclr", "scratch")
    return replace(recipe, training=replace(recipe.training, learning_rate=rate, batch=4))


def test_abort_stops_a_run_that_does_not_learn_and_saves_it(selection, tmp_path):
    out, options = tmp_path / "run", {"config": slow(), "batch": None, "samples": 96}
    found = run(selection, out, abort=True, **options)
    facts = found.facts
    assert facts["health"]["verdict"] in ("collapsed", "not learning")  # pictures of noise have little in common
    at = facts["stopped"]["at"]
    assert 0.2 * 96 <= at < 0.5 * 96
    assert (facts["samples_seen"], facts["steps"], facts["stage_samples"]) == (at, at // 4, [at])
    assert facts["epochs_equivalent"] == at / facts["unique_images"]
    assert facts["stopped"]["saved"] == pytest.approx(1 - at / 96)
    assert f"{facts['health']['verdict']} since step" in facts["stopped"]["reason"]
    assert found.curves()[-1]["samples_seen"] == at
    assert "was stopped at" in (out / "README.md").read_text()
    assert run(selection, out, abort=True, **options).facts == facts  # it stays as it is
    whole = run(selection, out, **options)  # until it is told to go on
    assert (whole.facts["samples_seen"], whole.facts["stopped"]) == (96, None)
    assert_same(whole, run(selection, tmp_path / "whole", **options))


def test_rows_tell_the_length_of_the_weights_and_which_stage_they_are_of(plain, selection, tmp_path):
    assert all(row["weight_norm"] > 0 and "stage" not in row for row in plain.curves())
    halves = pa.array([row // 8 for row in range(16)], pa.int32())
    place = selection.table.schema.get_field_index("stage")
    staged = replace(selection, table=selection.table.set_column(place, "stage", halves))
    found = run(staged, tmp_path / "run", samples=16)
    assert [row["stage"] for row in found.curves()] == [0] * 4 + [1] * 4  # batches of two, a quarter of a stage
    assert "stage" not in run(staged, tmp_path / "mixed", samples=8, order="mixed").curves()[0]


def test_a_healthy_run_is_not_stopped(plain, selection, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "should_stop", lambda health, rows, *, samples: False)
    found = run(selection, tmp_path / "run", abort=True)
    assert found.facts["stopped"] is None
    assert_same(plain, found)


class Fake:
    """A tracker that remembers, and fails when told to."""

    def __init__(self, fails=""):
        self.rows, self.closed, self.fails = [], 0, fails

    def log(self, row):
        self.rows.append(row)
        if self.fails == "log":
            raise ConnectionError("gone")

    def close(self):
        self.closed += 1


class Entry:
    def __init__(self, opener):
        self.load = lambda: opener


@pytest.fixture
def fake(monkeypatch):
    made = Fake()
    monkeypatch.setattr(trackers, "_plugins", lambda: {"mine": Entry(lambda folder, seen: made)})
    return made


def test_a_tracker_by_entry_point_gets_every_row(selection, tmp_path, fake):
    found = run(selection, tmp_path / "run", samples=8, tracker="mine")
    assert fake.rows == found.curves() == read_curves(found.path / "curves.jsonl")
    assert fake.closed == 1


def test_a_tracker_that_fails_does_no_harm(selection, tmp_path, fake, caplog):
    fake.fails = "log"
    found = run(selection, tmp_path / "run", samples=8, tracker="mine")
    assert (len(fake.rows), fake.closed) == (1, 0)
    assert len(found.curves()) == 2
    assert "Tracker mine failed (ConnectionError: gone)" in caplog.text


def test_a_tracker_that_does_not_open_does_no_harm(selection, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(trackers, "_plugins", lambda: {"mine": Entry(lambda folder: None)})
    run(selection, tmp_path / "run", samples=8, tracker="mine")
    assert "Tracker mine failed (TypeError" in caplog.text


def test_unknown_and_absent_trackers_are_refused_first(selection, tmp_path, monkeypatch):
    with pytest.raises(UnknownNameError, match="tensorbord") as error:
        run(selection, tmp_path / "run", tracker="tensorbord")
    assert error.value.nearest == ["tensorboard"]

    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(trackers, "import_module", absent)
    with pytest.raises(MissingExtraError, match="tensorboard") as error:
        run(selection, tmp_path / "run", tracker="tensorboard")
    assert "pip install" in error.value.hint
    assert not (tmp_path / "run").exists()


def test_tensorboard_gets_scalars_by_samples_seen(tmp_path, monkeypatch):
    written, opened = [], []

    class Writer:
        def __init__(self, folder, purge_step):
            opened.append((folder, purge_step))

        def add_scalar(self, name, value, global_step):
            written.append((name, value, global_step))

        def close(self):
            written.append("closed")

    monkeypatch.setattr(trackers, "import_module", lambda name: type("module", (), {"SummaryWriter": Writer}))
    for seen in (0, 40):
        tracker = trackers.find_tracker("tensorboard")(tmp_path, seen)
    tracker.log({"samples_seen": 44, "step": 11, "loss": 2.5})
    tracker.close()
    assert opened == [(str(tmp_path / "tensorboard"), None), (str(tmp_path / "tensorboard"), 41)]
    assert written == [("loss", 2.5, 44), "closed"]


@pytest.mark.parametrize("keep", [1, 3])
def test_keeps_as_many_checkpoints_as_asked(selection, tmp_path, keep):
    found = run(selection, tmp_path / "run", keep=keep)
    assert len(list((found.path / "checkpoints").glob("*.safetensors"))) == keep
    with pytest.raises(UsageError, match="0 checkpoints"):
        run(selection, tmp_path / "other", keep=0)


def test_an_export_that_says_something_else_is_an_error(selection, tmp_path, monkeypatch):
    other = build_network("tiny-resnet", seed=9, size=28)
    monkeypatch.setattr(features, "load_backbone", lambda folder: (other, 28))
    with pytest.raises(CorruptError, match="does not give the features"):
        run(selection, tmp_path / "run", samples=8)
    assert not (tmp_path / "run" / "run.json").exists()


def test_methods_of_one_view_have_no_share_of_the_image(selection, tmp_path):
    found = run(selection, tmp_path / "run", samples=8, method="mae")
    assert all("image_share" not in row and "picture_spread" in row for row in found.curves())
    assert all("image_share" in row for row in run(selection, tmp_path / "two", samples=8).curves())


def test_rows_off_the_log_cost_no_rank(selection, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("curate.pretraining.trainer.rank_me", lambda x: calls.append(len(x)) or 1.0)
    monkeypatch.setattr("curate.pretraining.curves.MAX_ROWS", 2)
    monkeypatch.setattr(watch, "TIMES", 1)
    found = run(selection, tmp_path / "run")
    assert len(calls) == len(found.curves()) == 2


def test_a_methods_own_figures_are_asked_for_at_logged_steps_only(selection, tmp_path, monkeypatch):
    """And they are those that every step's would be: of that step alone."""
    plain, asked = MAE.diagnostics, []
    every = run(selection, tmp_path / "every", method="mae", samples=16).curves()
    monkeypatch.setattr(MAE, "diagnostics", lambda self: asked.append(1) or plain(self))
    monkeypatch.setattr("curate.pretraining.curves.MAX_ROWS", 2)
    monkeypatch.setattr(watch, "TIMES", 1)
    monkeypatch.setattr(loop, "measure_cost", lambda trainer, batch: Cost(1.0, 1.0))
    some = run(selection, tmp_path / "some", method="mae", samples=16).curves()
    assert len(asked) == len(some) == 2
    wanted = [row for row in every if row["step"] in (2, 4)]
    for name in ("chance_loss", "loss", "gradient_norm", "rank_me"):
        assert [row[name] for row in some] == [row[name] for row in wanted]


def test_a_loss_that_is_not_logged_is_looked_at_one_step_later(selection, tmp_path, monkeypatch):
    plain, losses = Trainer.step, []

    def step(self, sample, **wishes):
        measured = plain(self, sample, **wishes)
        losses.append(measured)
        return replace(measured, raw_loss=torch.tensor(torch.nan)) if len(losses) == 3 else measured

    monkeypatch.setattr(Trainer, "step", step)
    monkeypatch.setattr("curate.pretraining.curves.MAX_ROWS", 2)
    monkeypatch.setattr(watch, "TIMES", 1)
    monkeypatch.setattr(loop, "measure_cost", lambda trainer, batch: Cost(1.0, 1.0))
    with pytest.raises(TrainingError, match="The loss was nan after 12 samples"):
        run(selection, tmp_path / "run")
    assert len(losses) == 4
    assert read_curves(tmp_path / "run" / "curves.jsonl") == []


def test_a_batch_that_does_not_fit_is_told_in_words(selection, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("curate.pretraining.trainer.backward", full)
    with pytest.raises(TrainingError, match="A batch of 4 images does not fit into the memory of cpu") as error:
        run(selection, tmp_path / "run")
    assert "chunks=4" in error.value.hint
