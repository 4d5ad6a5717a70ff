"""Trains every method for a few steps, alone or as one of several processes, and saves what it learned."""

import numpy as np
import torch
from safetensors.torch import save_file

from curate.pretraining import ranks
from curate.pretraining.adaptation import Adaptation
from curate.pretraining.backbones import resolve_backbone
from curate.pretraining.execution import Execution
from curate.pretraining.knobs import with_knobs
from curate.pretraining.methods import METHODS, default_recipe
from curate.pretraining.sample import Sample
from curate.pretraining.settings import Settings
from curate.pretraining.stages import Order
from curate.pretraining.trainer import Trainer

BATCH, EDGE = 9, 40
CHEAP = {"distill": {"teacher": "lite0@32"}}


def batch(step):
    """Images sorted by brightness, so that each process sees another kind."""
    rng = np.random.default_rng(step)
    pixels = rng.integers(0, 100, (BATCH, 3, EDGE, EDGE)) + np.linspace(0, 155, BATCH).reshape(-1, 1, 1, 1)
    return Sample(pixels.astype(np.uint8), np.arange(BATCH, dtype=np.uint64), np.full(BATCH, step))


def train(method, steps, precision):
    """The weights after some steps, and the losses of each."""
    recipe = with_knobs(default_recipe(method, "scratch"), CHEAP.get(method, {}))
    network = METHODS[method].backbone
    backbone = resolve_backbone(network, init="scratch", size=32)
    settings = Settings(
        method=method,
        recipe=recipe,
        backbone=backbone,
        samples=1,
        order=Order(),
        adapt=Adaptation(),
        seed=0,
        selection="",
    )
    trainer = Trainer(settings, Execution(device="cpu", precision=precision))
    losses = []
    for number in range(steps):
        sample = batch(number).part(ranks.own(BATCH))
        losses.append(trainer.step(sample, share=number / steps, batch=BATCH, images=BATCH).loss)
    state = {f"{method}.{name}": value.contiguous().clone() for name, value in trainer.learner.state_dict().items()}
    return state | {f"{method}.losses": torch.tensor(losses, dtype=torch.float64)}


def learn(methods, precision):
    """The same of several METHOD:STEPS."""
    found = {}
    for method, steps in (word.split(":") for word in methods):
        found |= train(method, int(steps), precision)
    return found


def learn_together(out, methods, precision):
    """The same as one of several processes; the first one writes it down."""
    with ranks.joined(torch.device("cpu")):
        found = learn(methods, precision)
        if ranks.rank() == 0:
            save_file(found, out)
