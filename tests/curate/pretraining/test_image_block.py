import errno
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curate.exports.originals import open_sources
from curate.pretraining import images
from curate.pretraining.augment.draws import image_hash
from curate.pretraining.images import load_images
from embeddings import files
from embeddings.errors import SourceError, StorageError, TrainingError, UsageError
from embeddings.pictures.decode import decode
from embeddings.pictures.tiles import Box, tile_sha256, tile_uri
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
        assert block.facts.hashes[row] == image_hash("pool", key)


def test_tables_and_folders_give_the_same_block(tmp_path, select, image_folder, image_table, pictures):
    made = pictures(6)
    one = load(select(image_folder(made)), tmp_path / "one")
    two = load(select(image_table(made)), tmp_path / "two")
    assert np.array_equal(one.pixels[:], two.pixels[:])
    assert np.array_equal(one.facts.hashes, two.facts.hashes)


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
    assert block.facts.repeats.tolist() == [1, 2, 5, 6, 8]
    assert block.facts.hashes.tolist() == [image_hash("pool", f"{i:03d}.png") for i in (0, 1, 4, 5, 7)]
    assert np.array_equal(block.read(np.array([4]))[0], square((root / "007.png").read_bytes(), 10))


def with_digests(chosen, digests):
    table = chosen.rows()
    place = table.schema.get_field_index("sha256")
    return replace(chosen, table=table.set_column(place, "sha256", pa.array(digests, pa.string())))


def test_an_image_that_changed_since_it_was_selected_is_an_error(tmp_path, select, image_folder, pictures):
    made = pictures(4, classes=("",))
    root = image_folder(made)
    chosen = with_digests(select(root), [files.digest_bytes(made[key]) for key in sorted(made)])
    assert len(load(chosen, tmp_path / "before").errors) == 0
    (root / "002.png").write_bytes(made["003.png"])  # a good image, but another one
    block = load(chosen, tmp_path / "after")
    assert block.errors.select(["key", "reason"]).to_pylist() == [
        {"key": "002.png", "reason": "changed since it was selected"}
    ]
    assert len(block) == 3


def test_tiles_of_an_image_that_changed_are_errors_too(tmp_path, select, image_folder, pictures):
    made = pictures(2, classes=("",), size=(24, 20))
    root, boxes = image_folder(made), [Box(0, 0, 12, 12), Box(12, 8, 12, 12)]
    digests = [tile_sha256(files.digest_bytes(made[key]), box) for key, box in zip(sorted(made), boxes, strict=True)]
    chosen = with_digests(select(root), digests)
    uris = pa.array([tile_uri(key, box) for key, box in zip(sorted(made), boxes, strict=True)])
    table = chosen.rows().set_column(chosen.rows().schema.get_field_index("uri"), "uri", uris)
    chosen = replace(chosen, table=table, sources={"pool": f"{root}#tiles:12"})
    assert np.array_equal(load(chosen, tmp_path / "before").read(np.array([1]))[0], tile(made["001.png"], boxes[1], 10))
    (root / "000.png").write_bytes(made["001.png"])
    assert load(chosen, tmp_path / "after").errors["reason"].to_pylist() == ["changed since it was selected"]


def tile(data, box, edge):
    small = decode(data).crop(box.corners).resize((edge, edge), Image.Resampling.BICUBIC)
    return np.asarray(small).transpose(2, 0, 1)


def test_shards_that_are_there_are_not_made_again(tmp_path, select, image_folder, pictures, monkeypatch):
    monkeypatch.setattr(images, "SHARD_BYTES", 3 * 10 * 10 * 4)
    root = image_folder(pictures(8))
    chosen = select(root)
    first = load(chosen, tmp_path / "block").pixels[:]
    (tmp_path / "block" / "00001.npy").unlink()
    calls, plain = [], images.square
    monkeypatch.setattr(images, "square", lambda *at, **row: calls.append(1) or plain(*at, **row))
    again = load(chosen, tmp_path / "block")
    assert len(calls) == 4
    assert np.array_equal(again.pixels[:], first)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("name", ["00001.npy", "00001.parquet"])
