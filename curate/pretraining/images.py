"""The selected images as one memory-mapped block of small squares, read and decoded once.

Images are squashed to a square with Pillow's BICUBIC, as the encoders do, a quarter larger than the views so that crops
have something to cut; JPEGs of four times that size or more are decoded at a half, a quarter or an eighth unless their
source says ``decode:exact``. The block is written in shards of 64 MB; a shard that is there and whole is not made
again, and several processes map the same ones. Reading a batch copies that batch alone. Images that cannot be read or
decoded, or changed since they were selected, are left out and listed with their reason in errors.parquet of the run.
"""

from __future__ import annotations

import shutil
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
from embeddings.errors import CorruptError, ImageError, StorageError, TrainingError
from embeddings.pictures.decode import decode_scaled
from embeddings.pictures.views import decode_part, read_file_of
from embeddings.pipeline.batches import core_count
from embeddings.progress import Progress
from embeddings.sources import Source
from embeddings.vectors import ShardedVectors, load_array

SHARD_BYTES = 1 << 26
STREAM = "Or keep no decoded images and decode at each visit: --set cache=0."
COLUMNS = ("source", "key", "uri", "sha256", "stage", "repeats")  # of a selection that training needs


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
        StorageError: no space; found before the first shard where that is possible.
    """
    table = in_order(table)
    length = max(1, SHARD_BYTES // square_bytes(edge))
    parts = {folder / f"{i:05d}.npy": table.slice(i * length, length) for i in range(-(-len(table) // length))}
    missing = [path for path, rows in parts.items() if not _is_whole(path, len(rows), edge=edge)]
    _require_space(folder, sum(len(parts[path]) for path in missing) * square_bytes(edge))
    for done, (path, rows) in enumerate(parts.items(), 1):
        if path in missing:
            _write_shard(path, rows, sources, edge=edge)
        progress("decode", min(done * length, len(table)), len(table))
    errors = pa.concat_tables(files.read_table(path.with_suffix(".parquet")) for path in parts)
    return _assemble(table, [load_array(path) for path in parts], errors, edge=edge)


def square_bytes(edge: int) -> int:
    """What a decoded image takes."""
    return 3 * edge * edge


def in_order(table: pa.Table) -> pa.Table:
    """What training needs of a selection's rows, sorted by (source, key)."""
    found = table.select(COLUMNS).sort_by([("source", "ascending"), ("key", "ascending")])
    return found.combine_chunks()


def square(source: Source, uri: str, sha256: str | None, *, edge: int) -> np.ndarray | str:
    """uint8 [3 S S] of one image, or the reason why there is none."""
    view = source.address.view
    try:
        data, box = read_file_of(source, uri, sha256=sha256)
        if box or view.decode == "exact":
            image = decode_part(data, box, view=view)
        else:
            image = decode_scaled(data, edge=edge, white=view.white).image
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
    found = np.empty(len(table), np.uint64)
    start = 0
    for part in table.select(["source", "key"]).to_batches(max_chunksize=1 << 16):
        names = zip(part["source"].to_pylist(), part["key"].to_pylist(), strict=True)
        found[start : start + len(part)] = [image_hash(source, key) for source, key in names]
        start += len(part)
    return found


def with_reasons(rows: pa.Table, reasons: list[str | None]) -> pa.Table:
    """Schema ERRORS: the rows of a selection that have a reason."""
    table = rows.select(ERRORS.names[:3]).append_column("reason", pa.array(reasons, pa.string()))
    return table.filter(pc.is_valid(table["reason"]))


def _require_space(folder: Path, needed: int) -> None:
    """Refuses to begin what the disk cannot hold."""
    free = shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.exists())).free
    if needed > free:
        raise StorageError(
            f"The decoded images need {needed / 1e9:.2f} GB in {folder}; {free / 1e9:.2f} GB are free.",
            hint=f"Free some space, or choose another --out. {STREAM}",
        )


def _is_whole(path: Path, rows: int, *, edge: int) -> bool:
    """True if a shard and its reasons read back and account for all its rows."""
    try:
        pixels, errors = load_array(path), files.read_table(path.with_suffix(".parquet"))
    except CorruptError:
        return False
    return pixels.dtype == np.uint8 and pixels.shape == (rows - len(errors), square_bytes(edge))


def _write_shard(path: Path, rows: pa.Table, sources: Mapping[str, Source], *, edge: int) -> None:
    """Decodes some rows; writes the reasons for those that fail, then the pixels of the others."""
    columns = [rows[name].to_pylist() for name in ("source", "uri", "sha256")]
    with ThreadPoolExecutor(core_count()) as pool:
        results = list(pool.map(lambda name, *image: square(sources[name], *image, edge=edge), *columns))
    pixels = [result for result in results if isinstance(result, np.ndarray)]
    try:
        reasons = [result if isinstance(result, str) else None for result in results]
        files.write_table(path.with_suffix(".parquet"), with_reasons(rows, reasons))
        with files.atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, np.stack(pixels) if pixels else np.empty((0, square_bytes(edge)), np.uint8))
    except StorageError as error:
        size = f"The decoded images of this shard are {len(rows) * square_bytes(edge) / 1e9:.2f} GB."
        raise StorageError(f"{error.message} {size}", hint=f"{error.hint} {STREAM}") from error


def _assemble(table: pa.Table, shards: list[np.ndarray], errors: pa.Table, *, edge: int) -> ImageBlock:
    if len(errors) == len(table):
        raise TrainingError(
            f"None of the {len(table)} selected images could be read; the first says: {errors['reason'][0].as_py()}",
            hint="Check that the sources still hold the images.",
        )
    facts = images_of(table)
    kept = np.flatnonzero(~np.isin(facts.hashes, identities(errors)))
    return ImageBlock(ShardedVectors(shards), edge, facts.part(kept), errors)
