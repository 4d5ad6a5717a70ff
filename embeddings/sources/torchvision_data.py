"""Labeled data sets of torchvision: ``torchvision:NAME@ROOT``, ROOT being the folder where torchvision keeps it.

All splits come together, told apart by the column ``split`` (``#split=train`` opens only that one); the label is the
name of the class, or its number where torchvision has no names. Data sets that are files on disk give their bytes, key:
the path below ROOT. The others are arrays: their images come as PGM and PPM (TIFF for pixels that these cannot hold),
which are uncompressed, so that the digest of the bytes is the same everywhere; key: ``SPLIT#row``.

Nothing is ever downloaded. Of all data sets here only CIFAR is kept as pickles, which run code when they are loaded;
torchvision loads them only if their checksum is that of the published files, so no file can bring code of its own.
Data sets that are loaded from pickles without such a check (LSUN), have no classes, or are plain folders of images are
left out: give the folder itself, or a table made from it.
"""

from __future__ import annotations

import hashlib
import inspect
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from embeddings import files
from embeddings.encoders.torchvision_import import import_torchvision
from embeddings.errors import ImageError, SourceError, UnknownNameError, one_line
from embeddings.sources import Address, Listing
from embeddings.sources.folder import read_file
from embeddings.sources.rows import MISSING, Rows, key_order, listing_of, reject_repeats

Splits = Mapping[str, Mapping[str, Any]]  # by name, the arguments that open it


def _named(*names: str) -> Splits:
    return {name: {"split": name} for name in names}


_ALL: Splits = {"all": {}}
_TRAIN: Splits = {"train": {"train": True}, "test": {"train": False}}
_VAL = _named("train", "val", "test")
DATA_SETS: Mapping[str, Splits] = {
    "CIFAR10": _TRAIN,
    "CIFAR100": _TRAIN,
    "CLEVRClassification": _named("train", "val"),
    "Country211": _named("train", "valid", "test"),
    "DTD": _VAL,
    "EuroSAT": _ALL,
    "FGVCAircraft": _VAL,
    "FakeData": _ALL,
    "FashionMNIST": _TRAIN,
    "Flowers102": _VAL,
    "Food101": _named("train", "test"),
    "ImageFolder": _ALL,
    "Imagenette": _named("train", "val"),
    "KMNIST": _TRAIN,
    "MNIST": _TRAIN,
    "RenderedSST2": _VAL,
    "SEMEION": _ALL,
    "STL10": _named("train", "test", "unlabeled"),
    "SUN397": _ALL,
    "SVHN": _named("train", "test", "extra"),
    "StanfordCars": _named("train", "test"),
    "USPS": _TRAIN,
}
ROOTLESS = ("FakeData",)
_PORTABLE = ("1", "L", "I;16", "RGB")  # modes that PGM and PPM hold without loss


class TorchvisionSource:
    """A data set of torchvision; see the module."""

    def __init__(self, address: Address) -> None:
        """Splits the address; opens nothing.

        Raises:
            UnknownNameError: no such data set or split.
            SourceError: a data set that is not read here, or no folder given.
        """
        name, _, root = address.path.removeprefix("torchvision:").partition("@")
        _check_name(name)
        if name not in ROOTLESS and not root:
            raise SourceError(
                f"{address.path!r} does not say in which folder torchvision keeps it.",
                hint=f"Write torchvision:{name}@FOLDER, the root= it was downloaded with.",
            )
        self._name, self._root = name, files.absolute(root) if root else ""
        self.address = replace(address, path=f"torchvision:{name}" + (f"@{self._root}" if root else ""))
        self._splits = _chosen(name, address)
        self._lock = Lock()
        self._opened: dict[str, Any] = {}

    def listing(self) -> Listing:
        """Every image of the splits that are asked for, sorted by key.

        Raises:
            SourceError: a split is not there, or selectors that do not fit.
        """
        parts = [self._rows(split) for split in self._splits]
        rows = Rows(
            **{name: pa.concat_arrays([part[name] for part in parts]) for name in ("key", "uri", "size", "stamp")},
            reason=pa.concat_arrays([part["reason"] for part in parts]),
            columns={name: pa.concat_arrays([part[name] for part in parts]) for name in ("label", "split")},
        )
        return listing_of(reject_repeats(rows.take(key_order(rows.key))), self.address)

    def read(self, uri: str) -> bytes:
        """Bytes of an image that is a file, or an array as PGM, PPM or TIFF.

        Raises:
            ImageError: this image cannot be read, with the reason.
        """
        if not uri.startswith("#"):
            return read_file(self._root, uri)
        split, _, digits = uri[1:].partition("#")
        if split not in self._splits or not digits.isdecimal():
            raise ImageError("the data set has no image with this key")
        try:
            data, row = self._open(split), int(digits)
        except SourceError as error:  # it was there when it was listed
            raise ImageError(error.message) from error
        if row >= len(data):
            raise ImageError("the data set has no image with this key")
        with self._lock:  # FakeData draws from torch's global generator
            image, _ = data[row]
        return _encoded(image)

    def locate(self, uri: str) -> str:
        """Path of an image that is a file; else ``torchvision:NAME@ROOT#SPLIT#row``."""
        return self.address.path + uri if uri.startswith("#") else files.join(self._root, uri)

    def _open(self, split: str) -> Any:
        with self._lock:
            if split not in self._opened:
                with _loading(self._name, self._root, split):
                    self._opened[split] = _data_set(self._name, self._root, split)
            return self._opened[split]

    def _rows(self, split: str) -> dict[str, pa.Array]:
        """Columns of a split, in its order."""
        data = self._open(split)
        with _loading(self._name, self._root, split):
            n = len(data)
            images, targets = _images_and_targets(data)
            rows = _array_rows(data, split, n) if images is None else _file_rows(self._root, images)
            labels = _labels(targets, getattr(data, "classes", ()))
        return rows | {"label": labels, "split": pa.repeat(split, n)}


