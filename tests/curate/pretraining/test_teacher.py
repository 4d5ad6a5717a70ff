"""The moving average of weights, and the learners that follow one: what moves, what does not, and a restart."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from curate.pretraining.checkpoint import Mark, Origin, load_checkpoint, save_checkpoint
from curate.pretraining.methods import load_method
from curate.pretraining.methods._teacher import Teacher
from curate.pretraining.recipe import Training
from curate.pretraining.sample import Sample, Seen
from curate.pretraining.trainer import _keep_statistics
from embeddings.encoders.networks import build_network
from embeddings.errors import UsageError

METHODS = ["mocov3", "byol", "dino"]
TRAINING = Training(optimizer="adamw", learning_rate=0.02, weight_decay=0.1, batch=8, warmup=0.0)
SMALL = {
    "mocov3": {"hidden": 8, "dim": 6},
    "byol": {"hidden": 8, "dim": 6},
    "dino": {"hidden": 8, "dim": 6, "prototypes": 10, "local_views": 2},
}


def networks(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU()), nn.Linear(4, 2, bias=False)


def config(name, **changes):
    return replace(load_method(name).RECIPES["scratch"], training=TRAINING, **SMALL[name] | changes)


def learner(name, **changes):
    network = build_network("tiny-resnet", seed=3)
    torch.manual_seed(0)
    return load_method(name).build(network, config(name, **changes)).train()


def seen(name, batch=8, seed=0):
    views = load_method(name).views(config(name))
    rng = np.random.default_rng(seed)
    edges = [preset.edge(32) for preset in views]
    views = [torch.tensor(rng.normal(size=(batch, 3, e, e)), dtype=torch.float32) for e in edges]
    return Seen(views, sample_of(batch), seed=0)


def sample_of(batch):
    pixels = np.zeros((batch, 3, 2, 2), np.uint8)
    return Sample(pixels, np.arange(batch, dtype=np.uint64), np.zeros(batch, np.int64))


def train(module, optimizer, steps, *, name, total=8):
    for step in steps:
        share = (step + 0.5) / total
        optimizer.zero_grad()
        module.loss(module.project(module.encode(seen(name, seed=step)).parts), share=share).backward()
        if hasattr(module, "after_backward"):
            module.after_backward(share)
        optimizer.step()
        module.after_step(share)


def adamw(module):
    return torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=0.02)


def test_starts_as_an_exact_copy_that_needs_no_gradient():
    online = networks()
    teacher = Teacher(*online, start=0.9)
    for part, copied in zip(online, (teacher.backbone, teacher.head), strict=True):
        mine, theirs = part.state_dict(), copied.state_dict()
        assert mine.keys() == theirs.keys()
        for name, tensor in mine.items():
            assert torch.equal(tensor, theirs[name])
            assert tensor.data_ptr() != theirs[name].data_ptr()
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for part in online for p in part.parameters())
    features = teacher.encode(torch.ones(5, 3))
    assert not features.requires_grad
    assert not teacher.project(features).requires_grad


@pytest.mark.parametrize(
    ("start", "golden"),
    [
        (0.99, [0.99, 0.991464466094067, 0.995, 0.998535533905933, 1.0]),
        (0.996, [0.996, 0.996585786437627, 0.998, 0.999414213562373, 1.0]),
        (0.0, [0.0, 0.146446609406726, 0.5, 0.853553390593274, 1.0]),
    ],
)
def test_momentum_rises_along_half_a_cosine(start, golden):
    online = networks()
    teacher, found = Teacher(*online, start=start), []
    for share in (0, 0.25, 0.5, 0.75, 1):
        teacher.follow(*online, share=share)
        found.append(teacher.momentum)
    assert found == pytest.approx(golden, abs=1e-14)


def test_follows_as_a_plain_loop_does():
    online = [part.double() for part in networks()]
    teacher = Teacher(*online, start=0.6)
    wanted = [p.detach().numpy().copy() for part in online for p in part.parameters()]
    rng = np.random.default_rng(0)
    for step in range(20):
        with torch.no_grad():
            for parameter in (p for part in online for p in part.parameters()):
                parameter.add_(torch.tensor(rng.normal(size=parameter.shape)))
        teacher.follow(*online, share=step / 19)
        m = 1 - 0.4 * (1 + np.cos(np.pi * step / 19)) / 2
        now = [p.detach().numpy() for part in online for p in part.parameters()]
        wanted = [m * old + (1 - m) * new for old, new in zip(wanted, now, strict=True)]
    for found, value in zip(teacher.parameters(), wanted, strict=True):
        assert found.numpy() == pytest.approx(value, abs=1e-13)


def test_what_stands_still_stays_the_same_to_the_bit():
    online = networks()
    teacher = Teacher(*online, start=0.3)
    before = copy.deepcopy(teacher.state_dict())
    for share in np.linspace(0, 1, 11):
        teacher.follow(*online, share=share)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


def test_batch_norms_use_the_batch_and_keep_statistics_of_their_own():
    online = networks()
    teacher = Teacher(*online, start=0.5)
    x = 5 + 2 * torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    hidden = online[0][0](x).detach()
    found = teacher.backbone[:2](x)
    assert found.mean(dim=0).abs().max() < 1e-5  # not by the running mean, which is still 0
    theirs, ours = teacher.backbone[1], online[0][1]
    assert theirs.running_mean == pytest.approx(0.1 * hidden.mean(dim=0), abs=1e-6)
    assert torch.equal(ours.running_mean, torch.zeros(4))
    kept = theirs.running_mean.clone()
    teacher.follow(*online, share=0.0)
    assert torch.equal(theirs.running_mean, kept)


@pytest.mark.parametrize("start", [-0.1, 1.0, 1.5])
@pytest.mark.parametrize("name", METHODS)
def test_impossible_momenta_are_refused(name, start):
    with pytest.raises(UsageError, match="momentum"):
        config(name, teacher_momentum=start)


@pytest.mark.parametrize("name", METHODS)
def test_teachers_hold_backbone_and_projector_alone(name):
    module = learner(name)
    head = module.head if name == "dino" else module.projector
    online = nn.ModuleDict({"backbone": module.backbone, "head": head})
    assert module.teacher.state_dict().keys() == online.state_dict().keys()
    for one, two in zip(module.teacher.parameters(), online.parameters(), strict=True):
        assert torch.equal(one, two)
        assert not one.requires_grad


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_reaches_the_online_networks_alone(name):
    module = learner(name)
    assert all(layer.training for layer in module.teacher.modules())
    encoded = module.encode(seen(name))
    module.loss(module.project(encoded.parts), share=0.5).backward()
    assert all(p.grad is None for p in module.teacher.parameters())
    assert all(p.grad is not None for p in module.parameters() if p.requires_grad)
    assert encoded.features.shape == (16, 128)
    assert encoded.features.requires_grad
    assert {part.shape[0] for part in encoded.parts} == {8}


@pytest.mark.parametrize("name", METHODS)
def test_features_are_those_of_the_online_backbone(name):
    module, batch = learner(name), seen(name)
    with torch.no_grad():
        for parameter in module.backbone.parameters():
            parameter.add_(0.1)  # the teacher has not followed yet
    found = module.encode(batch).features
    whole = [torch.cat(batch.views[:2])] if name == "dino" else batch.views
    assert torch.equal(found, torch.cat([module.backbone(view) for view in whole]))


@pytest.mark.parametrize("name", METHODS)
def test_a_step_moves_the_teacher_towards_the_new_weights(name):
    module = learner(name, teacher_momentum=0.75)
    before = [p.clone() for p in module.teacher.parameters()]
    train(module, adamw(module), [0], name=name)
    head = module.head if name == "dino" else module.projector
    online = nn.Sequential(module.backbone, head).parameters()
    m = module.teacher.momentum
    assert 0.75 < m < 0.76
    assert module.diagnostics()["teacher_momentum"] == m
    for found, old, new in zip(module.teacher.parameters(), before, online, strict=True):
        torch.testing.assert_close(found, m * old + (1 - m) * new, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_kept_statistics_are_those_of_the_teacher_too(name):
    module = learner(name)
    _keep_statistics(module)
    before = {k: v.clone() for k, v in module.state_dict().items() if "running" in k}
    module.project(module.encode(seen(name)).parts)
    for key, value in before.items():
        is_head = value.shape[0] not in (16, 32, 64, 128)  # widths of the backbone
        assert torch.equal(module.state_dict()[key], value) != is_head, key


@pytest.mark.parametrize("name", METHODS)
def test_a_restart_goes_on_exactly(name, tmp_path):
    straight, resumed, fresh = learner(name), learner(name), learner(name)
    optimizers = [adamw(module) for module in (straight, resumed, fresh)]
    train(straight, optimizers[0], range(8), name=name)
    train(resumed, optimizers[1], range(4), name=name)
    origin = Origin(config="x")
    save_checkpoint(tmp_path, resumed, optimizers[1], mark=Mark(step=4), origin=origin)
    assert load_checkpoint(tmp_path, fresh, optimizers[2], origin).step == 4
    train(fresh, optimizers[2], range(4, 8), name=name)
    wanted = straight.state_dict()
    assert all(torch.equal(tensor, wanted[key]) for key, tensor in fresh.state_dict().items())
    assert fresh.diagnostics()["teacher_momentum"] == straight.diagnostics()["teacher_momentum"]


@pytest.mark.parametrize("name", METHODS)
def test_transformers_learn_from_views_of_every_size(name):
    network = build_network("tiny-vit", seed=3)
    torch.manual_seed(0)
    module = load_method(name).build(network, config(name)).train()
    before = {key: value.clone() for key, value in module.named_parameters()}
    train(module, adamw(module), [0, 1], name=name)
    moved = {key for key, value in module.named_parameters() if not torch.equal(value, before[key])}
    patches = {key for key in before if "patch_embed" in key}
    assert any(key.startswith("backbone.blocks") for key in moved)
    assert any(key.startswith("teacher.backbone.blocks") for key in moved)
    assert len(patches) == 4  # weight and bias, the teacher's too
    assert not patches & moved if name == "mocov3" else patches <= moved
