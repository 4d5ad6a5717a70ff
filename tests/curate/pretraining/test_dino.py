import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from curate.pretraining import ranks
from curate.pretraining.augment.presets import preset
from curate.pretraining.gradients import Step, backward
from curate.pretraining.methods import dino
from curate.pretraining.methods.dino import cross_entropy, distribution
from curate.pretraining.recipe import Training
from curate.pretraining.sample import Sample, Seen
from embeddings.encoders.networks import Network, build_network
from embeddings.errors import UnknownNameError, UsageError

SGD = Training(optimizer="sgd", learning_rate=0.1, weight_decay=0.0)
K = 9


def softmax(x):
    weights = [math.exp(v - max(x)) for v in x]
    return [w / sum(weights) for w in weights]


def reference(student, teacher, center, temperatures):
    """The paper's algorithm for [b, V, K] and [b, 2, K], pair by pair of different views."""
    total, count = 0.0, 0
    for s, t in zip(student, teacher, strict=True):
        for g in range(len(t)):
            for v in range(len(s)):
                if v != g:
                    p, q = softmax((t[g] - center) / temperatures[1]), softmax(s[v] / temperatures[0])
                    total -= sum(a * math.log(b) for a, b in zip(p, q, strict=True))
                    count += 1
    return total / count


def outputs(batch, views, width, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.uniform(-1, 1, size) for size in ((batch, views, width), (batch, 2, width), (width,))]


def value(student, teacher, center, temperatures=(0.1, 0.04)):
    targets = distribution(torch.tensor(teacher - center), temperature=temperatures[1])
    return cross_entropy(torch.tensor(student), targets, temperature=temperatures[0]).item()


def config(**changes):
    small = {"hidden": 7, "dim": 5, "prototypes": K, "local_views": 2, "freeze": 0.1, "temperature_warmup": 0.5}
    return dino.Config(training=SGD, **small | changes)


def toy(**changes):
    """Without batch norm, for views of any size: the mean color through one layer."""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 6), nn.Tanh())
    return dino.build(Network("toy", backbone, dim=6, mean=0.0, std=1.0), config(**changes)).double().train()


def seen(batch=8, seed=0, local=2):
    rng = np.random.default_rng(seed)
    sample = Sample(np.zeros((batch, 3, 2, 2), np.uint8), np.arange(batch, dtype=np.uint64), np.zeros(batch, np.int64))
    views = [torch.tensor(rng.normal(size=(batch, 3, e, e))) for e in (8, 8, *[4] * local)]
    return Seen(views, sample, seed=0)


def forward(learner, batch, share=0.5):
    return learner.loss(learner.project(learner.encode(batch).parts), share=share)


@given(st.integers(1, 5), st.integers(2, 6), st.integers(2, 7), st.sampled_from([(0.1, 0.04), (0.1, 0.07), (0.5, 1.0)]))
def test_equals_the_loop_over_pairs(batch, views, width, temperatures):
    student, teacher, center = outputs(batch, views, width)
    found = value(student, teacher, center, temperatures)
    assert found == pytest.approx(reference(student, teacher, center, temperatures), abs=1e-10)


def test_gradient_equals_finite_differences_and_the_teacher_has_none():
    student, teacher, center = outputs(2, 3, 4)
    s, t = torch.tensor(student, requires_grad=True), torch.tensor(teacher, requires_grad=True)
    cross_entropy(s, distribution(t - torch.tensor(center), temperature=0.07), temperature=0.3).backward()
    assert t.grad is None
    for where in np.ndindex(2, 3, 4):
        up, down = student.copy(), student.copy()
        up[where] += 1e-5
        down[where] -= 1e-5
        slope = (reference(up, teacher, center, (0.3, 0.07)) - reference(down, teacher, center, (0.3, 0.07))) / 2e-5
        assert s.grad[where].item() == pytest.approx(slope, abs=1e-8)


