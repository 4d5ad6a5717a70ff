"""Pictures of labeled images: which, in which order, at which size, and what cannot be had."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from curate.evaluation._images import LabeledImages
from curate.evaluation._pictures import read_pictures
from embeddings import embed


@pytest.fixture
def two_parts(pictures, image_folder):
    folders = [image_folder(pictures(n, seed=seed), name) for n, seed, name in ((6, 0, "train"), (4, 1, "test"))]
    stores = [embed(folder, encoder="color-texture", workers=1) for folder in folders]
    places = [f / key for f, store in zip(folders, stores, strict=True) for key in store.column("key")]
    return LabeledImages(name="pets", stores=stores), places


@pytest.mark.parametrize("workers", [1, 3])
def test_rows_of_both_parts_in_the_order_asked_for(two_parts, workers):
    images, places = two_parts
    rows = np.array([9, 0, 6, 5, 9])
    pixels, at = read_pictures(images, rows, size=16, workers=workers)
    wanted = [Image.open(places[row]).resize((16, 16), Image.Resampling.BICUBIC) for row in rows]
    np.testing.assert_array_equal(pixels, np.stack([np.asarray(image) for image in wanted]))
    np.testing.assert_array_equal(at, np.arange(5))


def test_an_encoder_prepares_them(two_parts):
    images, _ = two_parts
    pixels, _ = read_pictures(
        images, np.arange(3), size=4, workers=1, prepare=lambda image: np.full((4, 4, 3), image.width, np.uint8)
    )
    np.testing.assert_array_equal(pixels, np.full((3, 4, 4, 3), 16))


def test_what_cannot_be_read_or_has_changed_is_left_out(two_parts):
    images, places = two_parts
    places[1].write_bytes(b"no image")
    places[7].unlink()
    places[2].write_bytes(places[0].read_bytes())
    pixels, at = read_pictures(images, np.arange(10), size=8, workers=2)
    np.testing.assert_array_equal(at, [0, 3, 4, 5, 6, 8, 9])
    assert pixels.shape == (7, 8, 8, 3)
    none, at = read_pictures(images, np.array([1, 7]), size=8, workers=2)
    assert (none.shape, none.dtype, len(at)) == ((0, 8, 8, 3), np.uint8, 0)
