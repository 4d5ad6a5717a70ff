"""Several shards as one source: tar archives, or tables, below one folder.

Keys are those of each shard; a shard below a sub-folder puts it in front of keys that its own name begins
(``train/0000#7``, ``train/0000/a.jpg``) and of keys that are paths beside it. A key that two shards hold is refused in
all but one. A uri names its shard first, ``#`` and ``%`` in the name percent-encoded, so that it can be read by itself,
in any process: ``train/0000.parquet#KEY``, ``0000.tar#bytes=OFFSET+SIZE``, ``train/a.png`` beside a table.
"""

from __future__ import annotations

import posixpath
import unicodedata
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache, reduce
from pathlib import PurePosixPath
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from embeddings import files
from embeddings.errors import ImageError, SourceError
from embeddings.sources import SUFFIXES, Address
from embeddings.sources.folder import read_path
from embeddings.sources.rows import Rows, joined
from embeddings.sources.table import TableSource
from embeddings.sources.tar import MAX_COLUMNS, quoted, read_member, read_rows, span_of

SHARD_SUFFIXES = frozenset(SUFFIXES["tar"] + SUFFIXES["table"])
OPEN_TABLES = 4  # each may hold some row groups in memory; keys mostly follow the shards
LISTERS = 8  # remote shards listed at once


def place_of(base: str, name: str) -> str:
    """Where a name leads: a URL or an absolute path as it is, else below ``base``.

    Raises:
        SourceError: a path of this machine, named by a list that came from elsewhere.
    """
    if files.is_remote(name):
        return name
    if not name.startswith(("/", "file://")):
        return f"{base.rstrip('/')}/{name}"
    if files.is_remote(base):
        raise SourceError(
            "a path of this machine in a list from elsewhere", hint="Name files beside the list, or URLs."
        )
    return name.removeprefix("file://")


def suffix_of(name: str) -> str:
    """The suffix of a file's name, in lower case."""
    return PurePosixPath(files.name_of(name)).suffix.lower()


class Shards:
    """Shards by name, each below ``base``, absolute, or a URL. Thread-safe; opening it reads nothing."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._table = lru_cache(OPEN_TABLES)(lambda name: TableSource(Address(path=place_of(base, name))))

    def rows(self, names: list[str]) -> tuple[Rows, dict[str, int]]:
        """The rows of all shards, in the order of the names, and a count by suffix of what else they hold.

        Raises:
            SourceError: a shard that is not there or cannot be read, by name.
        """
        with ThreadPoolExecutor(LISTERS if files.is_remote(place_of(self._base, names[0])) else 1) as pool:
            parts, ignored = zip(*pool.map(self._rows, names), strict=True)
        _check_columns(parts)
        return joined(parts), dict(sorted(reduce(Counter.__add__, map(Counter, ignored)).items()))

    def _rows(self, name: str) -> tuple[Rows, dict[str, int]]:
        place = place_of(self._base, name)
        if suffix_of(name) in SUFFIXES["tar"]:
            return read_rows(place, name=name, title=_title(name))
        return _of_table(TableSource(Address(path=place)).rows(), name), {}

    def read(self, uri: str) -> bytes:
        """Encoded bytes of an image in a shard or beside a table.

        Raises:
            ImageError: it cannot be read, with the reason.
        """
        name, sign, place = uri.partition("#")
        name = unquote(name)
        try:
            if not sign:
                return read_path(place_of(self._base, name))
            if suffix_of(name) in SUFFIXES["tar"]:
                return read_member(place_of(self._base, name), place)
            return self._table(name).read(f"#{place}")
        except SourceError as error:  # the shard was there when it was listed
            raise ImageError(error.message) from error

    def span(self, uri: str) -> tuple[str, int, int] | None:
        """File, first byte and length of an image that lies as it is in a shard; None for any other."""
        name, sign, place = uri.partition("#")
        name = unquote(name)
        if not sign:
            return None
        if suffix_of(name) in SUFFIXES["tar"]:
            return (place_of(self._base, name), *span_of(place))
        return self._table(name).span(f"#{place}")

    def locate(self, uri: str) -> str:
        """The shard's absolute path, with what follows ``#``; or that of a file beside a table."""
        name, sign, place = uri.partition("#")
        return f"{place_of(self._base, unquote(name))}{sign}{place}"


def _check_columns(parts: Sequence[Rows]) -> None:
    names = set[str]().union(*(part.columns for part in parts))
    if len(names) > MAX_COLUMNS and len(parts) > 1:
        raise SourceError(
            f"The shards name {len(names):,} columns, wanted at most {MAX_COLUMNS}.",
            hint="Keep in the .json members what is told of every image.",
        )


def _of_table(rows: Rows, name: str) -> Rows:
    """Rows of one table among others: uris lead to it, keys that are made of its name or of a path are told apart."""
    stem = _title(name)
    folder, _, own = stem.rpartition("/")
    inside = pc.starts_with(rows.uri, "#")
    beside = _join("".join(name.rpartition("/")[:2]), rows.uri)
    beside = pc.replace_substring(pc.replace_substring(beside, "%", "%25"), "#", "%23")
    if folder:
        is_path = pc.equal(rows.key, pc.utf8_normalize(rows.uri, form="NFC"))
        moved = pc.or_(is_path, pc.starts_with(rows.key, f"{own}#"))
        rows = replace(rows, key=pc.if_else(moved, _join(f"{folder}/", rows.key), rows.key))
    return replace(rows, uri=pc.if_else(inside, _join(quoted(name), rows.uri), beside))


def _title(name: str) -> str:
    """What keys call a shard: its path below the base without suffix; of one that lies elsewhere, its name alone."""
    elsewhere = files.is_remote(name) or name.startswith(("/", "file://", "../"))
    title = files.name_of(name) if elsewhere else posixpath.normpath(name)
    return unicodedata.normalize("NFC", title.removesuffix(PurePosixPath(title).suffix))


def _join(prefix: str, values: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(pa.scalar(prefix), values, pa.scalar(""))
