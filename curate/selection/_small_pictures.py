"""What two pictures look like side by side, in 8 x 8 colors: tells copies from pictures that are merely alike.

    contrast(a, b) = min over crops z of max over cells and channels |a - crop(b, z)|, and the other way round

in levels of 0 to 255. A vector and a gray hash cannot tell a JPEG of an emoji from the same emoji in another skin tone,
nor a JPEG of a digit from another such digit; 64 mean colors can. Measured on pairs whose hashes differ in at most 4
bits, share with a contrast of at most 18:

                    JPEG 50   0.5 to 2 times as large   3% cropped   8% cropped   another picture
    emoji             1.00                      1.00          1.00          .12              .013
    clip art          1.00                      1.00           .96          .56              .070
    digits            1.00                      1.00           .98          .98              .020
    garments          1.00                      1.00           .82          .82              .015

(Of 28 pixels both crops take one from each side. Some clip arts may be one drawing saved twice.) Pictures are read only
for pairs that vectors and hashes leave open; where one cannot be had, the contrast is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from embeddings.errors import CurateError
from embeddings.pictures.views import load_image
from embeddings.sources import Source, open_source
from embeddings.store import EmbeddingStore

EDGE = 8
CROPS = (0.0, 0.02, 0.04, 0.06, 0.08)  # shares of width and height that are cut away
KEPT = 32_768  # pictures remembered, of 2 KB each
PAIRS = 8192  # compared at once

Place = tuple[int, int]  # number of the store, row in it


class PictureColors:
    """Colors of the pictures of some stores, read from their sources when first asked for.

    One search of these stores after the other may ask. Memory: the pictures remembered.
    """

    def __init__(self, stores: Sequence[EmbeddingStore]) -> None:
        self._stores = stores
        self._sources = [_open(store) for store in stores]
        self._known: dict[Place, np.ndarray | None] = {}

    @property
    def opened(self) -> list[bool]:
        """Whether the pictures of each store can be had."""
        return [source is not None for source in self._sources]

    def of(self, places: set[Place]) -> Mapping[Place, np.ndarray | None]:
        """Colors of these pictures at least; None for those that cannot be had."""
        missing = sorted(places - self._known.keys())
        if len(self._known) + len(missing) > KEPT:
            self._known = {place: self._known[place] for place in places & self._known.keys()}
        with ThreadPoolExecutor() as threads:
            self._known.update(zip(missing, threads.map(self.read, missing), strict=True))
        return self._known

    def forget_lost(self) -> None:
        """Asks again for what could not be had so far."""
        self._known = {place: found for place, found in self._known.items() if found is not None}

    def read(self, place: Place) -> np.ndarray | None:
        """Colors of a picture as it is now; None if it cannot be had."""
        store, row = self._stores[place[0]], place[1]
        source, rows = self._sources[place[0]], store.rows()
        if source is None:
            return None
        try:
            return colors(load_image(source, rows["uri"][row].as_py(), sha256=rows["sha256"][row].as_py()))
        except (CurateError, OSError):
            return None


class SmallPictures:
    """The pictures that one search among some stores asks for, and which of them could be had.

    Memory: two bytes for every row of the stores, and the pictures remembered.
    """

    def __init__(self, stores: Sequence[EmbeddingStore], shared: PictureColors | None = None) -> None:
        """Of some stores; what earlier searches of them have read is shared."""
        self._colors = shared or PictureColors(stores)
        self._colors.forget_lost()
        self._had = _Marks([len(store) for store in stores])
        self._lost = _Marks([len(store) for store in stores])

    @property
    def read(self) -> int:
        """Pictures that could be had so far."""
        return len(self._had)

    @property
    def opened(self) -> list[bool]:
        """Whether the pictures of each store can be had."""
        return self._colors.opened

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Store and row [p, 2] int64 of the pictures that could be had so far, and of those that could not."""
        return {"pictures": self._had.to_array(), "lost": self._lost.to_array()}

    def restore(self, known: Mapping[str, np.ndarray]) -> None:
        """Counts on from what ``to_arrays`` gave."""
        for name, marks in (("pictures", self._had), ("lost", self._lost)):
            marks.clear()
            marks.add(known[name])

    def is_back(self, known: Mapping[str, np.ndarray]) -> bool:
        """Whether a picture that could not be had then can be had now."""
        return any(self._colors.read((store, row)) is not None for store, row in known["lost"].tolist())

    def __bool__(self) -> bool:
        """Whether any picture can be had."""
        return any(self.opened)

    def contrast(self, first: Sequence[Place], second: Sequence[Place]) -> np.ndarray:
        """Contrast [p] float64 of pairs of pictures, in levels; NaN where one of them cannot be had."""
        found = np.full(len(first), np.nan)
        for start in range(0, len(first), PAIRS):
            pairs = list(zip(first[start : start + PAIRS], second[start : start + PAIRS], strict=True))
            known = self._asked({place for pair in pairs for place in pair})
            for number, (a, b) in enumerate(pairs, start):
                x, y = known[a], known[b]
                if x is not None and y is not None:
                    found[number] = contrast(x, y)
        return found

    def _asked(self, places: set[Place]) -> Mapping[Place, np.ndarray | None]:
        """Colors of these pictures, marked as had or lost whether or not another search read them first."""
        known, asked = self._colors.of(places), sorted(places)
        rows = np.array(asked, np.int64).reshape(-1, 2)
        had = np.array([known[place] is not None for place in asked], bool)
        self._had.add(rows[had])
        self._lost.add(rows[~had & np.array(self.opened)[rows[:, 0]]])
        return known


def colors(picture: Image.Image) -> np.ndarray:
    """Colors int16 [crops, 192] of an RGB picture, cropped more and more."""
    width, height = picture.size
    boxes = [(width * z / 2, height * z / 2, width * (1 - z / 2), height * (1 - z / 2)) for z in CROPS]
    small = [np.asarray(picture.resize((EDGE, EDGE), Image.Resampling.LANCZOS, box=box)) for box in boxes]
    return np.stack(small).reshape(len(CROPS), -1).astype(np.int16)


def contrast(a: np.ndarray, b: np.ndarray) -> float:
    """Contrast of two pictures by their ``colors``: largest difference of a cell, at the crop that suits best."""
    return float(min(np.abs(a - b[0]).max(axis=1).min(), np.abs(a[0] - b).max(axis=1).min()))


class _Marks:
    """Some rows of some stores, a byte for each row there is."""

    def __init__(self, sizes: Sequence[int]) -> None:
        """From the number of rows of every store; none is marked."""
        self._rows = [np.zeros(size, bool) for size in sizes]

    def __len__(self) -> int:
        return sum(int(np.count_nonzero(rows)) for rows in self._rows)

    def add(self, places: np.ndarray) -> None:
        """Marks places [p, 2]: number of the store, row in it."""
        for number in np.unique(places[:, 0]):
            self._rows[number][places[places[:, 0] == number, 1]] = True

    def clear(self) -> None:
        """Marks none."""
        for rows in self._rows:
            rows[:] = False

    def to_array(self) -> np.ndarray:
        """Places [p, 2] int64, ascending."""
        parts = [np.flatnonzero(rows) for rows in self._rows]
        numbers = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        return np.column_stack([numbers, np.concatenate([np.zeros(0, np.int64), *parts])]).astype(np.int64)


def _open(store: EmbeddingStore) -> Source | None:
    """The source of a store, if it is still there and holds pictures."""
    if not store.source or not store.spec.size:
        return None
    try:
        return open_source(store.source)
    except (CurateError, OSError):
        return None
