"""Footers of Parquet files: what Arrow reads in whole ones, and a plain error for damaged ones."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embeddings.sources.footers import Chunk, chunks_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    images = [None if i % 7 == 3 else {"bytes": None if i == 4 else bytes([i]) * i, "path": "p"} for i in range(40)]
    columns = {"image": pa.array(images), "f": [0.5] * 40, "b": [True] * 40, "t": pa.array([[1, 2]] * 40)}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=6)
    return tmp_path / "t.parquet"


@pytest.mark.parametrize("column", ["image.bytes", "image.path", "f", "b", "t.list.element"])
def test_chunks_are_what_arrow_reads(path: Path, column: str) -> None:
    file = pq.ParquetFile(path)
    groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
    arrow = [next(g.column(j) for j in range(g.num_columns) if g.column(j).path_in_schema == column) for g in groups]
    assert chunks_of(file, column) == [Chunk(c.total_uncompressed_size, c.statistics.null_count) for c in arrow]


def test_without_statistics_nulls_are_not_known(path: Path) -> None:
    pq.write_table(pq.read_table(path), path, write_statistics=False)
    assert [chunk.nulls for chunk in chunks_of(pq.ParquetFile(path), "image.bytes")] == [None]


def test_a_column_that_is_not_there(path: Path) -> None:
    with pytest.raises(OSError, match="footer is damaged"):
        chunks_of(pq.ParquetFile(path), "image")


def test_damage_ends_in_an_error_and_never_in_the_process(path: Path) -> None:
    data, rng, read = path.read_bytes(), np.random.default_rng(0), 0
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for _ in range(1000):
        copy = bytearray(data)
        copy[rng.integers(start, len(data) - 8)] ^= 1 << int(rng.integers(8))
        path.write_bytes(copy)
        with suppress(OSError, pa.ArrowException):
            read += len(chunks_of(pq.ParquetFile(path), "image.bytes")) > 0
    assert read > 100
