"""Numbers as every sentence, table and page writes them: sensible digits, a real minus sign, intervals as "5 to 7"."""

from __future__ import annotations

import math

NOTHING = "n/a"
MINUS = "\N{MINUS SIGN}"


def number(value: float | None, decimals: int = 0) -> str:
    """1,234.5 with a minus sign where one is due, never "-0"."""
    if value is None or not math.isfinite(value):
        return NOTHING
    text = f"{value:,.{decimals}f}"
    negative = text.startswith("-") and any(c in "123456789" for c in text)
    return (MINUS if negative else "") + text.lstrip("-")


def signed(value: float | None, decimals: int = 1) -> str:
    """The number with its sign, also when positive; zero has none."""
    text = number(value, decimals)
    positive = value is not None and value > 0 and any(c in "123456789" for c in text)
    return f"+{text}" if positive else text


def amount(value: float | None) -> str:
    """A sum of money, bytes or images: whole where it is whole or large, else four digits."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == round(value) or abs(value) >= 1000:
        return number(value)
    return number(value, min(9, max(0, 3 - math.floor(math.log10(abs(value)))))).rstrip("0").rstrip(".")


def between(low: float | None, high: float | None, decimals: int = 0, *, scale: float = 1.0, plus: bool = False) -> str:
    """An interval, "5 to 7"; empty where an end is not known."""
    if low is None or high is None:
        return ""
    show = signed if plus else number
    return f"{show(scale * low, decimals)} to {show(scale * high, decimals)}"


def within(
    value: float | None,
    low: float | None,
    high: float | None,
    decimals: int = 0,
    *,
    scale: float = 1.0,
    plus: bool = False,
) -> str:
    """A value with its interval, "6 (5 to 7)"; alone where it has none."""
    show, ends = signed if plus else number, between(low, high, decimals, scale=scale, plus=plus)
    told = show(None if value is None else scale * value, decimals)
    return f"{told} ({ends})" if ends else told


def counted(n: int, noun: str, plural: str | None = None) -> str:
    """1 pool, 2 pools."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def one_of(n: int, singular: str, plural: str) -> str:
    """The form of a word that goes with n things."""
    return singular if n == 1 else plural
