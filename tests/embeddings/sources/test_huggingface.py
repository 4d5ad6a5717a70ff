"""Hugging Face data sets: what the ``datasets`` library wrote is read without it, by name it is asked itself."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from embeddings.errors import ImageError, MissingExtraError, SourceError
from embeddings.sources import kind_of, open_source
from embeddings.sources.table import NO_IMAGE, OUTSIDE

CLASSES = ["cat", "dog", "ölbild"]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The library, offline, with a cache of its own."""
    home = tmp_path_factory.mktemp("hf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_HOME", str(home))
        library = pytest.importorskip("datasets")
        patch.setattr(library.config, "HF_DATASETS_CACHE", home / "datasets")
        patch.setattr(library.config, "DOWNLOADED_DATASETS_PATH", home / "downloads")
        patch.setattr(library.config, "HF_HUB_OFFLINE", True)
        library.disable_progress_bars()
        yield library


def pixels(n: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (n, 8, 9, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def build(datasets: Any) -> Callable[[int], Any]:
    """``build(n)`` -> a data set of n random images, labels in turn (every fifth unknown), and a column ``lot``."""

    def _build(n: int, seed: int = 0) -> Any:
        features = datasets.Features(
            image=datasets.Image(), label=datasets.ClassLabel(names=CLASSES), lot=datasets.Value("int64")
        )
        labels = [-1 if i % 5 == 4 else i % 3 for i in range(n)]
        images = [Image.fromarray(p) for p in pixels(n, seed)]
        return datasets.Dataset.from_dict({"image": images, "label": labels, "lot": list(range(n))}, features=features)

    return _build


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def check_rows(address: str, split: str, n: int, seed: int = 0) -> None:
    """Keys, labels, columns and pixels of one split of ``build(n)``."""
    source = open_source(f"{address}#split={split}")
    rows = source.listing().images.to_pylist()
    expected = sorted(range(n), key=str)
    assert [row["key"] for row in rows] == [f"{split}#{i}" for i in expected]
    assert [row["label"] for row in rows] == [None if i % 5 == 4 else CLASSES[i % 3] for i in expected]
    assert [json.loads(row["meta"]) for row in rows] == [{"lot": str(i), "split": split} for i in expected]
    for i, row in zip(expected, rows, strict=True):
        assert np.array_equal(decoded(source.read(row["uri"])), pixels(n, seed)[i])


@pytest.mark.parametrize("shards", [1, 4])
def test_a_data_set_saved_to_disk(tmp_path: Path, build: Callable[..., Any], shards: int) -> None:
    build(13).save_to_disk(tmp_path / "saved", num_shards=shards)
    assert kind_of(str(tmp_path / "saved")) == "saved"
    check_rows(str(tmp_path / "saved"), "train", 13)


def test_a_dictionary_of_splits(tmp_path: Path, datasets: Any, build: Callable[..., Any]) -> None:
    saved = datasets.DatasetDict({"train": build(12), "test": build(4, seed=1)})
    saved.save_to_disk(tmp_path / "saved", num_shards={"train": 3, "test": 1})
    assert len(open_source(str(tmp_path / "saved")).listing().images) == 16
    check_rows(str(tmp_path / "saved"), "train", 12)
    check_rows(str(tmp_path / "saved"), "test", 4, seed=1)


def test_what_the_library_reads_back(tmp_path: Path, datasets: Any, build: Callable[..., Any]) -> None:
    """After a selection, a shuffle and a new column, the library and we see the same."""
    data = build(20).shuffle(seed=1).select(range(3, 17)).add_column("note", [f"n{i}" for i in range(14)])
    data.save_to_disk(tmp_path / "saved", num_shards=3)
    theirs = datasets.load_from_disk(tmp_path / "saved").cast_column("image", datasets.Image(decode=False))
    source = open_source(f"{tmp_path}/saved#label:note")
    for row in source.listing().images.to_pylist():
        their = theirs[int(row["key"].removeprefix("train#"))]
        assert source.read(row["uri"]) == their["image"]["bytes"]
        assert row["label"] == their["note"]
        assert json.loads(row["meta"])["lot"] == str(their["lot"])


def test_it_is_read_without_the_library(tmp_path: Path, build: Callable[..., Any]) -> None:
    """And in another process, by the uris of the listing alone."""
    build(5).save_to_disk(tmp_path / "saved", num_shards=2)
    source = open_source(str(tmp_path / "saved"))
    uris = source.listing().images["uri"].to_pylist()
    script = textwrap.dedent(f"""
        import sys
        sys.modules["datasets"] = None
        from embeddings.sources import open_source
        source = open_source({str(source.address)!r})
        print([len(source.read(uri)) for uri in {uris!r}])
    """)
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == [len(source.read(uri)) for uri in uris]


def test_what_has_vanished_is_an_error_of_its_images(tmp_path: Path) -> None:
    source = open_source(save_by_hand(tmp_path / "saved", [{"bytes": b"1", "path": None}]))
    (tmp_path / "saved" / "data.arrow").unlink()
    with pytest.raises(ImageError, match="does not read as Arrow"):
        source.read("#train#0")


def save_by_hand(folder: Path, image: list[Any], **columns: list[Any]) -> str:
    folder.mkdir(parents=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(image, kind), **columns})
    with pa.ipc.new_stream(folder / "data.arrow", table.schema) as writer:
        writer.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}], "_split": None}))
    (folder / "dataset_info.json").write_text(
        json.dumps({"features": {"label": {"names": ["x"], "_type": "ClassLabel"}}})
    )
    return str(folder)


