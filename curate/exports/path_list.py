"""One address a line, in rank order: a path or URL, ``ARCHIVE#bytes=OFFSET+SIZE``, or ``TABLE#KEY``.

``curate`` reads such a list back as a source where its lines name files.
"""

from __future__ import annotations

from pathlib import Path

from curate.exports.originals import Originals
from curate.exports.settings import Settings
from embeddings.errors import UsageError


def write_paths(out: Path, originals: Originals, settings: Settings) -> list[str]:
    """Writes the list.

    Raises:
        UsageError: a path that holds a line break, which no line can.
    """
    inside = sum(image.place.inside for image in originals)
    lines = [place.address for place in originals.places.values()]
    broken = next((line for line in lines if "\n" in line or "\r" in line), None)
    if broken is not None:
        raise UsageError(f"{broken!r} holds a line break, which a list cannot.", hint="Export to parquet or csv.")
    out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return [f"{inside:,} of them lie in archives or tables; --to folder makes files of them."] if inside else []
