"""The verdicts on real runs of every method; their curves were recorded into recorded_curves.json in this way."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_pretrain_learns import stripes

from curate.pretraining.adaptation import Adaptation
from curate.pretraining.backbones import resolve_backbone
from curate.pretraining.execution import Execution
from curate.pretraining.features import features_of
from curate.pretraining.health import feature_spread, judge, weight_norm
from curate.pretraining.methods import METHODS, default_recipe
from curate.pretraining.sample import Sample
from curate.pretraining.schedule import Images, Schedule
from curate.pretraining.settings import Settings
from curate.pretraining.stages import Order
from curate.pretraining.trainer import Trainer
from curate.pretraining.watch import crosses, squeezed

IMAGES, BATCH, SIZE, EDGE = 64, 16, 28, 35
VERDICTS = {"healthy": "healthy", "frozen": "not learning", "alike": "collapsed", "wild": "diverged"}
CHANGES = {"frozen": {"learning_rate": 1e-9}, "wild": {"optimizer": "sgd", "learning_rate": 1e5, "clip": None}}
# With its default recipe it does not leave its chance value on so few images and steps.
SLOWER = {
    "dino": {
        "teacher_temperature": 0.07,
        "teacher_temperature_start": 0.07,
        "local_views": 0,
        "hidden": 128,
        "dim": 64,
        "freeze": 0.0,
        "teacher_momentum": 0.99,
    }
}
STEPS = {"healthy": 48, "frozen": 16, "alike": 24, "wild": 16}
LONGER = {("dino", "healthy"): 100, ("vicreg", "healthy"): 120, ("mae", "alike"): 48}


def settings(method, kind):
    recipe = default_recipe(method, "scratch")
    decay = {"weight_decay": 0.0} if kind in CHANGES else {}
    training = replace(recipe.training, batch=BATCH, **CHANGES.get(kind, {}), **decay)
    extra = {"prototypes": 256} if method == "dino" else {}
    extra |= SLOWER.get(method, {}) if kind == "healthy" else {}
    return Settings(
        method=method,
        recipe=replace(recipe, training=training, **extra),
        backbone=resolve_backbone(METHODS[method].backbone, init="scratch", size=SIZE),
        samples=BATCH * LONGER.get((method, kind), STEPS[kind]),
        order=Order(),
        adapt=Adaptation(),
        seed=0,
        selection="",
    )


def curves(method, kind):
    """The rows of a run on stripes, or on the first of them alone, and the length of its weights before."""
    made = settings(method, kind)
    pixels = np.stack([picture[:EDGE, :EDGE].transpose(2, 0, 1) for picture in stripes(IMAGES, 0)[0]])
    pixels = pixels[np.zeros(IMAGES, int)] if kind == "alike" else pixels
    hashes = np.arange(IMAGES, dtype=np.uint64) * np.uint64(7919) + np.uint64(11)
    images = Images(hashes, np.ones(IMAGES, np.int64), np.zeros(IMAGES, np.int64))
    trainer, rows = Trainer(made, Execution(device="cpu")), []
    start = {"weight_norm": weight_norm(trainer.learner)}
    for batch in Schedule(images, samples=made.samples, batch=BATCH, seed=0).batches():
        sample = Sample(pixels[batch.rows], hashes[batch.rows], batch.visits)
        measured = trainer.step(sample, share=batch.middle / made.samples, batch=BATCH)
        row = {"step": batch.step + 1, "samples_seen": batch.end, **measured.to_json()}
        row["weight_norm"] = weight_norm(trainer.learner)
        if crosses(batch, made.samples, 10):
            seen = features_of(trainer.network, squeezed(pixels[:BATCH], SIZE), trainer.placement)
            row["picture_spread"] = feature_spread(torch.from_numpy(seen))
        rows.append(row)
        if not np.isfinite(measured.loss):
            break
    return rows, start


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", VERDICTS)
def test_verdicts_on_runs(method, kind):
    rows, start = curves(method, kind)
    assert judge(rows, method=method, start=start).verdict == VERDICTS[kind]
