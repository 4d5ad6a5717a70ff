"""Memory that runs out, batches of any length, and torch.compile."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from torch import nn

from embeddings.encoders import build_network, get_encoder
from embeddings.encoders.torch_encoder import Placement, TorchEncoder
from embeddings.encoders.transform import Transform
from embeddings.errors import UsageError
from embeddings.spec import EncoderSpec

SPEC = EncoderSpec(name="small", dim=3, size=4, preprocessing="", weights="")
PIXELS = np.random.default_rng(0).integers(0, 256, (16, 4, 4, 3), dtype=np.uint8)


class Hungry(nn.Module):
    """Channel means, on a device that holds so many images at once."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.seen = room, []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x.mean(dim=(2, 3))


def encoder_of(module):
    transform = Transform(size=4, mean=0.0, std=1.0)
    return TorchEncoder(module, spec=SPEC, transform=transform, placement=Placement.choose("cpu"))


@pytest.mark.parametrize(("room", "lot"), [(16, 16), (15, 8), (5, 4), (1, 1)])
def test_a_batch_that_does_not_fit_is_run_in_halves_from_then_on(room, lot):
    module = Hungry(room)
    encoder = encoder_of(module)
    wanted = PIXELS.mean(axis=(1, 2), dtype=np.float64)
    for _ in range(2):
        np.testing.assert_allclose(encoder.encode(PIXELS), wanted, rtol=1e-5)
    assert (encoder.lot, encoder.batch_size) == (lot, 16)
    assert module.seen[-2 * (16 // lot) :] == [lot] * (2 * (16 // lot))


def test_room_that_vanishes_in_the_middle_loses_nothing():
    module = Hungry(4)
    encoder = encoder_of(module)
    encoder.encode(PIXELS)
    module.room = 2
    np.testing.assert_allclose(encoder.encode(PIXELS), PIXELS.mean(axis=(1, 2)), rtol=1e-5)
    assert encoder.lot == 2


def test_a_network_too_large_for_one_image_is_refused_with_a_way_out():
    with pytest.raises(UsageError, match="small does not fit into the memory of cpu with one image") as caught:
        encoder_of(Hungry(0)).encode(PIXELS)
    assert "--device cpu" in caught.value.hint


def test_another_failure_is_passed_on():
    with pytest.raises(RuntimeError, match="shape"):
        encoder_of(nn.Sequential(nn.Flatten(), nn.Linear(5, 2))).encode(PIXELS)


@pytest.mark.parametrize("n", [1, 5, 16, 17, 40])
def test_any_number_of_images_is_run_at_one_size(n):
    module = Hungry(16)
    pixels = np.random.default_rng(1).integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
    assert encoder_of(module).encode(pixels).shape == (n, 3)
    assert set(module.seen) == {16}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a compiler")
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_network_gives_the_same_features():
    plain, compiled = (get_encoder("lite0@64", device="cpu", compile=flag) for flag in (False, True))
    pixels = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    wanted, found = plain.encode(pixels), compiled.encode(pixels)
    assert compiled.spec == plain.spec
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def test_a_network_that_cannot_be_compiled_is_named(monkeypatch):
    def fail(module):
        def run(x):
            raise torch._dynamo.exc.TorchDynamoException("no C++ compiler")

        return run

    monkeypatch.setattr(torch, "compile", fail)
    placement = Placement.choose("cpu", compile=True)
    transform = Transform(size=4, mean=0.0, std=1.0)
    with pytest.raises(UsageError, match=r"torch\.compile cannot compile small"):
        TorchEncoder(Hungry(16), spec=SPEC, transform=transform, placement=placement).encode(PIXELS)


@pytest.mark.gpu
def test_a_gpu_gives_what_the_cpu_gives():
    here, there = (get_encoder("random", device=device, precision="float32") for device in ("cpu", "cuda"))
    pixels = np.random.default_rng(0).integers(0, 256, (32, 128, 128, 3), dtype=np.uint8)
    wanted, found = here.encode(pixels), there.encode(pixels)
    np.testing.assert_allclose(found, wanted, atol=1e-2 * np.abs(wanted).max())
    assert there.batch_size == 256
    assert build_network("resnet18").dim == found.shape[1]
