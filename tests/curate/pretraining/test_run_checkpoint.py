import errno
import json
import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from curate.pretraining.checkpoint import Mark, Origin, load_checkpoint, save_checkpoint
from curate.pretraining.optimizers import build_optimizer
from curate.pretraining.recipe import Training
from embeddings.errors import ForeignFolderError, StorageError, TrainingError

ADAMW = Training(optimizer="adamw", learning_rate=0.01, weight_decay=0.1)
SGD = Training(optimizer="sgd", learning_rate=0.01, weight_decay=0.1)
ABC = Origin(config="abc")


def learner(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def train(module, optimizer, steps):
    for step in range(steps):
        torch.manual_seed(step)
        module(torch.randn(8, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def trained(training=ADAMW, steps=3):
    module = learner()
    optimizer = build_optimizer(module, training)
    train(module, optimizer, steps)
    return module, optimizer


def save(folder, step=3, origin=ABC, state=None):
    module, optimizer = state or trained()
    mark = Mark(step=step, samples_seen=8 * step, seconds=1.5)
    save_checkpoint(folder, module, optimizer, mark=mark, origin=origin)
    return mark


@pytest.mark.parametrize("training", [ADAMW, SGD])
def test_restores_every_bit_of_the_training_state(tmp_path, training):
    module, optimizer = trained(training)
    mark = save(tmp_path, state=(module, optimizer))
    other = learner(seed=9)
    other_optimizer = build_optimizer(other, training)
    assert load_checkpoint(tmp_path, other, other_optimizer, ABC) == mark
    train(module, optimizer, 4)
    train(other, other_optimizer, 4)  # momenta count too
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_momenta_lie_in_memory_as_the_weights_do(tmp_path):
    def convolution():
        torch.manual_seed(0)
        return nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)

    layers = [convolution() for _ in range(2)]
    optimizers = [build_optimizer(layer, ADAMW) for layer in layers]
    layers[0](torch.ones(1, 3, 8, 8)).square().sum().backward()
    optimizers[0].step()
    save(tmp_path, state=(layers[0], optimizers[0]))
    load_checkpoint(tmp_path, layers[1], optimizers[1], ABC)
    entries = [optimizer.state[layer.weight] for layer, optimizer in zip(layers, optimizers, strict=True)]
    assert entries[1].keys() == entries[0].keys()
    for name in entries[0]:
        assert torch.equal(entries[1][name], entries[0][name])
        assert entries[1][name].stride() == entries[0][name].stride()
    assert not entries[1]["exp_avg"].is_contiguous()


def test_nothing_there_is_none(tmp_path):
    module, optimizer = trained()
    assert load_checkpoint(tmp_path / "absent", module, optimizer, ABC) is None


def test_another_precision_is_refused_by_name(tmp_path):
    module, optimizer = trained()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    save(tmp_path, origin=Origin(config="abc", precision="float32"))
    with pytest.raises(ForeignFolderError, match="precision 'float32', this device trains with precision 'bfloat16'"):
        load_checkpoint(tmp_path, module, optimizer, Origin(config="abc", precision="bfloat16"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_a_checkpoint_from_before_precision_was_kept_goes_on(tmp_path):
    mark, facts = save(tmp_path), tmp_path / "step-000000003.json"
    facts.write_text(json.dumps({k: v for k, v in json.loads(facts.read_text()).items() if k != "precision"}))
    assert load_checkpoint(tmp_path, *trained(), Origin(config="abc", precision="bfloat16")) == mark


def test_keeps_the_last_two(tmp_path):
    for step in (1, 2, 10, 11):
        save(tmp_path, step=step)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"step-0000000{step}.{end}" for step in (10, 11) for end in ("json", "safetensors")
    ]


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "facts", "config"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, caplog, damage):
    save(tmp_path, step=1)
    save(tmp_path, step=2)
    tensors, facts = tmp_path / "step-000000002.safetensors", tmp_path / "step-000000002.json"
    data = tensors.read_bytes()
    if damage == "truncate":
        tensors.write_bytes(data[:-100])
    elif damage == "flip":
        tensors.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "delete":
        tensors.unlink()
    elif damage == "facts":
        facts.write_text(facts.read_text()[:20])
    else:
        facts.write_text(json.dumps(json.loads(facts.read_text()) | {"config": "other"}))
    module, optimizer = trained()
    with caplog.at_level(logging.WARNING):
        mark = load_checkpoint(tmp_path, module, optimizer, ABC)
    assert mark.step == 1
    assert "step-000000002" in caplog.text


def test_a_state_that_is_not_finite_is_never_written(tmp_path):
    module, optimizer = trained()
    save(tmp_path, step=1)
    with torch.no_grad():
        module[0].weight[0, 0] = torch.nan
    with pytest.raises(TrainingError, match=r"diverged by step 2: model\.0\.weight"):
        save(tmp_path, step=2, state=(module, optimizer))
    assert len(list(tmp_path.iterdir())) == 2


def test_no_space_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    save(tmp_path, step=1)

    def refuse(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(StorageError, match="No space left"):
        save(tmp_path, step=2)
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 2
    module, optimizer = trained()
    assert load_checkpoint(tmp_path, module, optimizer, ABC).step == 1


def test_biases_and_norms_do_not_decay():
    optimizer = build_optimizer(learner(), ADAMW)
    decay = {tuple(p.shape): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decay == {(4, 3): 0.1, (2, 4): 0.1, (4,): 0.0, (2,): 0.0}


def test_optimizer_step_by_hand():
    weight = nn.Linear(1, 1, bias=False)
    start = weight.weight.item()
    optimizer = build_optimizer(weight, SGD)
    weight(torch.ones(1, 1)).sum().backward()  # gradient 1
    optimizer.step()
    assert weight.weight.item() == pytest.approx(start - 0.01 * (1 + 0.1 * start), abs=1e-7)
