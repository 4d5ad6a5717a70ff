"""Every corruption against its published definition, and what all of them share."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from skimage.color import hsv2rgb, rgb2hsv
from skimage.data import astronaut, coffee

from curate.evaluation.corruptions import CORRUPTIONS, NAMES, corrupt, draws
from curate.evaluation.corruptions.blur import _scattered, glass_blur, motion_blur
from curate.evaluation.corruptions.filters import gaussian_blur
from embeddings.errors import UnknownNameError

SEVERITIES = (1, 2, 3, 4, 5)
MIXED = {"elastic", "glass-blur"}  # by turns they move more and smooth more: the published constants do not rise
FLAT = {"gaussian-noise", "shot-noise", "impulse-noise", "snow", "frost", "fog", "brightness"}  # change a flat image


def photo(edge=64, picture=astronaut):
    whole = Image.fromarray(picture())
    side = min(whole.size)
    return np.asarray(whole.crop((0, 0, side, side)).resize((edge, edge), Image.Resampling.BICUBIC))


def corrupted(image, name, severity, key=1):
    return corrupt(image, name, severity, draws(0, key, name, severity))


def error(first, second):
    return float(np.square(first.astype(float) - second).mean())


def unlikeness(first, second):
    return 1 - np.corrcoef(first.ravel(), second.ravel())[0, 1]


def test_there_are_fifteen():
    assert len(NAMES) == 15
    assert set(NAMES) == set(CORRUPTIONS)


@pytest.mark.parametrize("name", NAMES)
def test_severity_zero_is_the_image(name):
    image = photo()
    found = corrupted(image, name, 0)
    np.testing.assert_array_equal(found, image)
    assert not np.shares_memory(found, image)


@pytest.mark.parametrize("edge", [32, 64, 96])
@pytest.mark.parametrize("name", NAMES)
def test_damage_rises_with_severity(name, edge):
    """With the same draws at every severity: how thick the fog lies differs more between draws than between steps."""
    images = [photo(edge, picture) for picture in (astronaut, coffee)]
    measure = unlikeness if name == "frost" else error  # it darkens bright images and brightens dark ones

    def damage(severity):
        rngs = [np.random.default_rng(seed) for seed in range(8)]
        return np.mean([measure(corrupt(x, name, severity, rng), x) for x in images for rng in rngs])

    found = [damage(severity) for severity in SEVERITIES]
    assert min(found) > 0
    if name not in MIXED:
        assert found == sorted(found)
        assert found[-1] > 1.5 * found[0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(8, 8), (1, 1), (2, 3), (96, 40), (224, 224)])
def test_any_shape_and_type_as_given(name, shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    before = image.copy()
    for severity in (1, 5):
        found = corrupted(image, name, severity)
        assert found.dtype == np.uint8
        assert found.shape == image.shape
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("name", NAMES)
def test_a_flat_image_stays_flat_unless_something_is_added(name, value):
    flat = np.full((32, 32, 3), value, np.uint8)
    for severity in (1, 5):
        found = corrupted(flat, name, severity).astype(int)
        if name not in FLAT:
            assert np.abs(found - value).max() <= 1
        if name in ("gaussian-noise", "impulse-noise") or (name == "frost" and value < 255):
            assert found.std() > 0


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("gaussian-noise", "shot-noise", "impulse-noise")])
def test_gray_stays_gray(name):
    gray = np.repeat(photo()[..., :1], 3, axis=2)
    found = corrupted(gray, name, 3).astype(int)
    spread = np.ptp(found, axis=2).max()
    assert spread <= (60 if name == "frost" else 3)  # frost is bluish; JPEG rounds colors


@pytest.mark.parametrize("name", NAMES)
def test_the_key_decides_alone(name):
    image = photo(32)
    versions = [(severity, key) for severity in (1, 5) for key in (3, 4)]
    first = {v: corrupted(image, name, *v) for v in versions}
    for v in reversed(versions):
        np.testing.assert_array_equal(corrupted(image, name, *v), first[v])


@pytest.mark.parametrize("name", ["gaussian-noise", "glass-blur", "motion-blur", "snow", "frost", "fog", "elastic"])
def test_images_seeds_and_severities_draw_their_own(name):
    states = {draws(*where).random() for where in ((0, 1, name, 1), (1, 1, name, 1), (0, 2, name, 1), (0, 1, name, 2))}
    assert len(states) == 4
    image = photo(32)
    assert (corrupted(image, name, 3, key=1) != corrupted(image, name, 3, key=2)).any()


def test_what_there_is_not():
    with pytest.raises(UnknownNameError, match="corruption"):
        corrupt(photo(), "rain", 1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="severity 6"):
        corrupt(photo(), "fog", 6, np.random.default_rng(0))


@pytest.mark.parametrize(("edge", "deviation"), [(224, 0.38), (64, 0.18), (32, 0.10)])
def test_gaussian_noise_has_the_published_deviation(edge, deviation):
    flat = np.full((edge, edge, 3), 128, np.uint8)
    noise = corrupted(flat, "gaussian-noise", 5).astype(float) / 255 - 128 / 255
    inner = np.abs(noise) < 0.49  # not cut off at 0 or 1
    quantile = np.quantile(np.abs(noise), 0.5)
    assert inner.mean() > 0.7
    assert quantile == pytest.approx(0.6745 * deviation, rel=0.05)
    assert noise.mean() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(("severity", "photons"), [(1, 250), (3, 50), (5, 15)])
def test_shot_noise_has_the_variance_of_counts(severity, photons):
    flat = np.full((64, 64, 3), 102, np.uint8)  # 0.4
    noisy = corrupted(flat, "shot-noise", severity).astype(float) / 255
    assert noisy.mean() == pytest.approx(0.4, rel=0.02)
    assert noisy.var() == pytest.approx(0.4 / photons, rel=0.1)
    counts = noisy * photons
    np.testing.assert_allclose(counts, np.rint(counts), atol=photons / 255)


def test_impulse_noise_sets_a_share_of_the_values_to_the_ends():
    flat = np.full((64, 64, 3), 100, np.uint8)
    for severity, share in zip(SEVERITIES, (0.01, 0.02, 0.05, 0.08, 0.14), strict=True):
        noisy = corrupted(flat, "impulse-noise", severity)
        salt, pepper = (noisy == 255).mean(), (noisy == 0).mean()
        assert salt + pepper + (noisy == 100).mean() == 1
        assert salt == pytest.approx(share / 2, rel=0.3)
        assert pepper == pytest.approx(share / 2, rel=0.3)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_brightness_adds_to_the_value(severity):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    image[0] = 0
    hsv = rgb2hsv(image / 255)
    hsv[..., 2] = np.clip(hsv[..., 2] + severity / 10, 0, 1)
    np.testing.assert_allclose(corrupted(image, "brightness", severity), 255 * hsv2rgb(hsv), atol=0.51)


@pytest.mark.parametrize(("severity", "factor"), [(1, 0.4), (5, 0.05)])
def test_contrast_shrinks_about_the_mean_color(severity, factor):
    image = photo()
    mean = image.mean(axis=(0, 1))
    np.testing.assert_allclose(corrupted(image, "contrast", severity), mean + factor * (image - mean), atol=0.51)


def test_pixelate_is_a_mean_of_blocks():
    image = photo()
    blocks = image.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    wanted = blocks.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_allclose(corrupted(image, "pixelate", 5), wanted, atol=1)


@pytest.mark.parametrize(("edge", "qualities"), [(224, (25, 18, 15, 10, 7)), (64, (65, 58, 50, 40, 25))])
def test_jpeg_has_the_published_qualities(edge, qualities):
    image = photo(edge)
    for severity, quality in zip(SEVERITIES, qualities, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        np.testing.assert_array_equal(corrupted(image, "jpeg", severity), np.asarray(Image.open(buffer)))


def test_glass_takes_pixels_from_within_reach():
    order = np.array(_scattered(20, 30, reach=2, rounds=1, rng=np.random.default_rng(0)))
    moved = np.abs(np.array(np.divmod(order, 30)) - np.divmod(np.arange(600), 30))
    assert (order != np.arange(600)).mean() > 0.5
    assert np.quantile(moved, 0.9) <= 2
    still = np.zeros((20, 30), bool)
    still[:3] = still[:, :3] = still[19:] = still[:, 29:] = True  # nothing is put there
    np.testing.assert_array_equal(order.reshape(20, 30)[still], np.arange(600).reshape(20, 30)[still])


def test_glass_equals_the_published_loop():
    """Two views of one array on both sides of an assignment: a copy."""
    pixels, (sigma, reach, rounds) = photo(24).astype(np.float32) / 255, (0.6, 2, 2)
    rng, wanted = np.random.default_rng(4), gaussian_blur(pixels, sigma).copy()
    for _ in range(rounds):
        steps = iter(rng.integers(-reach, reach, (2, 20 * 20)).T)
        for row in range(24 - reach, reach, -1):
            for column in range(24 - reach, reach, -1):
                down, right = next(steps)
                here, there = (row, column), (row + down, column + right)
                wanted[here], wanted[there] = wanted[there], wanted[here]
    found = glass_blur(pixels, (sigma, reach, rounds), np.random.default_rng(4))
    np.testing.assert_allclose(found, gaussian_blur(wanted, sigma), atol=1e-6)


def test_motion_runs_within_45_degrees_of_sideways():
    point = np.zeros((65, 65, 3), np.float32)
    point[32, 32] = 1
    for seed in range(8):
        smeared = motion_blur(point, (12, 9), np.random.default_rng(seed))
        tall, wide = (np.ptp(np.flatnonzero(smeared.max(axis=(axis, 2)) > 0)) for axis in (1, 0))
        assert wide >= 15
        assert tall <= wide
        assert smeared.sum() == pytest.approx(3, abs=1e-4)


def test_zoom_blur_leaves_the_middle_sharp():
    image = np.random.default_rng(0).integers(0, 256, (65, 65, 3), dtype=np.uint8)
    change = np.abs(corrupted(image, "zoom-blur", 5).astype(float) - image)
    assert change[30:35, 30:35].mean() < 0.6 * change[:5].mean()


def test_fog_keeps_the_brightest_value_as_its_limit():
    image = photo() // 2
    assert corrupted(image, "fog", 5).max() <= image.max()
    np.testing.assert_array_equal(corrupted(np.zeros_like(image), "fog", 5), 0)


def test_snow_and_frost_brighten_what_is_dark():
    dark = np.full((64, 64, 3), 20, np.uint8)
    for name in ("snow", "frost"):
        assert corrupted(dark, name, 5).mean() > 40


@pytest.mark.parametrize("edge", [224, 64, 32])
def test_published_edges_have_the_published_constants(edge):
    for corruption in CORRUPTIONS.values():
        for severity in SEVERITIES:
            assert corruption.level(severity, edge) == pytest.approx(corruption.levels[edge][severity - 1])


def test_lengths_grow_with_the_image_and_strengths_do_not():
    blur, noise, elastic = (CORRUPTIONS[name] for name in ("defocus-blur", "gaussian-noise", "elastic"))
    assert blur.level(3, 128) == pytest.approx((6 * 128 / 224, 0.5))
    assert blur.level(3, 448) == pytest.approx((12, 0.5))
    assert noise.level(3, 448) == noise.level(3, 224) == (0.18,)
    whole, twice = elastic.level(4, 224), elastic.level(4, 448)
    np.testing.assert_allclose(twice, np.array(whole) * [4, 2, 2])  # displacements: strength over deviation
    assert noise.level(3, 119) == (0.12,)  # nearer to 64 than to 224 in ratio
    assert noise.level(3, 121) == (0.18,)
