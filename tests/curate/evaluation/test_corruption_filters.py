"""Blurs, displacements and fractals against scipy, scikit-image and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import convolve, gaussian_filter, map_coordinates

from curate.evaluation.corruptions.filters import (
    disk,
    disk_blur,
    displaced,
    gaussian_blur,
    motion_kernel,
    plasma,
    smear,
    zoomed,
)
from curate.evaluation.corruptions.ice import PLATES, ice_plate


def picture(height=20, width=27, seed=0):
    return np.random.default_rng(seed).random((height, width, 3), np.float32)


@pytest.mark.parametrize("sigma", [0.05, 0.7, 3.0, 40.0])
@pytest.mark.parametrize(("mode", "truncate"), [("nearest", 4.0), ("reflect", 3.0)])
def test_gaussian_blur_equals_scipy(sigma, mode, truncate):
    pixels = picture()
    wanted = gaussian_filter(pixels.astype(np.float64), (sigma, sigma, 0), mode=mode, truncate=truncate)
    np.testing.assert_allclose(gaussian_blur(pixels, sigma, mode=mode, truncate=truncate), wanted, atol=2e-6)


def test_no_deviation_no_blur():
    assert gaussian_blur(picture(), 0.0) is not None
    np.testing.assert_array_equal(gaussian_blur(picture(), 0.0), picture())


@pytest.mark.parametrize(("radius", "alias"), [(0.5, 0.6), (3, 0.1), (5.7, 0.5), (10, 0.5)])
def test_disk_blur_equals_a_convolution(radius, alias):
    pixels, kernel = picture(40, 33), disk(radius, alias)
    wanted = np.stack([convolve(layer.astype(float), kernel, mode="mirror") for layer in pixels.transpose(2, 0, 1)], 2)
    np.testing.assert_allclose(disk_blur(pixels, radius, alias), wanted, atol=2e-6)


@pytest.mark.parametrize("radius", [1, 3, 8])
def test_a_disk_is_flat_round_and_sums_to_one(radius):
    kernel = disk(radius, 0.01)
    steps = np.arange(len(kernel)) - len(kernel) // 2
    inside = np.hypot(steps[:, None], steps) <= radius
    np.testing.assert_allclose(kernel, inside / inside.sum(), rtol=1e-6)


def test_a_smoothed_disk_keeps_its_sum_and_is_symmetric():
    kernel = disk(4, 0.5)
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(kernel, kernel.T, rtol=1e-6)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], rtol=1e-6)
    assert len(np.unique(kernel.round(7))) > 3  # its edge is no step


def test_motion_falls_like_half_a_gaussian_and_sums_to_one():
    weights, offsets = motion_kernel(radius=9.2, sigma=4.0, angle=0.0)
    assert len(weights) == 2 * 10 + 1
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(weights / weights[0], np.exp(-(np.arange(21) ** 2) / 32), rtol=1e-5)
    np.testing.assert_array_equal(offsets, [(0, i) for i in range(21)])


@pytest.mark.parametrize(("angle", "direction"), [(0, (0, 1)), (90, (1, 0)), (-90, (-1, 0)), (45, (1, 1))])
def test_a_point_is_smeared_along_the_angle(angle, direction):
    point = np.zeros((31, 31, 1), np.float32)
    point[15, 15] = 1
    smeared = smear(point, radius=3, sigma=2.0, angle=angle)[..., 0]
    assert smeared.sum() == pytest.approx(1, abs=1e-6)
    found = np.argwhere(smeared > 0) - 15
    for place in found:  # where a pixel looks, its own light is taken from: opposite to the angle
        assert np.array_equal(place, -np.array(direction) * np.abs(place).max())
    assert len(found) == (7 if angle != 45 else len(set(map(tuple, found))))


def test_edges_are_continued_in_motion():
    flat = np.full((9, 9, 3), 0.3, np.float32)
    np.testing.assert_allclose(smear(flat, radius=20, sigma=9, angle=33), flat, rtol=1e-5)


def test_displacement_equals_scipy():
    pixels, rng = picture(16, 23), np.random.default_rng(3)
    down, right = np.indices((16, 23)) + rng.uniform(-40, 40, (2, 16, 23))
    wanted = [map_coordinates(layer, [down, right], order=1, mode="mirror") for layer in pixels.transpose(2, 0, 1)]
    np.testing.assert_allclose(displaced(pixels, down, right), np.stack(wanted, axis=2), atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (7, 1)])
def test_displacement_of_a_line_or_a_point(shape):
    pixels = picture(*shape)
    np.testing.assert_array_equal(displaced(pixels, *np.indices(shape).astype(float)), pixels)


def test_zoom_magnifies_about_the_middle():
    ramp = np.broadcast_to(np.linspace(-1, 1, 64, dtype=np.float32)[None, :, None], (64, 64, 1))
    found = zoomed(ramp, [2.0])[..., 0]
    np.testing.assert_allclose(found[:, 2:-2], (ramp[..., 0] / 2)[:, 2:-2], atol=1e-4)
    np.testing.assert_allclose(zoomed(ramp, [1.0]), ramp, atol=1e-6)
    np.testing.assert_allclose(zoomed(ramp, [1.3, 2.0]), zoomed(ramp, [1.3]) + zoomed(ramp, [2.0]), atol=1e-6)


def test_plasma_spans_zero_to_one_and_is_rougher_with_less_decay():
    fields = {decay: plasma(64, 64, decay=decay, rng=np.random.default_rng(0)) for decay in (3.0, 2.0, 1.4)}
    for field in fields.values():
        assert (field.min(), field.max()) == (0, 1)
    rough = [np.abs(np.diff(field, axis=0)).mean() for field in fields.values()]
    assert rough == sorted(rough)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (50, 70)])
def test_plasma_of_any_shape(shape):
    field = plasma(*shape, decay=2.0, rng=np.random.default_rng(1))
    assert field.shape == shape
    assert np.isfinite(field).all()
    assert 0 <= field.min() <= field.max() <= 1


def test_plasma_first_steps_by_hand():
    """On a grid of 2: corner 0, the middle jitters about it, the edges about the mean of both."""
    draws = 2 * np.random.default_rng(5).random(3, np.float32) - 1
    middle = draws[0]
    grid = np.array([[0, middle / 2 + draws[1]], [middle / 2 + draws[2], middle]])
    wanted = (grid - grid.min()) / (grid.max() - grid.min())
    np.testing.assert_allclose(plasma(2, 2, decay=2.0, rng=np.random.default_rng(5)), wanted, atol=1e-6)


def test_panes_differ_are_bluish_and_partly_clear():
    panes = [ice_plate(number, 32) for number in range(PLATES)]
    for pane in panes:
        assert pane.shape == (64, 64, 3)
        red, _, blue = pane.mean(axis=(0, 1))
        assert 0.2 < red < blue < 0.8
        assert np.quantile(pane[..., 2], 0.95) > 1.5 * np.quantile(pane[..., 2], 0.05)
    assert len({pane.tobytes() for pane in panes}) == PLATES
