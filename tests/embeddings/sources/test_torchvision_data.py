"""Data sets of torchvision, in their formats on disk, made on the spot."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from embeddings.encoders.torchvision_import import import_torchvision
from embeddings.errors import ImageError, SourceError, UnknownNameError
from embeddings.pictures.decode import decode
from embeddings.sources import kind_of, open_source
from embeddings.sources.torchvision_data import DATA_SETS, _encoded, _labels

Pictures = dict[str, bytes]


def write_mnist(root: Path, name: str = "MNIST") -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images and labels by split, and their idx files."""
    rng, found = np.random.default_rng(0), {}
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    for split, prefix, n in (("train", "train", 12), ("test", "t10k", 5)):
        images, labels = rng.integers(0, 256, (n, 28, 28), np.uint8), rng.integers(0, 10, n, np.uint8)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 2051, n, 28, 28) + images.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, n) + labels.tobytes())
        found[split] = images, labels
    return found


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    """Training images and labels of a tiny CIFAR10, whose checksums torchvision is told to be the published ones."""
    folder, rng = root / "cifar-10-batches-py", np.random.default_rng(0)
    folder.mkdir(parents=True)
    kind, images, labels = import_torchvision().datasets.CIFAR10, [], []

    def dump(name: str, content: dict[str, Any]) -> str:
        (folder / name).write_bytes(pickle.dumps(content, 2))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    def batch(name: str) -> list[str]:
        pixels, numbers = rng.integers(0, 256, (3, 3072), np.uint8), rng.integers(0, 10, 3).tolist()
        if name != "test_batch":
            images.append(pixels.reshape(3, 3, 32, 32).transpose(0, 2, 3, 1))
            labels.extend(numbers)
        return [name, dump(name, {"data": pixels, "labels": numbers})]

    monkeypatch.setattr(kind, "train_list", [batch(name) for name, _ in kind.train_list])
    monkeypatch.setattr(kind, "test_list", [batch(name) for name, _ in kind.test_list])
    meta = dump("batches.meta", {"label_names": [f"class {i}" for i in range(10)]})
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": meta})
    return np.concatenate(images), np.array(labels)


def test_mnist(tmp_path: Path) -> None:
    expected = write_mnist(tmp_path)
    address = f"torchvision:MNIST@{tmp_path}"
    assert kind_of(address) == "torchvision"
    source = open_source(address)
    rows = source.listing().images.to_pylist()
    assert [row["key"] for row in rows] == sorted(
        f"{split}#{i}" for split, (x, _) in expected.items() for i in range(len(x))
    )
    classes = import_torchvision().datasets.MNIST.classes
    for row in rows:
        split, number = row["key"].split("#")
        images, labels = expected[split]
        assert row["label"] == classes[labels[int(number)]]
        assert json.loads(row["meta"]) == {"split": split}
        assert source.read(row["uri"]) == b"P5\n28 28\n255\n" + images[int(number)].tobytes()
        assert row["size"] == 784
        assert source.locate(row["uri"]) == f"{address}#{row['key']}"


def test_a_split_alone_needs_no_other(tmp_path: Path) -> None:
    image = tmp_path / "imagenette2" / "val" / "n03000684" / "x.JPEG"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"x")
    (row,) = open_source(f"torchvision:Imagenette@{tmp_path}#split=val").listing().images.to_pylist()
    assert (row["key"], row["label"]) == ("imagenette2/val/n03000684/x.JPEG", "chain saw, chainsaw")
    with pytest.raises(SourceError, match=r"Imagenette \(train\) .* does not load: .*No such file") as error:
        open_source(f"torchvision:Imagenette@{tmp_path}").listing()
    assert f"Imagenette({str(tmp_path)!r}, split='train', download=True)" in str(error.value)
    assert "#split=val" in str(error.value)


def test_the_stamp_follows_the_pixels(tmp_path: Path) -> None:
    def stamps() -> set[str]:
        return set(open_source(f"torchvision:MNIST@{tmp_path}#split=test").listing().images["stamp"].to_pylist())

    write_mnist(tmp_path)
    before = stamps()
    assert len(before) == 1
    assert stamps() == before
    path = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert stamps() != before


def test_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = write_cifar(tmp_path, monkeypatch)
    source = open_source(f"torchvision:CIFAR10@{tmp_path}#split=train")
    rows = source.listing().images.to_pylist()
    assert len(rows) == 15
    for row in rows:
        number = int(row["key"].removeprefix("train#"))
        assert row["label"] == f"class {labels[number]}"
        assert source.read(row["uri"]) == b"P6\n32 32\n255\n" + images[number].tobytes()


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("touched-by-a-pickle"),))


