"""It learns: stripes at four angles under random tints, told apart by their neighbors better than before training.

Before training means: by a network that took steps at a learning rate of nothing. Its batch norms have seen the views,
which alone moves the share of neighbors that agree from .49 to .61.
"""

import numpy as np
import pytest
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

from curate.pretraining import pretrain
from curate.pretraining.knobs import read_knobs
from curate.pretraining.methods import simclr
from curate.pretraining.recipe import Training
from embeddings.encoders import get_encoder

EDGE = 40


def stripes(n, seed):
    """Stripes at four angles; width, phase, contrast, tint and noise are random, so color says nothing."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:EDGE, :EDGE] / EDGE
    pictures, labels = [], np.arange(n) % 4
    for label in labels:
        angle = np.deg2rad(label * 30) * rng.choice([-1, 1])  # views are mirrored: the sign must not matter
        wave = np.sin(2 * np.pi * (rng.uniform(5, 8) * (x * np.cos(angle) + y * np.sin(angle)) + rng.random()))
        tint, noise = rng.uniform(-120, 120, 3), rng.normal(0, 10, (EDGE, EDGE, 3))
        pictures.append((127 + tint + rng.uniform(40, 60) * wave[..., None] + noise).clip(0, 255).astype(np.uint8))
    return pictures, labels


def gratings(n, seed):
    """Gray waves at four angles and two widths under strong noise; phase and contrast are random."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:EDGE, :EDGE] / EDGE
    pictures, labels = [], np.arange(n) % 8
    for label in labels:
        angle = np.deg2rad((label % 4) * 30) * rng.choice([-1, 1])
        waves = (4, 9)[label // 4] * rng.uniform(0.9, 1.1)
        wave = np.sin(2 * np.pi * (waves * (x * np.cos(angle) + y * np.sin(angle)) + rng.random()))
        bright = 127 + 50 * rng.uniform(0.5, 1.2) * wave[..., None] + rng.normal(0, 40, (EDGE, EDGE, 3))
        pictures.append(bright.clip(0, 255).astype(np.uint8))
    return pictures, labels


def accuracy(folder, train, test):
    """Share of test pictures that their five nearest training pictures name rightly."""
    encoder = get_encoder(f"run:{folder}")

    def features(pictures):
        pixels = np.stack([encoder.prepare(Image.fromarray(p)) for p in pictures])
        size = encoder.batch_size
        found = np.concatenate([encoder.encode(pixels[i : i + size]) for i in range(0, len(pixels), size)])
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    judge = KNeighborsClassifier(5).fit(features(train[0]), train[1])
    return judge.score(features(test[0]), test[1])


def test_neighbors_name_the_pattern_better_after_training(select, image_table, encode, tmp_path):
    train, test = stripes(512, seed=0), stripes(256, seed=1)
    chosen = select(image_table({f"{i:03d}.png": encode(p) for i, p in enumerate(train[0])}))
    found = {}
    for name, rate, samples in (("before", 1e-9, 640), ("after", 6e-3, 1920)):
        training = Training(optimizer="adamw", learning_rate=rate, weight_decay=1e-4, batch=16)
        config = simclr.Config(training=training, temperature=0.1, augmentation=("natural",))
        run = pretrain(chosen, samples=samples, out=tmp_path / name, device="cpu", config=config)
        found[name] = accuracy(run.path, train, test)
    assert found["before"] < 0.65
    assert found["after"] > found["before"] + 0.06, found
    assert run.facts["health"]["verdict"] in ("healthy", "too early")


@pytest.mark.parametrize(
    ("method", "rise"),
    [("vicreg", 0.1), *(pytest.param(*of, marks=pytest.mark.slow) for of in (("mocov3", 0.06), ("barlow", 0.08)))],
)
def test_other_methods_learn_where_color_tells_nothing(select, image_table, encode, tmp_path, method, rise):
    """Against batch norms that have seen the views: to see them alone changes what neighbors say."""
    train, test = gratings(1024, seed=0), gratings(512, seed=1)
    chosen = select(image_table({f"{i:04d}.png": encode(p) for i, p in enumerate(train[0])}))
    found = {}
    for name, rate, samples in (("before", 1e-9, 512), ("after", None, 2048)):
        knobs = ["augmentation=natural-half", "batch=32", *([f"learning_rate={rate}"] if rate else [])]
        options = read_knobs(knobs, method=method, init="scratch")
        run = pretrain(chosen, samples=samples, method=method, out=tmp_path / name, device="cpu", **options)
        found[name] = accuracy(run.path, train, test)
    assert found["after"] > found["before"] + rise, found


def test_images_that_all_look_alike_are_not_called_healthy(select, image_table, encode, tmp_path):
    same = encode(np.full((EDGE, EDGE, 3), 90, np.uint8))
    chosen = select(image_table({f"{i:02d}.png": same for i in range(32)}))
    run = pretrain(chosen, samples=320, out=tmp_path / "run", batch=8, device="cpu")
    assert run.facts["health"]["verdict"] != "healthy"