def test_closed_forms():
    same = torch.zeros(4, 3, K, dtype=torch.float64)
    learner = toy()
    assert learner.loss((same, same[:, :2]), share=0.5).item() == pytest.approx(math.log(K), abs=1e-12)
    assert dino.chance_loss(config(), 64) == math.log(K)
    won = torch.eye(K, dtype=torch.float64)[:1].expand(4, 3, K)  # one prototype wins everywhere
    found = learner.loss((100 * won, 100 * won[:, :2]), share=0.5)
    assert found.item() == pytest.approx(0, abs=1e-12)
    assert learner.diagnostics()["teacher_entropy"] == pytest.approx(0, abs=1e-12)


def test_does_not_change_under_what_should_not_matter():
    student, teacher, center = outputs(6, 4, 5)
    found = value(student, teacher, center)
    images, prototypes = np.random.default_rng(1).permutation(6), np.random.default_rng(2).permutation(5)
    assert value(student[images], teacher[images], center) == pytest.approx(found, abs=1e-12)
    assert value(student[..., prototypes], teacher[..., prototypes], center[prototypes]) == pytest.approx(found)
    assert value(student[:, [1, 0, 3, 2]], teacher[:, [1, 0]], center) == pytest.approx(found, abs=1e-12)
    assert value(student + 3, teacher - 2, center) == pytest.approx(found, abs=1e-12)
    assert value(student, teacher[images], center) != pytest.approx(found, abs=1e-3)
    assert value(student, teacher, 0 * center) != pytest.approx(found, abs=1e-3)


def test_a_view_is_not_compared_with_itself():
    student, teacher, center = outputs(4, 2, 5)
    only_other = [
        value(student[:, [1, 1]], teacher[:, [0, 0]], center),
        value(student[:, [0, 0]], teacher[:, [1, 1]], center),
    ]
    assert value(student, teacher, center) == pytest.approx(sum(only_other) / 2, abs=1e-12)


def test_teacher_temperature_by_share():
    learner = toy()
    parts = [torch.tensor(x) for x in outputs(4, 4, K)[:2]]
    for share, temperature in ((0.0, 0.04), (0.25, 0.055), (0.5, 0.07), (1.0, 0.07)):
        targets = distribution(parts[1], temperature=temperature)
        wanted = cross_entropy(parts[0], targets, temperature=0.1).item()
        assert learner.loss(parts, share=share).item() == pytest.approx(wanted, abs=1e-12)


def test_center_is_used_before_it_moves_and_follows_the_mean_of_the_batch():
    learner, batch = toy(), seen()
    parts = learner.project(learner.encode(batch).parts)
    targets = distribution(parts[1], temperature=0.07)
    assert learner.loss(parts, share=0.5).item() == pytest.approx(
        cross_entropy(parts[0], targets, temperature=0.1).item(), abs=1e-12
    )
    learner.after_step(0.5)
    first = 0.1 * parts[1].mean(dim=(0, 1))
    torch.testing.assert_close(learner.center, first, atol=1e-12, rtol=0)
    again = learner.project(learner.encode(batch).parts)[1]
    learner.after_step(0.5)
    torch.testing.assert_close(learner.center, 0.9 * first + 0.1 * again.mean(dim=(0, 1)), atol=1e-12, rtol=0)


