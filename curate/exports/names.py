"""Names for files and folders that hold on every system, made of names that need not.

Kept are letters and digits of any script and ``-``, ``_``, ``.``; everything else (separators, NUL, blanks, signs of
writing direction) becomes ``_``. So no name leaves its folder, is hidden, or is an option of some command.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

from embeddings.sources.folder import IMAGE_SUFFIXES

MAX_BYTES = 100  # in UTF-8; file systems take 255, archives and people less
_RESERVED = {"con", "prn", "aux", "nul"} | {f"{port}{i}" for port in ("com", "lpt") for i in range(10)}


def safe_name(text: str) -> str:
    """A name for a file or folder; different texts may give the same one."""
    kept = "".join(c if c.isalnum() or c in "-_." else "_" for c in unicodedata.normalize("NFC", text))
    kept = kept.strip(".").encode("utf-8", "replace")[:MAX_BYTES].decode("utf-8", "ignore").rstrip(".")
    plain = not kept or kept[0] == "-" or kept.partition(".")[0].casefold() in _RESERVED
    return f"_{kept}" if plain else kept


def safe_stem(key: str) -> str:
    """A name made of an image's key, without the suffix of its format."""
    suffix = PurePosixPath(key).suffix
    return safe_name(key.removesuffix(suffix) if suffix.lower() in IMAGE_SUFFIXES else key)


def safe_names(texts: Iterable[str], *, reserved: Iterable[str] = ()) -> dict[str, str]:
    """A name for each different text: those that a system which ignores case would confuse get a digest."""
    names = {text: safe_name(text) for text in sorted(set(texts))}
    taken = Counter(_folded(name) for name in [*names.values(), *reserved])
    return {text: f"{name}~{_digest(text)}" if taken[_folded(name)] > 1 else name for text, name in names.items()}


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]
