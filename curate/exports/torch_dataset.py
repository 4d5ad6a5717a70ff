"""A selection as a torch ``Dataset``: images come straight from their sources, by path or byte offset."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from curate.exports.originals import open_sources
from curate.results import Selection
from embeddings.pictures.views import load_image
from embeddings.sources import Source


class SelectionDataset(Dataset[tuple[Any, int]]):
    """``dataset[i] -> (image, row)``: the image RGB, upright, and the row of the selection it comes from.

    Nothing is copied or opened until an image is asked for; every process opens the sources for itself, so a DataLoader
    may have any number of workers, forked or spawned.
    """

    def __init__(
        self,
        selection: Selection | str | Path,
        transform: Callable[[Any], Any] | None = None,
        *,
        stage: int | None = None,
        repeat: bool = False,
    ) -> None:
        """Takes the images of a selection in rank order.

        Args:
            selection: A Selection or the folder it was saved in.
            transform: Called with the PIL image; what it returns takes its place.
            stage: Only the images of this stage of training.
            repeat: Each image as often as its ``repeats`` say, one after the other.
        """
        self.selection = selection if isinstance(selection, Selection) else Selection.open(selection)
        self.transform = transform
        table = self.selection.rows()
        rows = np.arange(len(table))
        if stage is not None:
            rows = rows[np.asarray(table["stage"].fill_null(0)) == stage]
        if repeat:
            rows = np.repeat(rows, np.asarray(table["repeats"].fill_null(1))[rows])
        self._rows = rows
        self._columns = [table[name].to_pylist() for name in ("source", "uri", "sha256")]
        self._opened: tuple[int, dict[str, Source]] | None = None  # and by which process

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Raises ImageError if the image is gone, does not decode, or changed since it was selected."""
        row = int(self._rows[index])
        name, uri, sha256 = (column[row] for column in self._columns)
        image = load_image(self._sources()[name], uri, sha256=sha256)
        return (self.transform(image) if self.transform else image), row

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def _sources(self) -> dict[str, Source]:
        """The sources, opened by this process: what a fork inherits may be in use or locked."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), open_sources(self.selection)
        return self._opened[1]