@pytest.mark.parametrize("chunks", [2, 3, 7])
def test_chunks_give_gradient_and_center_of_the_whole_batch(chunks):
    whole = toy()
    parts = copy.deepcopy(whole)
    losses = [backward(m, seen(7), Step(0.5, images=7, chunks=n)).loss.item() for m, n in ((whole, 1), (parts, chunks))]
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)
    for one, two in zip(whole.parameters(), parts.parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(one.grad, two.grad, atol=1e-12, rtol=1e-10)
    for module in (whole, parts):
        module.after_step(0.5)
    assert whole.center.abs().max() > 1e-3
    torch.testing.assert_close(whole.center, parts.center, atol=1e-14, rtol=0)


def test_center_is_that_of_all_processes(monkeypatch):
    alone, one, two = toy(), toy(), toy()
    whole = seen(8)
    for module, batch in ((alone, whole), (one, whole.part(slice(0, 3))), (two, whole.part(slice(3, 8)))):
        forward(module, batch)
    summed = one._seen + two._seen
    alone.after_step(0.5)
    monkeypatch.setattr(ranks, "total", lambda values: summed)
    one.after_step(0.5)
    torch.testing.assert_close(one.center, alone.center, atol=1e-14, rtol=0)
    assert not torch.allclose(toy().center, alone.center)


def test_looking_on_leaves_the_center_alone():
    learner = toy().eval()
    forward(learner, seen())
    assert not learner._seen.any()


def test_prototypes_stand_still_at_first_and_do_not_decay():
    learner = toy(freeze=0.25)
    optimizer = torch.optim.AdamW([p for p in learner.parameters() if p.requires_grad], lr=0.1, weight_decay=0.5)
    prototypes = learner.head.prototypes.weight
    start, others = prototypes.detach().clone(), learner.head.mlp[0].weight.detach().clone()
    for share in (0.0, 0.2499):
        forward(learner, seen(), share).backward()
        learner.after_backward(share)
        optimizer.step()
    assert torch.equal(prototypes, start)
    assert not torch.equal(learner.head.mlp[0].weight, others)
    forward(learner, seen(), 0.25).backward()
    learner.after_backward(0.25)
    optimizer.step()
    assert not torch.equal(prototypes, start)


def test_head_gives_cosines_however_long_its_weights_are():
    learner = toy()
    features = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = learner.head(features)
    points = learner.head.mlp(features)
    wanted = nn.functional.cosine_similarity(points[:, None], learner.head.prototypes.weight[None], dim=2)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)
    with torch.no_grad():
        learner.head.prototypes.weight.mul_(5)
    torch.testing.assert_close(learner.head(features), found, atol=1e-12, rtol=0)


def test_head_layers_and_their_start():
    torch.manual_seed(0)
    norms = dino.build(build_network("tiny-resnet"), config(hidden=512, dim=256)).head.mlp
    plain = dino.build(Network("toy", nn.Flatten(), dim=6, mean=0.0, std=1.0), config(hidden=512, dim=256)).head.mlp
    kinds = [[type(layer).__name__ for layer in head] for head in (norms, plain)]
    assert kinds == [[*["Linear", "BatchNorm1d", "GELU"] * 2, "Linear"], [*["Linear", "GELU"] * 2, "Linear"]]
    linear = [layer for layer in norms if isinstance(layer, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in linear] == [(512, 128), (512, 512), (256, 512)]
    assert all(layer.weight.std().item() == pytest.approx(0.02, rel=0.02) for layer in linear)
    assert not any(layer.bias.any() for layer in linear)


def test_views_of_one_size_pass_as_one_batch():
    learner = dino.build(build_network("tiny-resnet", seed=1), config(local_views=3)).train()
    rng = np.random.default_rng(0)
    views = [torch.tensor(rng.normal(size=(4, 3, e, e)), dtype=torch.float32) for e in (32, 32, 16, 16, 16)]
    reference = copy.deepcopy(learner.backbone)
    encoded = learner.encode(Seen(views, seen(4).sample, seed=0))
    wanted = torch.cat([reference(torch.cat(views[:2])), reference(torch.cat(views[2:]))])
    assert encoded.parts[0].shape == (4, 5, 128)
    assert encoded.parts[1].shape == (4, 2, 128)
    for number in range(5):
        assert torch.equal(encoded.parts[0][:, number], wanted[4 * number : 4 * number + 4])
    assert [tuple(out.shape) for out in learner.project(encoded.parts)] == [(4, 5, K), (4, 2, K)]


def test_views():
    found = dino.views(config(local_views=3))
    assert found == (preset("dino-first"), preset("dino-second"), *[preset("dino-local")] * 3)
    assert [view.edge(224) for view in found] == [224, 224, 96, 96, 96]
    assert len(dino.views(config(local_views=0))) == 2
    assert dino.views(config(augmentation=("natural",))) == (preset("natural"),) * 4


def test_outputs_are_float32_in_half_precision():
    learner = toy().float()
    batch = seen()
    low = Seen([view.float() for view in batch.views], batch.sample, seed=0)
    with torch.autocast("cpu", torch.bfloat16):
        parts = learner.project(learner.encode(low).parts)
        assert learner.loss(parts, share=0.5).dtype == torch.float32
    assert {part.dtype for part in parts} == {torch.float32}


def test_diagnostics_add_up_to_the_loss():
    learner = toy()
    loss = forward(learner, seen())
    learner.after_step(0.5)
    found = learner.diagnostics()
    assert found.keys() == {"teacher_entropy", "divergence", "center_norm", "teacher_momentum"}
    assert found["teacher_entropy"] + found["divergence"] == pytest.approx(loss.item(), abs=1e-12)
    assert 0 < found["teacher_entropy"] < math.log(K)
    assert found["divergence"] > 0
    assert found["center_norm"] == pytest.approx(learner.center.norm().item())


def test_twenty_steps_are_those_of_a_plain_loop():
    ours = toy(teacher_momentum=0.8)
    theirs = copy.deepcopy(ours)
    optimizer = torch.optim.SGD([p for p in ours.parameters() if p.requires_grad], lr=0.5, momentum=0.9)
    for step in range(20):
        share = (step + 0.5) / 20
        optimizer.zero_grad()
        backward(ours, seen(seed=step), Step(share, images=8))
        ours.after_backward(share)
        optimizer.step()
        ours.after_step(share)
    center = _train_plainly(theirs)
    torch.testing.assert_close(ours.center, center, atol=1e-8, rtol=0)
    for found, wanted in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-8, rtol=0)  # rounding grows with each step


