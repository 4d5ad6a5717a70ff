"""Pixels as torchvision and Pillow make them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from embeddings.encoders.torchvision import weights_transform
from embeddings.encoders.torchvision_import import import_torchvision
from embeddings.encoders.transform import Transform


def picture(width, height, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [(64, 64), (300, 120), (97, 301), (5, 7), (224, 224)])
@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "efficientnet_b0", "efficientnet_v2_l", "inception_v3", "vit_l_16"]
)
def test_equals_the_weights_own_transforms(name, size):
    weights = import_torchvision().models.get_model_weights(name).DEFAULT
    ours, image = weights_transform(weights), picture(*size)
    pixels = ours(image)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (ours.size, ours.size, 3)
    theirs = weights.transforms()(image).permute(1, 2, 0).numpy() * np.array(ours.std) + np.array(ours.mean)
    np.testing.assert_allclose(pixels, theirs, atol=1e-3)


def test_another_size_scales_the_resize_with_it():
    weights = import_torchvision().models.get_model_weights("resnet18").DEFAULT
    assert weights_transform(weights).shorter_side == 256
    assert weights_transform(weights, 112).shorter_side == 128


def test_squash_is_pillow_s_bicubic_and_ignores_the_aspect():
    image = picture(40, 90)
    ours = Transform(size=32, mean=127.0, std=128.0)(image)
    np.testing.assert_array_equal(ours, np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC)))


def test_an_extreme_aspect_costs_no_memory():
    """Resizing the shorter side of 2 x 60,000 pixels to 256 would take 5.9 GB."""
    ours = Transform(size=224, shorter_side=256, resampling="bilinear", mean=0.0, std=1.0)
    assert (ours(Image.new("RGB", (2, 60_000), (7, 8, 9))) == [7, 8, 9]).all()


@pytest.mark.parametrize("size", [(120, 3), (3, 121)])
def test_cutting_the_ends_of_a_long_image_changes_nothing_that_is_seen(size):
    """But for one gray level in few pixels, where the longer side does not scale to a whole number."""
    ours = Transform(size=224, shorter_side=256, resampling="bilinear", mean=0.0, std=1.0)
    image = picture(*size)
    whole = image.resize((size[0] * 256 // 3, size[1] * 256 // 3), Image.Resampling.BILINEAR)
    left, top = (round((edge - 224) / 2) for edge in whole.size)
    wanted = np.asarray(whole.crop((left, top, left + 224, top + 224)))
    difference = np.abs(ours(image).astype(int) - wanted)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


def test_the_longer_side_to_the_square_filled_with_the_mean():
    ours = Transform(size=8, longer_side=8, mean=(10.2, 20.0, 30.0), std=1.0)
    pixels = ours(Image.new("RGB", (40, 20), (200, 100, 50)))
    assert (pixels[2:6] == [200, 100, 50]).all()
    assert (pixels[[0, 1, 6, 7]] == [10, 20, 30]).all()
    assert ours(Image.new("RGB", (1, 1000))).shape == (8, 8, 3)


def test_the_center_of_a_larger_square():
    image = picture(50, 31)
    ours = Transform(size=20, squash_side=24, mean=0.0, std=1.0)(image)
    wanted = np.asarray(image.resize((24, 24), Image.Resampling.BICUBIC))[2:22, 2:22]
    np.testing.assert_array_equal(ours, wanted)


@pytest.mark.parametrize(
    ("sides", "edge"), [({}, 20), ({"shorter_side": 23}, 23), ({"longer_side": 21}, 21), ({"squash_side": 24}, 24)]
)
def test_the_edge_is_the_detail_that_is_of_use(sides, edge):
    assert Transform(size=20, mean=0.0, std=1.0, **sides).edge == edge


def test_worker_processes_need_no_torch():
    code = (
        "import pickle, sys; from embeddings.encoders.transform import Transform; "
        "pickle.loads(pickle.dumps(Transform(size=4, mean=0.0, std=1.0))); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_description_says_everything():
    assert str(Transform(size=128, mean=127.0, std=128.0)) == (
        "EXIF rotation, RGB on white; squash to 128x128, Pillow bicubic; (x - 127) / 128"
    )
    crop = Transform(size=224, shorter_side=256, resampling="bilinear", mean=(1.5, 2.0, 3.0), std=(4.0, 5.0, 6.0))
    assert str(crop) == (
        "EXIF rotation, RGB on white; shorter side to 256, center crop 224x224, Pillow bilinear; "
        "(x - [1.5, 2, 3]) / [4, 5, 6]"
    )
    assert "squash to 24x24, center crop 20x20" in str(Transform(size=20, squash_side=24, mean=0.0, std=1.0))
    assert "longer side to 20, filled with the mean to 20x20" in str(
        Transform(size=20, longer_side=20, mean=0.0, std=1.0)
    )
