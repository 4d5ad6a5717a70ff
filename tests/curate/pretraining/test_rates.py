"""Schedules as tables: shares of C on the left, values computed by hand on the right."""

import pytest

from curate.pretraining.schedule import cosine, learning_rate_factor, ramp

# the cosine's values at twelfths of the way: (1 + cos(k pi / 12)) / 2, to ten digits
FALL = {0: 1.0, 2: 0.9330127019, 3: 0.8535533906, 4: 0.75, 6: 0.5, 8: 0.25, 9: 0.1464466094, 10: 0.0669872981, 12: 0.0}


@pytest.mark.parametrize(("twelfths", "fall"), FALL.items())
def test_cosine(twelfths, fall):
    share = twelfths / 12
    assert cosine(share, start=1.0, end=0.0) == pytest.approx(fall, abs=1e-10)
    assert cosine(share, start=0.996, end=1.0) == pytest.approx(1 - 0.004 * fall, abs=1e-10)  # a teacher's momentum
    assert cosine(share, start=0.04, end=0.4) == pytest.approx(0.4 - 0.36 * fall, abs=1e-10)  # DINO's weight decay


@pytest.mark.parametrize(
    ("share", "temperature"), [(0.0, 0.04), (0.1, 0.05), (0.15, 0.055), (0.3, 0.07), (0.31, 0.07), (1.0, 0.07)]
)
def test_ramp(share, temperature):
    """DINO's teacher: .04 to .07 in the first 30 of 100 epochs."""
    assert ramp(share, start=0.04, end=0.07, over=0.3) == pytest.approx(temperature, abs=1e-12)


def test_a_ramp_over_nothing_is_its_end():
    assert ramp(0.0, start=0.04, end=0.07, over=0.0) == 0.07


@pytest.mark.parametrize(("twelfths", "fall"), FALL.items())
@pytest.mark.parametrize(("warmup", "floor"), [(0.0, 0.0), (0.1, 0.0), (0.25, 0.001), (0.01, 0.5)])
def test_learning_rate_after_warm_up(twelfths, fall, warmup, floor):
    share = warmup + (1 - warmup) * twelfths / 12
    wanted = floor + (1 - floor) * fall
    assert learning_rate_factor(share, warmup=warmup, floor=floor) == pytest.approx(wanted, abs=1e-10)


@pytest.mark.parametrize(("share", "factor"), [(0.0, 0.0), (0.01, 0.1), (0.05, 0.5), (0.099, 0.99)])
def test_learning_rate_in_warm_up_is_a_line_from_zero_whatever_the_floor(share, factor):
    for floor in (0.0, 0.2):
        assert learning_rate_factor(share, warmup=0.1, floor=floor) == pytest.approx(factor, abs=1e-12)
