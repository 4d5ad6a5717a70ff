"""Where images come from: one address in, one sorted listing out, bytes on request.

An address is ``PATH[#SELECTOR,...]``. Selectors keep rows (``half=B``; the same column twice means either value; no
value means empty) and name roles (``label:subgroup``, ``group:lot``); they work on ``label``, ``group`` and every
other column:

    photos/                     a folder of images; class sub-folders become labels, ``folder`` is a column
    photos/#label=cat,label=dog
    emoji.parquet#variant=base,label:subgroup
    lots.csv#color=50%2C50      a comma in a value, and = or : in a column name, are percent-encoded

A path that itself contains ``#`` is found: the longest part before a ``#`` that exists is the path. Selectors see the
columns as they stand in the source; a column that takes a role stays among the others, and the one it replaces too.

Every source offers the same listing, so everything downstream is blind to the kind.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Protocol
from urllib.parse import unquote

import pyarrow as pa

from embeddings import files
from embeddings.errors import SourceError

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
TABLE_SUFFIXES = (".parquet", ".csv", ".tsv")
_ROLES = ("label", "group")


@dataclass(frozen=True, kw_only=True)
class Address:
    """A parsed source address."""

    path: str
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()  # (column, allowed values), all must hold
    label: str | None = None  # column that serves as label, if not "label"
    group: str | None = None

    def __str__(self) -> str:
        selectors = [f"{_quote(c, '%,=:')}={_quote(v, '%,')}" for c, values in self.where for v in values]
        roles = [f"{role}:{_quote(c, '%,')}" for role, c in (("label", self.label), ("group", self.group)) if c]
        return "#".join(filter(None, [self.path, ",".join(selectors + roles)]))


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


def parse_address(text: str) -> Address:
    """Splits ``PATH[#SELECTOR,...]``; the path stays as typed.

    Raises:
        SourceError: no path, or a selector that is neither COLUMN=VALUE nor label:COLUMN nor group:COLUMN.
    """
    before = [text[:i] for i, character in enumerate(text) if character == "#"]
    path = next((p for p in [text, *reversed(before)] if p and files.exists(p)), before[0] if before else text)
    if not path:
        raise SourceError(
            f"{text!r} names no source.", hint="Give a folder of images, or a .parquet, .csv or .tsv table."
        )
    where: dict[str, tuple[str, ...]] = {}
    roles: dict[str, str] = {}
    for selector in filter(None, text[len(path) + 1 :].split(",")):
        name, sign, value = _parse_selector(selector, text)
        if sign == "=":
            where[name] = (*where.get(name, ()), value)
        elif roles.setdefault(name, value) != value:
            raise SourceError(f"{text!r} names two columns as {name}: {roles[name]} and {value}.", hint="Keep one.")
    return Address(path=path, where=tuple(where.items()), **roles)


def open_source(address: str | Address) -> Source:
    """The source at an address: a folder of images, or a table (Parquet, CSV, TSV) with bytes or paths of images.

    Raises:
        SourceError: nothing stands there, or it is of no known kind; as ``parse_address``.
    """
    parsed = parse_address(address) if isinstance(address, str) else address
    parsed = replace(parsed, path=files.absolute(parsed.path))
    if files.is_folder(parsed.path):
        from embeddings.sources.folder import FolderSource

        return FolderSource(parsed)
    if not files.exists(parsed.path):
        raise _not_found(parsed.path)
    if not parsed.path.lower().endswith(TABLE_SUFFIXES):
        raise _unknown_kind(parsed.path)
    from embeddings.sources.table import TableSource

    return TableSource(parsed)


def locate(address: str | Address, uri: str) -> str:
    """Absolute address of one image of a source, for people and other programs.

    An image that is a file of its own: its path. One inside a table: ``TABLE#KEY``.
    """
    path = files.absolute((parse_address(address) if isinstance(address, str) else address).path)
    is_table = path.lower().endswith(TABLE_SUFFIXES) and not files.is_folder(path)
    if is_table and uri.startswith("#"):
        return path + uri
    return f"{path.rpartition('/')[0] if is_table else path.rstrip('/')}/{uri}"


def _parse_selector(selector: str, text: str) -> tuple[str, str, str]:
    sign = next((character for character in selector if character in "=:"), "")
    name, value = (unquote(part) for part in selector.split(sign, 1)) if sign else ("", "")
    if not name or (sign == ":" and (name not in _ROLES or not value)):
        raise SourceError(
            f"Cannot read the selector {selector!r} in {text!r}.",
            hint="Write COLUMN=VALUE, label:COLUMN or group:COLUMN, separated by commas (%2C is a comma in a value).",
        )
    return name, sign, value


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
    wanted = f"wanted a folder of images or a table ({', '.join(TABLE_SUFFIXES)})"
    hint = "Unpack it first." if suffix in (".zip", ".tar", ".gz", ".tgz", ".7z") else "Check the path."
    return SourceError(f"{path!r} is of unknown kind {suffix or '(no suffix)'}: {wanted}.", hint=hint)
