"""Geometry and names of tiles: coverage, bounds, order, and inverses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.errors import ImageError
from embeddings.pictures.tiles import MAX_TILES, Box, split_uri, tile_boxes, tile_key, tile_sha256, tile_uri

LENGTHS, EDGES = st.integers(1, 90), st.integers(8, 60)
BOXES = st.builds(Box, *[st.integers(0, 10**6)] * 4)


@given(width=LENGTHS, height=LENGTHS, edge=EDGES, overlap=st.floats(0, 0.9))
def test_tiles_cover_the_image_within_its_bounds_in_row_major_order(
    width: int, height: int, edge: int, overlap: float
) -> None:
    boxes = tile_boxes(width, height, edge=edge, overlap=overlap)
    seen = np.zeros((height, width), int)
    for left, top, right, bottom in (box.corners for box in boxes):
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        seen[top:bottom, left:right] += 1
    assert seen.min() >= 1
    assert {(box.width, box.height) for box in boxes} == {(min(edge, width), min(edge, height))}
    places = [(box.top, box.left) for box in boxes]
    assert places == sorted(set(places))


@given(columns=st.integers(1, 5), rows=st.integers(1, 5), edge=EDGES)
def test_without_overlap_an_exact_fit_is_a_partition(columns: int, rows: int, edge: int) -> None:
    boxes = tile_boxes(columns * edge, rows * edge, edge=edge)
    assert boxes == [Box(c * edge, r * edge, edge, edge) for r in range(rows) for c in range(columns)]


def test_the_stride_is_the_rounded_share_and_the_last_tile_is_at_the_border() -> None:
    assert [box.left for box in tile_boxes(30, 5, edge=10, overlap=0.25)] == [0, 8, 16, 20]
    assert [box.left for box in tile_boxes(26, 5, edge=10, overlap=0.25)] == [0, 8, 16]
    assert [box.top for box in tile_boxes(3, 21, edge=10)] == [0, 10, 11]
    assert [box.left for box in tile_boxes(11, 11, edge=8, overlap=0.9)] == [0, 1, 2, 3] * 4


def test_a_side_below_the_edge_is_kept_as_it_is() -> None:
    assert tile_boxes(5, 7, edge=10) == [Box(0, 0, 5, 7)]
    assert tile_boxes(10, 3, edge=10) == [Box(0, 0, 10, 3)]


def test_too_many_tiles_are_refused_before_they_are_listed() -> None:
    assert len(tile_boxes(800, 800, edge=8)) == MAX_TILES
    with pytest.raises(ImageError, match="10,100 tiles of 8 pixels in 801 x 800, more than 10,000"):
        tile_boxes(801, 800, edge=8)
    with pytest.raises(ImageError, match="22,369,622 tiles"):
        tile_boxes(178_956_970, 1, edge=8)


@given(uri=st.text(), box=BOXES)
def test_a_uri_and_its_part_come_back(uri: str, box: Box) -> None:
    assert split_uri(tile_uri(uri, box)) == (uri, box)


def test_names_of_parts() -> None:
    box = Box(512, 0, 256, 128)
    assert tile_key("lot/7.jpg", box) == "lot/7.jpg#512,0,256,128"
    assert tile_uri("lot/7.jpg", box) == "lot/7.jpg#xywh=512,0,256,128"
    assert split_uri("#7#xywh=1,2,3,4") == ("#7", Box(1, 2, 3, 4))
    for whole in ("lot/7.jpg", "#7", "a.tar#bytes=512+90", "x#xywh=1,2,3", "x#xywh=1,2,3,-4", "x#xywh=1,2,3,4.png"):
        assert split_uri(whole) == (whole, None)


def test_parts_have_digests_of_their_own() -> None:
    digests = {tile_sha256(sha, Box(left, 0, 8, 8)) for sha in ("a" * 64, "b" * 64) for left in (0, 8)}
    assert len(digests | {"a" * 64}) == 5
    assert all(len(digest) == 64 for digest in digests)
    assert tile_sha256("a" * 64, Box(0, 0, 8, 8)) == tile_sha256("a" * 64, Box(0, 0, 8, 8))
