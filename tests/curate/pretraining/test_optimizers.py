import numpy as np
import pytest
import torch
from torch import nn

from curate.pretraining.methods import load_method
from curate.pretraining.optimizers import build_optimizer, clip_gradients, excluded, set_rates
from curate.pretraining.recipe import Training
from embeddings.encoders.networks import build_network


def training(optimizer="lars", **knobs):
    return Training(**{"optimizer": optimizer, "learning_rate": 0.5, "weight_decay": 1e-3} | knobs)


def layer(seed=0):
    """A weight and a bias in float64, with gradients of their own."""
    torch.manual_seed(seed)
    module = nn.Linear(4, 3).double()
    for parameter in module.parameters():
        parameter.grad = torch.randn_like(parameter)
    return module


def lars(weight, gradients, *, rate, momentum, decay, trust, adapts):
    """Steps of the paper's algorithm in plain loops, from the gradients one after the other."""
    weight, moved = weight.copy(), np.zeros_like(weight)
    for gradient in gradients:
        step = gradient + (decay * weight if adapts else 0)
        length = sum(v**2 for v in weight.flat) ** 0.5, sum(v**2 for v in step.flat) ** 0.5
        ratio = trust * length[0] / length[1] if adapts and min(length) > 0 else 1.0
        for at in np.ndindex(weight.shape):
            moved[at] = momentum * moved[at] + ratio * step[at]
            weight[at] -= rate * moved[at]
    return weight


@pytest.mark.parametrize("decay", [0.0, 1e-6, 0.1])
def test_lars_is_the_plain_loop(decay):
    module = layer()
    optimizer = build_optimizer(module, training(weight_decay=decay, momentum=0.8, trust=0.02))
    start = [p.detach().numpy().copy() for p in module.parameters()]
    gradients = [[np.random.default_rng([k, i]).normal(size=p.shape) for i, p in enumerate(start)] for k in range(20)]
    for step in gradients:
        for parameter, gradient in zip(module.parameters(), step, strict=True):
            parameter.grad = torch.from_numpy(gradient)
        optimizer.step()
    for i, (parameter, adapts) in enumerate(zip(module.parameters(), (True, False), strict=True)):
        own = [step[i] for step in gradients]
        wanted = lars(start[i], own, rate=0.5, momentum=0.8, decay=decay, trust=0.02, adapts=adapts)
        np.testing.assert_allclose(parameter.detach().numpy(), wanted, rtol=1e-12)


def first_step(decay):
    module = layer()
    before = module.weight.detach().clone()
    build_optimizer(module, training(weight_decay=decay)).step()
    return before - module.weight.detach()


def test_trust_does_not_switch_off_without_weight_decay():
    tiny, none = first_step(1e-9), first_step(0.0)
    assert none.norm().item() == pytest.approx(0.5 * 1e-3 * layer().weight.norm().item(), rel=1e-12)
    torch.testing.assert_close(none, tiny, rtol=1e-7, atol=0)


def test_lars_does_not_see_the_scale_of_the_loss_except_in_what_it_leaves_out():
    plain, scaled = layer(), layer()
    for parameter in scaled.parameters():
        parameter.grad *= 0.024
    for module in (plain, scaled):
        build_optimizer(module, training(weight_decay=0.0)).step()
    torch.testing.assert_close(plain.weight, scaled.weight, rtol=1e-12, atol=0)
    start = layer()
    torch.testing.assert_close(start.bias - scaled.bias, 0.024 * (start.bias - plain.bias), rtol=1e-9, atol=0)


def test_scaling_the_loss_and_the_rate_of_biases_come_to_the_same():
    """Barlow Twins' two published ways, .024 each; without decay, which the scale would weigh against."""
    scaled, slowed = layer(), layer()
    for parameter in scaled.parameters():
        parameter.grad *= 0.024
    for module, recipe in ((scaled, training(weight_decay=0.0)), (slowed, training(weight_decay=0.0, bias_rate=0.024))):
        optimizer = build_optimizer(module, recipe)
        set_rates(optimizer, recipe, share=recipe.warmup, batch=256)
        optimizer.step()
    for one, two in zip(scaled.parameters(), slowed.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=0)


@pytest.mark.parametrize("zero", ["weight", "gradient"])
def test_a_zero_norm_leaves_the_step_finite(zero):
    module = layer()
    (module.weight.data if zero == "weight" else module.weight.grad).zero_()
    gradient = module.weight.grad.clone()
    before = module.weight.detach().clone()
    build_optimizer(module, training(weight_decay=0.0)).step()
    torch.testing.assert_close(before - module.weight, 0.5 * gradient, rtol=1e-12, atol=0)


@pytest.mark.parametrize("optimizer", ["sgd", "lars", "adamw"])
def test_biases_and_norms_do_not_decay(optimizer):
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    for parameter in module.parameters():
        parameter.data.fill_(2.0)
        parameter.grad = torch.zeros_like(parameter)
    build_optimizer(module, training(optimizer, weight_decay=0.1)).step()
    for name, parameter in module.named_parameters():
        assert bool((parameter == 2).all()) == (name != "0.weight"), name


def test_what_is_excluded_is_what_the_optimizer_treats_apart():
    network = build_network("tiny-resnet")
    learner = load_method("barlow").build(network, load_method("barlow").RECIPES["scratch"])
    learner.projector[0].requires_grad_(False)
    names, groups = excluded(learner), build_optimizer(learner, training()).param_groups
    apart = {id(p) for group in groups if not group["adapts"] for p in group["params"]}
    assert {id(p) for name, p in learner.named_parameters() if name in names} == apart
    assert "projector.1.bias" in names
    assert not any(name.endswith("0.weight") and "projector" in name for name in names)
    assert excluded(nn.Linear(3, 2, bias=False)) == []
    assert excluded(nn.Linear(3, 2).requires_grad_(False)) == []


def test_rates_of_weights_and_biases():
    recipe = training(learning_rate=0.2, bias_rate=0.024, warmup=0.1, floor=0.001, weight_decay=0.04)
    optimizer = build_optimizer(layer(), recipe)
    for share, factor in ((0.05, 0.5), (0.1, 1.0), (0.55, 0.5005), (1.0, 0.001)):
        assert set_rates(optimizer, recipe, share=share, batch=2048) == pytest.approx(1.6 * factor)
        assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([1.6 * factor, 0.0384 * factor])
        assert [g["weight_decay"] for g in optimizer.param_groups] == [0.04, 0.0]


def test_weight_decay_moves_where_it_has_an_end():
    recipe = training("adamw", weight_decay=0.04, weight_decay_end=0.4)
    optimizer = build_optimizer(layer(), recipe)
    for share, decay in ((0.0, 0.04), (0.5, 0.22), (1.0, 0.4)):
        set_rates(optimizer, recipe, share=share, batch=256)
        assert [g["weight_decay"] for g in optimizer.param_groups] == pytest.approx([decay, 0.0])


def test_each_gradient_is_clipped_on_its_own():
    module = layer()
    module.weight.grad.mul_(100)
    module.bias.grad.div_(100)
    weight, bias = module.weight.grad.clone(), module.bias.grad.clone()
    clip_gradients(module, None)
    assert torch.equal(module.weight.grad, weight)
    clip_gradients(module, 3.0)
    torch.testing.assert_close(module.weight.grad, 3 * weight / weight.norm(), rtol=1e-6, atol=0)
    assert torch.equal(module.bias.grad, bias)
