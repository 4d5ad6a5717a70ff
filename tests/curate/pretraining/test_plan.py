from dataclasses import replace

import numpy as np
import pytest
import torch

from curate import pretraining
from curate.pretraining import budget, measure
from curate.pretraining.execution import Execution
from curate.pretraining.methods import simclr
from curate.pretraining.settings import resolve_settings
from curate.pretraining.trainer import Trainer
from embeddings.errors import TooFewImagesError, UnknownNameError, UsageError


def test_every_exported_name_reads_twice():
    for name in pretraining.__all__:
        assert getattr(pretraining, name) is getattr(pretraining, name)
        assert callable(getattr(pretraining, name))


def test_budget_figures(selection):
    plan = pretraining.plan(selection, samples=100, batch=64)
    assert (plan.unique_images, plan.samples_seen, plan.batch, plan.steps) == (16, 100, 4, 25)
    assert plan.epochs_equivalent == 100 / 16
    assert plan.diversity == 16 / 100
    assert plan.seconds > 0
    assert "N = 16 images, C = 100 samples: E = 6.2 times each" in plan.lines()[0]


def test_warnings_say_what_speaks_against_the_run(selection):
    small = pretraining.plan(selection, samples=8, batch=4).warnings
    assert len(small) == 2
    assert "below about 50,000" in small[0]
    assert "do not reach every image once" in small[1]
    assert "instead of 64" in pretraining.plan(selection, samples=100, batch=64).warnings[1]


def test_public_weights_are_not_warned_about(selection):
    assert pretraining.plan(selection, samples=16, batch=4, init="public", size=32).warnings == ()


def test_a_budget_below_one_pass_counts_the_images_it_sees(selection):
    plan = pretraining.plan(selection, samples=9, batch=4)
    assert plan.unique_images == 9
    assert plan.diversity == 1


def test_planning_writes_nothing_and_reads_no_image(selection, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    gone = replace(selection, sources={"pool": str(tmp_path / "gone")})
    pretraining.plan(gone, samples=100)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_estimate_leaves_trainer_and_random_state_alone(selection):
    settings = resolve_settings(selection, samples=100)
    trainer, state = Trainer(settings, Execution(device="cpu")), torch.get_rng_state()
    before = {name: tensor.clone() for name, tensor in trainer.learner.state_dict().items()}
    assert measure.measure_cost(trainer, batch=4).seconds > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert not trainer.optimizer.state_dict()["state"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.learner.state_dict().items())


def test_compiled_networks_are_timed_compiled(selection, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, *_: compiled.append(self))
    trainer = Trainer(resolve_settings(selection, samples=100), Execution(device="cpu", compile=True))
    assert measure.measure_cost(trainer, batch=4).flops > 0
    assert compiled[0] is trainer.network.module
    assert len(compiled) == 2
    assert compiled[1] is not compiled[0]


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (119, "119 s"), (150, "2 min"), (9000, "2 h")])
def test_times_in_words(seconds, words):
    assert budget._words(seconds) == words


def test_wishes_that_cannot_be_met(selection):
    with pytest.raises(UnknownNameError, match="simclr"):
        pretraining.plan(selection, samples=100, method="simcrl")
    with pytest.raises(UsageError, match="less than one batch"):
        pretraining.plan(selection, samples=3)
    with pytest.raises(TooFewImagesError, match="there are 1"):
        pretraining.plan(selection.truncate(1), samples=100)
    with pytest.raises(UsageError, match="no public weights"):
        pretraining.plan(selection, samples=100, backbone="tiny-resnet", init="public")
    with pytest.raises(UsageError, match="not one of method"):
        pretraining.plan(selection, samples=100, config=simclr.RECIPES["scratch"].training)
    with pytest.raises(UsageError, match="cannot be used here"):
        pretraining.plan(selection, samples=100, device="cuda:99" if not torch.cuda.is_available() else "xpu")


def test_repeats_lengthen_a_pass(select, image_folder, pictures):
    chosen = select(image_folder(pictures(16)), repeats=np.where(np.arange(16) < 4, 5, 1))
    plan = pretraining.plan(chosen, samples=32)
    assert plan.unique_images == 16
    assert plan.epochs_equivalent == 2
