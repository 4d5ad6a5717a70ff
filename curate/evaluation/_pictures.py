"""Images of a labeled set as squares of pixels, for examinations that look at more than features.

    pixels, at = read_pictures(view.images, view.comparison.split.test, size=64, workers=2)

They are read and decoded side by side, at full resolution, and kept at the size asked for: n S^2 3 bytes in all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pyarrow as pa
from PIL import Image

from curate.evaluation._images import LabeledImages
from embeddings.errors import ImageError
from embeddings.pictures.views import load_image
from embeddings.sources import Source, open_source

Prepare = Callable[[Image.Image], np.ndarray]  # RGB image -> uint8 [S, S, 3], as an encoder's ``prepare``
Place = tuple[Source, str, str | None]  # where an image is: source, uri, sha256


def read_pictures(
    images: LabeledImages, rows: np.ndarray, *, size: int, workers: int, prepare: Prepare | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of some rows of a labeled set; images that cannot be read, or have changed, are left out.

    Args:
        images: The labeled set.
        rows: int64 [n] row numbers.
        size: S, the edge in pixels.
        workers: Threads that read and decode.
        prepare: What makes an image a square of this size; None squashes it, Pillow BICUBIC.

    Returns:
        Pixels uint8 [k, S, S, 3] of those that can be read, and their positions in ``rows`` int64 [k], ascending.

    Raises:
        SourceError: a source is gone.
    """
    read = partial(_read, prepare=prepare or partial(_squashed, size=size))
    with ThreadPoolExecutor(max(1, workers)) as threads:
        found = list(threads.map(read, _places(images, np.asarray(rows, np.int64))))
    at = np.array([i for i, pixels in enumerate(found) if pixels is not None], np.int64)
    kept = [pixels for pixels in found if pixels is not None]
    return np.stack(kept) if kept else np.zeros((0, size, size, 3), np.uint8), at


def _places(images: LabeledImages, rows: np.ndarray) -> Iterator[Place]:
    """Where each row's image is; the rows of several stores are numbered through."""
    sources = [open_source(store.source) for store in images.stores]
    part = np.repeat(np.arange(len(sources)), [len(store) for store in images.stores])[rows]
    named = images.rows.select(["uri", "sha256"]).take(pa.array(rows)).to_pylist()
    return ((sources[number], row["uri"], row["sha256"]) for number, row in zip(part, named, strict=True))


def _read(place: Place, *, prepare: Prepare) -> np.ndarray | None:
    """One image; None where it cannot be had."""
    source, uri, sha256 = place
    try:
        return prepare(load_image(source, uri, sha256=sha256))
    except ImageError:
        return None


def _squashed(image: Image.Image, *, size: int) -> np.ndarray:
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