def test_images_that_are_files(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    paths = [
        f"{saved}/sub/a.png",
        "sub/a.png",
        str(secret),
        "../secret.png",
        f"{saved}/../secret.png",
        f"{saved}/no.png",
    ]
    images = [*({"bytes": None, "path": path} for path in paths), {"bytes": None, "path": None}, None]
    save_by_hand(saved, images, label=[0] * 8)
    (saved / "sub").mkdir()
    (saved / "sub" / "a.png").write_bytes(b"inside")
    source = open_source(str(saved))
    listing = source.listing()
    assert {row["key"]: row["reason"] for row in listing.rejected.to_pylist()} == {
        "train#2": OUTSIDE, "train#3": OUTSIDE, "train#4": OUTSIDE, "train#5": "no such file",
        "train#6": NO_IMAGE, "train#7": NO_IMAGE,
    }  # fmt: skip
    assert listing.images["key"].to_pylist() == ["train#0", "train#1"]
    assert listing.images["label"].to_pylist() == ["x", "x"]
    assert listing.images["size"].to_pylist() == [6, 6]
    assert [source.read(uri) for uri in listing.images["uri"].to_pylist()] == [b"inside"] * 2
    assert source.locate("#train#0") == f"{saved}/sub/a.png"
    for uri in ("#train#2", "#train#4", "#train#8", "#train#-1", "#test#0", "#train", "../secret.png"):
        with pytest.raises(ImageError):
            source.read(uri)


def test_splits_with_other_columns(tmp_path: Path) -> None:
    one = {"bytes": b"1", "path": None}
    save_by_hand(tmp_path / "saved" / "a", [one], score=[0.5], split=["theirs"])
    save_by_hand(tmp_path / "saved" / "b", [one], note=["n"])
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["a", "b"]}')
    rows = open_source(str(tmp_path / "saved")).listing().images["meta"].to_pylist()
    assert [json.loads(row) for row in rows] == [
        {"note": None, "score": "0.5", "split": "a"},
        {"note": "n", "score": None, "split": "b"},
    ]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("state.json", "{"),
        ("state.json", "[]"),
        ("state.json", "{}"),
        ("state.json", '{"_data_files": [{"filename": 3}]}'),
        ("state.json", '{"_data_files": [{"filename": "../x.arrow"}]}'),
        ("state.json", '{"_data_files": [{"filename": "/etc/passwd"}]}'),
        ("state.json", '{"_data_files": [{"filename": "gone.arrow"}]}'),
        ("state.json", '{"_data_files": []}'),
        (
            "state.json",
            '{"_data_files": [{"filename": "data.arrow"}], "_indices_data_files": [{"filename": "i.arrow"}]}',
        ),
        ("dataset_info.json", "nothing"),
        ("dataset_info.json", '{"features": [1]}'),
        ("dataset_dict.json", "{}"),
        ("dataset_dict.json", '{"splits": ["../other"]}'),
        ("dataset_dict.json", '{"splits": [["a"]]}'),
        ("data.arrow", "not arrow"),
    ],
)
def test_damaged_folders_are_refused(tmp_path: Path, file: str, text: str) -> None:
    saved = save_by_hand(tmp_path / "saved", [{"bytes": b"1", "path": None}])
    (tmp_path / "saved" / file).write_text(text)
    with pytest.raises(SourceError):
        open_source(saved).listing()


def test_by_name_of_a_local_folder(tmp_path: Path, build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "local").mkdir()
    build(11).to_parquet(tmp_path / "local" / "train-0.parquet")
    build(3, seed=1).to_parquet(tmp_path / "local" / "test-0.parquet")
    monkeypatch.chdir(tmp_path)
    source = open_source("hf:local")
    assert source.address.path == f"hf:{tmp_path}/local"
    assert len(source.listing().images) == 14
    check_rows("hf:local", "train", 11)
    check_rows(f"hf:{tmp_path}/local@default", "test", 3, seed=1)
    assert source.locate("#train#3") == f"hf:{tmp_path}/local#train#3"


def test_by_name_of_a_folder_of_images(tmp_path: Path, datasets: Any) -> None:
    """The library notes where the files are; they are read there, and nowhere else."""
    for i, array in enumerate(pixels(4)):
        path = tmp_path / "local" / "train" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
    source = open_source(f"hf:{tmp_path}/local")
    rows = source.listing().images.to_pylist()
    assert [row["label"] for row in rows] == ["a", "a", "b", "b"]
    for row, i in zip(rows, (0, 2, 1, 3), strict=True):
        assert np.array_equal(decoded(source.read(row["uri"])), pixels(4)[i])
        assert source.locate(row["uri"]) == f"{tmp_path}/local/train/{'ab'[i % 2]}/{i}.png"


def test_a_name_that_cannot_be_loaded_says_how_to_get_it(tmp_path: Path) -> None:
    """In a process of its own: the library reads at its import whether it is offline."""
    script = "from embeddings.sources import open_source; open_source('hf:nobody/nothing@x').listing()"
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, check=False)
    last = found.stderr.strip().splitlines()[-2:]
    assert last[0].startswith("embeddings.errors.SourceError: hf:nobody/nothing cannot be loaded: ")
    assert "datasets.load_dataset('nobody/nothing', 'x').save_to_disk('FOLDER')" in last[1]


def test_without_the_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embeddings.sources.huggingface.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="pip install 'datasets"):
        open_source("hf:mnist")
