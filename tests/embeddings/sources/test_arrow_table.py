"""Arrow tables: the same as Parquet in any layout, read by position, and harmless when damaged."""

from __future__ import annotations

import gc
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from embeddings import files
from embeddings.errors import ImageError, SourceError, StorageError
from embeddings.sources import kind_of, open_source
from embeddings.sources.arrow_blobs import ArrowBlobs, ArrowFile, binary_values, places_of
from embeddings.sources.formats import read_arrow, read_columns
from embeddings.sources.table import OUTSIDE

LAYOUTS = ("stream", "file", "lz4", "zstd")


def write(path: Path, table: pa.Table, layout: str = "file", chunk: int = 4) -> str:
    options = pa.ipc.IpcWriteOptions(compression=layout if layout in ("lz4", "zstd") else None)
    new = pa.ipc.new_stream if layout == "stream" else pa.ipc.new_file
    with new(path, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=chunk)
    return str(path)


def told(address: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, bytes]]:
    source = open_source(address)
    listing = source.listing()
    images = listing.images.drop_columns(["size", "stamp"]).to_pylist()
    return images, listing.rejected.to_pylist(), {row["key"]: source.read(row["uri"]) for row in images}


def sample(n: int = 13, kind: pa.DataType | None = None) -> pa.Table:
    data = [None if i % 5 == 3 else bytes([65 + i]) * (i * 7) for i in range(n)]
    image = pa.array([{"bytes": b, "path": f"sub/{i}.png"} for i, b in enumerate(data)])
    return pa.table(
        {
            "key": [f"k{(i * 5) % n:02d}" for i in range(n)],
            "image": image if kind is None else pa.array(data, kind),
            "label": pa.array(["cat" if i % 2 else None for i in range(n)]).dictionary_encode(),
            "lot": pa.array(range(n), pa.int8()),
            "view": pa.array([f"v{i}" for i in range(n)], pa.string_view()),
            "box": pa.array([[1.0, 2.0]] * n),
        }
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("suffix", [".arrow", ".feather"])
def test_an_arrow_table_tells_what_parquet_tells(tmp_path: Path, layout: str, suffix: str) -> None:
    table = sample()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "3.png").write_bytes(b"beside")
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=4)
    expected = told(str(tmp_path / "t.parquet"))
    assert expected[2]["k02"] == b"beside"
    assert expected[2]["k00"] == b""
    assert {row["reason"] for row in expected[1]} == {"no such file"}
    path = write(tmp_path / f"t{suffix}", table, layout)
    assert kind_of(path) == "table"
    assert told(path) == expected


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.string()])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_types_of_bytes(tmp_path: Path, kind: pa.DataType, layout: str) -> None:
    table = sample(kind=pa.binary() if kind == pa.string() else kind)
    if kind == pa.string():  # a field called bytes may be text
        values = table["image"].combine_chunks().cast(kind)
        table = table.set_column(1, "image", pa.StructArray.from_arrays([values], ["bytes"]))
    _images, rejected, data = told(write(tmp_path / "t.arrow", table, layout))
    expected = zip(table["key"].to_pylist(), sample(kind=pa.binary())["image"].to_pylist(), strict=True)
    assert data == {key: value for key, value in expected if value is not None}
    assert {row["reason"] for row in rejected} == {"no image"}


def test_nulls_of_the_struct_and_of_its_field(tmp_path: Path) -> None:
    image = pa.array([None, {"bytes": None, "path": None}, {"bytes": b"x", "path": None}])
    _images, rejected, data = told(write(tmp_path / "t.arrow", pa.table({"image": image}), chunk=2))
    assert data == {"t#2": b"x"}
    assert [row["key"] for row in rejected] == ["t#0", "t#1"]


