"""Methods with a teacher learn: stripes at four angles are told apart by their neighbors better than before training.

The stripes are gray, of any brightness, under strong noise: what views of one image share is the angle. (With tints, as
in test_pretrain_learns, these methods take color first, and give it up only after many more images.) The network is
three strided layers, so that a few thousand images take seconds.
"""

import numpy as np
import pytest
from test_pretrain_learns import EDGE, accuracy
from torch import nn

from curate.pretraining import pretrain
from curate.pretraining.backbones import save_backbone
from curate.pretraining.methods import mocov3
from curate.pretraining.recipe import Training
from embeddings.encoders import networks
from embeddings.encoders.networks import IMAGENET_MEAN, IMAGENET_STD, Known, Network, build_network

WIDTHS = (3, 16, 32, 64)


def gray_stripes(n, seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:EDGE, :EDGE] / EDGE
    pictures, labels = [], np.arange(n) % 4
    for label in labels:
        angle = np.deg2rad(label * 30) * rng.choice([-1, 1])  # views are mirrored: the sign must not matter
        wave = np.sin(2 * np.pi * (rng.uniform(5, 8) * (x * np.cos(angle) + y * np.sin(angle)) + rng.random()))
        level, noise = 127 + rng.uniform(-80, 80), rng.normal(0, 60, (EDGE, EDGE, 3))
        pictures.append((level + rng.uniform(40, 60) * wave[..., None] + noise).clip(0, 255).astype(np.uint8))
    return pictures, labels


def three_layers(wish):
    layers = []
    for narrow, wide in zip(WIDTHS[:-1], WIDTHS[1:], strict=True):
        layers += [nn.Conv2d(narrow, wide, 3, 2, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU(inplace=True)]
        nn.init.kaiming_normal_(layers[-3].weight, mode="fan_out", nonlinearity="relu")
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Network("three-layers", module, dim=WIDTHS[-1], mean=IMAGENET_MEAN, std=IMAGENET_STD)


def adamw(rate, batch=32):
    return Training(optimizer="adamw", learning_rate=rate, weight_decay=1e-4, batch=batch)


CASES = {
    "mocov3": (3840, mocov3.Config(training=adamw(2e-2), momentum=0.5, hidden=256, augmentation=("natural",))),
}


@pytest.mark.parametrize("method", CASES)
def test_neighbors_name_the_angle_better_after_training(method, select, image_table, encode, tmp_path, monkeypatch):
    monkeypatch.setitem(networks.BUILDERS, "three-layers", Known(three_layers, WIDTHS[-1], size=32, public=False))
    train, test = gray_stripes(512, seed=0), gray_stripes(256, seed=1)
    chosen = select(image_table({f"{i:03d}.png": encode(p) for i, p in enumerate(train[0])}))
    samples, config = CASES[method]
    run = pretrain(
        chosen,
        samples=samples,
        out=tmp_path / "run",
        device="cpu",
        method=method,
        backbone="three-layers",
        config=config,
    )
    save_backbone(tmp_path / "untrained", build_network("three-layers", seed=0), size=32)
    before, after = accuracy(tmp_path / "untrained", train, test), accuracy(run.path, train, test)
    print(method, before, after, run.facts["health"])
    assert before < 0.7
    assert after > before + 0.12
    assert run.facts["health"]["verdict"] == "healthy"
