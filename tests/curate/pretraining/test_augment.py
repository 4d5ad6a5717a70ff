"""Every operation against torchvision or Pillow, image by image."""

import numpy as np
import pytest
import torch
from PIL import Image

from curate.pretraining.augment import color, geometry
from curate.pretraining.augment.draws import VIEW_DRAWS, Draws, draw, uniforms
from curate.pretraining.augment.presets import PRESETS, Preset
from curate.pretraining.augment.views import augment
from embeddings.encoders.torchvision_import import import_torchvision

N = 24


@pytest.fixture(scope="module")
def peer():
    return import_torchvision().transforms.functional


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 256, (N, 3, 10, 10)).repeat(4, 2).repeat(4, 3)  # blocks: equal pixels, pure colors, edges
    smooth[0] = 0
    smooth[1] = 255
    smooth[2, 1:] = 0
    smooth[3] = smooth[3, :1]
    return torch.from_numpy((smooth // 4 * 4).clip(0, 255).astype(np.uint8))


def random_draws(preset=PRESETS["natural"], n=N, stored=40, size=32):
    u = uniforms(5, np.arange(n, dtype=np.uint64), np.zeros(n, int), stream=1, count=VIEW_DRAWS)
    return draw(preset, u, stored=stored, size=size)


@pytest.mark.parametrize("size", [16, 32, 64])  # shrinks, about keeps, enlarges
def test_crop_resize_flip_equal_torchvision(peer, images, size):
    draws = random_draws()
    found = geometry.crop_resize(images, draws.box, draws.flip, size=size)
    for i in range(N):
        wanted = peer.resized_crop(images[i] / 255, *draws.box[i].tolist(), size=[size, size], antialias=True)
        wanted = wanted.flip(-1) if draws.flip[i] else wanted
        torch.testing.assert_close(found[i], wanted, atol=2e-6, rtol=0)


def test_crop_resize_equals_pillow_up_to_its_rounding(images):
    box = random_draws().box
    found = geometry.crop_resize(images, box, np.zeros(N, bool), size=20) * 255
    for i in range(N):
        top, left, height, width = box[i].tolist()
        picture = Image.fromarray(images[i].permute(1, 2, 0).numpy()).crop((left, top, left + width, top + height))
        wanted = np.asarray(picture.resize((20, 20), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        assert np.abs(found[i].numpy() - wanted).max() <= 1.01


def test_images_that_are_not_square(peer, images):
    wide = images[:, :, :20]
    found = geometry.crop_resize(wide, np.array([[0, 0, 20, 40]] * N), np.zeros(N, bool), size=24)
    torch.testing.assert_close(found, peer.resize(wide / 255, [24, 24], antialias=True), atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "kind"), [("adjust_brightness", 0), ("adjust_contrast", 1), ("adjust_saturation", 2), ("adjust_hue", 3)]
)
def test_adjustments_equal_torchvision(peer, images, name, kind):
    factors = random_draws().jitter[:, kind]
    found = getattr(color, name)(images / 255, torch.from_numpy(factors))
    for i in range(N):
        wanted = getattr(peer, name)(images[i] / 255, float(factors[i]))
        torch.testing.assert_close(found[i], wanted, atol=5e-6, rtol=0)


def test_hue_equals_the_standard_library():
    import colorsys

    rng = np.random.default_rng(1)
    pixels, turns = rng.random((6, 3)), rng.uniform(-0.5, 0.5, 6)
    found = color.adjust_hue(torch.tensor(pixels).view(6, 3, 1, 1), torch.tensor(turns)).view(6, 3)
    for row, pixel, turn in zip(found, pixels, turns, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        assert row.tolist() == pytest.approx(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value), abs=1e-6)


def test_gray_equals_torchvision(peer, images):
    torch.testing.assert_close(color.to_gray(images / 255), peer.rgb_to_grayscale(images / 255, 3), atol=1e-6, rtol=0)


def test_blur_equals_torchvision(peer, images):
    sigma = torch.linspace(0.1, 3, N)
    found = geometry.gaussian_blur(images / 255, sigma)
    taps = 2 * geometry.blur_radius(40) + 1
    for i in range(N):
        wanted = peer.gaussian_blur(images[i] / 255, [taps, taps], [float(sigma[i])] * 2)
        torch.testing.assert_close(found[i], wanted, atol=2e-6, rtol=0)


def test_jitter_applies_each_image_its_own_order(peer, images):
    draws = random_draws(Preset(jitter=0.7))
    adjust = [peer.adjust_brightness, peer.adjust_contrast, peer.adjust_saturation, peer.adjust_hue]
    found = color.jitter(images / 255, draws.jitter, draws.order)
    for i in range(N):
        wanted = images[i] / 255
        for kind in draws.order[i]:
            wanted = adjust[kind](wanted, float(draws.jitter[i, kind])) if kind >= 0 else wanted
        torch.testing.assert_close(found[i], wanted, atol=2e-5, rtol=0)
    untouched = draws.order[:, 0] < 0
    assert 0 < untouched.sum() < N
    assert torch.equal(found[untouched], images[untouched] / 255)


def test_a_whole_view_equals_the_operations_one_after_the_other(peer, images):
    draws = random_draws(Preset(quarter_turns=0.7, solarize=0.5), size=64)
    found = augment(images, draws, size=64)
    assert found.shape == (N, 3, 64, 64)
    assert found.min() >= 0
    assert found.max() <= 1
    for i in range(N):
        wanted = geometry.crop_resize(images[i : i + 1], draws.box[i : i + 1], draws.flip[i : i + 1], size=64)
        wanted = peer.rotate(wanted, 90 * int(draws.turns[i]))
        wanted = color.jitter(wanted, draws.jitter[i : i + 1], draws.order[i : i + 1])
        wanted = peer.rgb_to_grayscale(wanted, 3) if draws.gray[i] else wanted
        wanted = peer.gaussian_blur(wanted, [7, 7], [float(draws.sigma[i])] * 2) if draws.sigma[i] else wanted
        wanted = peer.solarize(wanted, 128 / 255) if draws.solarize[i] else wanted
        near = (wanted - 128 / 255).abs() < 1e-4  # which side of the threshold is rounding
        torch.testing.assert_close(found[i : i + 1][~near], wanted[~near], atol=2e-5, rtol=0)
    assert set(draws.turns) == {0, 1, 2, 3}
    assert draws.solarize.any()
    assert draws.gray.any()
    assert (draws.sigma > 0).any()


def test_the_batch_around_an_image_does_not_change_its_view(images):
    draws = random_draws()
    whole = augment(images, draws, size=32)
    for rows in (np.arange(7), np.array([3]), np.arange(N)[::-1].copy()):
        part = Draws(**{name: getattr(draws, name)[rows] for name in Draws.__dataclass_fields__})
        torch.testing.assert_close(augment(images[rows], part, size=32), whole[rows], atol=1e-6, rtol=0)


def test_nothing_drawn_nothing_done(images):
    still = Preset(crop_area=(1, 1), crop_ratio=(1, 1), flip=0, jitter=0, gray=0, blur=0)
    torch.testing.assert_close(augment(images, random_draws(still, size=40), size=40), images / 255, atol=1e-6, rtol=0)