def test_class_names_selectors_and_roles(tmp_path: Path) -> None:
    features = {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    told_by = b'{"info": {"features": ' + str(features).replace("'", '"').encode() + b"}}"
    table = pa.table({"image": [b"a", b"b", b"c"], "label": [0, 1, -1], "lot": ["x", "y", "y"]})
    path = write(tmp_path / "t.arrow", table.replace_schema_metadata({"huggingface": told_by}))
    images, _, _ = told(f"{path}#lot=y,group:lot")
    assert [(row["key"], row["label"], row["group"]) for row in images] == [("t#1", "dog", "y"), ("t#2", None, "y")]


def test_an_arrow_table_of_paths(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(name.encode())
    outside = tmp_path.parent / "outside.png"
    outside.write_bytes(b"secret")
    paths = ["a.png", str(tmp_path / "b.png"), "../outside.png", str(outside), f"{tmp_path}/../outside.png"]
    _, rejected, data = told(write(tmp_path / "t.arrow", pa.table({"path": paths})))
    assert data == {"a.png": b"a.png", "b.png": b"b.png"}  # absolute paths are those below the folder
    assert [row["reason"] for row in rejected] == [OUTSIDE] * 3


def test_what_feather_writes_by_default(tmp_path: Path) -> None:
    feather.write_feather(pa.table({"key": ["a", "b"], "image": [b"x" * 500, b"y"]}), tmp_path / "t.feather")
    assert told(str(tmp_path / "t.feather"))[2] == {"a": b"x" * 500, "b": b"y"}


def test_reading_a_value_loads_that_value_only(tmp_path: Path) -> None:
    n, size = 64, 1 << 18
    table = pa.table({"key": [f"{i:03d}" for i in range(n)], "image": [bytes([i]) * size for i in range(n)]})
    source = open_source(write(tmp_path / "t.arrow", table, "stream", chunk=n))
    before = pa.total_allocated_bytes()
    listing = source.listing()
    for i in np.random.default_rng(0).permutation(n):
        assert source.read(f"#{i:03d}") == bytes([i]) * size
    assert len(listing.images) == n
    assert pa.total_allocated_bytes() - before < size


def test_strings_live_in_memory_of_their_own(tmp_path: Path) -> None:
    """A file that changes later must not change, or crash, what was validated."""
    path = write(tmp_path / "t.arrow", sample(), chunk=100)
    content = read_arrow(path)
    before = {name: values.to_pylist() for name, values in content.columns.items()}
    with Path(path).open("r+b") as file:  # in place: a new file would leave the mapped one alone
        file.write(b"\xff" * Path(path).stat().st_size)
    assert {name: values.to_pylist() for name, values in content.columns.items()} == before
    for values in content.columns.values():
        values.validate(full=True)


@pytest.mark.parametrize("layout", ["file", "zstd"])
def test_a_file_that_becomes_shorter_is_an_error_of_its_images(tmp_path: Path, layout: str) -> None:
    path = write(tmp_path / "t.arrow", pa.table({"image": [b"x" * 9000, b"y" * 9000]}), layout)
    source = open_source(path)
    uris = source.listing().images["uri"].to_pylist()
    if layout == "zstd":
        source.read(uris[0])  # unpacked by now: nothing is lost
    with Path(path).open("r+b") as file:
        file.truncate(100)
    if layout == "zstd":
        assert source.read(uris[1]) == b"y" * 9000
    else:
        with pytest.raises(ImageError, match="the file has become shorter"):
            source.read(uris[1])


def test_threads_read_what_one_thread_reads(tmp_path: Path) -> None:
    n = 60
    table = pa.table({"key": [f"{i:03d}" for i in range(n)], "image": [bytes([i]) * 5000 for i in range(n)]})
    for layout in LAYOUTS:
        source = open_source(write(tmp_path / f"{layout}.arrow", table, layout))
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(source.read, [f"#{i:03d}" for i in range(n)] * 3))
        assert found == [bytes([i]) * 5000 for i in range(n)] * 3


def test_the_order_of_reads_makes_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.arrow", sample())
    monkeypatch.setattr("tempfile.TemporaryFile", None)
    source = open_source(path)
    for uri in reversed(source.listing().images["uri"].to_pylist()):
        source.read(uri)


def test_no_space_to_unpack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(write(tmp_path / "t.arrow", pa.table({"image": [b"x" * 9000]}), "zstd"))
    uri = source.listing().images["uri"][0].as_py()

    def full(*_: object) -> None:
        raise files.storage_error(Path("temporary"), OSError(28, "No space left on device"))

    monkeypatch.setattr("embeddings.sources.arrow_blobs.write", full)
    with pytest.raises(StorageError, match="No space left"):
        source.read(uri)


def test_remote_tables(tmp_path: Path) -> None:
    local = write(tmp_path / "t.arrow", sample(), "stream")
    with fsspec.open("memory://arrow/t.arrow", "wb") as file:
        file.write(Path(local).read_bytes())
    _images, _, data = told("memory://arrow/t.arrow")
    assert data == told(local)[2]


def test_files_are_closed(tmp_path: Path) -> None:
    source = open_source(write(tmp_path / "t.arrow", sample(), "zstd"))
    source.read(source.listing().images["uri"][0].as_py())
    del source
    gc.collect()  # an unclosed file is a ResourceWarning, which is an error here


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not read as Arrow"),
        (b"no arrow at all", "does not read as Arrow"),
        (b"FEA1" + bytes(100), "Feather version 1"),
        (b"ARROW1\0\0", "does not read as Arrow"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.arrow").write_bytes(content)
    with pytest.raises(SourceError, match=message):
        open_source(str(tmp_path / "t.arrow")).listing()


def test_a_stream_that_ends_early_is_refused(tmp_path: Path) -> None:
    """A damaged length that reads as zero means the end to Arrow: the rest would go missing in silence."""
    path = Path(write(tmp_path / "t.arrow", sample(), "stream"))
    data = path.read_bytes()
    positions = [i for i in range(8, len(data) - 8, 8) if data[i : i + 4] == b"\xff\xff\xff\xff"]
    path.write_bytes(data[: positions[1]] + b"\xff\xff\xff\xff\0\0\0\0" + data[positions[1] + 8 :])
    with pytest.raises(SourceError, match="before the end of the file"):
        open_source(str(path)).listing()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_truncation_is_refused(tmp_path: Path, layout: str) -> None:
    path = Path(write(tmp_path / "t.arrow", sample(), layout))
    data = path.read_bytes()
    marks = 8 if layout == "stream" else 0  # the mark at the end of a stream may be missing
    batch_ends = 0
    for length in range(0, len(data) - marks, 97):
        path.write_bytes(data[:length])
        try:
            batch_ends += bool(open_source(str(path)).listing())
        except SourceError:
            continue
    assert batch_ends == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_flipped_bytes_never_crash(tmp_path: Path, layout: str) -> None:
    """Every row is listed, refused, or the file is refused as a whole; reads give bytes or a reason."""
    path, rng, found = tmp_path / "t.arrow", random.Random(layout), Counter[str]()
    table = sample(24)
    write(path, table, layout)
    data = path.read_bytes()
    for _ in range(120):
        damaged = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 5))):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            source = open_source(str(path))
            listing = source.listing()
        except SourceError:
            found["refused"] += 1
            continue
        found["listed"] += 1
        assert len(listing.images) + len(listing.rejected) <= len(table)
        for uri in listing.images["uri"].to_pylist():
            try:
                assert isinstance(source.read(uri), bytes)
            except ImageError:
                found["unread"] += 1
    assert found["refused"] > 10
    assert found["listed"] > 10


def test_places_of_slices(tmp_path: Path) -> None:
    """The positions hold for arrays that begin within their buffers."""
    values = [b"abc", None, b"", b"defg", b"h"]
    file = ArrowFile(write(tmp_path / "t.arrow", pa.table({"image": values}), chunk=5))
    (batch,) = file.batches(["image"])
    part = binary_values(batch.column(0).slice(1, 4))
    blobs = ArrowBlobs(file, "image", [places_of(part, file)])
    assert [blobs.read(i) for i in range(4)] == values[1:]
    assert blobs.present.tolist() == [False, True, True, True]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_columns_of_a_table_without_any(tmp_path: Path, suffix: str) -> None:
    table = pa.table({"vector": [[1.0], [2.0]]})
    if suffix == ".arrow":
        write(tmp_path / f"t{suffix}", table)
    else:
        pq.write_table(table, tmp_path / f"t{suffix}")
    assert read_columns(str(tmp_path / f"t{suffix}")) == ({}, 2)