def _train_plainly(learner):
    """Four views, freeze .1, temperature .04 to .07 in the first half; returns the center."""
    online, teacher = nn.ModuleList([learner.backbone, learner.head]), learner.teacher
    weights, center = list(online.parameters()), torch.zeros(K, dtype=torch.float64)
    velocity = [torch.zeros_like(w) for w in weights]
    for step in range(20):
        share, views = (step + 0.5) / 20, seen(seed=step).views
        temperature = 0.04 + 0.03 * min(1, 2 * share)
        targets = [teacher.head(teacher.backbone(view)).detach() for view in views[:2]]
        loss, pairs = 0.0, 0
        for g, target in enumerate(targets):
            for v, view in enumerate(views):
                if v != g:
                    logs = torch.log_softmax(learner.head(learner.backbone(view)) / 0.1, dim=1)
                    loss = loss - (torch.softmax((target - center) / temperature, dim=1) * logs).sum(dim=1).mean()
                    pairs += 1
        gradients = torch.autograd.grad(loss / pairs, weights)
        with torch.no_grad():
            for weight, moved, gradient in zip(weights, velocity, gradients, strict=True):
                if share >= 0.1 or weight is not learner.head.prototypes.weight:
                    moved.mul_(0.9).add_(gradient)
                    weight.sub_(0.5 * moved)
            m = 1 - 0.2 * (1 + math.cos(math.pi * share)) / 2
            for old, new in zip(teacher.parameters(), weights, strict=True):
                old.copy_(m * old + (1 - m) * new)
            center = 0.9 * center + 0.1 * torch.cat(targets).mean(dim=0)
    return center


@pytest.mark.parametrize(
    "wrong",
    [
        {"prototypes": 1},
        {"hidden": 0},
        {"teacher_temperature": 0.0},
        {"freeze": 1.5},
        {"local_views": -1},
        {"temperature_warmup": -0.1},
    ],
)
def test_impossible_configs_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong)).removeprefix("teacher_")):
        config(**wrong)


def test_unknown_presets_are_refused():
    with pytest.raises(UnknownNameError):
        config(augmentation=("none",))
    with pytest.raises(UsageError, match="2 augmentation presets"):
        replace(dino.RECIPES["paper"], augmentation=("natural", "natural"))
