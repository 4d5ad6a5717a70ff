"""Two and four processes on sorted images take the steps that one process takes."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from rank_worker import learn, learn_together
from safetensors.torch import load_file
from together import together
from torch import nn

from curate.pretraining import ranks
from curate.pretraining.methods import METHODS

FEW = [f"{method}:{20 if method == 'simclr' else 3}" for method in METHODS]
MANY = [f"{method}:20" for method in METHODS]


def start(out, count, methods, precision="float64"):
    """What some processes learn together."""
    together(count, learn_together, out, methods, precision)
    return load_file(out)


def compare(alone, together):
    assert together.keys() == alone.keys()
    for name, tensor in alone.items():
        if name.endswith(".losses"):
            assert (tensor[:-1] != tensor[1:]).any()
        torch.testing.assert_close(
            together[name], tensor, atol=1e-6, rtol=1e-6, msg=lambda told, name=name: f"{name}: {told}"
        )


@pytest.fixture(scope="module")
def alone():
    """Twenty steps of one method, three of each other one."""
    return learn(FEW, "float64")


def test_two_processes_take_the_steps_of_one(alone, tmp_path):
    compare(alone, start(tmp_path / "together", 2, FEW))


def test_four_processes_take_the_steps_of_one(alone, tmp_path):
    found = start(tmp_path / "together", 4, ["barlow:3"])
    compare({name: tensor for name, tensor in alone.items() if name.startswith("barlow.")}, found)


@pytest.mark.slow
def test_twenty_steps_of_every_method(tmp_path):
    alone = learn(MANY, "float64")
    for count in (2, 4):
        compare(alone, start(tmp_path / f"{count}", count, MANY))


@pytest.mark.slow
def test_in_single_precision(tmp_path):
    """The first step to 1e-4. Twenty blow rounding up: two processes stay as near to one as float32 to float64."""
    runs = {"exact": (1, "float64"), "alone": (1, "float32"), "together": (2, "float32")}
    found = {name: start(tmp_path / name, count, MANY, precision) for name, (count, precision) in runs.items()}
    for method in METHODS:
        exact, alone, together = (found[name][f"{method}.losses"].double() for name in runs)
        torch.testing.assert_close(together[0], alone[0], atol=0.0, rtol=1e-4)
        rounding = ((alone - exact) / exact).abs().max()
        assert ((together - alone) / alone).abs().max() <= 3 * rounding, method


def test_alone_nothing_changes():
    layer, values = nn.BatchNorm1d(3), torch.ones(4, 3, requires_grad=True)
    ranks.share_batch_norms(layer)
    assert type(layer) is nn.BatchNorm1d
    assert ranks.own(7) == slice(0, 7)
    assert ranks.total(values) is values
    assert torch.equal(ranks.gather(values, 4), values)
    assert (ranks.count(), ranks.rank(), ranks.any_of(flag=True)) == (1, 0, True)


@pytest.fixture
def two(monkeypatch):
    """As if this were the second of two processes."""
    monkeypatch.setattr(ranks.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(ranks.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(ranks.dist, "get_rank", lambda: 1)


def test_a_thread_can_count_as_the_only_process(two):
    with ThreadPoolExecutor(1) as reader, ranks.alone():
        assert (ranks.count(), ranks.rank(), ranks.own(7)) == (1, 0, slice(0, 7))
        assert reader.submit(ranks.own, 7).result() == slice(3, 7)  # who reads ahead is not concerned
    assert (ranks.count(), ranks.rank()) == (2, 1)


def test_alone_a_shared_batch_norm_asks_nobody(two):
    torch.manual_seed(0)
    plain, shared, x = nn.BatchNorm2d(3), nn.BatchNorm2d(3), torch.randn(4, 3, 2, 2)
    ranks.share_batch_norms(shared)
    with ranks.alone():
        assert torch.equal(shared(x), plain(x))


@pytest.mark.parametrize(
    ("device", "backend", "chosen"), [("cpu", "gloo", []), ("cuda:1", "cpu:gloo,cuda:nccl", ["cuda:1"])]
)
def test_processes_join_on_their_own_gpu(monkeypatch, device, backend, chosen):
    """What is asked of torch; that NCCL then works takes several GPUs to see."""
    joined, devices = [], []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(ranks.dist, "init_process_group", lambda name, timeout: joined.append((name, timeout)))
    monkeypatch.setattr(ranks.dist, "destroy_process_group", lambda: joined.append("left"))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: devices.append(str(device)))
    with ranks.joined(torch.device(device)):
        assert joined == [(backend, ranks.PATIENCE)]
    assert joined[-1] == "left"
    assert devices == chosen


def test_a_shared_batch_norm_is_a_batch_norm(monkeypatch):
    """With one process its sums are its own, so it must equal torch's in values, gradients and state."""
    monkeypatch.setattr(ranks, "count", lambda: 2)
    monkeypatch.setattr(ranks, "_sum_over_all", lambda values: values)
    torch.manual_seed(0)
    for plain, shape in ((nn.BatchNorm1d(5), (6, 5)), (nn.BatchNorm2d(5, affine=False), (6, 5, 3, 2))):
        shared = type(plain)(5, affine=plain.affine).double()
        ranks.share_batch_norms(shared)
        plain.double()
        x = (torch.randn(shape, dtype=torch.float64) * 3 + 100).requires_grad_()
        y = x.detach().clone().requires_grad_()
        for layer, values in ((plain, x), (shared, y)):
            layer(values).pow(3).sum().backward()
        torch.testing.assert_close(y.grad, x.grad, atol=1e-10, rtol=1e-9)
        torch.testing.assert_close(shared.state_dict(), plain.state_dict(), check_dtype=False)
        shared.eval(), plain.eval()
        torch.testing.assert_close(shared(y), plain(x))