@pytest.mark.parametrize("damage", [cut, lambda path: path.write_bytes(b""), lambda path: path.unlink()])
def test_a_shard_that_is_not_whole_is_made_again(tmp_path, select, image_folder, pictures, monkeypatch, name, damage):
    monkeypatch.setattr(images, "SHARD_BYTES", 3 * 10 * 10 * 4)
    root = image_folder(pictures(8, classes=("",)))
    chosen = select(root)
    (root / "006.png").write_bytes(b"broken")
    first = load(chosen, tmp_path / "block").pixels[:]
    damage(tmp_path / "block" / name)
    again = load(chosen, tmp_path / "block")
    assert np.array_equal(again.pixels[:], first)
    assert again.errors["key"].to_pylist() == ["006.png"]


def test_no_space_is_told_before_anything_is_written(tmp_path, select, image_folder, pictures, monkeypatch):
    monkeypatch.setattr(images, "SHARD_BYTES", 3 * 10 * 10 * 4)
    chosen = select(image_folder(pictures(8)))
    free = [1000]
    monkeypatch.setattr(images.shutil, "disk_usage", lambda _: images.shutil._ntuple_diskusage(0, 0, free[0]))
    with pytest.raises(StorageError, match=r"need 0\.00 GB in .*block; 0\.00 GB are free") as caught:
        load(chosen, tmp_path / "a" / "block")
    assert "--set cache=0" in caught.value.hint
    assert not (tmp_path / "a").exists()
    free[0] = 8 * 300
    assert len(load(chosen, tmp_path / "block")) == 8
    free[0] = 4 * 300  # enough for the one that is missing
    (tmp_path / "block" / "00000.npy").unlink()
    assert len(load(chosen, tmp_path / "block")) == 8


def test_no_space_on_the_way_keeps_the_shards_made_so_far(tmp_path, select, image_folder, pictures, monkeypatch):
    monkeypatch.setattr(images, "SHARD_BYTES", 3 * 10 * 10 * 4)
    chosen, plain = select(image_folder(pictures(8))), np.save
    first = tmp_path / "block" / "00000.npy"

    def save(file, array):
        if first.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(file, array)

    monkeypatch.setattr(images.np, "save", save)
    with pytest.raises(
        StorageError, match=r"No space left to write .*00001\.npy\. The decoded images of this"
    ) as caught:
        load(chosen, tmp_path / "block")
    assert "Free some space" in caught.value.hint
    assert "--set cache=0" in caught.value.hint
    assert sorted(path.name for path in first.parent.glob("*.npy")) == ["00000.npy"]
    monkeypatch.undo()
    assert len(load(chosen, tmp_path / "block")) == 8


def test_a_batch_is_copied_and_nothing_else(tmp_path, select, image_folder, pictures, monkeypatch):
    monkeypatch.setattr(images, "SHARD_BYTES", 3 * 10 * 10 * 4)
    block = load(select(image_folder(pictures(8))), tmp_path / "block")
    assert all(isinstance(shard, np.memmap) for shard in block.pixels._shards)
    batch = block.read(np.array([6, 1]))
    assert batch.base is None or batch.base.nbytes == batch.nbytes == 2 * 300
    assert not np.shares_memory(batch, block.pixels._shards[0])


def test_large_jpegs_are_decoded_smaller_unless_exactly(tmp_path, select, image_folder, encode):
    x = np.linspace(0, 255, 120).astype(np.uint8)
    picture = np.stack(np.broadcast_arrays(x[:, None], x[None], 128), -1).astype(np.uint8)
    data = encode(picture, "JPEG", quality=95)
    root = image_folder({"a.jpg": data})
    exact = select(f"{root}#decode:exact")
    assert np.array_equal(load(exact, tmp_path / "exact").read(np.array([0]))[0], square(data, 10))
    scaled = load(select(root), tmp_path / "scaled").read(np.array([0]))[0]
    whole = square(data, 10).astype(int)
    assert not np.array_equal(scaled, whole)
    assert np.abs(scaled - whole).max() <= 8


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
