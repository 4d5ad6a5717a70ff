"""Figures with their intervals, as every sentence writes them."""

# ruff: noqa: RUF001 - real minus signs

from __future__ import annotations

import math

import pytest

from curate.numerals import amount, between, within


@pytest.mark.parametrize(
    ("ends", "how", "text"),
    [
        ((5.0, 7.0), {}, "5 to 7"),
        ((-0.012, 0.018), {"decimals": 1, "scale": 100, "plus": True}, "−1.2 to +1.8"),
        ((-0.012, 0.018), {"decimals": 3}, "−0.012 to 0.018"),
        ((None, 7.0), {}, ""),
        ((5.0, None), {}, ""),
    ],
)
def test_an_interval(ends, how, text):
    assert between(*ends, **how) == text


@pytest.mark.parametrize(
    ("figure", "how", "text"),
    [
        ((0.76, 0.71, 0.81), {"decimals": 3}, "0.760 (0.710 to 0.810)"),
        ((-0.14, -0.18, 0.0), {"decimals": 3, "plus": True}, "−0.140 (−0.180 to 0.000)"),
        ((0.5, 0.4, 0.6), {"scale": 100, "plus": True}, "+50 (+40 to +60)"),
        ((0.5, None, 0.6), {"decimals": 1}, "0.5"),
        ((None, None, None), {}, "n/a"),
        ((math.nan, None, None), {}, "n/a"),
    ],
)
def test_a_figure_with_its_interval(figure, how, text):
    assert within(*figure, **how) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.02, "0.02"),
        (12.5, "12.5"),
        (21.39, "21.39"),
        (140.5, "140.5"),
        (1234.5, "1,234"),
        (3.0, "3"),
        (0.00047, "0.00047"),
        (None, "n/a"),
    ],
)
def test_amounts(value: float | None, text: str) -> None:
    assert amount(value) == text
