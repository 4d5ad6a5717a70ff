"""Files named one by one, in a list or by a pattern: images, or shards of images (see ``sharded``).

A list (``.txt``, ``.lst``) has one path a line, relative to the folder of the list, absolute, or a URL; blank lines and
lines that begin with ``#`` are passed over. It may name any file, but one that came from a server names none of this
machine. A pattern has ``*``, ``**``, ``?``, ``[..]``, and braces: ``{a,b}``, ``{000..031}``. What braces spell out must
exist.

Key of an image: the line as written, or the path below the part of the pattern that is fixed; in Unicode NFC, with
``/``. Column ``folder`` as in a folder of images; label: the first folder below the one that all files share.
"""

from __future__ import annotations

import codecs
import glob
import posixpath
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from embeddings import files, remote
from embeddings.errors import SourceError, one_line
from embeddings.sources import SUFFIXES, Address, Listing
from embeddings.sources.folder import IMAGE_SUFFIXES
from embeddings.sources.rows import MISSING, Rows, key_order, listing_of, reject_repeats
from embeddings.sources.sharded import SHARD_SUFFIXES, Shards, place_of, suffix_of
from embeddings.sources.tar import no_images, quoted

MAX_NAMES = 1_000_000  # that braces may spell out
_SHARD_KINDS = ("tar", "table")
_MAGIC = re.compile(r"[*?[]")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})", re.ASCII)


def open_list(address: Address) -> PathList:
    """The files that a list names."""
    return PathList(address, address.path.rpartition("/")[0] or "/", find=partial(read_list, address.path))


def open_pattern(address: Address) -> PathList:
    """The files that a pattern names."""
    fixed = re.split(r"[*?[{]", address.path, maxsplit=1)[0].rpartition("/")[0] or "/"
    return PathList(address, fixed, find=partial(matches, address.path, fixed))


class PathList:
    """Files named one by one; see the module."""

    def __init__(self, address: Address, base: str, *, find: Callable[[], list[str]]) -> None:
        """``find``: the names as they are now, below ``base``, absolute, or URLs."""
        self.address = address
        self._base, self._find, self._shards = base, find, Shards(base)

    def listing(self) -> Listing:
        """Every image as it is now, sorted by key.

        Raises:
            SourceError: nothing there, images and shards mixed, a shard that cannot be read, or selectors that do not
                fit.
        """
        names = self._find()
        if _of_one_kind(names, self.address.path) == "image":
            rows, ignored = _rows(names, self._base), dict[str, int]()
        else:
            rows, ignored = self._shards.rows(names)
        if not len(rows):
            raise no_images(self.address.path, ignored)
        return listing_of(reject_repeats(rows.take(key_order(rows.key))), self.address, ignored=ignored)

    def read(self, uri: str) -> bytes:
        """Encoded bytes of an image that is a file, or in a shard.

        Raises:
            ImageError: it cannot be read, with the reason.
        """
        return self._shards.read(uri)

    def span(self, uri: str) -> tuple[str, int, int] | None:
        """File, first byte and length of an image that lies as it is in a shard; None for any other."""
        return self._shards.span(uri)

    def locate(self, uri: str) -> str:
        """Absolute path or URL of the image, or ``SHARD#...``."""
        return self._shards.locate(uri)


