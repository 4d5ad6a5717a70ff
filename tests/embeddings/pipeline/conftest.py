"""Thirty pictures, and shards of eight."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from embeddings.pipeline import shards


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_ROWS", 8)


@pytest.fixture
def photos(pictures: Callable[..., dict[str, bytes]], image_folder: Callable[..., Path]) -> Path:
    return image_folder(pictures(30))
