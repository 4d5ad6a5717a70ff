"""WebDataset shards: tar archives whose members belong together by name.

A sample is what shares a path up to the first dot of its last part: ``cat/001.jpg`` and ``cat/001.cls``. Every image
in it is one of its own. Columns: ``.cls`` is the label, ``.txt`` the ``caption``, each single value at the top of
``.json`` a column (``label`` and ``group`` take those roles); ``folder`` is the path of the member's folder, and
``extension`` what follows the first dot, to tell ``jpg`` from ``mask.png``.

Key: the shard's name without its suffix, then the member's path, in Unicode NFC. Uri: ``SHARD.tar#bytes=OFFSET+SIZE``,
which is all that reading takes. Hidden members do not exist; links, devices and names that leave the archive are
refused, each with a reason, and so is what a shard that was cut short or damaged no longer holds.
"""

from __future__ import annotations

import json
import re
from array import array
from collections import Counter, defaultdict
from functools import partial
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embeddings import files
from embeddings.errors import ImageError, SourceError, one_line
from embeddings.sources import Address, Listing
from embeddings.sources.archive import BLOCK, LARGEST, Member, NotAnArchiveError, Reader
from embeddings.sources.folder import IMAGE_SUFFIXES
from embeddings.sources.rows import REPEATED, Columns, Rows, key_order, listing_of, reject_repeats

SIDECARS = ("cls", "txt", "json")
MAX_SIDECAR_BYTES = 1 << 20
MAX_COLUMNS = 256
LOCAL_SPAN, REMOTE_SPAN = 32 * BLOCK, 1 << 20  # bytes asked for at a time while looking for headers
_LARGE = MAX_SIDECAR_BYTES + 1
_RANGE = re.compile(r"bytes=([0-9]{1,15})\+([0-9]{1,10})", re.ASCII)


class TarSource:
    """Images in one tar archive; see the module."""

    def __init__(self, address: Address) -> None:
        self.address = address

    def listing(self) -> Listing:
        """Every image of the archive as it is now, sorted by key.

        Raises:
            SourceError: no archive, no image in it, or selectors that do not fit.
        """
        path = self.address.path
        name = files.name_of(path)
        rows, ignored = read_rows(path, name=name, title=name.removesuffix(PurePosixPath(name).suffix))
        if not len(rows):
            raise no_images(path, ignored)
        return listing_of(reject_repeats(rows.take(key_order(rows.key))), self.address, ignored=ignored)

    def read(self, uri: str) -> bytes:
        """The bytes of a member.

        Raises:
            ImageError: the archive is gone, may not be read, or does not reach that far.
        """
        _, _, place = uri.partition("#")
        return read_member(self.address.path, place)

    def span(self, uri: str) -> tuple[str, int, int] | None:
        """File, first byte and length of a member."""
        return (self.address.path, *span_of(uri.partition("#")[2]))

    def locate(self, uri: str) -> str:
        """``ARCHIVE#bytes=OFFSET+SIZE``."""
        return f"{self.address.path}#{uri.partition('#')[2]}"


def read_rows(path: str, *, name: str, title: str) -> tuple[Rows, dict[str, int]]:
    """The rows of an archive in its order, and a count by suffix of members that are neither image nor sidecar.

    Args:
        path: Where the archive is.
        name: What uris call it: its path below the folder of all shards.
        title: What keys call it.

    Raises:
        SourceError: gone, not readable, or not an archive.
    """
    info = files.file_info(path)
    span = REMOTE_SPAN if files.is_remote(path) else LOCAL_SPAN
    reader = Reader(partial(files.read_range, path), size=info.size, span=span)
    shard = _Shard(path)
    try:
        for member in reader.members():
            shard.add(member, reader)
    except NotAnArchiveError as error:
        raise SourceError(
            f"{path!r} is not a tar archive: {error}.", hint="Unpack it, or make it again without compression."
        ) from None
    except OSError as error:
        raise SourceError(
            f"{path!r} cannot be read: {one_line(error)}", hint="Check the file and its rights."
        ) from None
    return shard.rows(info, name=name, title=title), dict(sorted(shard.ignored.items()))


def read_member(path: str, place: str) -> bytes:
    """The bytes of an archive at a place ``bytes=OFFSET+SIZE``.

    Raises:
        ImageError: the archive is gone, may not be read, or does not reach that far.
    """
    offset, size = span_of(place)
    try:
        data = files.read_range(path, offset, size) if size else b""
    except OSError as error:
        raise ImageError(f"cannot be read from its shard: {error.strerror or one_line(error)}") from error
    if len(data) < size:
        raise ImageError(f"its shard ends {size - len(data):,} bytes before it does")
    return data


def span_of(place: str) -> tuple[int, int]:
    """First byte and length of a member at a place ``bytes=OFFSET+SIZE``.

    Raises:
        ImageError: it is no such place.
    """
    match = _RANGE.fullmatch(place)
    if match is None or int(match[2]) > LARGEST:
        raise ImageError(f"no place in an archive: {place!r}")
    return int(match[1]), int(match[2])


def quoted(name: str) -> str:
    """A name as the part of a uri before its ``#``."""
    return name.replace("%", "%25").replace("#", "%23")


def no_images(path: str, ignored: dict[str, int]) -> SourceError:
    """For archives that hold no image."""
    found = ", ".join(f"{n:,} {suffix or '(no suffix)'}" for suffix, n in ignored.items()) or "nothing"
    return SourceError(f"No image in {path!r}; found: {found}.", hint="Images are known by suffix, as .jpg.")


