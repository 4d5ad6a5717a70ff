"""A data set of the Hugging Face ``datasets`` library, saved to disk: ``datasets.load_from_disk(PATH)``.

The column ``image`` holds the bytes of the sources; the other columns are all that is known of the images.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.exports.originals import Original, Originals
from curate.exports.settings import Settings
from embeddings import files
from embeddings.errors import MissingExtraError, install_command

BATCH = 16  # images in memory at a time
STREAM_ROWS = 1024  # that one more attempt need not read again
STREAMS = "streams"  # folder beside the data set while it is made
IMAGE = "image"


def write_data_set(out: Path, originals: Originals, settings: Settings) -> list[str]:
    """Writes the data set; while it does so it takes twice its space.

    Raises:
        MissingExtraError: the library is not installed.
    """
    if find_spec("datasets") is None:
        raise MissingExtraError(
            "--to huggingface needs the package datasets.",
            hint=f"{install_command('hf')}, or use --to parquet, which needs no package.",
        )
    import datasets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    features = datasets.Features(
        {IMAGE: datasets.Image(), **datasets.Features.from_arrow_schema(originals.table.schema.remove_metadata())}
    )
    streams = _write_streams(out.with_name(STREAMS), originals, features.arrow_schema)
    parts = [datasets.Dataset.from_file(str(stream)) for stream in streams]
    files.remove_folder(out)  # what an interrupted export left of it
    datasets.concatenate_datasets(parts).save_to_disk(str(out))
    return ["Open it with datasets.load_from_disk."]


def _write_streams(folder: Path, originals: Originals, schema: pa.Schema) -> list[Path]:
    """All rows with their images as Arrow streams of equal length; those that are whole already are kept."""
    folder.mkdir(exist_ok=True)
    paths = []
    for start in range(0, len(originals), STREAM_ROWS):
        rows = np.arange(start, min(start + STREAM_ROWS, len(originals)))
        path = folder / f"rows-{start:08d}.arrow"
        if not _is_whole(path, rows, originals):
            with files.atomic_path(path) as temporary:
                _write_stream(temporary, originals, schema, rows)
        paths.append(path)
    return paths


def _is_whole(path: Path, rows: np.ndarray, originals: Originals) -> bool:
    """True if a stream holds every image of some rows [r] as it was selected, and what is known of it."""
    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
            table = reader.read_all()
    except (OSError, pa.ArrowException):
        return False
    told = originals.table.take(pa.array(rows))
    if len(table) != len(rows) or table.drop_columns([IMAGE]).to_pylist() != told.to_pylist():
        return False
    cells = zip(rows.tolist(), table[IMAGE], strict=True)
    return all(originals.holds(row, cell["bytes"].as_py()) for row, cell in cells)


def _write_stream(path: Path, originals: Originals, schema: pa.Schema, rows: np.ndarray) -> None:
    """Some rows [r] with their images as an Arrow stream, a few at a time."""
    images = originals.read(rows)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        while part := list(islice(images, BATCH)):
            told = originals.table.take(pa.array([image.row for image in part], pa.int64()))
            columns = {IMAGE: [_cell(image) for image in part]} | {n: told[n].to_pylist() for n in told.column_names}
            writer.write_batch(pa.RecordBatch.from_pydict(columns, schema))


def _cell(image: Original) -> dict[str, Any]:
    return {"bytes": image.data, "path": f"{image.row:08d}{image.suffix}"}
