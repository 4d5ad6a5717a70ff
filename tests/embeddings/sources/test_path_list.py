"""Lists of paths: what a line may be, what keys and labels come of it, and lists that do not read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from embeddings.errors import ImageError, SourceError
from embeddings.sources import open_source
from embeddings.sources.rows import MISSING, REPEATED

Folder = Callable[..., Path]


def contents(address: str) -> dict[str, bytes]:
    source = open_source(address)
    rows = source.listing().images.select(["key", "uri"]).to_pylist()
    return {row["key"]: source.read(row["uri"]) for row in rows}


def test_lines_are_keys(image_folder: Folder, tmp_path: Path) -> None:
    root = image_folder({"cat/a.png": b"1", "b #1%.png": b"2", "ü.png": b"3", "sub/cat/c.jpg": b"4", "d": b"5"})
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"6")
    lines = ["cat/a.png", "", "# a comment", f"{outside}", "b #1%.png", "  u\u0308.png ", "sub/cat/c.jpg", "d"]
    (root / "list.lst").write_text("\n".join([*lines, "../outside.png", "../photos/cat/a.png", f"file://{outside}"]))
    (root / "ü.png").rename(root / "u\u0308.png")
    source = open_source(f"{root}/list.lst")
    rows = {row["key"]: row for row in source.listing().images.to_pylist()}
    assert {key: source.read(row["uri"]) for key, row in rows.items()} == {
        "cat/a.png": b"1", str(outside): b"6", "b #1%.png": b"2", "ü.png": b"3", "sub/cat/c.jpg": b"4", "d": b"5",
        "../outside.png": b"6", "../photos/cat/a.png": b"1", f"file://{outside}": b"6",
    }  # fmt: skip
    labels = {key: row["label"] for key, row in rows.items() if row["label"]}
    assert labels == {"cat/a.png": "cat", "sub/cat/c.jpg": "sub"}
    assert json.loads(rows["sub/cat/c.jpg"]["meta"])["folder"] == "sub/cat"
    assert source.locate(rows["b #1%.png"]["uri"]) == f"{root}/b #1%.png"
    assert source.locate(rows[str(outside)]["uri"]) == source.locate(rows[f"file://{outside}"]["uri"]) == str(outside)
    assert list(contents(f"{root}/list.lst#label=cat")) == ["cat/a.png"]


def test_lines_that_cannot_be_used(image_folder: Folder) -> None:
    root = image_folder({"a.png": b"1", "sub/b.png": b"2"})
    (root / "l.txt").write_text("a.png\nsub\ngone.png\na.png\nnul\0.png\n")
    found = open_source(f"{root}/l.txt").listing()
    assert found.images["key"].to_pylist() == ["a.png"]
    assert {row["key"]: row["reason"] for row in found.rejected.to_pylist()} == {
        "a.png": REPEATED, "gone.png": MISSING, "nul\0.png": MISSING, "sub": MISSING,
    }  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_written_on_windows(image_folder: Folder, encoding: str) -> None:
    root = image_folder({"lot 7/ä.png": b"1", "odd\\name.png": b"2"})
    (root / "l.txt").write_bytes("lot 7\\ä.png\r\nodd\\name.png\r\n\r\n".encode(encoding))
    assert contents(f"{root}/l.txt") == {"lot 7/ä.png": b"1", "odd\\name.png": b"2"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "names no file"),
        (b"# only\n\n  \n", "names no file"),
        (b"caf\xe9.png", "cannot be read: .*utf-8"),
        (b"gone.png\nlost.png", r"None of the 2 rows .*no such file \(2\)"),
        (b"a.png\nx.tar\ny.csv", r"several kinds: 1 \.csv, 1 \.png, 1 \.tar"),
        (b"x.tar\ny.csv", "several kinds"),
    ],
)
def test_lists_that_do_not_read(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "l.txt").write_bytes(data)
    with pytest.raises(SourceError, match=message) as caught:
        open_source(f"{tmp_path}/l.txt").listing()
    assert caught.value.hint


def test_an_image_that_vanishes(image_folder: Folder) -> None:
    root = image_folder({"a.png": b"1"})
    (root / "l.txt").write_text("a.png\n")
    source = open_source(f"{root}/l.txt")
    uri = source.listing().images["uri"][0].as_py()
    (root / "a.png").unlink()
    with pytest.raises(ImageError, match="No such file"):
        source.read(uri)


def test_urls_and_a_list_from_elsewhere(image_folder: Folder) -> None:
    root = image_folder({"a.png": b"1"})
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe({"/set/b.png": b"2", "/set/sub/c.png": b"3", "/other/d.png": b"4"})
    lines = f"memory://set/b.png\nmemory://other/d.png\nmemory://set/gone.png\nsub/c.png\n{root}/a.png\na.png\n"
    (root / "l.txt").write_text(lines)
    filesystem.pipe("/set/l.txt", lines.encode())
    try:
        urls = {"memory://set/b.png": b"2", "memory://other/d.png": b"4"}
        assert contents(f"{root}/l.txt") == {**urls, f"{root}/a.png": b"1", "a.png": b"1"}
        assert contents("memory://set/l.txt") == {**urls, "sub/c.png": b"3"}
        reasons = {r["key"]: r["reason"] for r in open_source("memory://set/l.txt").listing().rejected.to_pylist()}
    finally:
        filesystem.rm("/set", recursive=True)
        filesystem.rm("/other", recursive=True)
    assert reasons == {
        f"{root}/a.png": "a path of this machine in a list from elsewhere",
        "a.png": MISSING,
        "memory://set/gone.png": MISSING,
    }


def test_labels_are_the_folders_below_the_one_that_all_share(tmp_path: Path) -> None:
    names = ["clip/animals/a.png", "clip/animals/b.png", "clip/people/c.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "list.txt").write_text("\n".join(names))
    listing = open_source(str(tmp_path / "list.txt")).listing()
    assert listing.images["label"].to_pylist() == ["animals", "animals", "people"]
