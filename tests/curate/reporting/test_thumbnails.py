"""Pictures from sources: which, how large, and what is said of those that are gone."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curate.reporting.thumbnails import EDGES, Album, data_uri


def opened(uri: str) -> Image.Image:
    head, text = uri.split(",", 1)
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_the_sample_is_the_lowest_key_hashes(photos: Path) -> None:
    keys = [path.relative_to(photos).as_posix() for path in photos.rglob("*.png")]
    gallery = Album().sample(str(photos), 5)
    assert [p["key"] for p in gallery["pictures"]] == sorted(
        keys, key=lambda k: hashlib.sha256(k.encode()).hexdigest()
    )[:5]
    assert gallery["problem"] is None


def test_images_by_key_are_those_of_the_sample(photos: Path) -> None:
    album = Album()
    sample = album.sample(str(photos), 4)["pictures"]
    keys = [p["key"] for p in sample]
    found = album.by_key(str(photos), [*keys[::-1], "cat/never.png"])
    assert found["problem"] is None
    assert {k: found["pictures"][k] for k in keys} == {p["key"]: p["image"] for p in sample}
    images, missing = album.develop()
    assert sorted(images) == sorted(p["image"] for p in sample)
    assert missing == {found["pictures"]["cat/never.png"]: "the source lists no image of this key any more"}


def test_tiles_by_key_are_cut_from_their_image(image_folder: Callable[..., Path], encode: Callable[..., bytes]) -> None:
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, 40:] = 255
    source = f"{image_folder({'wide.png': encode(pixels)})}#tiles:40"
    album = Album()
    named = album.by_key(source, ["wide.png#0,0,40,40", "wide.png#40,0,40,40", "gone.png#0,0,40,40"])["pictures"]
    images, missing = album.develop()
    levels = [np.asarray(opened(images[name])).mean() for name in list(named.values())[:2]]
    assert levels == pytest.approx([0, 255], abs=3)
    assert list(missing) == [named["gone.png#0,0,40,40"]]


def test_images_by_key_of_a_source_that_is_none(tmp_path: Path) -> None:
    album = Album()
    assert album.by_key("", ["a"]) == {
        "pictures": {},
        "problem": "No pictures: these are vectors without a source of images.",
    }
    gone = album.by_key(str(tmp_path / "nowhere"), ["a"])
    assert gone["pictures"] == {}
    assert gone["problem"].startswith("No pictures: No folder or file")


def test_a_table_gives_the_same_pictures_as_a_folder(
    photos: Path, image_table: Callable[..., Path], pictures: Callable[..., dict[str, bytes]]
) -> None:
    table = image_table(pictures(n=40, size=(20, 14)))
    developed = []
    for source in (photos, table):
        album = Album()
        gallery = album.sample(str(source))
        images, missing = album.develop()
        assert missing == {}
        developed.append([(p["key"], images[p["image"]]) for p in gallery["pictures"]])
    assert developed[0] == developed[1]


def test_small_pictures_keep_their_pixels_and_large_ones_shrink(
    image_folder: Callable[..., Path], encode: Callable[..., bytes]
) -> None:
    large = np.zeros((300, 600, 3), np.uint8)
    folder = image_folder({"large.png": encode(large), "small.png": encode(large[:20, :30])})
    album = Album()
    names = {uri: album.add(str(folder), uri) for uri in ("large.png", "small.png")}
    images, _ = album.develop()
    assert opened(images[names["large.png"]]).size == (EDGES[0], EDGES[0] // 2)
    assert opened(images[names["small.png"]]).size == (30, 20)


def test_an_image_is_read_once_however_often_it_is_shown(photos: Path) -> None:
    album = Album()
    uri = next(photos.rglob("*.png")).relative_to(photos).as_posix()
    assert album.add(str(photos), uri) == album.add(str(photos), uri)
    assert len(album.develop()[0]) == 1


def noisy_album(folder: Path, count: int) -> tuple[Album, list[str]]:
    album = Album()
    return album, [album.add(str(folder), f"{i}.png") for i in range(count)]


@pytest.fixture
def noise(image_folder: Callable[..., Path], encode: Callable[..., bytes]) -> Path:
    rng = np.random.default_rng(0)
    return image_folder({f"{i}.png": encode(rng.integers(0, 256, (128, 128, 3), np.uint8)) for i in range(6)})


def test_over_the_limit_all_shrink_first(noise: Path) -> None:
    album, names = noisy_album(noise, 6)
    whole = sum(map(len, album.develop()[0].values()))
    images, missing = album.develop(whole - 1)
    assert missing == {}
    assert {opened(images[name]).size for name in names} == {(EDGES[1], EDGES[1])}


def test_then_the_last_ones_drop_out_with_a_reason(noise: Path) -> None:
    album, names = noisy_album(noise, 6)
    smallest = album.develop(0)
    assert smallest[0] == {}
    assert len(smallest[1]) == 6
    one = len(data_uri(Image.open(noise / "0.png").resize((EDGES[-1], EDGES[-1]), Image.Resampling.LANCZOS)))
    images, missing = album.develop(3 * one)
    assert sum(map(len, images.values())) <= 3 * one
    assert 2 <= len(images) <= 3
    assert list(images) == names[: len(images)]
    assert set(missing.values()) == {"left out: the report would grow too large"}


def test_a_picture_shown_twice_counts_twice(noise: Path) -> None:
    album, names = noisy_album(noise, 1)
    size = len(album.develop()[0][names[0]])
    assert opened(album.develop(size)[0][names[0]]).size == (EDGES[0], EDGES[0])
    album.add(str(noise), "0.png")
    assert opened(album.develop(size)[0][names[0]]).size != (EDGES[0], EDGES[0])


def test_what_cannot_be_shown_says_why(photos: Path, tmp_path: Path) -> None:
    (photos / "cat/broken.png").write_bytes(b"not an image")
    album = Album()
    broken, gone = album.add(str(photos), "cat/broken.png"), album.add(str(photos), "cat/gone.png")
    nowhere = album.add(str(tmp_path / "nowhere"), "a.png")
    images, missing = album.develop()
    assert images == {}
    assert "not" in missing[broken]
    assert missing[gone]
    assert "No folder or file" in missing[nowhere]
    problem = album.sample(str(tmp_path / "nowhere"))["problem"]
    assert problem.startswith("No pictures: No folder or file")
    assert "vectors" in album.sample("")["problem"]