class _Shard:
    """What has been found in an archive so far."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._names: list[str] = []
        self._offsets, self._sizes = array("q"), array("q")
        self._problems: dict[int, str] = {}  # row -> why it is no image
        self._classes: dict[str, str | None] = {}  # sample -> what its .cls says
        self._captions: dict[str, str | None] = {}
        self._columns: defaultdict[str, dict[str, str | None]] = defaultdict(dict)  # of .json: name -> sample -> value
        self._described: set[str] = set()  # samples with a .json
        self.ignored: Counter[str] = Counter()

    def add(self, member: Member, reader: Reader) -> None:
        """Takes a member for what its name says: an image, a sidecar whose content is read, or neither."""
        name, _, _, problem = member
        if problem is not None:
            self._add_row(member, problem)
            return
        if name.startswith(".") or "/." in name:
            return
        sample, extension = _split(name)
        if extension in SIDECARS:
            problem = self._add_sidecar(sample, extension, reader.get(member.offset, min(member.size, _LARGE)))
            if problem is not None:
                self._add_row(member, problem)
            return
        suffix = "." + extension.rpartition(".")[2] if extension else ""
        if suffix in IMAGE_SUFFIXES:
            self._add_row(member, None)
        else:
            self.ignored[suffix] += 1

    def _add_row(self, member: Member, problem: str | None) -> None:
        if problem is not None:
            self._problems[len(self._names)] = problem
        self._names.append(member.name or f"@{member.offset}")
        self._offsets.append(member.offset)
        self._sizes.append(member.size)

    def _add_sidecar(self, sample: str, extension: str, data: bytes) -> str | None:
        """Takes what a sidecar says of a sample, or tells why it cannot be taken."""
        if len(data) > MAX_SIDECAR_BYTES:
            return f"larger than {MAX_SIDECAR_BYTES:,} bytes; nothing of it was read"
        texts = {"cls": self._classes, "txt": self._captions}.get(extension)
        if sample in (self._described if texts is None else texts):
            return REPEATED
        try:
            if texts is not None:
                texts[sample] = data.decode("utf-8-sig").strip() or None
                return None
            for column, value in _single_values(data).items():
                self._columns[column][sample] = value
        except (RecursionError, ValueError) as error:
            return f"does not read as {'JSON' if extension == 'json' else 'text'}: {one_line(error)}"
        self._described.add(sample)
        if len(self._columns) > MAX_COLUMNS:
            raise SourceError(
                f"The .json members of {self._path!r} name more than {MAX_COLUMNS} columns.",
                hint="Keep in them what is told of every image; nested values are passed over.",
            )
        return None

    def rows(self, info: files.FileInfo, *, name: str, title: str) -> Rows:
        """The rows in the order of the archive."""
        n, names = len(self._names), pa.array(self._names, pa.string())
        offsets, sizes = (pa.array(np.frombuffer(a, np.int64)).cast(pa.string()) for a in (self._offsets, self._sizes))
        start, plus, nothing = pa.scalar(f"{quoted(name)}#bytes="), pa.scalar("+"), pa.scalar("")
        return Rows(
            key=pc.utf8_normalize(pc.binary_join_element_wise(pa.scalar(f"{title}/"), names, nothing), form="NFC"),
            uri=pc.binary_join_element_wise(start, pc.binary_join_element_wise(offsets, sizes, plus), nothing),
            size=pa.repeat(pa.scalar(info.size, pa.int64()), n),
            stamp=pa.repeat(info.stamp, n),
            reason=pa.array([self._problems.get(row) for row in range(n)], pa.string()),
            columns=self._all_columns(names),
        )

    def _all_columns(self, names: pa.Array) -> Columns:
        columns: Columns = {
            "folder": pc.utf8_normalize(pc.replace_substring_regex(names, r"/?[^/]*$", ""), form="NFC"),
            "extension": pc.utf8_lower(pc.replace_substring_regex(names, r"^((?s:.*)/)?[^./]*\.?", "")),
        }
        told = dict(self._columns)
        if self._captions:
            told["caption"] = told.get("caption", {}) | self._captions
        if self._classes:
            told["label"] = told.get("label", {}) | self._classes
        samples = [_split(name)[0] for name in self._names] if told else []
        return columns | {c: pa.array(map(values.get, samples), pa.string()) for c, values in told.items()}


def _split(name: str) -> tuple[str, str]:
    """A member's sample, and its extension in lower case: what follows the first dot of the last part."""
    dot = name.find(".", name.rfind("/") + 1)
    return (name, "") if dot < 0 else (name[:dot], name[dot + 1 :].lower())


def _single_values(data: bytes) -> dict[str, str | None]:
    """Text, numbers as they are written, true, false and null at the top of a JSON object.

    Raises:
        ValueError, RecursionError: it is something else.
    """
    document = json.loads(data, parse_float=str, parse_int=str, parse_constant=str)
    if not isinstance(document, dict):
        raise ValueError("not an object")
    values = {name: _text(value) for name, value in document.items() if value is None or isinstance(value, str | bool)}
    "".join([*values, *filter(None, values.values())]).encode()  # half a surrogate pair is no text
    return values


def _text(value: str | bool | None) -> str | None:
    return json.dumps(value) if isinstance(value, bool) else value
