"""Selections over generated images, and pictures whose classes a small network can learn without labels."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from curate.results import LEFT_OUT, SELECTION, Selection
from embeddings.sources import open_source


@pytest.fixture(scope="session")
def select():
    """``select(source address, repeats=1)``: a Selection of all its images."""

    def _select(address, repeats=1):
        listing = open_source(str(address)).listing().images
        n = len(listing)
        columns = {field.name: pa.nulls(n, field.type) for field in SELECTION}
        columns |= {
            "source": pa.array(["pool"] * n),
            "key": listing["key"],
            "uri": listing["uri"],
            "stage": pa.array([0] * n, pa.int32()),
            "rank": pa.array(range(n)),
            "repeats": pa.array(np.broadcast_to(repeats, n), pa.int32()),
        }
        table = pa.table(columns, schema=SELECTION)
        facts = {"method": "all", "n": n}
        return Selection(table=table, left_out=LEFT_OUT.empty_table(), facts=facts, sources={"pool": str(address)})

    return _select


@pytest.fixture
def selection(select, image_folder, pictures):
    """Sixteen small images in a folder."""
    return select(image_folder(pictures(16, size=(24, 20))))


@pytest.fixture
def tiny_teacher(monkeypatch):
    """Distillation learns from a small random network at 8 pixels instead of a real encoder, whatever its name."""
    import torch
    from torch import nn

    from curate.pretraining.methods import distill
    from embeddings.encoders.torch_encoder import Placement, TorchEncoder
    from embeddings.encoders.transform import Transform
    from embeddings.spec import EncoderSpec

    def make(name, **_):
        generator = torch.Generator().manual_seed(len(name))
        module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 7), nn.BatchNorm1d(7), nn.ReLU())
        for parameter in module[1].parameters():
            nn.init.normal_(parameter, std=0.1, generator=generator)
        spec = EncoderSpec(name=name, dim=7, size=8, preprocessing="", weights="")
        transform = Transform(size=8, mean=127.0, std=128.0)
        return TorchEncoder(module, spec=spec, transform=transform, placement=Placement.choose("cpu"))

    monkeypatch.setattr(distill, "get_encoder", make)
