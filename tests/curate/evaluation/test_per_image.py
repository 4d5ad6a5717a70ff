"""Figures that are means of one value per image: against loops over resamples."""

from __future__ import annotations

import numpy as np
import pytest

from curate.evaluation._intervals import Resamples
from curate.evaluation.examinations._per_image import PerImage, figures, slope_weights

K = 30
RESAMPLES = Resamples(units=np.arange(K) // 2, n_train=50, seed=3)


def entry(values, **given):
    return PerImage(condition="c", metric="m", values=np.asarray(values, float), unit="u", **given)


def test_a_mean_and_a_ratio_on_every_resample():
    rng = np.random.default_rng(0)
    values, clean = rng.random(K), (rng.random(K) < 0.7).astype(float)
    mean, ratio = figures([entry(values), entry(values, per=clean)], RESAMPLES, reason="")
    weights = np.concatenate(list(RESAMPLES))[:40]
    for i, drawn in enumerate(weights):
        images = np.repeat(np.arange(K), drawn.astype(int))
        assert mean.found.draws[i] == pytest.approx(values[images].mean())
        assert ratio.found.draws[i] == pytest.approx(values[images].sum() / clean[images].sum())
    assert mean.found.value == pytest.approx(values.mean())
    assert ratio.found.value == pytest.approx(values.sum() / clean.sum())
    assert mean.resamples is RESAMPLES


def test_what_is_divided_by_nothing_says_why():
    none = Resamples(units=np.zeros(0, int), n_train=50)
    (empty,) = figures([entry([])], none, reason="no image")
    kept, lacking = figures([entry(np.ones(K)), entry(np.ones(K), per=np.zeros(K))], RESAMPLES, reason="none right")
    assert (empty.found.value, empty.found.reason) == (None, "no image")
    assert (lacking.found.value, lacking.found.reason) == (None, "none right")
    assert kept.found.value == 1


@pytest.mark.parametrize("steps", [(0, 1, 2, 3, 4, 5), (0, 1, 5), (0, 2.5, 10)])
def test_slopes_equal_polyfit(steps):
    values = np.random.default_rng(1).random(len(steps))
    assert slope_weights(steps) @ values == pytest.approx(np.polyfit(steps, values, 1)[0])


def test_one_step_has_no_slope():
    np.testing.assert_array_equal(slope_weights([3]), [0])
