"""Names of encoders, ``library:name``: searching among thousands of them, and what to say of one that is not there."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Sequence

from embeddings.errors import UnknownNameError

UNKNOWN_LICENSE = "unknown"  # of weights whose library does not name one


def bare(name: str) -> str:
    """What follows the library, without the size: ``resnet50`` of ``torchvision:resnet50@128``."""
    return name.partition("@")[0].rpartition(":")[2]


def search(pattern: str, names: Iterable[str]) -> list[str]:
    """Names that a pattern with wildcards matches in whole or behind the library; a bare word matches anywhere."""
    wanted = pattern if re.search(r"[*?\[]", pattern) else f"*{pattern}*"
    lowered = wanted.lower()
    return [name for name in names if any(fnmatch.fnmatchcase(text.lower(), lowered) for text in (name, bare(name)))]


def unknown_encoder(name: str, known: Sequence[str], *, otherwise: Sequence[str] = ()) -> UnknownNameError:
    """The error for this name, with the nearest known ones, whatever their library.

    Args:
        name: What was asked for.
        known: Every name it may have meant; may be thousands.
        otherwise: What to show when none is near; a few of ``known`` by default.
    """
    by_word = _by_word(_of_library(name, known))
    word = bare(name)
    begun = [other for other in by_word if re.match(re.escape(word) + r"\b", other)][:2]
    alike = difflib.get_close_matches(word, by_word, n=3, cutoff=0.6)
    found = [full for other in dict.fromkeys([*begun, *alike]) for full in by_word[other]]
    return UnknownNameError("encoder", name, otherwise or known[:8], nearest=(found or search(word, known))[:3])


def _of_library(name: str, known: Sequence[str]) -> Sequence[str]:
    """Names of the library that was meant, or all if none was."""
    library, colon, _ = name.partition(":")
    near = difflib.get_close_matches(library, {other.partition(":")[0] for other in known}, n=1, cutoff=0.6)
    return [other for other in known if other.partition(":")[0] == near[0]] if colon and near else known


def _by_word(names: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(bare(name), []).append(name)
    return found
