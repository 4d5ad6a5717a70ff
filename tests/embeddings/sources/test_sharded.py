"""Patterns and lists of shards: braces, globs, keys and uris over several tars or tables, and what does not fit."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shard_files import write

from embeddings.errors import ImageError, SourceError
from embeddings.sources import Source, open_source, paths
from embeddings.sources.rows import REPEATED

Folder = Callable[..., Path]


def contents(source: Source | str) -> dict[str, bytes]:
    opened = open_source(source) if isinstance(source, str) else source
    rows = opened.listing().images.select(["key", "uri"]).to_pylist()
    fresh = open_source(opened.address)  # reads without having listed
    return {row["key"]: fresh.read(row["uri"]) for row in rows}


def table(path: Path, images: list[bytes], **columns: list[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": images, **columns}), path)
    return path


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a", ["a"]),
        ("web-{000..003}.tar", ["web-000.tar", "web-001.tar", "web-002.tar", "web-003.tar"]),
        ("{8..10}", ["8", "9", "10"]),
        ("{08..10}", ["08", "09", "10"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{a,b}-{0..1}", ["a-0", "a-1", "b-0", "b-1"]),
        ("{a,b{1,2}}", ["a", "b1", "b2"]),
        ("{a,}x", ["ax", "x"]),
        ("{a,a}", ["a"]),
        ("a{b", ["a{b"]),
    ],
)
def test_braces(pattern: str, names: list[str]) -> None:
    assert sorted(paths.spelled_out(pattern)) == sorted(names)


@given(ends=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=3))
def test_braces_are_a_product_of_ranges(ends: list[tuple[int, int]]) -> None:
    ranges = [range(a, b + 1) if a <= b else range(a, b - 1, -1) for a, b in ends]
    expected = ["-".join(map(str, numbers)) for numbers in itertools.product(*ranges)]
    assert paths.spelled_out("-".join(f"{{{a}..{b}}}" for a, b in ends)) == expected


@pytest.mark.parametrize("pattern", ["{x}", "{}", "{a..b}", "{0..9..2}"])
def test_braces_that_do_not_read(pattern: str) -> None:
    with pytest.raises(SourceError, match="Cannot read the braces"):
        paths.spelled_out(pattern)


@pytest.mark.parametrize("pattern", ["{0..999999999}", "{0..99999}{0..99999}", "{0..999}{0..999}{0..999}"])
def test_braces_that_name_too_much(pattern: str) -> None:
    with pytest.raises(SourceError, match="more than 1,000,000 files"):
        paths.spelled_out(pattern)


def test_tar_shards(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"web-{i:03d}.tar", {f"{n}.jpg": b"%d%d" % (i, n) for n in range(3)} | {"0.cls": b"%d" % i})
    expected = {f"web-{i:03d}/{n}.jpg": b"%d%d" % (i, n) for i in range(3) for n in range(3)}
    for pattern in (
        "*.tar",
        "web-{000..002}.tar",
        "web-00?.tar",
        "web-00[0-2].tar",
        "**/*.tar",
        "{web-000,web-00[12]}.tar",
    ):
        assert contents(f"{tmp_path}/{pattern}") == expected
    (tmp_path / "shards.txt").write_text(f"web-000.tar\n{tmp_path}/web-001.tar\n../{tmp_path.name}/web-002.tar\n")
    assert contents(f"{tmp_path}/shards.txt") == expected
    source = open_source(f"{tmp_path}/web-*.tar#label=1,label=2")
    rows = source.listing().images.to_pylist()
    assert [(row["key"], row["label"]) for row in rows] == [("web-001/0.jpg", "1"), ("web-002/0.jpg", "2")]
    assert rows[0]["uri"].startswith("web-001.tar#bytes=")
    assert source.locate(rows[0]["uri"]) == f"{tmp_path}/{rows[0]['uri']}"


def test_a_pattern_matches_what_is_there_now(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", {"1.jpg": b"1"})
    source = open_source(f"{tmp_path}/*.tar")
    assert list(contents(source)) == ["a/1.jpg"]
    write(tmp_path / "b.tar", {"1.jpg": b"2"})
    assert list(contents(source)) == ["a/1.jpg", "b/1.jpg"]


def test_shards_of_one_name_in_several_folders(tmp_path: Path) -> None:
    for split in ("train", "te#t"):
        (tmp_path / split).mkdir()
        write(tmp_path / split / "0.tar", {"a.jpg": split.encode()})
        table(tmp_path / split / "0.parquet", [f"{split}{i}".encode() for i in range(2)])
        (tmp_path / split / "t.csv").write_text("path\nx#1.png\n")
        (tmp_path / split / "x#1.png").write_bytes(split.encode())
    assert contents(f"{tmp_path}/*/*.tar") == {"te#t/0/a.jpg": b"te#t", "train/0/a.jpg": b"train"}
    assert contents(f"{tmp_path}/**/*.parquet") == {
        "te#t/0#0": b"te#t0", "te#t/0#1": b"te#t1", "train/0#0": b"train0", "train/0#1": b"train1",
    }  # fmt: skip
    assert contents(f"{tmp_path}/*/*.csv") == {"te#t/x#1.png": b"te#t", "train/x#1.png": b"train"}
    source = open_source(f"{tmp_path}/*/*.csv")
    uris = source.listing().images["uri"].to_pylist()
    assert [source.locate(uri) for uri in uris] == [f"{tmp_path}/te#t/x#1.png", f"{tmp_path}/train/x#1.png"]


def test_tables_keep_their_keys_and_join_their_columns(tmp_path: Path) -> None:
    table(tmp_path / "a.parquet", [b"1", b"2"], key=["k#2", "k#1"], label=["x", "y"])
    table(tmp_path / "b.parquet", [b"3", b"4"], key=["k#0", "k#1"], lot=[7, 8])
    source = open_source(f"{tmp_path}/?.parquet")
    listing = source.listing()
    rows = {row["key"]: (row["label"], row["meta"]) for row in listing.images.to_pylist()}
    assert rows == {"k#0": (None, '{"lot": "7"}'), "k#1": ("y", '{"lot": null}'), "k#2": ("x", '{"lot": null}')}
    assert [row["reason"] for row in listing.rejected.to_pylist()] == [REPEATED]
    assert contents(source) == {"k#0": b"3", "k#1": b"2", "k#2": b"1"}
    assert list(contents(f"{tmp_path}/?.parquet#lot=7")) == ["k#0"]


def test_image_files_by_pattern(image_folder: Folder) -> None:
    root = image_folder({"cat/a.png": b"1", "dog/b.JPG": b"2", "dog/deep/c.png": b"3", "dog/.d.png": b"4"})
    assert contents(f"{root}/**/*.png") == {"cat/a.png": b"1", "dog/deep/c.png": b"3"}
    rows = open_source(f"{root}/*/*.[pJ]*").listing().images.to_pylist()
    assert [(row["key"], row["label"]) for row in rows] == [("cat/a.png", "cat"), ("dog/b.JPG", "dog")]
    found = open_source(f"{root}/cat/{{a,b}}.png").listing()
    assert found.rejected["reason"].to_pylist() == ["no such file"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("*", r"several kinds: 2 \.tar, 1 \.md, 1 \.parquet, 1 \.png"),
        ("*.{tar,parquet}", "several kinds"),
        ("*.md", r"several kinds: 1 \.md"),
        ("*.jpg", "No file matches"),
        ("{one,none}*.tar", "No file matches .*none"),
        ("{one,gone}.tar", "No file at .*gone.tar"),
        ("*.tar", "two.tar' is not a tar archive"),
        ("nowhere/*.tar", "No file matches"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, pattern: str, message: str) -> None:
    write(tmp_path / "one.tar", {"a.jpg": b"1"})
    (tmp_path / "two.tar").write_bytes(b"nonsense")
    table(tmp_path / "t.parquet", [b"1"])
    (tmp_path / "a.png").write_bytes(b"1")
    (tmp_path / "b.md").write_bytes(b"1")
    (tmp_path / "sub").mkdir()
    with pytest.raises(SourceError, match=message) as caught:
        open_source(f"{tmp_path}/{pattern}").listing()
    assert caught.value.hint


def test_shards_without_images(tmp_path: Path) -> None:
    write(tmp_path / "one.tar", {"a.md": b"1"})
    write(tmp_path / "two.tar", {"a.md": b"1", "b": b""})
    with pytest.raises(SourceError, match=r"No image in .*; found: 1 \(no suffix\), 2 \.md"):
        open_source(f"{tmp_path}/*.tar").listing()


def test_a_shard_that_vanishes_costs_its_images_only(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", {"1.jpg": b"1"})
    write(tmp_path / "b.tar", {"1.jpg": b"2"})
    table(tmp_path / "c.parquet", [b"3"])
    table(tmp_path / "d.parquet", [b"4"])
    for pattern, gone in (("*.tar", "a.tar"), ("*.parquet", "c.parquet")):
        source = open_source(f"{tmp_path}/{pattern}")
        lost, kept = source.listing().images["uri"].to_pylist()
        (tmp_path / gone).unlink()
        with pytest.raises(ImageError, match=r"No such file|No file at"):
            source.read(lost)
        assert source.read(kept) in (b"2", b"4")


def test_folders_of_shards_say_how_to_name_them(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", {"1.jpg": b"1"})
    with pytest.raises(SourceError, match="No image in the folder") as caught:
        open_source(str(tmp_path)).listing()
    assert caught.value.hint == f"Give '{tmp_path}/*.tar'."


def test_threads_read_more_tables_than_stay_open(tmp_path: Path) -> None:
    for i in range(8):
        table(tmp_path / f"{i}.parquet", [b"%d-%d" % (i, n) for n in range(4)])
    source = open_source(f"{tmp_path}/*.parquet")
    rows = source.listing().images.select(["key", "uri"]).to_pylist()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda row: source.read(row["uri"]), rows[::-1]))
    assert found == [row["key"].replace("#", "-").encode() for row in rows[::-1]]


def test_remote_patterns(tmp_path: Path) -> None:
    filesystem = fsspec.filesystem("memory")
    data = write(tmp_path / "x.tar", {"a.jpg": b"1"}).read_bytes()
    filesystem.pipe({"/set/one/0.tar": data, "/set/one/1.tar": data, "/set/two/0.tar": data, "/set/p/q.png": b"2"})
    try:
        assert list(contents("memory://set/one/*.tar")) == ["0/a.jpg", "1/a.jpg"]
        assert list(contents("memory://set/one/{0..1}.tar")) == ["0/a.jpg", "1/a.jpg"]
        assert list(contents("memory://set/**/0.tar")) == ["one/0/a.jpg", "two/0/a.jpg"]
        assert contents("memory://set/*/*.png") == {"p/q.png": b"2"}
        with pytest.raises(SourceError, match="No file matches"):
            open_source("memory://set/*.jpg").listing()
    finally:
        filesystem.rm("/set", recursive=True)
