"""Image folders: keys, labels, names, links, and the messages for folders without images."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from embeddings.errors import ImageError, SourceError
from embeddings.sources import open_source
from embeddings.sources.rows import REPEATED

Folder = Callable[..., Path]
NFC, NFD = unicodedata.normalize("NFC", "Blüte.png"), unicodedata.normalize("NFD", "Blüte.png")


def test_keys_labels_and_bytes(image_folder: Folder, pictures: Callable[..., dict[str, bytes]]) -> None:
    files = pictures(n=7, classes=("cat", "dog", ""))
    source = open_source(str(image_folder(files)))
    images = source.listing().images
    assert images["key"].to_pylist() == images["uri"].to_pylist() == sorted(files)
    assert images["label"].to_pylist() == [key.split("/")[0] if "/" in key else None for key in sorted(files)]
    assert images["size"].to_pylist() == [len(files[key]) for key in sorted(files)]
    assert [source.read(uri) for uri in images["uri"].to_pylist()] == [files[key] for key in sorted(files)]
    assert images["group"].null_count == len(images)


def test_the_label_is_the_first_folder_and_the_whole_path_a_column(image_folder: Folder) -> None:
    root = image_folder({"train/cat/a.png": b"", "train/dog/b.png": b"", "test/cat/c.png": b"", "d.png": b""})
    images = open_source(str(root)).listing().images
    assert images["label"].to_pylist() == [None, "test", "train", "train"]
    assert [json.loads(meta)["folder"] for meta in images["meta"].to_pylist()] == [
        "",
        "test/cat",
        "train/cat",
        "train/dog",
    ]
    chosen = open_source(f"{root}#folder=train/cat,folder=train/dog,label:folder").listing().images
    assert chosen["label"].to_pylist() == ["train/cat", "train/dog"]
    assert json.loads(chosen["meta"][0].as_py()) == {"folder": "train/cat", "label": "train"}
    assert len(open_source(f"{root}#label=").listing().images) == 1


def test_suffixes_in_any_case_and_what_is_ignored(image_folder: Folder) -> None:
    names = ["a.JPG", "b.Jpeg", "c.PNG", "d.heic", "e.txt", "f.TXT", "g", ".h.png", "i.png.bak", "j.tar.gz", "k.webp"]
    listing = open_source(str(image_folder(dict.fromkeys(names, b"x")))).listing()
    assert listing.images["key"].to_pylist() == ["a.JPG", "b.Jpeg", "c.PNG", "d.heic", "k.webp"]
    assert listing.ignored == {"": 1, ".bak": 1, ".gz": 1, ".txt": 2}
    assert len(listing.rejected) == 0


def test_names_are_normalized_in_keys_only(image_folder: Folder) -> None:
    root = image_folder({f"{NFD[:-4]}/{NFD}": b"1"})
    source = open_source(str(root))
    row = source.listing().images.to_pylist()[0]
    assert row["key"] == f"{NFC[:-4]}/{NFC}"
    assert row["label"] == NFC[:-4]
    assert row["uri"] == f"{NFD[:-4]}/{NFD}"
    assert source.read(row["uri"]) == b"1"


def test_two_names_that_normalize_alike(image_folder: Folder) -> None:
    listing = open_source(str(image_folder({NFD: b"1", NFC: b"2", "z.png": b"3"}))).listing()
    assert listing.images["key"].to_pylist() == [NFC, "z.png"]
    first, second = sorted([NFC, NFD])
    assert listing.images["uri"][0].as_py() == first
    assert listing.rejected.to_pylist() == [{"key": NFC, "uri": second, "reason": REPEATED}]


def test_a_name_that_is_not_utf8(image_folder: Folder) -> None:
    root = image_folder({"a.png": b"1"})
    (root / os.fsdecode(b"caf\xe9.png")).write_bytes(b"2")
    listing = open_source(str(root)).listing()
    assert listing.images["key"].to_pylist() == ["a.png"]
    assert listing.rejected["reason"].to_pylist() == ["the file's name is not UTF-8"]


@pytest.mark.parametrize(
    "name", ["# 1%2C.png", "a,b=c:d.png", "new\nline.png", '"quoted".png', "\\back.png", "日本.png"]
)
def test_odd_names(image_folder: Folder, name: str) -> None:
    source = open_source(str(image_folder({f"{name[:-4]}/{name}": b"1"})))
    row = source.listing().images.to_pylist()[0]
    assert row["key"] == f"{name[:-4]}/{name}"
    assert row["label"] == name[:-4]
    assert json.loads(row["meta"]) == {"folder": name[:-4]}
    assert source.read(row["uri"]) == b"1"


def test_links_and_loops(image_folder: Folder) -> None:
    root = image_folder({"cat/a.png": b"1"})
    (root / "cat" / "loop").symlink_to(root)
    (root / "gone.png").symlink_to(root / "nothing.png")
    source = open_source(str(root))
    assert source.listing().images["key"].to_pylist() == ["cat/a.png", "gone.png"]
    with pytest.raises(ImageError, match="cannot be read: No such file"):
        source.read("gone.png")


def test_reading_what_is_not_there(image_folder: Folder) -> None:
    source = open_source(str(image_folder({"a.png": b"1", "b/c.png": b"2"})))
    with pytest.raises(ImageError, match="cannot be read: Is a directory"):
        source.read("b")
    with pytest.raises(ImageError, match="leaves its source folder"):
        source.read("../secret.png")


def test_a_listing_shows_the_folder_as_it_is_now(image_folder: Folder) -> None:
    root = image_folder({"a.png": b"1"})
    source = open_source(str(root))
    source.listing()
    (root / "b.png").write_bytes(b"2")
    assert source.listing().images["key"].to_pylist() == ["a.png", "b.png"]


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    with pytest.raises(SourceError, match=f"The folder '{tmp_path}' is empty"):
        open_source(str(tmp_path)).listing()


@pytest.mark.parametrize(
    ("names", "found", "hint"),
    [
        (["a.txt", "b/c.txt", "d"], r"found: 2 \.txt, 1 \(no suffix\)", "known by suffix"),
        (["a.parquet", "b.md", "c.md"], r"found: 2 \.md, 1 \.parquet", "/*.parquet'."),
    ],
)
def test_a_folder_without_images(image_folder: Folder, names: list[str], found: str, hint: str) -> None:
    with pytest.raises(SourceError, match=found) as caught:
        open_source(str(image_folder(dict.fromkeys(names, b"x")))).listing()
    assert hint in (caught.value.hint or "")


def test_a_remote_folder() -> None:
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe({"/set/cat/1.png": b"1", "/set/2.PNG": b"22"})
    source = open_source("memory://set#label=cat")
    rows = source.listing().images.to_pylist()
    assert [(row["key"], row["label"]) for row in rows] == [("cat/1.png", "cat")]
    assert source.read(rows[0]["uri"]) == b"1"
    filesystem.rm("/set", recursive=True)
    with pytest.raises(ImageError):
        source.read(rows[0]["uri"])
