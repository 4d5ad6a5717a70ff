"""What is seen of an image: whole, tiles, region of interest; and the same part read again by its uri."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_images import encode, png, tiff
from PIL import Image

from embeddings.errors import ImageError, SourceError
from embeddings.pictures.decode import Decoded, decode
from embeddings.pictures.facts import image_facts
from embeddings.pictures.tiles import Box, tile_boxes, tile_sha256
from embeddings.pictures.views import OUTSIDE, RegionOfInterest, cut, group_of, load_image, locator
from embeddings.sources import View, open_source

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (50, 70, 3), np.uint8)
RECORD = {"key": "lot/7.jpg", "uri": "lot/7.jpg", "group": None, "label": "scratch"}


def pictures(
    view: View, *, array: np.ndarray = PICTURE, region: RegionOfInterest | None = None, **changes: Any
) -> list:
    image = Image.fromarray(array)
    return list(cut(Decoded(image, image.size), {**RECORD, **changes}, view=view, region=region))


def mask_file(path: Path, inside: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(inside, "PNG"))
    return str(path)


def test_a_whole_image_is_itself() -> None:
    decoded = Decoded(Image.fromarray(PICTURE).resize((35, 25)), (70, 50), 2)
    (picture,) = cut(decoded, {**RECORD, "group": "g"}, view=View())
    assert picture.decoded is decoded
    assert picture.row("a" * 64) == {
        "key": "lot/7.jpg",
        "uri": "lot/7.jpg",
        "parent": None,
        "group": "g",
        "sha256": "a" * 64,
        "file": None,
        **image_facts(decoded),
    }


def test_tiles_are_parts_with_names_digests_and_parents() -> None:
    found = pictures(View(tiles=32, overlap=0.25))
    boxes = tile_boxes(70, 50, edge=32, overlap=0.25)
    assert len(found) == len(boxes) == 6
    for picture, box in zip(found, boxes, strict=True):
        left, top, right, bottom = box.corners
        np.testing.assert_array_equal(np.asarray(picture.image), PICTURE[top:bottom, left:right])
        row = picture.row("a" * 64)
        assert row["key"] == f"lot/7.jpg#{box}"
        assert row["file"] == "a" * 64
        assert row["uri"] == f"lot/7.jpg#xywh={box}"
        assert row["parent"] == row["group"] == "lot/7.jpg"
        assert row["sha256"] == tile_sha256("a" * 64, box)
        assert (row["width"], row["height"]) == (32, 32)
    assert len({picture.row("")["pixels"] for picture in found}) == 6
    assert {picture.group for picture in pictures(View(tiles=32), group="camera")} == {"camera"}


def test_groups_of_tiles() -> None:
    record = {"key": "k", "group": None}
    assert group_of(record, tiled=False) is None
    assert group_of(record, tiled=True) == "k"
    assert group_of({"key": "k", "group": ""}, tiled=True) == ""


def test_what_was_decoded_smaller_is_not_cut() -> None:
    half = Decoded(Image.fromarray(PICTURE), (140, 100), 2)
    with pytest.raises(ValueError, match="1/2"):
        list(cut(half, RECORD, view=View(tiles=32)))


def test_tiles_are_kept_when_half_of_them_is_inside(tmp_path: Path) -> None:
    array = np.zeros((20, 40, 3), np.uint8)
    inside = np.zeros((20, 40), np.uint8)
    inside[:, :25] = 255  # of the third tile, columns 20 to 30, exactly half
    region = RegionOfInterest.open(mask_file(tmp_path / "mask.png", inside))
    view = View(tiles=10, roi=region.path)
    kept = [picture.box for picture in pictures(view, array=array, region=region)]
    assert kept == [Box(left, top, 10, 10) for top in (0, 10) for left in (0, 10, 20)]
    inside[0, 24] = 0
    region = RegionOfInterest.open(mask_file(tmp_path / "less.png", inside))
    kept = [picture.box for picture in pictures(view, array=array, region=region)]
    assert kept == [Box(0, 0, 10, 10), Box(10, 0, 10, 10), *[Box(left, 10, 10, 10) for left in (0, 10, 20)]]


def test_a_whole_image_is_cropped_to_the_box_around_the_region(tmp_path: Path) -> None:
    inside = np.zeros((50, 70), np.uint8)
    inside[10, 20] = inside[30, 40] = 1
    region = RegionOfInterest.open(mask_file(tmp_path / "mask.png", inside))
    (picture,) = pictures(View(roi=region.path), region=region)
    assert (picture.key, picture.parent, picture.group) == ("lot/7.jpg", None, None)
    assert picture.uri == "lot/7.jpg#xywh=20,10,21,21"
    np.testing.assert_array_equal(np.asarray(picture.image), PICTURE[10:31, 20:41])
    assert picture.row("a" * 64)["sha256"] == tile_sha256("a" * 64, Box(20, 10, 21, 21))


@pytest.mark.parametrize("size", [(14, 10), (35, 25), (140, 100), (70, 50), (33, 91)])
def test_a_mask_of_another_size_is_stretched_as_pillow_does(tmp_path: Path, size: tuple[int, int]) -> None:
    inside = RNG.integers(0, 2, size[::-1], np.uint8) * 255
    region = RegionOfInterest.open(mask_file(tmp_path / "mask.png", inside))
    expected = np.asarray(Image.fromarray(inside).resize((70, 50), Image.Resampling.NEAREST)) > 0
    np.testing.assert_array_equal(region.mask("any", (70, 50)), expected)


@pytest.mark.parametrize(
    "data",
    [
        encode(np.array([[0, 1]], np.uint8), "PNG"),
        encode(np.array([[[0, 0, 0], [0, 0, 1]]], np.uint8), "PNG"),
        encode(np.array([[False, True]]), "PNG"),
        png(16, 0, [bytes([0, 0, 0, 1])], 2),
        tiff(16, bytes([0, 0, 1, 0]), width=2),
    ],
    ids=["one", "blue", "1 bit", "16 bits", "16-bit tiff"],
)
def test_what_is_not_black_is_inside(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "mask.png").write_bytes(data)
    assert RegionOfInterest.open(f"{tmp_path}/mask.png").mask("any", (2, 1)).tolist() == [[False, True]]


def test_a_folder_has_a_mask_per_key(tmp_path: Path) -> None:
    left, right = np.array([[1, 0]], np.uint8), np.array([[0, 1]], np.uint8)
    mask_file(tmp_path / "masks" / "lot" / "7.png", left)
    mask_file(tmp_path / "masks" / "lot" / "8.tif.png", right)
    mask_file(tmp_path / "masks" / "table#3.bmp", right)
    (tmp_path / "masks" / "notes.txt").write_text("not a mask")
    region = pickle.loads(pickle.dumps(RegionOfInterest.open(f"{tmp_path}/masks")))
    assert region.mask("lot/7.jpg", (2, 1)).tolist() == [[True, False]]
    assert region.mask("lot/8.tif", (2, 1)).tolist() == [[False, True]]
    assert region.mask("table#3", (2, 1)).tolist() == [[False, True]]
    with pytest.raises(ImageError, match="no mask"):
        region.mask("lot/9.jpg", (2, 1))
    (tmp_path / "masks" / "lot" / "7.png").write_bytes(b"<html>")
    with pytest.raises(ImageError, match=r"mask of its region of interest: .*HTML"):
        region.mask("lot/7.jpg", (2, 1))


def test_masks_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be used"):
        RegionOfInterest.open(f"{tmp_path}/gone.png")
    with pytest.raises(SourceError, match="all black"):
        RegionOfInterest.open(mask_file(tmp_path / "black.png", np.zeros((4, 4), np.uint8)))
    mask_file(tmp_path / "masks" / "a.png", np.ones((2, 2), np.uint8))
    mask_file(tmp_path / "masks" / "a.bmp", np.ones((2, 2), np.uint8))
    with pytest.raises(SourceError, match=r"Two masks for one image .*a\.bmp and a\.png"):
        RegionOfInterest.open(f"{tmp_path}/masks")


def test_nothing_inside_is_an_error_of_the_image(tmp_path: Path) -> None:
    corner = np.zeros((50, 70), np.uint8)
    corner[0, 0] = 1
    region = RegionOfInterest.open(mask_file(tmp_path / "mask.png", corner))
    with pytest.raises(ImageError, match=OUTSIDE):
        pictures(View(tiles=32, roi=region.path), region=region)
    mask_file(tmp_path / "masks" / "lot" / "7.png", corner * 0)
    region = RegionOfInterest.open(f"{tmp_path}/masks")
    with pytest.raises(ImageError, match="nothing lies in the region"):
        pictures(View(roi=region.path), region=region)


def test_the_digest_of_a_region_follows_its_masks(tmp_path: Path) -> None:
    inside = np.eye(4, dtype=np.uint8)
    for path in ("mask.png", "masks"):
        place = tmp_path / path if path == "mask.png" else tmp_path / path / "a.png"
        mask_file(place, inside)
        before = RegionOfInterest.open(f"{tmp_path}/{path}").digest
        assert RegionOfInterest.open(f"{tmp_path}/{path}").digest == before
        mask_file(place, np.ones((40, 4), np.uint8))
        assert RegionOfInterest.open(f"{tmp_path}/{path}").digest != before


@pytest.mark.parametrize("kind", ["folder", "table"])
def test_a_tile_is_read_again_by_its_uri(kind: str, image_folder: Callable, image_table: Callable) -> None:
    made = {"lot/7.png": encode(PICTURE, "PNG")}
    source = open_source(f"{image_folder(made) if kind == 'folder' else image_table(made)}#tiles:32,overlap:0.5")
    (record,) = source.listing().images.to_pylist()
    image = decode(source.read(record["uri"]))
    found = list(cut(Decoded(image, image.size), record, view=source.address.view))
    assert len(found) > 6
    for picture in found:
        np.testing.assert_array_equal(np.asarray(load_image(source, picture.uri)), np.asarray(picture.image))
    np.testing.assert_array_equal(np.asarray(load_image(source, record["uri"])), PICTURE)


def test_places_of_images_their_parts_and_vectors(
    tmp_path: Path, image_folder: Callable, image_table: Callable
) -> None:
    made = {"lot/7.png": encode(PICTURE, "PNG")}
    folder, table, part = image_folder(made), image_table(made), "xywh=0,0,32,32"
    np.save(tmp_path / "v.npy", np.eye(3))
    assert locator(str(folder))("lot/7.png") == f"{folder}/lot/7.png"
    assert locator(f"{folder}#tiles:32")(f"lot/7.png#{part}") == f"{folder}/lot/7.png#{part}"
    assert locator(f"{table}#tiles:32,label=lot")(f"#lot/7.png#{part}") == f"{table}#lot/7.png#{part}"
    assert locator(f"{tmp_path}/v.npy")("#2") == f"{tmp_path}/v.npy#2"
    with pytest.raises(SourceError, match="gone"):
        locator(f"{tmp_path}/gone")


def test_an_image_that_has_shrunk_does_not_hold_its_tile(image_folder: Callable) -> None:
    source = open_source(f"{image_folder({'a.png': encode(PICTURE, 'PNG')})}#tiles:32")
    with pytest.raises(ImageError, match="70 x 50 pixels, which do not hold the part 40,0,32,32"):
        load_image(source, "a.png#xywh=40,0,32,32")


def test_names_like_parts_are_names_where_nothing_is_cut(image_folder: Callable) -> None:
    name = "a.png#xywh=0,0,2,2.png"
    odd = name.removesuffix(".png")
    folder = image_folder({odd: encode(PICTURE, "PNG"), "b.png": encode(PICTURE, "PNG")})
    assert load_image(open_source(str(folder)), odd).size == (70, 50)


def test_white_of_the_address_is_heeded(image_folder: Callable) -> None:
    folder = image_folder({"a.png": png(16, 0, [bytes([0x0F, 0xFF, 0x08, 0x00])], 2)})
    source = open_source(f"{folder}#white:4095")
    assert np.asarray(load_image(source, "a.png"))[0, :, 0].tolist() == [255, 128]
    dark = replace(source.address, view=View())
    assert np.asarray(load_image(open_source(dark), "a.png"))[0, :, 0].tolist() == [16, 8]
