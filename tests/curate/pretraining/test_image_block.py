from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from curate.pretraining import images
from curate.pretraining.augment.draws import image_hash
from curate.pretraining.images import load_images, open_sources
from embeddings.decode import decode
from embeddings.errors import SourceError, TrainingError, UsageError
from embeddings.progress import silent


def load(chosen, folder, edge=10):
    return load_images(chosen.rows(), open_sources(chosen), folder, edge=edge, progress=silent)


def square(data, edge):
    return np.asarray(decode(data).resize((edge, edge), Image.Resampling.BICUBIC)).transpose(2, 0, 1)


def test_pixels_are_those_of_each_image_squashed_with_bicubic(tmp_path, select, image_folder, pictures):
    made = pictures(6, size=(24, 20))
    block = load(select(image_folder(made)), tmp_path / "block")
    assert len(block) == 6
    for row, key in enumerate(sorted(made)):
        assert np.array_equal(block.read(np.array([row]))[0], square(made[key], 10))
        assert block.hashes[row] == image_hash("pool", key)


def test_tables_and_folders_give_the_same_block(tmp_path, select, image_folder, image_table, pictures):
    made = pictures(6)
    one = load(select(image_folder(made)), tmp_path / "one")
    two = load(select(image_table(made)), tmp_path / "two")
    assert np.array_equal(one.pixels[:], two.pixels[:])
    assert np.array_equal(one.hashes, two.hashes)


def test_row_order_of_the_selection_does_not_matter(tmp_path, select, image_folder, pictures):
    chosen = select(image_folder(pictures(6)))
    mixed = chosen.rows().take([3, 1, 5, 0, 2, 4])
    one, sources = load(chosen, tmp_path / "one"), open_sources(chosen)
    two = load_images(mixed, sources, tmp_path / "two", edge=10, progress=silent)
    assert np.array_equal(one.pixels[:], two.pixels[:])


def test_bad_images_are_listed_with_their_reason_and_left_out(tmp_path, select, image_folder, pictures, monkeypatch):
    monkeypatch.setattr(images, "SHARD_BYTES", 3 * 10 * 10 * 2)  # two images a shard: one shard is empty
    root = image_folder(pictures(8, classes=("",)))
    chosen = select(root, repeats=np.arange(1, 9))
    (root / "002.png").write_bytes(b"no image")
    (root / "003.png").write_bytes(b"")
    (root / "006.png").unlink()
    block = load(chosen, tmp_path / "block")
    assert block.errors["key"].to_pylist() == ["002.png", "003.png", "006.png"]
    assert all(block.errors["reason"].to_pylist())
    assert block.repeats.tolist() == [1, 2, 5, 6, 8]
    assert block.hashes.tolist() == [image_hash("pool", f"{i:03d}.png") for i in (0, 1, 4, 5, 7)]
    assert np.array_equal(block.read(np.array([4]))[0], square((root / "007.png").read_bytes(), 10))


def test_shards_that_are_there_are_not_made_again(tmp_path, select, image_folder, pictures, monkeypatch):
    monkeypatch.setattr(images, "SHARD_BYTES", 3 * 10 * 10 * 4)
    root = image_folder(pictures(8))
    chosen = select(root)
    first = load(chosen, tmp_path / "block").pixels[:]
    (tmp_path / "block" / "00001.npy").unlink()
    calls = []
    monkeypatch.setattr(images, "decode", lambda data: calls.append(1) or decode(data))
    again = load(chosen, tmp_path / "block")
    assert len(calls) == 4
    assert np.array_equal(again.pixels[:], first)


def test_all_bad_says_so_with_a_reason(tmp_path, select, image_folder, pictures):
    root = image_folder(pictures(3))
    chosen = select(root)
    for path in root.rglob("*.png"):
        path.write_bytes(b"broken")
    with pytest.raises(TrainingError, match=r"None of the 3 selected images could be read; the first says: .+"):
        load(chosen, tmp_path / "block")


def test_missing_sources(tmp_path, selection):
    with pytest.raises(UsageError, match="'pool', but no address"):
        open_sources(replace(selection, sources={}))
    with pytest.raises(SourceError):
        open_sources(replace(selection, sources={"pool": str(tmp_path / "gone")}))
