"""MAE learns: it paints hidden patches better than any one patch would, and a linear probe reads more from it."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from curate.pretraining import pretrain
from curate.pretraining.backbones import save_backbone
from curate.pretraining.methods import mae
from embeddings.encoders import get_encoder
from embeddings.encoders.networks import build_network

EDGE, LABELED = 40, 128


def shaded(n, seed, *, tinted):
    """Noisy pictures that get brighter towards one of four directions; contrast and either tint or gray are random."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:EDGE, :EDGE] / EDGE - 0.5
    pictures, labels = [], np.arange(n) % 4
    for label in labels:
        angle = np.deg2rad((-90, -30, 30, 90)[label])
        ramp = rng.choice([-1, 1]) * x * np.cos(angle) + y * np.sin(angle)  # views are mirrored
        color = 127 + rng.uniform(-50, 50, 3 if tinted else 1)
        noise = rng.normal(0, 15, (EDGE, EDGE, 3))
        pictures.append((color + rng.uniform(60, 140) * ramp[..., None] + noise).clip(0, 255).astype(np.uint8))
    return pictures, labels


def features(folder, pictures):
    encoder = get_encoder(f"run:{folder}")
    pixels, size = np.stack([encoder.prepare(Image.fromarray(p)) for p in pictures]), encoder.batch_size
    return np.concatenate([encoder.encode(pixels[i : i + size]) for i in range(0, len(pixels), size)])


def accuracy(folder, train, test):
    """Of a linear probe behind a batch norm, on few labels."""
    probe = make_pipeline(StandardScaler(), RidgeClassifierCV(np.logspace(0, 4, 9)))
    probe.fit(features(folder, train[0][:LABELED]), train[1][:LABELED])
    return probe.score(features(folder, test[0]), test[1])


@pytest.fixture
def train(select, image_table, encode, tmp_path):
    """``train(pictures, samples)``: a run of the default recipe in small batches."""

    def _train(pictures, samples):
        chosen = select(image_table({f"{i:03d}.png": encode(p) for i, p in enumerate(pictures)}))
        recipe = mae.RECIPES["scratch"]
        config = replace(recipe, training=replace(recipe.training, batch=16))
        return pretrain(chosen, samples=samples, out=tmp_path / "run", device="cpu", method="mae", config=config)

    return _train


def test_it_paints_hidden_patches_better_than_any_one_patch(train):
    run = train(shaded(256, seed=0, tinted=True)[0], samples=800)
    rows = run.curves()
    loss, chance = (np.mean([row[name] for row in rows[-len(rows) // 10 :]]) for name in ("loss", "chance_loss"))
    assert loss < 0.8 * chance
    assert chance < 47 / 48  # of painting each patch in its own mean
    assert run.facts["health"]["verdict"] == "healthy"


def test_a_linear_probe_reads_more_from_it(train, tmp_path):
    seen, test = (shaded(256, seed=seed, tinted=False) for seed in (0, 1))
    run = train(seen[0], samples=1800)
    save_backbone(tmp_path / "untrained", build_network("tiny-vit", seed=0), size=32)
    before, after = accuracy(tmp_path / "untrained", seen, test), accuracy(run.path, seen, test)
    assert after > before + 0.05
