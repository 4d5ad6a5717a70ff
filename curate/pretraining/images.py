"""The selected images as one memory-mapped block of small squares, read and decoded once.

Images are squashed to a square with Pillow's BICUBIC, as the encoders do, a quarter larger than the views so that crops
have something to cut. The block is written in shards; a shard that is there is not made again. Images that cannot be
read or decoded, or changed since they were selected, are left out and listed with their reason in errors.parquet of
the run folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from curate.exports.originals import ERRORS
from curate.pretraining.augment.draws import image_hash
from curate.pretraining.schedule import Images
from embeddings import files
from embeddings.errors import ImageError, TrainingError
from embeddings.pictures.views import load_image
from embeddings.pipeline.batches import core_count
from embeddings.progress import Progress
from embeddings.sources import Source
from embeddings.store import ShardedVectors

SHARD_BYTES = 1 << 26


@dataclass(frozen=True)
class ImageBlock:
    """N decoded images, and what the schedule must know of them."""

    pixels: ShardedVectors  # uint8 [N, 3 S S]
    edge: int  # S
    facts: Images
    errors: pa.Table  # schema ERRORS

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 [n, 3, S, S] of some rows."""
        return self.pixels[rows].reshape(-1, 3, self.edge, self.edge)


def load_images(
    table: pa.Table, sources: Mapping[str, Source], folder: Path, *, edge: int, progress: Progress
) -> ImageBlock:
    """Decodes the rows of a selection into ``folder``, or opens what an earlier call left there.

    Args:
        table: schema SELECTION.
        sources: by name, to read from.
        folder: for the shards.
        edge: S, of the squares in pixels.
        progress: told after each shard.

    Returns:
        The block, its rows sorted by (source, key).

    Raises:
        TrainingError: not one image could be read.
        StorageError: no space.
    """
    table = table.sort_by([("source", "ascending"), ("key", "ascending")])
    length = max(1, SHARD_BYTES // (3 * edge * edge))
    shards: list[np.ndarray] = []
    errors: list[pa.Table] = []
    for start in range(0, len(table), length):
        path = folder / f"{start // length:05d}.npy"
        if not path.exists():
            _write_shard(path, table.slice(start, length), sources, edge=edge)
        shards.append(np.load(path, mmap_mode="r", allow_pickle=False))
        errors.append(files.read_table(path.with_suffix(".parquet")))
        progress("decode", min(start + length, len(table)), len(table))
    return _assemble(table, shards, pa.concat_tables(errors), edge=edge)


def _write_shard(path: Path, rows: pa.Table, sources: Mapping[str, Source], *, edge: int) -> None:
    """Decodes some rows; writes the reasons for those that fail, then the pixels of the others."""
    columns = [rows[name].to_pylist() for name in ("source", "uri", "sha256")]
    with ThreadPoolExecutor(core_count()) as pool:
        results = list(pool.map(lambda name, *image: _square(sources[name], *image, edge=edge), *columns))
    reasons = [result if isinstance(result, str) else None for result in results]
    failed = rows.select(ERRORS.names[:3]).append_column("reason", pa.array(reasons, pa.string()))
    files.write_table(path.with_suffix(".parquet"), failed.filter(pc.is_valid(failed["reason"])))
    pixels = [result for result in results if isinstance(result, np.ndarray)]
    with files.atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.stack(pixels) if pixels else np.empty((0, 3 * edge * edge), np.uint8))


def _square(source: Source, uri: str, sha256: str | None, *, edge: int) -> np.ndarray | str:
    """uint8 [3 S S] of one image, or the reason why there is none."""
    try:
        image = load_image(source, uri, sha256=sha256)
    except ImageError as error:
        return error.message
    small = image.resize((edge, edge), Image.Resampling.BICUBIC)
    return np.asarray(small).transpose(2, 0, 1).reshape(-1)


def images_of(table: pa.Table) -> Images:
    """What the schedule must know of a selection's rows."""
    repeats, stages = (
        np.asarray(table[name].fill_null(null), np.int64) for name, null in (("repeats", 1), ("stage", 0))
    )
    return Images(identities(table), repeats, stages)


def identities(table: pa.Table) -> np.ndarray:
    """Hash uint64 [n] of each row's (source, key)."""
    names = zip(table["source"].to_pylist(), table["key"].to_pylist(), strict=True)
    return np.array([image_hash(source, key) for source, key in names], np.uint64)


def _assemble(table: pa.Table, shards: list[np.ndarray], errors: pa.Table, *, edge: int) -> ImageBlock:
    if len(errors) == len(table):
        raise TrainingError(
            f"None of the {len(table)} selected images could be read; the first says: {errors['reason'][0].as_py()}",
            hint="Check that the sources still hold the images.",
        )
    facts = images_of(table)
    kept = np.flatnonzero(~np.isin(facts.hashes, identities(errors)))
    return ImageBlock(ShardedVectors(shards), edge, facts.part(kept), errors)
