"""Numbers and lists in words."""

# ruff: noqa: RUF001 - the report prints real minus signs

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.reporting.wording import (
    counted,
    decimals_for,
    in_one_line,
    listed,
    number,
    percent,
    points,
    signed,
    span,
    with_error,
)
from curate.results import Estimate


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (None, 0, "n/a"),
        (math.nan, 1, "n/a"),
        (math.inf, 1, "n/a"),
        (-0.04, 1, "0.0"),
        (-0.06, 1, "−0.1"),
        (1234567.0, 0, "1,234,567"),
        (2.5, 0, "2"),
        (0.05, 2, "0.05"),
    ],
)
def test_number(value: float | None, decimals: int, text: str) -> None:
    assert number(value, decimals) == text


@given(st.floats(-1e9, 1e9), st.integers(0, 4))
def test_number_reads_back_within_its_last_digit(value: float, decimals: int) -> None:
    text = number(value, decimals).replace(",", "").replace("−", "-")
    assert float(text) == pytest.approx(value, abs=0.5000001 * 10**-decimals)
    assert not (text.startswith("-") and float(text) == 0)


def test_signs_and_shares() -> None:
    assert [signed(v) for v in (0.0, 0.04, -0.04, 3.0, -3.0, None)] == ["0.0", "0.0", "0.0", "+3.0", "−3.0", "n/a"]
    assert [percent(v) for v in (0.756, 0.0, 1.0, None)] == ["75.6%", "0.0%", "100.0%", "n/a"]
    assert [points(v) for v in (0.031, -0.031, None)] == ["+3.1", "−3.1", "n/a"]


def test_intervals_and_errors() -> None:
    figure = Estimate(value=0.3, low=-0.012, high=0.018, se=0.01).to_json()
    assert span(figure, 1, scale=100, plus=True) == "−1.2 to +1.8"
    assert span(Estimate(value=1.0).to_json()) == ""
    assert with_error(Estimate(value=38.27, se=5.94).to_json(), 1) == "38.3 ± 5.9"
    assert with_error(Estimate(value=None, reason="x").to_json()) == "n/a"


def test_a_column_keeps_two_digits_of_its_smallest_value() -> None:
    assert decimals_for([3.6, 12.0]) == 1
    assert decimals_for([36.0, 120.0]) == 0
    assert decimals_for([0.036, None, 0.0]) == 3
    assert decimals_for([1e-9]) == 4
    assert decimals_for([]) == 0


def test_lists() -> None:
    assert [listed(list("abcdef")[:n], most=4) for n in range(1, 7)] == [
        "a",
        "a and b",
        "a, b and c",
        "a, b, c and d",
        "a, b, c and 2 more",
        "a, b, c and 3 more",
    ]
    assert [counted(n, "class", "classes") for n in (0, 1, 2000)] == ["0 classes", "1 class", "2,000 classes"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a,b [c] 'd'", "a,b [c] 'd'"),
        ("δ\n2", "δ\\n2"),
        ("a\tb\u2028c", "a\\tb\\u2028c"),
        (" spaces ", "' spaces '"),
        ("\n", "\\n"),
        ("👩\u200d🔧", "👩\u200d🔧"),
    ],
)
def test_a_name_takes_one_line_in_which_all_of_it_is_seen(name, told):
    assert in_one_line(name) == told
