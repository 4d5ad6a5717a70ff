"""Tables of images: Parquet with bytes, tables of paths, and the messages for tables that hold no images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from embeddings.errors import ImageError, SourceError
from embeddings.sources import blobs, open_source
from embeddings.sources.rows import MISSING, REPEATED
from embeddings.sources.table import NO_IMAGE, NO_KEY, OUTSIDE, REMOTE

Pictures = dict[str, bytes]


def parquet(path: Path, columns: dict[str, Any], **options: Any) -> str:
    pq.write_table(pa.table(columns), path, **options)
    return str(path)


def contents(address: str) -> dict[str, tuple[str | None, bytes]]:
    source = open_source(address)
    rows = source.listing().images.to_pylist()
    return {row["key"]: (row["label"], source.read(row["uri"])) for row in rows}


def told(address: str, *, order_free: bool = False) -> tuple[list[dict], list[dict]]:
    listing = open_source(address).listing()
    images = listing.images.drop_columns(["size", "stamp"]) if order_free else listing.images
    return images.to_pylist(), listing.rejected.to_pylist()


@pytest.fixture
def files(pictures: Callable[..., Pictures]) -> Pictures:
    return pictures(n=13, classes=("cat", "dog", "ölbild"))


def test_every_kind_tells_the_same(
    tmp_path: Path, files: Pictures, image_folder: Callable[..., Path], image_table: Callable[..., Path]
) -> None:
    image_folder(files, ".")
    labels = [path.split("/")[0] for path in files]
    table = pa.table({"file_name": list(files), "label": labels})
    pq.write_table(table, tmp_path / "paths.parquet")
    pacsv.write_csv(table, tmp_path / "paths.csv")
    pacsv.write_csv(table, tmp_path / "semicolons.csv", pacsv.WriteOptions(delimiter=";"))
    pacsv.write_csv(table, tmp_path / "tabs.tsv", pacsv.WriteOptions(delimiter="\t", quoting_style="none"))
    plain = {"key": list(files), "picture": list(files.values()), "label": labels}
    kinds = [
        str(tmp_path),
        str(image_table(files)),
        parquet(tmp_path / "plain.parquet", plain, row_group_size=4),
        *(str(tmp_path / name) for name in ("paths.parquet", "paths.csv", "semicolons.csv", "tabs.tsv")),
    ]
    expected = {path: (path.split("/")[0], data) for path, data in files.items()}
    for address in kinds:
        assert contents(address) == expected, address


@pytest.mark.parametrize("column", ["path", "file", "file_name", "filename", "filepath", "image_path", "image"])
def test_path_columns(tmp_path: Path, column: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.png").write_bytes(b"1")
    (tmp_path / "t.csv").write_text(f"{column}\n./sub//a.png\n")
    images, _ = told(str(tmp_path / "t.csv"))
    assert (images[0]["key"], images[0]["uri"], images[0]["size"], images[0]["meta"]) == (
        "sub/a.png",
        "sub/a.png",
        1,
        None,
    )


@pytest.mark.parametrize("with_key", [True, False])
def test_the_order_of_rows_tells_nothing(tmp_path: Path, files: Pictures, with_key: bool) -> None:
    n = len(files)
    table = pa.table(
        {
            "image": [{"bytes": data, "path": path} for path, data in files.items()],
            "label": [None if i % 5 == 0 else str(i % 3) for i in range(n)],
            "lot": [float(i) / 2 for i in range(n)],
            **({"key": [f"k{i // 2}" for i in range(n)]} if with_key else {}),  # every key twice
        }
    )
    order = np.random.default_rng(0).permutation(n)
    straight, shuffled = tmp_path / "a" / "t.parquet", tmp_path / "b" / "t.parquet"
    for path, rows in ((straight, table), (shuffled, table.take(order))):
        path.parent.mkdir()
        pq.write_table(rows, path, row_group_size=3)
    assert told(str(straight), order_free=True) == told(str(shuffled), order_free=True)
    assert contents(str(straight)) == contents(str(shuffled))
    assert len(contents(str(straight))) == (7 if with_key else n)


def test_the_order_of_rows_tells_nothing_in_a_csv(
    tmp_path: Path, files: Pictures, image_folder: Callable[..., Path]
) -> None:
    image_folder(files, ".")
    lines = [f"{path},{i % 4}" for i, path in enumerate(files)]
    found = []
    for ordered in (lines, lines[::-1]):
        (tmp_path / "t.csv").write_text("\n".join(["path,lot", *ordered, ""]))
        found.append(told(str(tmp_path / "t.csv")))
    assert found[0] == found[1]


def test_other_columns_are_kept_as_strings(tmp_path: Path) -> None:
    columns = {
        "image": pa.array([{"bytes": b"1", "path": "a"}]),
        "count": pa.array([7]),
        "score": pa.array([0.1], pa.float32()),
        "good": pa.array([True]),
        "day": pa.array([1], pa.date32()),
        "kind": pa.array(["x"]).dictionary_encode(),
        "large": pa.array(["y"], pa.large_string()),
        "nothing": pa.nulls(1),
        "size": pa.array([3]),
        "box": pa.array([[1, 2]]),
        "digest": pa.array([b"12"], pa.binary(2)),
        "pair": pa.array([{"a": 1}]),
    }
    images, _ = told(parquet(tmp_path / "t.parquet", columns))
    assert json.loads(images[0]["meta"]) == {
        "count": "7", "score": "0.1", "good": "true", "day": "1970-01-02", "kind": "x", "large": "y", "nothing": None,
        "size": "3",
    }  # fmt: skip
    assert len(told(f"{tmp_path}/t.parquet#good=true,count=7,label:count")[0]) == 1


def test_selectors_and_roles(image_table: Callable[..., Path], files: Pictures) -> None:
    n = len(files)
    path = image_table(files, half=["AB"[i % 2] for i in range(n)], lot=[i // 3 for i in range(n)])
    images, _ = told(f"{path}#half=B,lot=0,lot=1,label:lot,group:half")
    assert [(row["key"], row["label"], row["group"]) for row in images] == [
        ("cat/003.png", "1", "B"),
        ("dog/001.png", "0", "B"),
        ("ölbild/005.png", "1", "B"),
    ]
    assert json.loads(images[0]["meta"]) == {"half": "B", "label": "cat", "lot": "1"}
    assert [row["key"] for row in told(f"{path}#key=cat/000.png")[0]] == ["cat/000.png"]
    with pytest.raises(SourceError, match=r"No column 'lto' in .*; columns: half, key, label, lot"):
        told(f"{path}#lto=1")


def test_class_numbers_of_hugging_face_become_names(tmp_path: Path) -> None:
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    table = pa.table({"image": [{"bytes": b"%d" % i, "path": None} for i in range(5)], "label": [1, 0, -1, 7, None]})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "train-00000-of-00001.parquet")
    images, _ = told(str(tmp_path / "train-00000-of-00001.parquet"))
    assert [row["label"] for row in images] == ["dog", "cat", None, "7", None]
    assert images[0]["key"] == "train-00000-of-00001#0"
    assert len(told(f"{tmp_path}/train-00000-of-00001.parquet#label=dog")[0]) == 1
    for broken in (b"not json", b"[]", b'{"info": {"features": {"label": 3}}}'):
        pq.write_table(table.replace_schema_metadata({"huggingface": broken}), tmp_path / "t.parquet")
        assert told(str(tmp_path / "t.parquet"))[0][0]["label"] == "1"


def test_rows_whose_path_is_missing_or_shared_go_by_number(tmp_path: Path) -> None:
    paths = ["a.png", None, "b.png", "a.png", ""]
    address = parquet(tmp_path / "t.parquet", {"image": [{"bytes": b"%d" % i, "path": p} for i, p in enumerate(paths)]})
    expected = {"b.png": b"2", "t#0": b"0", "t#1": b"1", "t#3": b"3", "t#4": b"4"}
    assert {key: data for key, (_, data) in contents(address).items()} == expected


def test_a_column_of_paths_names_images_whose_bytes_are_in_the_table(tmp_path: Path) -> None:
    columns = {"image": [b"1", b"2"], "path": ["http://x/2", "../1"], "label": ["x", "y"]}
    address = parquet(tmp_path / "t.parquet", columns)
    assert contents(address) == {"../1": ("y", b"2"), "http://x/2": ("x", b"1")}


def test_unusable_rows_are_refused_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "here.png").write_bytes(b"file")
    (tmp_path / "folder.png").mkdir()
    rows = [
        ("ok", b"1", None, None),
        ("file", None, "here.png", None),
        ("empty", b"", None, None),  # decoding says what is wrong with it
        ("none", None, None, NO_IMAGE),
        (None, b"2", None, NO_KEY),
        ("", b"3", None, NO_KEY),
        ("ok", b"4", None, REPEATED),
        ("gone", None, "gone.png", MISSING),
        ("folder", None, "folder.png", MISSING),
        ("up", None, "../x.png", OUTSIDE),
        ("root", None, "/etc/passwd", OUTSIDE),
        ("sly", None, "a/../../x.png", OUTSIDE),
        ("url", None, "https://x/y.png", REMOTE),
        ("nul", None, "a\0b.png", MISSING),
    ]
    images = [{"bytes": data, "path": path} for _, data, path, _ in rows]
    images[3] = None  # a null struct is no image either
    address = parquet(tmp_path / "t.parquet", {"key": [row[0] for row in rows], "image": images}, row_group_size=5)
    listing = open_source(address).listing()
    assert len(listing.images) + len(listing.rejected) == len(rows)
    assert contents(address) == {"ok": (None, b"1"), "file": (None, b"file"), "empty": (None, b"")}
    reasons = {row["key"]: row["reason"] for row in listing.rejected.to_pylist()}
    expected = {key: reason for key, _, _, reason in rows if reason and key}
    assert reasons == {**expected, "t#4": NO_KEY, "t#5": NO_KEY}


def test_paths_in_a_csv(tmp_path: Path) -> None:
    (tmp_path / "#1.png").write_bytes(b"1")
    (tmp_path / "a,b.png").write_bytes(b"2")
    lines = ["path,lot", "#1.png,007", '"a,b.png",NA', ",x", "gone.png,", "#1.png,8", "s3://b/c.png,1"]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    images, rejected = told(str(tmp_path / "t.csv"))
    assert [(row["key"], json.loads(row["meta"])["lot"]) for row in images] == [("./#1.png", "007"), ("a,b.png", "NA")]
    assert [data for _, data in contents(str(tmp_path / "t.csv")).values()] == [b"1", b"2"]
    assert [(row["key"], row["reason"]) for row in rejected] == [
        ("./#1.png", REPEATED),
        ("gone.png", MISSING),
        ("s3://b/c.png", REMOTE),
        ("t#2", NO_IMAGE),
    ]


def test_keys_are_normalized(tmp_path: Path) -> None:
    address = parquet(tmp_path / "t.parquet", {"key": ["u\u0308", "x"], "image": [b"1", b"2"]})
    assert contents(address) == {"ü": (None, b"1"), "x": (None, b"2")}


def test_numbers_as_keys(tmp_path: Path) -> None:
    assert contents(parquet(tmp_path / "t.parquet", {"key": [10, 9], "image": [b"1", b"2"]})).keys() == {"9", "10"}


def test_a_byte_order_mark_and_line_ends_of_windows(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"1")
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfpath;label\r\na.png;cat\r\n")
    assert contents(str(tmp_path / "t.csv")) == {"a.png": ("cat", b"1")}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": [1], "label": ["x"]}, "No column of images in .*; columns: id, label"),
        ({"one": [b"1"], "two": [b"2"]}, "several columns of bytes: one, two"),
        ({"one": [{"bytes": b"1"}], "two": [{"bytes": b"2"}]}, "several columns of bytes: one, two"),
        ({"image": pa.array([], pa.binary())}, "has no rows"),
        ({"image": [None, None], "path": ["a", "b"]}, r"None of the 2 rows .* no such file \(2\)"),
        ({"image": pa.array([None, None], pa.binary())}, r"None of the 2 rows .* no image \(2\)"),
    ],
)
def test_tables_without_images(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        told(parquet(tmp_path / "t.parquet", columns))


def test_the_column_called_image_is_the_one(tmp_path: Path) -> None:
    columns = {"mask": [{"bytes": b"m", "path": "m"}], "image": [{"bytes": b"i", "path": "i"}], "thumb": [b"t"]}
    assert contents(parquet(tmp_path / "t.parquet", columns)) == {"i": (None, b"i")}


def test_a_struct_without_paths(tmp_path: Path) -> None:
    assert contents(parquet(tmp_path / "t.parquet", {"img": [{"bytes": b"1"}]})) == {"t#0": (None, b"1")}


def test_columns_of_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,x,x\na,1,2\n")
    with pytest.raises(SourceError, match="several columns called x"):
        told(str(tmp_path / "t.csv"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not read as CSV: Empty CSV file"),
        (b"path,label\na.png\n", "does not read as CSV: .*Expected 2 columns, got 1"),
        (b"path\ncaf\xe9.png\n", "does not read as CSV: .*invalid UTF8"),
        ("path\na.png\n".encode("utf-16"), "does not read as CSV: .*utf-8"),
        (b"path\n", "has no rows"),
        (b"name,label\na.png,x\n", "No column of images in .*; columns: name, label"),
    ],
)
def test_csv_files_that_do_not_read(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(SourceError, match=message) as caught:
        told(str(tmp_path / "t.csv"))
    assert caught.value.hint


def test_parquet_files_that_do_not_read(tmp_path: Path, files: Pictures, image_table: Callable[..., Path]) -> None:
    data = image_table(files).read_bytes()
    for content in (b"", b"PAR1", b"<html>", data[: len(data) // 2], data[:-200] + bytes(192) + data[-8:]):
        (tmp_path / "t.parquet").write_bytes(content)
        with pytest.raises(SourceError, match="does not read as Parquet"):
            told(str(tmp_path / "t.parquet"))


def test_text_that_is_not_utf8_is_refused_at_once(tmp_path: Path) -> None:
    label = pa.StringArray.from_buffers(1, pa.array([0, 1], pa.int32()).buffers()[1], pa.py_buffer(b"\xe9"))
    with pytest.raises(SourceError, match=r"does not read as Parquet: .*UTF"):
        told(parquet(tmp_path / "t.parquet", {"image": [b"1"], "label": label}))


@pytest.mark.parametrize("copied", [False, True])
def test_damage_in_a_page_is_an_error_of_its_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: bool
) -> None:
    if copied:
        monkeypatch.setattr(blobs, "KEPT_BYTES", 0)
        monkeypatch.setattr(blobs, "LARGE_GROUP_BYTES", 0)
    data = {"image": [bytes([i]) * 3000 for i in range(8)], "key": list("abcdefgh")}
    path = Path(parquet(tmp_path / "t.parquet", data, row_group_size=4, use_dictionary=False, compression="zstd"))
    content = bytearray(path.read_bytes())
    page = pq.ParquetFile(path).metadata.row_group(0).column(0)
    start, size = page.data_page_offset, page.total_compressed_size
    content[start : start + size] = bytes(size)
    path.write_bytes(content)
    source = open_source(str(path))
    assert len(source.listing().images) == 8
    for key in "ab":
        with pytest.raises(ImageError, match="cannot be read from its table"):
            source.read(f"#{key}")
    assert source.read("#h") == data["image"][7]


def test_reading_what_the_listing_does_not_hold(
    image_table: Callable[..., Path], files: Pictures, tmp_path: Path
) -> None:
    source = open_source(str(image_table(files)))
    with pytest.raises(ImageError, match="no image with this key"):
        source.read("#nothing")
    (tmp_path / "a.png").write_bytes(b"1")
    (tmp_path / "t.csv").write_text("path\na.png\n")
    listed = open_source(str(tmp_path / "t.csv"))
    (tmp_path / "a.png").unlink()
    with pytest.raises(ImageError, match="No such file"):
        listed.read("a.png")
    with pytest.raises(ImageError, match=NO_IMAGE):
        listed.read("#a.png")


def test_a_table_reached_by_a_link_keeps_its_name_and_folder(tmp_path: Path, files: Pictures) -> None:
    (tmp_path / "blobs").mkdir()
    parquet(tmp_path / "blobs" / "8f3a", {"image": list(files.values())})
    (tmp_path / "set.parquet").symlink_to(tmp_path / "blobs" / "8f3a")
    assert "set#0" in contents(str(tmp_path / "set.parquet"))


def test_threads_read_what_one_thread_reads(
    image_table: Callable[..., Path], pictures: Callable[..., Pictures]
) -> None:
    files = pictures(n=60)
    source = open_source(str(image_table(files)))
    keys = sorted(files) * 5
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda key: source.read(f"#{key}"), keys))
    assert found == [files[key] for key in keys]


def test_remote_tables(image_table: Callable[..., Path], files: Pictures) -> None:
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe({"/set/t.parquet": image_table(files).read_bytes(), "/set/sub/a.png": b"1"})
    filesystem.pipe("/set/t.csv", b"path,label\nsub/a.png,cat\nsub/b.png,cat\n")
    assert contents("memory://set/t.parquet") == {path: (path.split("/")[0], data) for path, data in files.items()}
    assert contents("memory://set/t.csv") == {"sub/a.png": ("cat", b"1")}
    assert told("memory://set/t.csv")[1] == [{"key": "sub/b.png", "uri": "sub/b.png", "reason": MISSING}]
    filesystem.rm("/set", recursive=True)


def test_a_listing_survives_the_loss_of_the_file(
    image_table: Callable[..., Path], files: Pictures, tmp_path: Path
) -> None:
    path = image_table(files)
    source = open_source(str(path))
    before = source.listing()
    shutil.move(path, tmp_path / "elsewhere")
    assert source.listing().images.equals(before.images)
