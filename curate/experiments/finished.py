"""What stands of a study, so that a call that found all of it done can say so.

Scores, tables and reports are written by every call; selections, runs and what was measured of them only when they are
made, so these tell whether there was anything to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

WORK = ("selections/*/selection.json", "runs/*/run.json", "evaluated/*.safetensors")
NOTHING_TO_DO = "Nothing was to do: selections, runs and their figures stand as they were."

Standing = dict[Path, tuple[int, int]]


def standing(folders: Iterable[Path]) -> Standing:
    """Every finished piece of work below the folders of a study's targets, and which writing of it."""
    places = (place for folder in folders for pattern in WORK for place in folder.glob(pattern))
    return {place: ((state := place.stat()).st_ino, state.st_mtime_ns) for place in places}


def in_words(before: Standing, after: Standing) -> list[str]:
    """A line if a call left everything as it was; none where there was nothing yet."""
    return [NOTHING_TO_DO] if before and before == after else []
