"""Text of others (labels, keys, names, reasons) as a terminal may show it: it moves no cursor and breaks no line."""

from __future__ import annotations

import re

# Controls (C0, C1), separators of lines, what reorders the text around it, and bytes that are no UTF-8.
_ACTIVE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, *, breaks: bool = False) -> str:
    r"""The text with control characters as Python writes them (``\n``, ``\x1b``); what was escaped stays as it is.

    Args:
        text: Any.
        breaks: Keep line breaks: the text is ours, laid out over several lines.
    """
    return _ACTIVE.sub(lambda found: _written(found[0], breaks), text)


def _written(character: str, breaks: bool) -> str:
    return character if breaks and character == "\n" else character.encode("unicode_escape").decode("ascii")
