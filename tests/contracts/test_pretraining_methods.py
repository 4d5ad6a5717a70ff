"""What every self-supervised method must keep, one table of checks for all of them."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from curate.pretraining.adaptation import Adaptation
from curate.pretraining.augment.presets import Preset
from curate.pretraining.backbones import resolve_backbone
from curate.pretraining.execution import Execution
from curate.pretraining.gradients import Step, backward
from curate.pretraining.knobs import with_knobs
from curate.pretraining.methods import METHODS, default_recipe, load_method
from curate.pretraining.sample import Sample, Seen
from curate.pretraining.settings import Settings
from curate.pretraining.stages import Order
from curate.pretraining.trainer import Trainer

BATCH, EDGE, SIZE = 6, 40, 32
CHEAP: dict[str, dict[str, object]] = {"distill": {"teacher": "lite0@32"}}
pytestmark = pytest.mark.parametrize("method", METHODS)


def sample(n=BATCH, visit=0):
    pixels = np.random.default_rng(visit).integers(0, 256, (n, 3, EDGE, EDGE), dtype=np.uint8)
    return Sample(pixels, np.arange(n, dtype=np.uint64) * np.uint64(2**60 // n), np.full(n, visit))


def trainer(method, network=None, *, precision="float64", chunks=1, **knobs):
    recipe = with_knobs(default_recipe(method, "scratch"), CHEAP.get(method, {}) | knobs)
    backbone = resolve_backbone(network or METHODS[method].backbone, init="scratch", size=SIZE)
    settings = Settings(
        method=method,
        recipe=recipe,
        backbone=backbone,
        samples=1000,
        order=Order(),
        adapt=Adaptation(),
        seed=0,
        selection="",
    )
    return Trainer(settings, Execution(device="cpu", precision=precision, chunks=chunks))


def gradients(made, batch, share=0.5):
    """Loss and gradients of one batch."""
    seen = Seen(made.views(batch), batch, 0)
    made.optimizer.zero_grad()
    loss = backward(made.learner, seen, Step(share, len(batch), made.execution.chunks)).loss
    return loss, {name: p.grad for name, p in made.learner.named_parameters() if p.grad is not None}


def projected(made, *, low=False):
    """What the loss compares, of one batch; the networks in half precision if so asked."""
    seen = Seen(made.views(sample()), sample(), 0)
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        return made.learner.project(made.learner.encode(seen).parts)


def test_outline(method):
    module = load_method(method)
    assert "arXiv" in module.__doc__
    assert "Deviations" in module.__doc__
    assert {"scratch", "continued"} <= set(module.RECIPES)
    for config in module.RECIPES.values():
        presets = module.views(config)
        assert all(isinstance(preset, Preset) for preset in presets)
        chance = module.chance_loss(config, 64)
        assert math.isfinite(chance)
        assert chance > 0


def test_parts_stand_in_the_order_of_the_images(method):
    made = trainer(method)
    encoded = made.learner.encode(Seen(made.views(sample()), sample(), 0))
    compared = made.learner.project(encoded.parts)
    assert all(len(part) == BATCH for part in (*encoded.parts, *compared))
    assert encoded.features.shape[1] == made.network.dim
    assert made.learner.loss(compared, share=0.5).shape == ()


def test_every_trainable_weight_gets_a_finite_gradient(method):
    made = trainer(method)
    loss, found = gradients(made, sample())
    assert torch.isfinite(loss)
    wanted = {name for name, p in made.learner.named_parameters() if p.requires_grad}
    assert found.keys() == wanted
    assert all(torch.isfinite(gradient).all() for gradient in found.values())
    assert any(gradient.abs().max() > 0 for gradient in found.values())


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_the_loss_of_half_precision_is_computed_in_float32(method, kind):
    """Of large projections too: float16 holds no square above 65504."""
    made, rng = trainer(method, precision="float32"), torch.Generator().manual_seed(0)
    parts = [
        (300 * torch.randn(200, *part.shape[1:], generator=rng)).to(kind if part.dtype == torch.bfloat16 else None)
        for part in projected(made, low=True)
    ]
    with torch.autocast("cpu", torch.bfloat16):
        found = made.learner.loss(parts, share=0.5)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(made.learner.loss([x.double() for x in parts], share=0.5).item(), rel=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_projections_do_not_poison_the_gradient(method, value):
    made = trainer(method, precision="float32")
    first, *others = (torch.ones_like(part) for part in projected(made))
    first = (value * first).requires_grad_()
    made.learner.loss((first, *others), share=0.5).backward()
    assert torch.isfinite(first.grad).all()


def test_the_order_of_the_images_does_not_matter(method):
    order = np.random.default_rng(1).permutation(BATCH)
    whole = sample()
    mixed = Sample(whole.pixels[order], whole.hashes[order], whole.visits[order])
    (loss, one), (other, two) = (gradients(trainer(method), batch) for batch in (whole, mixed))
    torch.testing.assert_close(loss, other, atol=1e-9, rtol=1e-9)
    for name, gradient in one.items():
        torch.testing.assert_close(two[name], gradient, atol=1e-8, rtol=1e-7)


def test_in_chunks_the_gradient_is_the_same(method):
    """Of a network without batch norm, whose heads may have it."""
    loss, wanted = gradients(trainer(method, "tiny-vit"), sample(7))
    chunked, found = gradients(trainer(method, "tiny-vit", chunks=3), sample(7))
    torch.testing.assert_close(chunked, loss, atol=1e-10, rtol=1e-10)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-10, rtol=1e-8, msg=lambda m, n=name: f"{n}: {m}")


def test_it_gets_better_at_one_batch(method):
    made = trainer(method, precision="float32", warmup=0.0)
    losses = [made.step(sample(), share=0.1, batch=BATCH).loss for _ in range(12)]
    assert min(losses[6:]) < losses[0]


def test_the_same_steps_again_and_from_a_saved_state(method):
    made, again = trainer(method), trainer(method)
    for visit in range(3):
        first = made.step(sample(visit=visit), share=visit / 5, batch=BATCH)
        second = again.step(sample(visit=visit), share=visit / 5, batch=BATCH)
        assert first.loss == second.loss
    fresh = trainer(method)
    fresh.learner.load_state_dict(copy.deepcopy(made.learner.state_dict()))
    fresh.optimizer.load_state_dict(copy.deepcopy(made.optimizer.state_dict()))
    one, two = (t.step(sample(visit=3), share=0.6, batch=BATCH) for t in (made, fresh))
    assert one.loss == two.loss
    for name, tensor in made.learner.state_dict().items():
        assert torch.equal(fresh.learner.state_dict()[name], tensor), name


def test_what_it_tells_of_itself_are_numbers(method):
    measured = trainer(method).step(sample(), share=0.5, batch=BATCH)
    row = measured.to_json()
    assert all(isinstance(value, float) and math.isfinite(value) for value in row.values())
    assert row["gradient_norm"] > 0
