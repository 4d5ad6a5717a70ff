"""What of a backbone is trained, and that the rest stays."""

import pytest
import torch
from torch import nn

from curate.pretraining import pretrain
from curate.pretraining.adaptation import Adaptation, keep_frozen_statistics, plain_state, stages_of
from embeddings.encoders import get_encoder
from embeddings.encoders.networks import build_network
from embeddings.errors import UsageError


def tiny():
    return build_network("tiny-resnet", seed=0).module


def test_stages_of_a_network_in_order():
    stages = stages_of(build_network("resnet18", seed=0).module)
    assert [type(stage).__name__ for stage in stages[:2]] == ["Conv2d", "BatchNorm2d"]
    assert len(stages) == 2 + 4 * 2
    assert len(stages_of(tiny())) == 2 + 4


def test_only_the_last_stages_are_trained():
    backbone = tiny()
    Adaptation.parse("last:1").apply(backbone, seed=0)
    trained = {name.split(".")[0] for name, p in backbone.named_parameters() if p.requires_grad}
    assert trained == {"6"}
    keep_frozen_statistics(backbone.train())
    modes = {name.split(".")[0]: m.training for name, m in backbone.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert modes == {"1": False, "3": False, "4": False, "5": False, "6": True}


def test_a_low_rank_change_starts_as_nothing_and_has_its_rank():
    torch.manual_seed(0)
    backbone, images = tiny().eval(), torch.randn(2, 3, 32, 32)
    before, state = backbone(images), {k: v.clone() for k, v in backbone.state_dict().items()}
    Adaptation.parse("lora:2").apply(backbone, seed=0)
    assert torch.equal(backbone(images), before)
    trained = [p for p in backbone.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) < sum(v.numel() for v in state.values()) / 5
    for p in trained:
        nn.init.normal_(p)
    plain = tiny().eval()
    plain.load_state_dict(plain_state(backbone))
    torch.testing.assert_close(plain(images), backbone(images))
    for name, tensor in plain.state_dict().items():
        change = tensor - state[name]
        if tensor.ndim > 1:
            assert torch.linalg.matrix_rank(change.flatten(1), atol=1e-3) == 2
        else:
            assert not change.any()


def test_a_network_without_a_change_has_its_own_state():
    backbone = tiny()
    assert plain_state(backbone).keys() == backbone.state_dict().keys()


@pytest.mark.parametrize("adapt", ["last:2", "lora:4"])
def test_a_run_changes_what_it_was_told_to_and_loads_as_an_encoder(selection, tmp_path, adapt):
    run = pretrain(selection, samples=32, batch=4, out=tmp_path / "run", adapt=adapt, device="cpu")
    assert run.facts["config"]["adapt"] == adapt
    encoder = get_encoder(f"run:{run.path}")
    assert encoder.spec.dim == 128
    from safetensors.torch import load_file

    found, start = load_file(run.path / "backbone.safetensors"), tiny().state_dict()
    assert found.keys() == start.keys()
    moved = {name for name in start if not torch.equal(found[name], start[name])}
    assert moved
    frozen = {name for name in start if name.startswith("0.") or (adapt == "lora:4" and "running" not in name)}
    still = {name for name in frozen if start[name].ndim < 2 or adapt == "last:2"}
    assert not moved & still


@pytest.mark.parametrize("wrong", ["", "last", "last:0", "lora:x", "some"])
def test_what_is_no_adaptation(wrong):
    with pytest.raises(UsageError, match="no way to adapt"):
        Adaptation.parse(wrong)


def test_more_stages_than_there_are():
    with pytest.raises(UsageError, match="the backbone has 6"):
        Adaptation.parse("last:7").apply(tiny(), seed=0)
    with pytest.raises(UsageError, match="no layer"):
        Adaptation.parse("lora:1").apply(nn.Sequential(nn.BatchNorm2d(3)), seed=0)
