"""Two and four processes on sorted images take the steps that one process takes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from curate.pretraining import ranks
from curate.pretraining.methods import METHODS

WORKER = Path(__file__).with_name("rank_worker.py")


def start(out, count, precision="float64"):
    """Runs the worker in some processes; returns what it saved."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(WORKER), str(out), precision, *METHODS]
    running = [subprocess.Popen(command, env=os.environ | together | {"RANK": str(rank)}) for rank in range(count)]
    assert [process.wait(timeout=300) for process in running] == [0] * count
    return load_file(out)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return start(tmp_path_factory.mktemp("alone") / "out.safetensors", 1)


@pytest.mark.parametrize("count", [2, 4])
def test_every_method_takes_the_same_steps(alone, tmp_path, count):
    together = start(tmp_path / "out.safetensors", count)
    assert together.keys() == alone.keys()
    for method in METHODS:
        assert (alone[f"{method}.losses"][:-1] != alone[f"{method}.losses"][1:]).any()
    for name, tensor in alone.items():
        torch.testing.assert_close(together[name], tensor, atol=1e-6, rtol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_alone_nothing_changes():
    layer, values = nn.BatchNorm1d(3), torch.ones(4, 3, requires_grad=True)
    ranks.share_batch_norms(layer)
    assert type(layer) is nn.BatchNorm1d
    assert ranks.own(7) == slice(0, 7)
    assert ranks.total(values) is values
    assert torch.equal(ranks.gather(values, 4), values)
    assert (ranks.count(), ranks.rank(), ranks.any_of(flag=True)) == (1, 0, True)


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
