"""Near duplicates on both sides of a split: refused where we cut and there are many, else told."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate.evaluation import _leaks, evaluate, verdicts
from curate.evaluation._images import Embedding, LabeledImages
from curate.evaluation._leaks import FEW, HALF, MANY, NEIGHBORS, check_leaks, clump_share, twins
from curate.evaluation._split import split_labeled
from embeddings.errors import SourceError, UsageError

SCENES, SHOTS = 40, 10


def encoded(picture, kind="PNG"):
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def scene(rng):
    """A smooth picture of random colors."""
    return Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((48, 48), Image.Resampling.BICUBIC)


def shot(picture, rng):
    """The same scene once more, a little brighter or darker."""
    return Image.fromarray((np.asarray(picture, np.int16) + rng.integers(-4, 5)).clip(0, 255).astype(np.uint8))


def write(path, shots, n):
    """A table of ``n`` images, ``shots`` of every scene; a column says which."""
    rng = np.random.default_rng(0)
    scenes = [scene(rng) for _ in range(-(-n // shots))]
    images = [encoded(shot(scenes[i // shots], rng)) for i in range(n)]
    columns = {"key": [f"k{i:04d}" for i in range(n)], "image": images}
    columns |= {"label": [f"c{i // shots % 2}" for i in range(n)], "scene": [f"s{i // shots:03d}" for i in range(n)]}
    pq.write_table(pa.table(columns), path)
    return str(path)


def write_again(path, n, again, groups=None):
    """A table of ``n`` scenes, the first ones ``again`` as JPEG: these are the pictures that have a twin."""
    rng = np.random.default_rng(1)
    scenes = [scene(rng) for _ in range(n)]
    images = [encoded(picture) for picture in scenes] + [encoded(picture, "JPEG") for picture in scenes[:again]]
    columns = {"key": [f"k{i:04d}" for i in range(len(images))], "image": images}
    columns |= {"label": [f"c{i % 2}" for i in range(len(images))], "lot": groups(len(images)) if groups else None}
    pq.write_table(pa.table({name: values for name, values in columns.items() if values}), path)
    return f"{path}#group:lot" if groups else str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("leaks")


@pytest.fixture(scope="module")
def burst(folder):
    """400 images, ten shots of each scene."""
    return write(folder / "burst.parquet", SHOTS, SCENES * SHOTS)


def seen(thing, folder: Path, **settings):
    embedding = Embedding(work=folder / "work", device="cpu")
    images = LabeledImages.of("set", thing, embedding, "lite0@32", **settings)
    return images, split_labeled(images.rows, images.n_train, grouped_by=images.grouped_by)


def test_shots_of_one_scene_are_refused(burst, folder):
    images, split = seen(burst, folder)
    with pytest.raises(UsageError, match=r"of 120 test images of 'set' are nearly the same picture") as caught:
        check_leaks(images, split)
    assert "--split-by COLUMN" in caught.value.hint
    assert "TRAIN::TEST" in caught.value.hint
    with pytest.raises(UsageError, match="nearly the same picture"):
        evaluate({}, {"set": burst}, encoder="lite0@32", work=folder / "work")


def test_split_by_keeps_scenes_together(burst, folder):
    images, split = seen(burst, folder, split_by="scene")
    assert check_leaks(images, split) == {"near_duplicates_in_train": 0}
    assert split.facts["how"] == "70% of the images train, by scene"
    scenes = np.array(images.rows["group"].to_pylist())
    assert not set(scenes[split.train]) & set(scenes[split.test])
    assert len(set(scenes)) == SCENES


def test_split_by_key_says_that_every_image_stands_alone_and_is_told(burst, folder):
    images, split = seen(burst, folder, split_by="key")
    assert check_leaks(images, split) == {"near_duplicates_in_train": len(split.test)}
    assert images.rows["group"].to_pylist() == images.rows["key"].to_pylist()


def test_different_pictures_are_not_refused(folder):
    images, split = seen(write(folder / "single.parquet", 1, 380), folder)
    assert len(split.train) >= 256
    assert check_leaks(images, split) == {"near_duplicates_in_train": 0}
    assert len(twins(images, split)[0]) == 0


def test_many_twins_are_refused_without_clumps_in_a_small_set(folder):
    """One picture in ten is there once more, as JPEG: too few images for clumps to be seen."""
    images, split = seen(write_again(folder / "again.parquet", 150, 15), folder)
    assert clump_share(images.own_features()[1], split) == 0
    known = len(np.unique(twins(images, split)[1]))
    assert known >= max(FEW, MANY * len(split.test))
    with pytest.raises(UsageError, match=f"{known} of {len(split.test)} test images of 'set' are nearly the same"):
        check_leaks(images, split)


def test_a_few_twins_are_told_in_a_sentence(folder):
    source = write_again(folder / "few.parquet", 150, 6)
    images, split = seen(source, folder)
    known = len(np.unique(twins(images, split)[1]))
    assert 0.01 * len(split.test) < known < 5
    report = evaluate({}, {"set": source}, encoder="lite0@32", work=folder / "work")
    assert report.labeled["set"]["near_duplicates_in_train"] == known
    assert f"set: careful: {known} of {len(split.test)} test images" in verdicts(report)[1]


def test_one_image_with_a_group_does_not_switch_the_check_off(folder):
    source = write_again(folder / "one.parquet", 150, 15, groups=lambda n: ["lot7"] + [None] * (n - 1))
    images, split = seen(source, folder)
    assert images.rows["group"].null_count == 164
    with pytest.raises(UsageError, match="nearly the same picture"):
        check_leaks(images, split)


def test_twins_of_folds_lie_in_different_ones(folder):
    """Every image that is there twice is known, unless both are in one fold; its copy is then a test image, too."""
    images, _ = seen(write_again(folder / "folds.parquet", 150, 6), folder)
    split = split_labeled(images.rows, folds=3)
    fold = np.zeros(156, int)
    for number, part in enumerate(split.folds):
        fold[part.test] = number
    once = parts_of(np.arange(150), np.arange(150, 156))
    pairs = zip(*(side.tolist() for side in twins(images, SimpleNamespace(**vars(once), parts=(once,)))), strict=True)
    known = {i for pair in pairs if fold[pair[0]] != fold[pair[1]] for i in pair}
    train, test = twins(images, split)
    assert len(known) >= 4
    assert {*test.tolist()} == {*train.tolist()} == known
    assert all(fold[train] != fold[test])
    assert check_leaks(images, split) == {"near_duplicates_in_train": len(known)}


def test_of_more_images_twins_are_not_known(burst, folder, monkeypatch):
    monkeypatch.setattr(_leaks, "EXACT", 399)
    images, split = seen(burst, folder, split_by="key")
    assert check_leaks(images, split) == {"near_duplicates_in_train": None}
    images, split = seen(burst, folder)
    with pytest.raises(UsageError, match="nearly the same picture"):  # clumps were seen
        check_leaks(images, split)


def test_of_a_given_test_part_twins_are_counted(burst, folder):
    table = pq.read_table(burst)
    train, test = (str(folder / f"{name}.parquet") for name in ("train", "test"))
    pq.write_table(table.take(pa.array(range(5 * SHOTS))), train)
    pq.write_table(table.take(pa.array([5, 7, 13, *range(200, 227)])), test)  # three shots of scenes in training
    images, split = seen((train, test), folder)
    facts = check_leaks(images, split)
    known = set(twins(images, split)[1].tolist())
    assert facts == {"near_duplicates_in_train": len(known)}
    assert known <= {50, 51, 52}


def test_a_column_that_is_not_there(burst, folder):
    with pytest.raises(SourceError, match="The labeled set 'set': No column 'camera'") as caught:
        seen(burst, folder, split_by="camera")
    assert caught.value.hint.startswith("Columns: key, label, group")
    with pytest.raises(SourceError, match="The training part of the labeled set 'set': No column 'camera'"):
        seen((burst, burst), folder, split_by="camera")


def test_things_without_columns(burst, folder):
    images, _ = seen(burst, folder)
    with pytest.raises(UsageError, match="EmbeddingStore, in which no column 'scene'"):
        seen(images.stores[0], folder, split_by="scene")


def parts_of(train, test):
    return SimpleNamespace(train=np.sort(train), test=np.sort(test))


def test_clumps_against_distances_written_out():
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((60, 8))
    features = np.repeat(centers, 10, axis=0) + 0.05 * rng.standard_normal((600, 8))
    rows = rng.permutation(600)
    split = parts_of(rows[:400], rows[400:])
    centered = features - features[split.train].mean(axis=0)
    unit = centered / np.linalg.norm(centered, axis=1, keepdims=True)
    gaps = np.sort(np.linalg.norm(unit[split.test][:, None] - unit[split.train][None], axis=2), axis=1)
    wanted = (gaps[:, 0] <= HALF * gaps[:, NEIGHBORS - 1]).mean()
    assert wanted > 0.9
    assert clump_share(features, split) == pytest.approx(wanted, abs=0.01)
    assert clump_share(rng.standard_normal((600, 40)), split) < 0.4
    assert clump_share(np.ones((600, 8)), split) == 1  # all the same


def test_few_images_have_no_clumps():
    assert clump_share(np.ones((300, 4)), parts_of(np.arange(255), np.arange(255, 300))) == 0
