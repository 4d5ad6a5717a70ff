"""What an export would write, from a sample of the images; nothing is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from curate.exports.originals import Original, Originals
from curate.exports.settings import FOLDERS, Options, Settings
from curate.results import Selection
from embeddings.progress import Progress, silent

SAMPLE = 256  # images that are read, at even distances


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """How much an export would be."""

    images: int
    files: int
    bytes: int  # of images that would be written; linked ones and manifests take next to nothing
    sampled: int  # images that this was measured on; exact if all
    unreadable: int  # of those

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        return {"schema": "curate.dry-run/1", **asdict(self)}

    def lines(self) -> list[str]:
        """What a person reads."""
        about = "" if self.sampled == self.images + self.unreadable else "about "
        lines = [f"{about}{self.images:,} images in {about}{self.files:,} files, {about}{self.bytes:,} bytes to write."]
        lost = f"{self.unreadable:,} of the {self.sampled:,} images that were tried cannot be read."
        return [*lines, lost] if self.unreadable else lines


def forecast(
    selection: Selection | str | Path,
    *,
    to: str,
    workers: int | None = None,
    progress: Progress = silent,
    **options: Unpack[Options],
) -> Forecast:
    """Reads a sample of the images and scales it up; arguments as in ``export``.

    Raises:
        UsageError: as ``export``.
        SourceError: a source is gone.
    """
    settings = Settings(to=to, **options)
    originals = Originals(settings.chosen(selection), workers=workers, progress=progress)
    n = len(originals)
    rows = np.unique(np.linspace(0, n - 1, min(n, SAMPLE)).astype(np.int64)) if n else np.zeros(0, np.int64)
    written = [_written(image, settings) for image in originals.read(rows)]
    share = n / max(len(rows), 1)
    size, readable = round(sum(written) * share), round(len(written) * share)
    counts = {"folder": readable, "webdataset": max(1, -(-size // settings.shard_bytes))}
    return Forecast(
        images=readable,
        files=counts.get(settings.to, 1),
        bytes=size,
        sampled=len(rows),
        unreadable=len(rows) - len(written),
    )


def _written(image: Original, settings: Settings) -> int:
    """Bytes that would be written for an image."""
    is_linked = settings.to == "folder" and settings.link != "copy" and image.place.file is not None
    return 0 if is_linked or settings.to not in FOLDERS else len(image.data)
