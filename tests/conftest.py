"""Shared fixtures: one thread for torch, and small generated image sets (real bytes, no downloads)."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings
from PIL import Image

os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch reads it at its import, which comes later
settings.register_profile("curate", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("curate")

Pictures = dict[str, bytes]  # path below a folder -> encoded image
LONGEST = ("test_readme.py", "test_ranks.py", "test_real_data.py")  # begun first, so that two workers end together


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files with the longest tests first, all else in its order."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(autouse=True)
def _one_torch_thread() -> None:
    """Tests that import torch run it on one thread; tests that do not never pay for the import."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """``encode(array or image, format="PNG", **options)`` -> encoded bytes."""

    def _encode(picture: np.ndarray | Image.Image, format: str = "PNG", **options: object) -> bytes:
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        buffer = io.BytesIO()
        image.save(buffer, format, **options)
        return buffer.getvalue()

    return _encode


@pytest.fixture(scope="session")
def pictures(encode: Callable[..., bytes]) -> Callable[..., Pictures]:
    """``pictures(n=12, classes=("cat", "dog"), size=(16, 12), seed=0)`` -> PNGs by path, ``class/000.png`` in turn.

    Classes differ in color, images of a class in texture, so that an encoder can tell both apart.
    """

    def _pictures(
        n: int = 12, classes: Sequence[str] = ("cat", "dog"), size: tuple[int, int] = (16, 12), seed: int = 0
    ) -> Pictures:
        rng = np.random.default_rng(seed)
        colors = rng.integers(40, 216, (len(classes), 3))
        found = {}
        for i in range(n):
            kind = i % len(classes)
            texture = rng.integers(-40, 40, (size[1], size[0], 3))
            name = f"{classes[kind]}/{i:03d}.png".removeprefix("/")
            found[name] = encode((colors[kind] + texture).astype(np.uint8))
        return found

    return _pictures


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """``image_folder(pictures, name="photos")`` writes the pictures below ``tmp_path / name``, which it returns."""

    def _image_folder(pictures: Pictures, name: str = "photos") -> Path:
        for path, data in pictures.items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        return tmp_path / name

    return _image_folder


@pytest.fixture
def image_table(tmp_path: Path) -> Callable[..., Path]:
    """``image_table(pictures, name="photos.parquet", **columns)`` -> Parquet with bytes, labels and further columns."""

    def _image_table(pictures: Pictures, name: str = "photos.parquet", **columns: Sequence[object]) -> Path:
        table = pa.table(
            {
                "key": list(pictures),
                "image": [{"bytes": data, "path": path.rsplit("/", 1)[-1]} for path, data in pictures.items()],
                "label": [path.split("/")[0] if "/" in path else None for path in pictures],
                **columns,
            }
        )
        pq.write_table(table, tmp_path / name, row_group_size=5)
        return tmp_path / name

    return _image_table
