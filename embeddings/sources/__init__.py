"""Where images come from: one address in, one sorted listing out, bytes on request.

An address is ``PATH[#SELECTOR,...]``:

    photos/                     a folder of images; class sub-folders become labels, ``folder`` is a column
    photos.txt                  a list of image files, one a line
    emoji.parquet, lots.csv     a table with a row per image: its bytes, or its path
    web/*.tar, web-{000..031}.tar   WebDataset shards; tables and Arrow files may come in shards too
    saved/, hf:NAME             a Hugging Face data set, saved to disk or by name
    torchvision:CIFAR10@FOLDER  a data set of torchvision, from the folder where it keeps it
    sensor.npy, clips.npz       vectors of your own, of any modality, in place of images; ``#encoder:NAME`` tells what
                                made them; a table with a column of lists of floats and no images serves too
    s3://bucket/photos/         any of these behind a URL that fsspec knows

Selectors keep rows (``half=B``; the same column twice means either value; no value means empty), name the columns of
roles (``label:subgroup``, ``group:lot``), and say how an image is to be seen (``tiles:512``; see ``View``). They work
on ``label``, ``group`` and every other column:

    photos/#label=cat,label=dog
    emoji.parquet#variant=base,label:subgroup
    inspection/#tiles:512,overlap:0.25
    lots.csv#color=50%2C50      a comma in a value, and = or : in a column name, are percent-encoded

A path that itself contains ``#`` is found: the longest part before a ``#`` that exists is the path. Selectors see the
columns as they stand in the source; a column that takes a role stays among the others, and the one it replaces too.

Every source offers the same listing, so everything downstream is blind to the kind.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import PurePosixPath
from typing import Any, Protocol
from urllib.parse import unquote

import pyarrow as pa

from embeddings import files
from embeddings.errors import SourceError, StorageError

LISTING = pa.schema(
    [
        ("key", pa.string()),  # unique in the source, stable across machines and file order
        ("uri", pa.string()),  # where the bytes are: a path below the folder of the source, or "#KEY" inside a table
        ("size", pa.int64()),  # bytes of the file that holds the image
        ("stamp", pa.string()),  # changes when that file changes (mtime or etag)
        ("label", pa.string()),
        ("group", pa.string()),  # rows that belong together: one part, one lot, one camera
        ("meta", pa.string()),  # every other column, as a JSON object of strings
    ]
)
REJECTED = pa.schema([("key", pa.string()), ("uri", pa.string()), ("reason", pa.string())])
TABLE_SUFFIXES = (".parquet", ".csv", ".tsv", ".arrow", ".feather")
SUFFIXES = {
    "table": TABLE_SUFFIXES,
    "paths": (".txt", ".lst"),
    "tar": (".tar",),
    "vectors": (".npy", ".npz"),
}
KINDS = {
    "folder": "embeddings.sources.folder:FolderSource",
    "table": "embeddings.sources.table:TableSource",
    "paths": "embeddings.sources.paths:open_list",
    "tar": "embeddings.sources.tar:TarSource",
    "shards": "embeddings.sources.paths:open_pattern",
    "saved": "embeddings.sources.huggingface:open_saved",
    "hf": "embeddings.sources.huggingface:open_named",
    "torchvision": "embeddings.sources.torchvision_data:TorchvisionSource",
    "vectors": "embeddings.sources.vectors:refuse_vectors",
}
NAMED = ("hf", "torchvision")  # kinds known by what stands before the colon
SAVED_MARKS = ("dataset_dict.json", "dataset_info.json")  # of a data set saved to disk by the ``datasets`` library
_ROLES = ("label", "group", "encoder")
_VIEW: dict[str, Callable[[str], Any]] = {"tiles": int, "overlap": float, "roi": str, "white": int, "decode": str}


@dataclass(frozen=True, kw_only=True)
class View:
    """How the images of a source are to be seen; part of what decides their vectors."""

    tiles: int | None = None  # edge in pixels of the squares that images are cut into; None: whole images
    overlap: float = 0.0  # share of a tile that the next one repeats, 0 <= overlap < 1
    roi: str | None = None  # region of interest: a mask for all images, or a folder with a mask per key; white is in
    white: int | None = None  # the value that is white in 16-bit images (4095 for a 12-bit camera); None: 65535
    decode: str = "scaled"  # large JPEGs only as large as the encoder needs; "exact": in full

    def __post_init__(self) -> None:
        if self.tiles is not None and self.tiles < 8:
            raise SourceError(f"Tiles of {self.tiles} pixels; wanted 8 or more.", hint="Choose larger --tiles.")
        if not 0 <= self.overlap <= 0.9:
            raise SourceError(f"An overlap of {self.overlap:g}; wanted a share from 0 to 0.9.", hint="Try 0.25.")
        if self.overlap and self.tiles is None:
            raise SourceError("An overlap without tiles.", hint="Say how large the tiles are, as in tiles:512.")
        if self.white is not None and not 1 <= self.white <= 65_535:
            raise SourceError(f"White is {self.white}; wanted 1 to 65535.", hint="A 12-bit camera has 4095.")
        if self.decode not in ("scaled", "exact"):
            raise SourceError(f"Decoding {self.decode!r} is not known; wanted scaled or exact.", hint="Leave it out.")


_WHOLE = View()


@dataclass(frozen=True, kw_only=True)
class Address:
    """A parsed source address."""

    path: str
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()  # (column, allowed values), all must hold
    label: str | None = None  # column that serves as label, if not "label"
    group: str | None = None
    encoder: str | None = None  # what made the vectors of a source of vectors
    view: View = _WHOLE

    def __str__(self) -> str:
        selectors = [f"{_quote(c, '%,=:')}={_quote(v, '%,')}" for c, values in self.where for v in values]
        named = [(role, getattr(self, role)) for role in _ROLES]
        roles = [f"{role}:{_quote(name, '%,')}" for role, name in named if name]
        differing = [(f.name, getattr(self.view, f.name), getattr(_WHOLE, f.name)) for f in fields(View)]
        view = [f"{name}:{_quote(str(value), '%,')}" for name, value, default in differing if value != default]
        return "#".join(filter(None, [self.path, ",".join(selectors + roles + view)]))


@dataclass(frozen=True)
class Listing:
    """What a source holds: ``images`` (schema LISTING, sorted by key) and what was refused while listing.

    ``images`` and ``rejected`` together are every row the selectors ask for; ``ignored`` counts, by suffix, the files
    of a folder that do not claim to be images.
    """

    images: pa.Table
    rejected: pa.Table = field(default_factory=REJECTED.empty_table)
    ignored: Mapping[str, int] = field(default_factory=dict)


class Source(Protocol):
    """Read access to one set of images. Thread-safe; restartable; opening it reads no image."""

    address: Address  # with an absolute path

    def listing(self) -> Listing:
        """Every image, sorted by key.

        Raises:
            SourceError: nothing there, or a column that was asked for is missing.
        """

    def read(self, uri: str) -> bytes:
        """Encoded bytes of the image at a ``uri`` of the listing.

        Raises:
            ImageError: this image cannot be read, with the reason.
        """

    def locate(self, uri: str) -> str:
        """Absolute address of the image at a ``uri`` of the listing, for people and other programs."""


def parse_address(text: str) -> Address:
    """Splits ``PATH[#SELECTOR,...]``; the path stays as typed.

    Raises:
        SourceError: no path, or a selector that is neither COLUMN=VALUE nor NAME:VALUE with a name that is known.
    """
    before = [text[:i] for i, character in enumerate(text) if character == "#"]
    found = (p for p in [text, *reversed(before)] if p and _stands(p))
    path = next(found, before[0]) if before else text
    if not path:
        raise SourceError(f"{text!r} names no source.", hint="Give a folder of images, or a table, list or shards.")
    where: dict[str, tuple[str, ...]] = {}
    settings: dict[str, str] = {}
    for selector in filter(None, text[len(path) + 1 :].split(",")):
        name, sign, value = _parse_selector(selector, text)
        if sign == "=":
            where[name] = (*where.get(name, ()), value)
        elif settings.setdefault(name, value) != value:
            raise SourceError(f"{text!r} says {name} twice: {settings[name]} and {value}.", hint="Keep one.")
    roles = {name: settings.pop(name) for name in _ROLES if name in settings}
    return Address(path=path, where=tuple(where.items()), view=_parse_view(settings, text), **roles)


def _stands(path: str) -> bool:
    try:
        return files.exists(path)
    except StorageError:  # some stores refuse to tell of what is not there
        return False


def viewed(text: str, **changes: Any) -> Address:
    """The address in ``text``, its images seen with these fields of ``View`` changed where they are not None.

    Raises:
        SourceError: as ``parse_address``; a view that does not make sense.
    """
    address = parse_address(text)
    return replace(address, view=replace(address.view, **{k: v for k, v in changes.items() if v is not None}))


def open_source(address: str | Address) -> Source:
    """The source at an address; see the module for the kinds.

    Raises:
        SourceError: nothing stands there, or it is of no known kind; as ``parse_address``.
        MissingExtraError: the kind needs a package that is not installed.
    """
    parsed = parse_address(address) if isinstance(address, str) else address
    kind = "vectors" if holds_vectors(parsed) else kind_of(parsed.path)
    if kind not in NAMED:
        parsed = replace(parsed, path=files.absolute(parsed.path))
    module, name = KINDS[kind].split(":")
    source: Source = getattr(importlib.import_module(module), name)(parsed)
    return source


def kind_of(path: str) -> str:
    """Which of KINDS stands at a path; ``vectors`` for arrays, which are no images.

    Raises:
        SourceError: nothing stands there, or it is of no known kind.
    """
    scheme = path.partition(":")[0]
    if scheme in NAMED and not path.startswith(f"{scheme}://"):
        return scheme
    if files.is_folder(path):
        return "saved" if any(files.exists(f"{path.rstrip('/')}/{name}") for name in SAVED_MARKS) else "folder"
    if not files.exists(path):
        if any(character in path for character in "*?[{"):
            return "shards"
        raise _not_found(files.absolute(path))
    suffix = PurePosixPath(files.name_of(path)).suffix.lower()
    kind = next((kind for kind, suffixes in SUFFIXES.items() if suffix in suffixes), None)
    if kind is None:
        raise _unknown_kind(files.absolute(path))
    return "vectors" if kind == "table" and _holds_vectors(path) else kind


def holds_vectors(address: Address) -> bool:
    """True for vectors in place of images, or what is said to be such.

    Raises:
        SourceError: as ``kind_of``.
    """
    return address.encoder is not None or kind_of(address.path) == "vectors"


def _holds_vectors(path: str) -> bool:
    from embeddings.sources.vectors import is_vectors

    return is_vectors(path)


def _parse_selector(selector: str, text: str) -> tuple[str, str, str]:
    sign = next((character for character in selector if character in "=:"), "")
    name, value = (unquote(part) for part in selector.split(sign, 1)) if sign else ("", "")
    if not name or (sign == ":" and (name not in (*_ROLES, *_VIEW) or not value)):
        raise SourceError(
            f"Cannot read the selector {selector!r} in {text!r}.",
            hint="Write COLUMN=VALUE, label:COLUMN, group:COLUMN, encoder:NAME, tiles:PX, overlap:SHARE, roi:MASK, "
            "white:VALUE or decode:exact, separated by commas (%2C is a comma in a value).",
        )
    return name, sign, value


def _parse_view(settings: dict[str, str], text: str) -> View:
    try:
        return View(**{name: _VIEW[name](value) for name, value in settings.items()})
    except ValueError:
        raise SourceError(
            f"Cannot read {', '.join(f'{k}:{v}' for k, v in settings.items())} in {text!r}.",
            hint="tiles and white are whole numbers, overlap is a share such as 0.25.",
        ) from None


def _quote(text: str, reserved: str) -> str:
    return "".join(f"%{ord(c):02X}" if c in reserved else c for c in text)


def _not_found(path: str) -> SourceError:
    parent, _, name = path.rstrip("/").rpartition("/")
    while parent and not files.exists(parent):
        parent, _, name = parent.rpartition("/")
    names = files.list_names(parent or "/")
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(f'{parent}/{n}' for n in near)}?" if near else "Check the path."
    return SourceError(f"No folder or file at {path!r}: {parent or '/'} has no {name!r}.", hint=hint)


def _unknown_kind(path: str) -> SourceError:
    from embeddings.sources.folder import IMAGE_SUFFIXES

    suffix = PurePosixPath(path).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return SourceError(f"{path!r} is a single image.", hint="Give the folder that holds it.")
    known = ", ".join(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
    wanted = f"wanted a folder of images, or a file that ends in one of {known}"
    hint = "Unpack it first." if suffix in (".zip", ".gz", ".tgz", ".7z", ".bz2", ".xz") else "Check the path."
    return SourceError(f"{path!r} is of unknown kind {suffix or '(no suffix)'}: {wanted}.", hint=hint)