def _check_name(name: str) -> None:
    if name in DATA_SETS:
        return
    if name in import_torchvision().datasets.__all__:
        raise SourceError(
            f"torchvision:{name} is not read here: it has no classes, is kept as pickles, or is a plain folder.",
            hint=f"Give the folder of its images, or a Parquet table made from it. Read here: {', '.join(DATA_SETS)}.",
        )
    raise UnknownNameError("torchvision data set", name, DATA_SETS)


def _chosen(name: str, address: Address) -> list[str]:
    """The splits that the selectors ask for."""
    known = list(DATA_SETS[name])
    asked = next((values for column, values in address.where if column == "split"), known)
    for split in asked:
        if split not in known:
            raise UnknownNameError(f"split of {name}", split, known)
    return [split for split in known if split in asked]


@contextmanager
def _loading(name: str, root: str, split: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # its parsers raise nearly anything
        where = f"torchvision:{name} ({split}) in {root!r}" if root else f"torchvision:{name} ({split})"
        raise SourceError(f"{where} does not load: {one_line(error)}", hint=_how_to_get(name, root, split)) from error


def _how_to_get(name: str, root: str, split: str) -> str:
    if "download" not in inspect.signature(getattr(import_torchvision().datasets, name).__init__).parameters:
        return "Check the folder."
    told = "".join(f", {key}={value!r}" for key, value in DATA_SETS[name][split].items())
    hint = "Nothing is downloaded here. Run once, in Python: from torchvision.datasets import "
    hint += f"{name}; {name}({root!r}{told}, download=True)."
    others = [other for other in DATA_SETS[name] if other != split]
    return f"{hint} Or select a split that is there, as in #split={others[0]}." if others else hint


def _data_set(name: str, root: str, split: str) -> Any:
    kind = getattr(import_torchvision().datasets, name)
    known = inspect.signature(kind.__init__).parameters
    offered = {"root": root, "download": False, "loader": str}  # some download by default; paths in place of pictures
    arguments = {key: value for key, value in offered.items() if key in known}
    return kind(**arguments, **DATA_SETS[name][split])


def _images_and_targets(data: Any) -> tuple[list[str] | None, Sequence[Any]]:
    """Paths of the images if they are files, else None; and the numbers of their classes."""
    targets = getattr(data, "targets", getattr(data, "labels", None))
    if hasattr(data, "data") and targets is not None:
        return None, np.asarray(targets).tolist()
    items = [data[i] for i in range(len(data))]
    paths = [image for image, _ in items if isinstance(image, str)]
    return (paths if len(paths) == len(items) else None), [target for _, target in items]


def _labels(targets: Sequence[Any], classes: Sequence[Any]) -> pa.Array:
    """Names [n] of classes, their numbers where there are no names; null for negative numbers, which mean unknown."""
    names = [name if isinstance(name, str) else ", ".join(name) for name in classes]
    found = [names[t] if 0 <= t < len(names) else str(t) if t >= 0 else None for t in targets]
    return pa.array(found, pa.string())


def _file_rows(root: str, paths: list[str]) -> dict[str, pa.Array]:
    shown = [path.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for path in paths]
    uris = [path.removeprefix(f"{root.rstrip('/')}/") for path in shown]
    infos = files.stat_files(root, uris)
    return {
        "key": pc.utf8_normalize(pa.array(uris, pa.string()), form="NFC"),
        "uri": pa.array(uris, pa.string()),
        "size": pa.array([info.size if info else 0 for info in infos], pa.int64()),
        "stamp": pa.array([info.stamp if info else "" for info in infos], pa.string()),
        "reason": pa.array([None if info else MISSING for info in infos], pa.string()),
    }


def _array_rows(data: Any, split: str, n: int) -> dict[str, pa.Array]:
    key = [f"{split}#{i}" for i in range(n)]
    array = np.asarray(data.data) if hasattr(data, "data") else np.empty((n, 0), np.uint8)
    return {
        "key": pa.array(key, pa.string()),
        "uri": pa.array([f"#{k}" for k in key], pa.string()),
        "size": pa.repeat(pa.scalar(array[:1].nbytes, pa.int64()), n),
        "stamp": pa.repeat(_digest(array), n),
        "reason": pa.nulls(n, pa.string()),
    }


def _digest(array: np.ndarray) -> str:
    """Short digest of the pixels, block by block."""
    state = hashlib.sha256(f"{array.shape} {array.dtype}".encode())
    for start in range(0, len(array), 1024):
        state.update(np.ascontiguousarray(array[start : start + 1024]).data)
    return state.hexdigest()[:16]


def _encoded(image: Image.Image) -> bytes:
    if image.mode == "P" and image.has_transparency_data:  # which a TIFF's palette cannot hold
        image = image.convert("RGBA")
    buffer = io.BytesIO()
    image.save(buffer, "PPM" if image.mode in _PORTABLE else "TIFF")
    return buffer.getvalue()
