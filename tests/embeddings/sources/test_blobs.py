"""Blobs: any order of reads gives the same bytes, with row groups kept or the column copied."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embeddings.errors import StorageError
from embeddings.sources import blobs as module
from embeddings.sources import open_source
from embeddings.sources.blobs import Blobs, missing

N = 40
VALUES = [None if i % 7 == 3 else os.urandom(i * 5) for i in range(N)]


@pytest.fixture(params=["struct", "plain", "large"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[pq.ParquetFile, str]:
    columns: dict[str, tuple[Any, str]] = {
        "struct": (
            pa.array([None if i == 3 else {"bytes": v, "path": "p"} for i, v in enumerate(VALUES)]),
            "image.bytes",
        ),
        "plain": (pa.array(VALUES), "image"),
        "large": (pa.array(VALUES, pa.large_binary()), "image"),
    }
    array, column = columns[request.param]
    pq.write_table(pa.table({"image": array}), tmp_path / "t.parquet", row_group_size=6)
    return pq.ParquetFile(tmp_path / "t.parquet"), column


class Counting:
    """A Parquet file that counts how often row groups are read and columns streamed."""

    def __init__(self, file: pq.ParquetFile) -> None:
        self._file, self.groups, self.streams = file, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read_row_group(self, *args: Any, **options: Any) -> Any:
        self.groups += 1
        return self._file.read_row_group(*args, **options)

    def iter_batches(self, *args: Any, **options: Any) -> Any:
        self.streams += 1
        return self._file.iter_batches(*args, **options)


@pytest.mark.parametrize("kept_bytes", [0, 1 << 20])
@pytest.mark.parametrize("order", ["straight", "shuffled"])
def test_values(
    monkeypatch: pytest.MonkeyPatch, opened: tuple[pq.ParquetFile, str], kept_bytes: int, order: str
) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES", kept_bytes)
    monkeypatch.setattr(module, "BATCH", 4)
    rows = np.arange(N) if order == "straight" else np.random.default_rng(0).permutation(N)
    file = Counting(opened[0])
    blobs = Blobs(file, opened[1], order=rows)
    assert file.groups == file.streams == 0  # opening reads nothing
    assert [blobs.read(int(row)) for row in rows] == [VALUES[row] for row in rows]
    copied = kept_bytes == 0 and order == "shuffled"
    assert (file.groups, file.streams) == ((0, 7) if copied else (7, 0))


def test_a_large_group_is_copied_rather_than_held(
    monkeypatch: pytest.MonkeyPatch, opened: tuple[pq.ParquetFile, str]
) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES", 0)
    monkeypatch.setattr(module, "LARGE_GROUP_BYTES", 10)
    file = Counting(opened[0])
    blobs = Blobs(file, opened[1], order=np.arange(N))
    assert [blobs.read(row) for row in range(N)] == VALUES
    assert (file.groups, file.streams) == (0, 7)  # each group once


def test_two_groups_are_always_kept(monkeypatch: pytest.MonkeyPatch, opened: tuple[pq.ParquetFile, str]) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES", 0)
    monkeypatch.setattr(module, "REVISITS", 100)
    file = Counting(opened[0])
    blobs = Blobs(file, opened[1], order=np.arange(N))
    for row in (0, 6, 1, 7, 2, 8):
        assert blobs.read(row) == VALUES[row]
    assert file.groups == 2
    blobs.read(12)
    blobs.read(0)
    assert file.groups == 4


def test_memory_stays_within_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES", 50_000)
    pq.write_table(
        pa.table({"image": [os.urandom(1000) for _ in range(400)]}), tmp_path / "t.parquet", row_group_size=10
    )
    blobs = Blobs(pq.ParquetFile(tmp_path / "t.parquet"), "image", order=np.arange(400))
    for row in range(400):
        blobs.read(row)
        assert sum(values.nbytes for values in blobs._kept.values()) <= 50_000


@pytest.mark.parametrize("statistics", [True, False])
def test_missing(tmp_path: Path, statistics: bool) -> None:
    array = pa.array([None if i == 3 else {"bytes": v, "path": "p"} for i, v in enumerate(VALUES)])
    pq.write_table(pa.table({"image": array}), tmp_path / "t", row_group_size=6, write_statistics=statistics)
    file = Counting(pq.ParquetFile(tmp_path / "t"))
    np.testing.assert_array_equal(missing(file, "image.bytes"), [value is None for value in VALUES])
    assert file.streams == (6 if statistics else 7)  # the last group has no null, and says so


def test_no_space_for_the_copy_stops_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def close(self) -> None: ...

        def writelines(self, _: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "KEPT_BYTES", 0)
    monkeypatch.setattr(module, "LARGE_GROUP_BYTES", 0)
    monkeypatch.setattr(module.tempfile, "TemporaryFile", Full)
    pq.write_table(pa.table({"image": [b"1"], "key": ["a"]}), tmp_path / "t.parquet")
    source = open_source(str(tmp_path / "t.parquet"))
    with pytest.raises(StorageError, match="No space left"):
        source.read("#a")