def test_pickles_other_than_the_published_ones_are_never_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file alone: one that is not the published one suffices to load none."""
    monkeypatch.chdir(tmp_path)
    write_cifar(tmp_path, monkeypatch)
    for path in (tmp_path / "cifar-10-batches-py").iterdir():
        good = path.read_bytes()
        path.write_bytes(pickle.dumps(_Bomb()))
        with pytest.raises(SourceError, match="not found or corrupted"):
            open_source(f"torchvision:CIFAR10@{tmp_path}").listing()
        path.write_bytes(good)
    assert not Path("touched-by-a-pickle").exists()
    assert len(open_source(f"torchvision:CIFAR10@{tmp_path}").listing().images) == 18


def test_folders_of_images_give_the_bytes_of_their_files(
    pictures: Callable[..., Pictures], image_folder: Callable[..., Path]
) -> None:
    files = pictures(n=7, classes=("cat", "ölbild"))
    root = image_folder(files)
    source = open_source(f"torchvision:ImageFolder@{root}")
    rows = source.listing().images.to_pylist()
    assert {row["key"]: (row["label"], source.read(row["uri"])) for row in rows} == {
        path: (path.split("/")[0], data) for path, data in files.items()
    }
    assert source.locate(rows[0]["uri"]) == str(root / rows[0]["key"])
    assert rows[0]["size"] == len(files[rows[0]["key"]])
    with pytest.raises(ImageError):
        source.read("../x.png")


def test_a_data_set_with_lists_of_files(tmp_path: Path, pictures: Callable[..., Pictures]) -> None:
    """Food101 keeps its splits as lists; its images are read as they lie on disk."""
    files = pictures(n=6, classes=("apple_pie", "waffles"))
    meta = {"train": {"apple_pie": [], "waffles": []}, "test": {"apple_pie": [], "waffles": []}}
    for i, (path, data) in enumerate(files.items()):
        target = tmp_path / "food-101" / "images" / Path(path).with_suffix(".jpg")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        meta["test" if i >= 4 else "train"][path.split("/")[0]].append(path.removesuffix(".png"))
    (tmp_path / "food-101" / "meta").mkdir()
    for split, names in meta.items():
        (tmp_path / "food-101" / "meta" / f"{split}.json").write_text(json.dumps(names))
    source = open_source(f"torchvision:Food101@{tmp_path}#split=test")
    rows = source.listing().images.to_pylist()
    assert [(row["key"], row["label"]) for row in rows] == [
        ("food-101/images/apple_pie/004.jpg", "apple_pie"),
        ("food-101/images/waffles/005.jpg", "waffles"),
    ]
    assert [source.read(row["uri"]) for row in rows] == [files["apple_pie/004.png"], files["waffles/005.png"]]
    assert len(open_source(f"torchvision:Food101@{tmp_path}").listing().images) == 6


def test_fake_data(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"size": 12, "image_size": (3, 8, 9), "num_classes": 4}
    monkeypatch.setitem(DATA_SETS, "FakeData", {"all": options})  # type: ignore[index]
    source, theirs = open_source("torchvision:FakeData"), import_torchvision().datasets.FakeData(**options)
    rows = source.listing().images.to_pylist()
    assert len(rows) == 12
    for row in rows:
        image, target = theirs[int(row["key"].removeprefix("all#"))]
        assert row["label"] == str(target)
        assert source.read(row["uri"]) == b"P6\n9 8\n255\n" + image.tobytes()


def test_another_process_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path)
    monkeypatch.chdir(tmp_path)
    source = open_source("torchvision:MNIST@.")
    assert source.address.path == f"torchvision:MNIST@{tmp_path}"
    script = (
        "import sys; from embeddings.sources import open_source; "
        f"sys.stdout.buffer.write(open_source({str(source.address)!r}).read('#test#3'))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, cwd="/")
    assert found.stdout == source.read("#test#3")


def test_what_has_vanished_is_an_error_of_its_images(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    source = open_source(f"torchvision:MNIST@{tmp_path}")
    (tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(ImageError, match="Dataset not found"):
        source.read("#test#0")


@pytest.mark.parametrize("uri", ["#test#5", "#test#-1", "#test#", "#other#0", "#test", "MNIST/no.png"])
def test_reading_what_is_not_there(tmp_path: Path, uri: str) -> None:
    write_mnist(tmp_path)
    with pytest.raises(ImageError):
        open_source(f"torchvision:MNIST@{tmp_path}").read(uri)


@pytest.mark.parametrize(
    ("address", "kind", "message"),
    [
        ("torchvision:MNITS@x", UnknownNameError, "Did you mean MNIST"),
        ("torchvision:MNIST@x#split=tets", UnknownNameError, "Did you mean test"),
        ("torchvision:MNIST", SourceError, "torchvision:MNIST@FOLDER"),
        ("torchvision:LSUN@x", SourceError, "Parquet table"),
        ("torchvision:Kinetics@x", SourceError, "is not read here"),
    ],
)
def test_addresses_that_do_not_fit(address: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        open_source(address)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"does not load: .*\nCheck the folder"):
        open_source(f"torchvision:ImageFolder@{tmp_path}/none").listing()
    for name in ("SVHN", "SEMEION", "USPS", "STL10"):  # some of these download unless told not to
        with pytest.raises(SourceError, match="Nothing is downloaded here"):
            open_source(f"torchvision:{name}@{tmp_path}").listing()
    assert list(tmp_path.iterdir()) == []


def test_the_table_of_data_sets_is_true() -> None:
    """Every one exists, and takes the arguments that open its splits."""
    import inspect

    for name, splits in DATA_SETS.items():
        known = inspect.signature(getattr(import_torchvision().datasets, name).__init__).parameters
        assert all(set(arguments) <= set(known) for arguments in splits.values()), name


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_images_are_kept_without_loss(mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 6, 4), np.uint8)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(pixels, "RGBA" if mode != "CMYK" else "CMYK").convert(mode)
    data = _encoded(image)
    assert data == _encoded(image)
    with Image.open(io.BytesIO(data)) as found:
        same = np.asarray(found.convert("RGBA" if mode in ("P", "LA") else mode))
        assert np.array_equal(same, np.asarray(image.convert("RGBA" if mode in ("P", "LA") else mode)))
    decode(data)


def test_labels() -> None:
    assert _labels([0, 1, 2, -1], ["a", ("b", "c")]).to_pylist() == ["a", "b, c", "2", None]
