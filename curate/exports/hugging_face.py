"""A data set of the Hugging Face ``datasets`` library, saved to disk: ``datasets.load_from_disk(PATH)``.

The column ``image`` holds the bytes of the sources; the other columns are all that is known of the images.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from curate.exports.originals import Original, Originals
from curate.exports.settings import Settings
from embeddings.errors import MissingExtraError

BATCH = 16  # images in memory at a time
IMAGE = "image"


def write_data_set(out: Path, originals: Originals, settings: Settings) -> list[str]:
    """Writes the data set; while it does so it takes twice its space.

    Raises:
        MissingExtraError: the library is not installed.
    """
    if find_spec("datasets") is None:
        raise MissingExtraError(
            "--to huggingface needs the package datasets.",
            hint="pip install 'curate-pretraining[hf]', or use --to parquet, which needs no package.",
        )
    import datasets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    features = datasets.Features(
        {IMAGE: datasets.Image(), **datasets.Features.from_arrow_schema(originals.table.schema.remove_metadata())}
    )
    with TemporaryDirectory(dir=out.parent, prefix=".", suffix=".part") as temporary:
        stream = Path(temporary) / "rows.arrow"
        _write_stream(stream, originals, features.arrow_schema)
        datasets.Dataset.from_file(str(stream)).save_to_disk(str(out))
    return ["Open it with datasets.load_from_disk."]


def _write_stream(path: Path, originals: Originals, schema: pa.Schema) -> None:
    """All rows with their images as an Arrow stream, a few at a time."""
    images = iter(originals)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        while part := list(islice(images, BATCH)):
            rows = originals.table.take(pa.array([image.row for image in part], pa.int64()))
            columns = {IMAGE: [_cell(image) for image in part]} | {n: rows[n].to_pylist() for n in rows.column_names}
            writer.write_batch(pa.RecordBatch.from_pydict(columns, schema))


def _cell(image: Original) -> dict[str, Any]:
    return {"bytes": image.data, "path": f"{image.row:08d}{image.suffix}"}