def read_list(path: str) -> list[str]:
    """The names in a list, as they are written; those of Windows with ``/``.

    Raises:
        SourceError: not readable as text, or empty.
    """
    try:
        data = files.read_bytes(path)
        text = data.decode("utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise SourceError(f"{path!r} cannot be read: {one_line(error)}", hint="Save the list as UTF-8 text.") from None
    lines = [line.strip() for line in text.split("\n")]
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise SourceError(f"The list {path!r} names no file.", hint="Write one path a line.")
    base = path.rpartition("/")[0]
    return [_posix(name, base) if "\\" in name else name for name in names]


def _posix(name: str, base: str) -> str:
    return name if "/" in name or files.exists(place_of(base, name)) else name.replace("\\", "/")


def matches(pattern: str, base: str) -> list[str]:
    """The files that a pattern names, relative to ``base``, which it begins with.

    Raises:
        SourceError: none, files of several kinds, or braces that do not read.
    """
    names: dict[str, None] = {}
    for text in spelled_out(pattern):
        found = _glob(text, base) if _MAGIC.search(text) else [text.removeprefix(f"{base.rstrip('/')}/")]
        if not found:
            raise SourceError(f"No file matches {text!r}.", hint="Check the path; quote it, so that no shell reads it.")
        names |= dict.fromkeys(found)
    unknown = [name for name in names if suffix_of(name) not in SHARD_SUFFIXES | IMAGE_SUFFIXES]
    if unknown:
        raise _mixed(list(names), pattern)
    return list(names)


def _glob(pattern: str, base: str) -> list[str]:
    if files.is_remote(pattern):
        return remote.glob(pattern, base)
    below = pattern.removeprefix(f"{base.rstrip('/')}/")
    found = sorted(glob.glob(below, root_dir=base, recursive=True))  # noqa: PTH207 - Path.glob lists hidden files
    return [name for name in found if suffix_of(name) in SHARD_SUFFIXES or not Path(base, name).is_dir()]


def spelled_out(pattern: str) -> list[str]:
    """Every name that the braces of a pattern stand for, in their order.

    Raises:
        SourceError: braces that do not read, or too many names.
    """
    names = [pattern]
    while _BRACES.search(names[0]):
        spelled: list[str] = []
        for name in names:
            before, within, after = _BRACES.split(name, maxsplit=1)
            spelled += [before + part + after for part in _alternatives(within, pattern)]
            if len(spelled) > MAX_NAMES:
                raise _too_many(pattern)
        names = spelled
    return list(dict.fromkeys(names))


def _alternatives(within: str, pattern: str) -> list[str]:
    """What one pair of braces stands for: ``a,b``, or ``000..031``, padded as the longer number is."""
    if "," in within:
        return within.split(",")
    match = _RANGE.fullmatch(within)
    if match is None:
        raise SourceError(
            f"Cannot read the braces {{{within}}} in {pattern!r}.", hint="Write {a,b} or {000..031}; both ends belong."
        )
    first, last = int(match[1]), int(match[2])
    if abs(last - first) >= MAX_NAMES:
        raise _too_many(pattern)
    width = max(len(end) for end in match.groups()) if any(re.match("0.", end) for end in match.groups()) else 0
    step = 1 if first <= last else -1
    return [f"{number:0{width}d}" for number in range(first, last + step, step)]


def _too_many(pattern: str) -> SourceError:
    return SourceError(f"{pattern!r} names more than {MAX_NAMES:,} files.", hint="Use a pattern with *.")


def _of_one_kind(names: list[str], path: str) -> str:
    """``tar``, ``table``, or ``image``."""
    kinds = {next((kind for kind in _SHARD_KINDS if suffix_of(name) in SUFFIXES[kind]), "image") for name in names}
    if len(kinds) > 1:
        raise _mixed(names, path)
    return kinds.pop()


def _mixed(names: list[str], path: str) -> SourceError:
    counts = sorted(Counter(suffix_of(name) for name in names).items(), key=lambda c: (-c[1], c[0]))
    found = ", ".join(f"{n:,} {suffix or '(no suffix)'}" for suffix, n in counts[:8])
    return SourceError(
        f"{path!r} names files of several kinds: {found}.",
        hint="Name images, tables or tar archives, one kind at a time.",
    )


def _rows(names: list[str], base: str) -> Rows:
    """Rows of image files, in the order of their names."""
    places = [_placed(base, name) for name in names]
    found = iter(files.look_up([place for place in places if isinstance(place, str)]))
    infos = [next(found) if isinstance(place, str) else place for place in places]
    key = pc.utf8_normalize(pa.array(names, pa.string()), form="NFC")
    folder = pc.replace_substring_regex(key, r"/?[^/]*$", "")
    below = pc.invert(pc.match_substring_regex(key, r"^(/|\.\./|[A-Za-z0-9+.-]+://)"))
    shared = _shared_folder(folder.filter(below))
    top = pc.replace_substring_regex(folder, f"^{re.escape(shared)}/?" if shared else "^", "")
    top = pc.replace_substring_regex(top, "/(?s:.*)$", "")
    return Rows(
        key=key,
        uri=pa.array([quoted(name) for name in names], pa.string()),
        size=pa.array([info.size if isinstance(info, files.FileInfo) else 0 for info in infos], pa.int64()),
        stamp=pa.array([info.stamp if isinstance(info, files.FileInfo) else "" for info in infos], pa.string()),
        reason=pa.array([_reason(info) for info in infos], pa.string()),
        columns={"label": pc.if_else(pc.and_(below, pc.not_equal(top, "")), top, None), "folder": folder},
    )


def _shared_folder(folders: pa.Array) -> str:
    """The folder that all these lie in or below; empty if there is none, or if it is the only one."""
    different = folders.unique().to_pylist()
    return posixpath.commonpath(different) if len(different) > 1 and all(different) else ""


def _placed(base: str, name: str) -> str | SourceError:
    try:
        return place_of(base, name)
    except SourceError as error:
        return error


def _reason(info: files.FileInfo | OSError | SourceError) -> str | None:
    if isinstance(info, files.FileInfo):
        return None
    if isinstance(info, SourceError):
        return info.message
    return MISSING if isinstance(info, FileNotFoundError) else f"cannot be read: {info.strerror or one_line(info)}"
